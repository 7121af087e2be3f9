//! The table of GraNet (Liu et al., NeurIPS 2021, arXiv 2106.10404): compared with related methods at equal epochs, and
//! pruning plasticity: how far a network pruned at some stage of its training recovers.
//!
//! Plasticity (sec. 3): a network is trained up to a stage, pruned in one shot, and trained for another fifth of the
//! epochs with the learning rates of the whole training; the gain over the accuracy right after pruning is its
//! plasticity. With regeneration, half of the remaining weights are dropped and as many grown by gradient right after
//! the pruning.

use burn::module::Module;
use regrow_pruners::Magnitude;
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow};
use regrow_sparse_core::model::gradients::gradient;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::weights;
use regrow_sparse_core::{MaskSet, Result};
use regrow_zoo::Net;

use crate::harness::info::Info;
use crate::harness::record::{Measure, Record, mean_std, values};
use crate::tables::pruning::methods::select;
use crate::tables::pruning::{Args, Comparison, Job, Method, Plan, ZEROS, methods};

/// The methods it is compared with, by their names in the table of all.
const RELATIVES: [&str; 7] = ["static random ERK", "SNIP", "GMP", "SET", "RigL", "GraNet", "GraNet sparse-to-sparse"];

/// Stages of the training at which networks are pruned, in percent.
const STAGES: [u32; 4] = [20, 40, 60, 80];
/// How much longer they are trained, as a fraction of the whole.
const LONGER: f64 = 0.2;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "granet",
    summary: "GraNet (arXiv 2106.10404): pruning plasticity, and GraNet against its relatives",
    example: "bench granet --sparsity 0.9,0.95 --seeds 3",
    paper: include_str!("../../published/granet.toml"),
    measure: Measure::Accuracy,
};

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let mut chosen: Vec<Method> = methods::all().into_iter().filter(|m| RELATIVES.contains(&m.name.as_str())).collect();
    for stage in STAGES {
        for ending in [Ending::AtOnce, Ending::Later, Ending::RegrownLater] {
            chosen.push(Method::new(&name(stage, ending), move |job| plasticity(job, stage, ending)));
        }
    }
    let comparison = Comparison {
        info: &INFO,
        heading: "GraNet against its relatives, and pruning plasticity",
        cost: "for every method; plasticity a fifth of them after the stage",
        methods: chosen,
        spared: ZEROS,
        drawn: &["GraNet", "GraNet sparse-to-sparse", "GMP", "RigL", "SET", "SNIP", "static random ERK"],
        epochs: |plan| plan.epochs * (1 + plan.methods.len() * plan.sparsities.len()),
        notes: recoveries,
    };
    comparison.run(args)
}

/// What follows the pruning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nothing.
    AtOnce,
    /// A fifth of the training.
    Later,
    /// Regeneration, then a fifth of the training.
    RegrownLater,
}

fn name(stage: u32, ending: Ending) -> String {
    let ending = match ending {
        Ending::AtOnce => "at once",
        Ending::Later => "later",
        Ending::RegrownLater => "regrown, later",
    };
    format!("pruned at {stage} %, {ending}")
}

fn plasticity(job: &Job<'_>, stage: u32, ending: Ending) -> Result<Net> {
    let stage = f64::from(stage) / 100.0;
    let net = job.window(job.fresh(), KeepMasks, 0.0, stage)?;
    let (net, masks) = job.recipe().prune(net, &Magnitude, job.sparsity)?;
    let net = match ending {
        Ending::AtOnce => return Ok(net),
        Ending::Later => net,
        Ending::RegrownLater => regrown(job, net, &masks)?,
    };
    job.window(net, KeepMasks, stage, stage + LONGER)
}

/// Half of the weights of each layer dropped and grown again where the gradient is largest.
fn regrown(job: &Job<'_>, net: Net, masks: &MaskSet) -> Result<Net> {
    let seeing = apply_masks(net.clone().train(), masks, Gradient::Dense, Base::Zeroed)?;
    let gradients = gradient(&seeing, &select(), job.scoring_loss(1.0))?;
    let moved = weights(&net, &select())?.into_iter().zip(gradients).map(|(weight, gradient)| {
        let growth: Vec<f32> = gradient.iter().map(|g| g.abs()).collect();
        let count = weight.mask_or_dense().kept().div_ceil(2);
        Ok((weight.path.clone(), drop_and_grow(&weight, count, &growth, Candidates::PrunedAndDropped)?))
    });
    apply_masks(net, &moved.collect::<Result<MaskSet>>()?, Gradient::Masked, Base::Zeroed)
}

/// Plasticity by stage and sparsity: accuracy gained since the pruning.
fn recoveries(plan: &Plan, rows: &[Record]) -> Vec<String> {
    let mean = |stage, ending, s: f64| {
        let gains: Vec<f64> = values(rows, &name(stage, ending), s, 1).into_iter().map(|(_, a)| a).collect();
        (!gains.is_empty()).then(|| mean_std(&gains).0)
    };
    let one = |s: f64, stage: u32| -> Option<String> {
        let once = mean(stage, Ending::AtOnce, s)?;
        let (later, regrown) = (mean(stage, Ending::Later, s)?, mean(stage, Ending::RegrownLater, s)?);
        Some(format!("at {stage} % {:+.2} (regrown {:+.2})", later - once, regrown - once))
    };
    let line = |s: &f64| {
        let stages: Vec<String> = STAGES.iter().filter_map(|stage| one(*s, *stage)).collect();
        (!stages.is_empty()).then(|| format!("plasticity in points of accuracy, {s} pruned: {}", stages.join(", ")))
    };
    plan.sparsities.iter().filter_map(line).collect()
}
