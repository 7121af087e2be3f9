//! Whether it matters which weights are pruned before training, or only how many in each layer: the same densities as a
//! mask, as the shuffled mask, and as a narrower dense network.

use regrow_pruners::{Random, precrop};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::{Budget, MaskSet, Result};
use regrow_zoo::Net;

use super::methods::{Job, Method, synflow_masks};

/// The methods of this file.
pub fn all() -> [Method; 4] {
    [
        Method::new("SynFlow shuffled", |job| {
            let net = job.fresh();
            let masks = shuffled(job, &net, &synflow_masks(job, &net)?)?;
            job.whole(apply_masks(net, &masks, Gradient::Masked, Base::Zeroed)?, KeepMasks)
        }),
        Method::new("PreCrop", |job| {
            let layout = job.arch.layout(job.classes);
            cropped(job, &precrop::precrop(&layout, job.sparsity, 1)?)
        }),
        Method::new("PreCrop by SynFlow", |job| {
            let densities = precrop::densities_of(&synflow_masks(job, &job.fresh())?);
            by(job, &densities)
        }),
        Method::new("narrow evenly", |job| {
            let layers = job.arch.layout(job.classes).layers.len();
            by(job, &vec![1.0 - job.sparsity; layers])
        }),
    ]
}

/// In each layer as many weights at random as `masks` has.
fn shuffled(job: &Job<'_>, net: &Net, masks: &MaskSet) -> Result<MaskSet> {
    let of_layer = masks.iter().map(|(path, mask)| (path.to_string(), mask.sparsity())).collect();
    let recipe = job.recipe().with_budget(Budget::Explicit(of_layer));
    Ok(recipe.prune(net.clone(), &Random { seed: job.seed }, job.sparsity)?.1)
}

fn by(job: &Job<'_>, densities: &[f64]) -> Result<Net> {
    let layout = job.arch.layout(job.classes);
    let budget = precrop::left(&layout, job.sparsity)?;
    cropped(job, &precrop::widths(&layout, densities, budget, 1)?)
}

fn cropped(job: &Job<'_>, widths: &[usize]) -> Result<Net> {
    job.whole(job.arch.init_narrow(widths, job.seed, &job.device())?, KeepMasks)
}
