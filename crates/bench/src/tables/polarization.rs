//! The table of polarization gates (arXiv 2302.10798): networks with fewer FLOPs from one training, compared with
//! random removal, with magnitude and retraining, and with gates that are not trained to agree.
//!
//! The columns are the FLOPs to save. All use the same number of epochs; the extra cost of gates shows in the times.

use regrow_pruners::polarization::{Grain, Polarized, Polarizing};
use regrow_sparse_core::Result;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_sparse_core::seed::mix;
use regrow_train::classifier::Examples;
use regrow_train::gated_forward::GatedForward;
use regrow_train::lr::LrSchedule;
use regrow_zoo::Net;

use crate::harness::info::Info;
use crate::harness::record::{Measure, Record, mean_finding};
use crate::harness::trainer::Fit;
use crate::tables::pruning::{Args, Comparison, Job, Method, Plan, Spared};

const LAYERS: &str = "polarized blocks";
const CHANNELS: &str = "polarized channels";
const UNPOLARIZED: &str = "gates without polarization";
const RANDOM: &str = "random blocks, from scratch";
const MAGNITUDE: &str = "magnitude channels, retrained";

/// Findings: the fraction of gates that do not agree at the end; accuracy before gates are removed.
const UNDECIDED: &str = "undecided";
const GATED: &str = "accuracy with gates";

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "polarization",
    summary: "Polarization gates (arXiv 2302.10798): blocks and channels that training finds needless",
    example: "bench polarization --sparsity 0.5,0.75 --seeds 3",
    paper: include_str!("../../published/polarization.toml"),
    measure: Measure::Accuracy,
};

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let comparison = Comparison {
        info: &INFO,
        heading: "Polarization gates against other ways to fewer FLOPs",
        cost: "for every method",
        methods: vec![
            Method::new(LAYERS, |job| polarized(job, Grain::Layers, 4.0)),
            Method::new(CHANNELS, |job| polarized(job, Grain::Channels, 4.0)),
            Method::new(UNPOLARIZED, |job| polarized(job, Grain::Layers, 0.0)),
            Method::new(RANDOM, random),
            Method::new(MAGNITUDE, magnitude),
        ],
        spared: Spared { of: "fewer FLOPs", sparsities: &[0.25, 0.5, 0.75], exact: false },
        drawn: &[],
        epochs: |plan| plan.epochs * (1 + plan.methods.len() * plan.sparsities.len()),
        notes: consensus,
    };
    // Of the networks for digits, only one has blocks to remove.
    let arch = args.arch.clone().or((args.dataset == "digits").then(|| "mlp-residual".into()));
    comparison.run(&Args { arch, ..args.clone() })
}

fn polarized(job: &Job<'_>, grain: Grain, weight: f64) -> Result<Net> {
    let layout = job.arch.layout(job.classes);
    let net = Polarized::new(job.fresh(), &layout, grain, mix(job.seed, 7))?;
    let problem = Polarizing::new(job.trainer.train, &layout, 1.0 - job.sparsity)?.with_weights(weight, 20.0)?;
    let lr = LrSchedule::cosine(job.plan.learning_rate);
    let fit = Fit { epochs: job.plan.epochs, lr, decay: job.plan.weight_decay, seed: mix(job.seed, 0) };
    let net = job.trainer.solve(net, KeepMasks, &problem, &fit)?;
    let all: Vec<usize> = (0..job.trainer.train.len()).collect();
    let consensus = net.consensus(all.chunks(256).map(|batch| job.trainer.train.images(batch, job.trainer.device)));
    job.note(UNDECIDED, consensus.undecided());
    job.note(GATED, job.trainer.accuracy(&net, job.test));
    Ok(net.settle(&consensus))
}

/// As many randomly closed blocks as the target needs, then the whole training.
fn random(job: &Job<'_>) -> Result<Net> {
    let layout = job.arch.layout(job.classes);
    let (rest, shares) = layout.shares();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|block| mix(mix(job.seed, 8), *block as u64));
    let mut left = rest + shares.iter().sum::<f64>();
    let mut kept: Vec<Vec<bool>> =
        layout.removable().iter().map(|group| vec![true; layout.groups[*group].width]).collect();
    for block in order {
        if left <= 1.0 - job.sparsity + 1e-9 {
            break;
        }
        left -= shares[block];
        kept[block].fill(false);
    }
    job.whole(job.fresh().narrowed(&kept), KeepMasks)
}

/// Half of the training, then in each block the channels of largest norm, then the other half.
fn magnitude(job: &Job<'_>) -> Result<Net> {
    let layout = job.arch.layout(job.classes);
    let (rest, _) = layout.shares();
    let share = ((1.0 - job.sparsity - rest) / (1.0 - rest)).max(0.0);
    let half = job.plan.epochs / 2;
    let net = job.part(job.fresh(), KeepMasks, half, 0)?;
    let layers = weights(&net, &Select::default().with_head())?;
    let inner = layout.removable();
    let kept = layout.layers.iter().zip(&layers).filter(|(link, _)| inner.contains(&link.output)).map(|(_, weight)| {
        let (width, inputs) = weight.dims();
        let norms = weight.values.chunks(inputs).map(|row| row.iter().map(|w| w * w).sum::<f32>());
        let mut order: Vec<(f32, usize)> = norms.zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut kept = vec![false; width];
        order[..(share * width as f64) as usize].iter().for_each(|(_, channel)| kept[*channel] = true);
        kept
    });
    let kept: Vec<Vec<bool>> = kept.collect();
    job.part(net.narrowed(&kept), KeepMasks, job.plan.epochs - half, 1)
}

/// How far gates agree, and the cost of removing them.
fn consensus(plan: &Plan, rows: &[Record]) -> Vec<String> {
    let one = |method: &str, s: f64| -> Option<String> {
        let (undecided, gated) = (mean_finding(rows, method, s, UNDECIDED)?, mean_finding(rows, method, s, GATED)?);
        Some(format!("{:.1} % undecided, accuracy {gated:.2} with gates, at {s}", 100.0 * undecided))
    };
    let line = |method: &&str| {
        let all: Vec<String> = plan.sparsities.iter().filter_map(|s| one(method, *s)).collect();
        (!all.is_empty()).then(|| format!("{method}: {}", all.join("; ")))
    };
    [LAYERS, CHANNELS, UNPOLARIZED].iter().filter_map(line).collect()
}
