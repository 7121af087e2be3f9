//! The size of a pruned network: weights layer by layer, and multiplications and additions.

use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_sparse_core::{Error, Mask, Result};
use regrow_zoo::{Arch, Net, TensorSpec};

/// Rejects a network that is not as sparse as requested. Uniform budgets round in each layer, patterns to whole groups;
/// a narrower network may have fewer weights, not more.
///
/// # Errors
/// If it is not.
pub fn exact(arch: Arch, classes: usize, net: &Net, sparsity: f64) -> Result<()> {
    let masks = masks(net)?;
    if masks.is_empty() {
        let layout = arch.layout(classes);
        let left: usize = counts(arch, classes, net)?.iter().map(|(_, kept)| kept).sum();
        let all = layout.weights(&layout.widths());
        return match left as f64 <= (1.0 - sparsity) * all as f64 + 0.5 {
            true => Ok(()),
            false => Err(Error::Argument(format!("kept {left} of {all} weights at sparsity {sparsity}"))),
        };
    }
    let wanted = sparsity * masks.weights() as f64;
    let slack: usize = masks.iter().map(|(_, mask)| grain(mask)).sum();
    match (masks.pruned() as f64 - wanted).abs() <= slack as f64 {
        true => Ok(()),
        false => Err(Error::Argument(format!("ended at sparsity {:.4}, not {sparsity}", masks.sparsity()))),
    }
}

/// How many weights are pruned together: one, or a whole output if all outputs are kept or pruned whole.
fn grain(mask: &Mask) -> usize {
    let cols = mask.shape()[1..].iter().product::<usize>().max(1);
    let whole = |row: usize| (1..cols).all(|i| mask.keeps(row * cols + i) == mask.keeps(row * cols));
    if (0..mask.len() / cols).all(whole) { cols } else { 1 }
}

/// Remaining weights in each layer of `arch`, in order; zero for a missing layer.
fn counts(arch: Arch, classes: usize, net: &Net) -> Result<Vec<(TensorSpec, usize)>> {
    let weights = weights(net, &Select::default().with_head())?;
    // A path starts with the variant of `Net`.
    let of = |name: &str| weights.iter().find(|w| w.path.split_once('.').is_some_and(|(_, path)| path == name));
    let layers = arch.tensors(classes).into_iter().filter(|spec| spec.role.is_weight());
    Ok(layers
        .map(|spec| {
            let kept = of(&spec.name).map_or(0, |w| w.mask_or_dense().kept());
            (spec, kept)
        })
        .collect())
}

/// Multiplications and additions of one example with the remaining weights of `net`.
///
/// # Errors
/// If the weights cannot be read.
pub fn flops(arch: Arch, classes: usize, net: &Net) -> Result<u64> {
    Ok(counts(arch, classes, net)?.iter().map(|(spec, kept)| 2 * (kept * spec.positions) as u64).sum())
}

/// The fraction of weights left in each layer of a network that is masked or narrower than `arch`.
///
/// # Errors
/// If the network's weights cannot be read.
pub fn densities(arch: Arch, classes: usize, net: &Net) -> Result<Vec<(String, f64)>> {
    let density = |(spec, kept): (TensorSpec, usize)| {
        let full: usize = spec.shape.iter().product();
        (spec.name, kept as f64 / full as f64)
    };
    let all: Vec<_> = counts(arch, classes, net)?.into_iter().map(density).collect();
    Ok(if all.iter().all(|(_, density)| *density == 1.0) { Vec::new() } else { all })
}
