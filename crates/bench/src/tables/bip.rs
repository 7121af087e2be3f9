//! The table of BiP (Zhang et al., NeurIPS 2022, arXiv 2210.04092): accuracy at equal sparsity, and
//! time, against iterative magnitude pruning with rewinding and one-shot pruning, each of single
//! weights and of whole filters.
//!
//! All start from a dense network trained for the plan's epochs. BiP and one-shot pruning use half as many epochs more.
//! IMP prunes a fifth of the remaining weights in each round, rewinds to the weights at a tenth of the training, and
//! continues training from there, as for lottery tickets.

use regrow_pruners::{BipConfig, Imp, Magnitude};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::{Budget, Pattern, Result};
use regrow_zoo::Net;

use crate::harness::info::Info;
use crate::harness::record::{Measure, Record, mean_std};
use crate::tables::pruning::{Args, Comparison, Job, Method, Plan, ZEROS};

const BIP: &str = "BiP";
const IMP: &str = "IMP, rewinding";
const ONE_SHOT: &str = "one-shot, fine-tuned";
const BIP_FILTERS: &str = "BiP, filters";
const IMP_FILTERS: &str = "IMP, rewinding, filters";
const ONE_SHOT_FILTERS: &str = "one-shot, fine-tuned, filters";

/// The fraction of the remaining weights that a round of IMP prunes.
const ROUND: f64 = 0.2;
/// The point in the training that IMP rewinds to.
const EARLY: f64 = 0.1;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "bip",
    summary: "BiP (arXiv 2210.04092): against iterative pruning with rewinding, accuracy and time",
    example: "bench bip --sparsity 0.9,0.95 --seeds 3",
    paper: include_str!("../../published/bip.toml"),
    measure: Measure::Accuracy,
};

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let comparison = Comparison {
        info: &INFO,
        heading: "BiP against iterative pruning",
        cost: "of dense training, half as many for BiP and fine-tuning, as many for every round of IMP but a tenth",
        methods: vec![
            Method::new(BIP, |job| bip(job, job.recipe())),
            Method::new(IMP, |job| imp(job, job.recipe())),
            Method::new(ONE_SHOT, |job| one_shot(job, &job.recipe())),
            Method::new(BIP_FILTERS, |job| bip(job, filters())),
            Method::new(IMP_FILTERS, |job| imp(job, filters())),
            Method::new(ONE_SHOT_FILTERS, |job| one_shot(job, &filters())),
        ],
        spared: ZEROS,
        drawn: &[],
        epochs,
        notes: |plan, rows| [(IMP, BIP), (IMP_FILTERS, BIP_FILTERS)].map(|pair| times(plan, rows, pair)).to_vec(),
    };
    comparison.run(args)
}

/// Whole filters or neurons, the same share of every layer but the last.
fn filters() -> Recipe {
    Recipe::default().with_pattern(Pattern::Rows).with_budget(Budget::Uniform)
}

/// Rounds of IMP to reach `sparsity`.
fn rounds(sparsity: f64) -> usize {
    ((1.0 - sparsity).ln() / (1.0 - ROUND).ln()).ceil().max(1.0) as usize
}

fn epochs(plan: &Plan) -> usize {
    let cell = |s: &f64| plan.epochs * (3 + 1 + rounds(*s));
    let forms = 2;
    forms * plan.sparsities.iter().map(cell).sum::<usize>()
}

fn half(job: &Job<'_>) -> usize {
    (job.plan.epochs / 2).max(1)
}

fn bip(job: &Job<'_>, recipe: Recipe) -> Result<Net> {
    let dense = job.whole(job.fresh(), KeepMasks)?;
    let steps = half(job) * job.trainer.steps_per_epoch();
    job.part(dense, BipConfig::new(job.sparsity, steps).init()?.with_recipe(recipe), half(job), 1)
}

fn one_shot(job: &Job<'_>, recipe: &Recipe) -> Result<Net> {
    let dense = job.whole(job.fresh(), KeepMasks)?;
    let (net, _) = recipe.prune(dense, &Magnitude, job.sparsity)?;
    job.part(net, KeepMasks, half(job), 1)
}

fn imp(job: &Job<'_>, recipe: Recipe) -> Result<Net> {
    let early = job.window(job.fresh(), KeepMasks, 0.0, EARLY)?;
    let rest = |net: Net| job.window(net, KeepMasks, EARLY, 1.0);
    let rounds = rounds(job.sparsity);
    let imp = Imp::new(Magnitude, job.sparsity, rounds)?.with_recipe(recipe);
    imp.run(rest(early.clone())?, Some(&early), |net, _| rest(net))
}

/// How many times as long IMP takes, dense training included.
fn times(plan: &Plan, rows: &[Record], (imp, bip): (&str, &str)) -> String {
    let seconds = |method: &str, s: f64| {
        let chosen = rows.iter().filter(|r| r.method == method && r.sparsity == s).map(|r| r.seconds);
        mean_std(&chosen.collect::<Vec<_>>()).0
    };
    let one = |s: &f64| format!("{:.1} at {s} ({} rounds)", seconds(imp, *s) / seconds(bip, *s), rounds(*s));
    let all: Vec<String> = plan.sparsities.iter().map(one).collect();
    format!("wall time of {imp} over {bip}, dense training included in both: {}", all.join(", "))
}
