//! The table of BiP (Zhang et al., NeurIPS 2022, arXiv 2210.04092): accuracy at equal sparsity, and
//! time, against iterative magnitude pruning with rewinding and one-shot pruning.
//!
//! All start from a dense network trained for the plan's epochs. BiP and one-shot pruning spend half
//! as many again. IMP takes a fifth of what is left in each round, goes back to the weights of a
//! tenth of the training, and trains on from there, as lottery tickets are found.

use regrow_pruners::{Bip, Imp, Magnitude};
use regrow_sparse_core::Result;
use regrow_sparse_core::sparsify::KeepMasks;

use regrow_zoo::Net;

use crate::claim::Claim;
use crate::pruning::{Args, Comparison, Job, Method, Plan};
use crate::record::{Record, mean_std};

const BIP: &str = "BiP";
const IMP: &str = "IMP, rewinding";
const ONE_SHOT: &str = "one-shot, fine-tuned";

/// The fraction of what is left that a round of IMP prunes.
const ROUND: f64 = 0.2;
/// Where in the training IMP goes back to.
const EARLY: f64 = 0.1;

/// What the paper claims of accuracy.
const CLAIMS: [Claim; 2] = [
    Claim { text: "BiP beats IMP with rewinding", better: BIP, than: IMP },
    Claim { text: "BiP beats one-shot pruning with fine-tuning", better: BIP, than: ONE_SHOT },
];

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let comparison = Comparison {
        table: "bip",
        heading: "BiP against iterative pruning",
        cost: "of dense training, half as many for BiP and fine-tuning, as many for every round of IMP but a tenth",
        paper: Some(include_str!("../../../papers/bip/paper.toml")),
        methods: vec![Method::new(BIP, bip), Method::new(IMP, imp), Method::new(ONE_SHOT, one_shot)],
        claims: &CLAIMS,
        drawn: &[],
        epochs,
        notes: |plan, rows| vec![times(plan, rows)],
    };
    comparison.run(args)
}

/// Rounds of IMP to reach `sparsity`.
fn rounds(sparsity: f64) -> usize {
    ((1.0 - sparsity).ln() / (1.0 - ROUND).ln()).ceil().max(1.0) as usize
}

fn epochs(plan: &Plan) -> usize {
    let cell = |s: &f64| plan.epochs * (3 + 1 + rounds(*s));
    plan.seeds.1 as usize * plan.sparsities.iter().map(cell).sum::<usize>()
}

fn half(job: &Job<'_>) -> usize {
    (job.plan.epochs / 2).max(1)
}

fn bip(job: &Job<'_>) -> Result<Net> {
    let dense = job.whole(job.fresh(), KeepMasks)?;
    let steps = half(job) * job.lab.steps_per_epoch();
    job.part(dense, Bip::new(job.sparsity, steps)?.with_recipe(job.recipe()), half(job), 1)
}

fn one_shot(job: &Job<'_>) -> Result<Net> {
    let dense = job.whole(job.fresh(), KeepMasks)?;
    let (net, _) = job.recipe().prune(dense, &Magnitude, job.sparsity)?;
    job.part(net, KeepMasks, half(job), 1)
}

fn imp(job: &Job<'_>) -> Result<Net> {
    let early = job.window(job.fresh(), KeepMasks, 0.0, EARLY)?;
    let rest = |net: Net| job.window(net, KeepMasks, EARLY, 1.0);
    let rounds = rounds(job.sparsity);

    let imp = Imp::new(Magnitude, job.sparsity, rounds)?.with_recipe(job.recipe());
    imp.run(rest(early.clone())?, Some(&early), |net, _| rest(net))
}

/// How many times as long IMP takes, dense training included.
fn times(plan: &Plan, rows: &[Record]) -> String {
    let seconds = |method: &str, s: f64| {
        let chosen = rows.iter().filter(|r| r.method == method && r.sparsity == s).map(|r| r.seconds);
        mean_std(&chosen.collect::<Vec<_>>()).0
    };
    let one = |s: &f64| format!("{:.1} at {s} ({} rounds)", seconds(IMP, *s) / seconds(BIP, *s), rounds(*s));
    let all: Vec<String> = plan.sparsities.iter().map(one).collect();
    format!("wall time of IMP with rewinding over BiP's, dense training included in both: {}", all.join(", "))
}
