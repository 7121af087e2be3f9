//! PreCropping: narrower layers before training (Cheng et al., arXiv 2203.02549).
//!
//! For pruning at initialization, how much remains in each layer matters, not which weights; so each layer is made
//! narrower according to its density, which gives a small dense network.
//!
//! Densities come from any other method's masks, or from a proxy without data: keeping the fraction `p_l` of layer `l`
//! at random multiplies the expected SynFlow score of a chain by `prod_l p_l`; maximising `sum_l log p_l` subject to
//! `sum_l n_l p_l <= B` gives `p_l = min(1, mu / n_l)`. (We read the paper's abstracts; this derivation and the rule
//! for widths are ours.)

use regrow_sparse_core::mask::budget::rounded;
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::channel_graph::{ChannelGraph, Group};
use regrow_sparse_core::{Error, MaskSet, Result};

/// The width of each group of `layout` cropped to `sparsity` by the proxy's densities, see
/// [`densities`] and [`widths`].
///
/// # Errors
/// As those of these functions.
pub fn precrop(layout: &ChannelGraph, sparsity: f64, multiple: usize) -> Result<Vec<usize>> {
    let sizes = layout.sizes(&layout.widths());
    let budget = left(layout, sparsity)?;
    widths(layout, &densities(&sizes, budget)?, budget, multiple)
}

/// How many weights of `layout` remain at `sparsity`.
///
/// # Errors
/// A sparsity outside [0, 1).
pub fn left(layout: &ChannelGraph, sparsity: f64) -> Result<usize> {
    check_sparsity(sparsity)?;
    let all = layout.weights(&layout.widths());
    Ok(all - rounded(sparsity, all))
}

/// The densities that maximise the proxy over layers of `sizes` weights, `budget` of which remain.
///
/// # Errors
/// If there is no layer, or a budget of zero or of more weights than there are.
pub fn densities(sizes: &[usize], budget: usize) -> Result<Vec<f64>> {
    let total: usize = sizes.iter().sum();
    if budget == 0 || budget > total {
        return Err(Error::Argument(format!("a budget of {budget} weights is impossible for a network of {total}")));
    }
    // Layers smaller than the water level stay whole; the others share the rest equally.
    let mut order: Vec<usize> = sizes.to_vec();
    order.sort_unstable();
    let mut left = budget as f64;
    let mut level = f64::INFINITY;
    for (i, size) in order.iter().enumerate() {
        let share = left / (order.len() - i) as f64;
        if *size as f64 >= share {
            level = share;
            break;
        }
        left -= *size as f64;
    }
    Ok(sizes.iter().map(|n| (level / *n as f64).min(1.0)).collect())
}

/// The density of each layer of `masks`, in order; one that lost all weights counts as having one.
pub fn densities_of(masks: &MaskSet) -> Vec<f64> {
    masks.iter().map(|(_, mask)| mask.kept().max(1) as f64 / mask.len().max(1) as f64).collect()
}

/// The width of each group of the cropped network: at most `budget` weights in total, every free width a multiple of
/// `multiple` (at least one of it), none above the full network's.
///
/// A layer of density `p` requests `sqrt(p)` of each of its two sides, or `p` of the one that is free; a group takes
/// the geometric mean of its layers' requests, and one factor scales all to the budget.
///
/// # Errors
/// If a layer names no group, the densities are not one in (0, 1] per layer, or even the narrowest
/// network has more weights.
pub fn widths(layout: &ChannelGraph, densities: &[f64], budget: usize, multiple: usize) -> Result<Vec<usize>> {
    let ChannelGraph { groups, layers } = layout;
    if layers.len() != densities.len() || densities.iter().any(|p| !(*p > 0.0 && *p <= 1.0)) {
        return Err(Error::Argument("every layer needs one density above 0 and at most 1".into()));
    }
    if layers.iter().any(|l| l.input.max(l.output) >= groups.len()) {
        return Err(Error::Argument("a layer reads or writes a group that is not there".into()));
    }
    let asked = asked(layout, densities);
    let at = |factor: f64| -> Vec<usize> {
        groups.iter().zip(&asked).map(|(group, share)| narrowed(*group, share * factor, multiple.max(1))).collect()
    };
    if layout.weights(&at(0.0)) > budget {
        return Err(Error::Argument(format!("even the narrowest network has more than {budget} weights")));
    }
    let largest = 1.0 / asked.iter().copied().fold(1.0, f64::min);
    if layout.weights(&at(largest)) <= budget {
        return Ok(at(largest));
    }
    let (mut low, mut high) = (0.0, largest);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if layout.weights(&at(middle)) <= budget { low = middle } else { high = middle }
    }
    Ok(at(low))
}

/// The share of its width that each group's layers request, their geometric mean.
fn asked(layout: &ChannelGraph, densities: &[f64]) -> Vec<f64> {
    let ChannelGraph { groups, layers } = layout;
    let mut logs = vec![(0.0, 0usize); groups.len()];
    for (layer, p) in layers.iter().zip(densities) {
        let free = [layer.input, layer.output].into_iter().filter(|g| !groups[*g].is_fixed()).count();
        for group in [layer.input, layer.output] {
            logs[group].0 += p.ln() / free.max(1) as f64;
            logs[group].1 += 1;
        }
    }
    logs.into_iter().map(|(sum, count)| if count == 0 { 1.0 } else { (sum / count as f64).exp() }).collect()
}

fn narrowed(group: Group, share: f64, multiple: usize) -> usize {
    if group.is_fixed() {
        return group.width;
    }
    let steps = (group.width as f64 * share / multiple as f64).floor() as usize;
    (steps.max(1) * multiple).min(group.width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn water_fills_the_small_layers_first() {
        assert_eq!(densities(&[100, 300], 200).unwrap(), [1.0, 1.0 / 3.0]);
        assert_eq!(densities(&[100, 100, 100], 150).unwrap(), [0.5, 0.5, 0.5]);
        assert_eq!(densities(&[10, 1000], 1010).unwrap(), [1.0, 1.0]);
        assert!(densities(&[10], 0).is_err() && densities(&[10], 11).is_err() && densities(&[], 1).is_err());
    }

    #[test]
    fn all_of_it_is_the_original_and_a_group_that_is_added_has_one_width() {
        let chain = ChannelGraph::chain(&[64, 128, 64, 10]);
        assert_eq!(precrop(&chain, 0.0, 1).unwrap(), [64, 128, 64, 10]);
        // Two layers that write the same group, as with a shortcut.
        let mut ring = ChannelGraph::default();
        for width in [8, 16, 16, 4] {
            ring.group(width, if width == 16 { 1 } else { width });
        }
        for (input, output) in [(0, 1), (1, 2), (2, 1), (1, 3)] {
            ring.convolution(input, output, 9, 1);
        }
        let cropped = widths(&ring, &[0.5; 4], left(&ring, 0.5).unwrap(), 2).unwrap();
        assert!(cropped[1] < 16 && cropped[2] < 16 && cropped.iter().all(|w| w % 2 == 0));
        assert_eq!((cropped[0], cropped[3]), (8, 4));
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let chain = ChannelGraph::chain(&[64, 128, 10]);
        assert!(widths(&chain, &[0.5], 100, 1).is_err());
        assert!(widths(&chain, &[0.5, 0.0], 100, 1).is_err());
        assert!(widths(&chain, &[0.5, 0.5], 73, 1).unwrap_err().to_string().contains("even the narrowest"));
        assert_eq!(widths(&chain, &[0.5, 0.5], 74, 1).unwrap(), [64, 1, 10]);
        assert!(precrop(&chain, 1.0, 1).is_err());
        let mut astray = chain.clone();
        astray.layers[0].output = 9;
        assert!(widths(&astray, &[0.5, 0.5], 1000, 1).is_err());
    }

    proptest! {
        #[test]
        fn the_budget_is_met_and_nearly_used(hidden in prop::collection::vec(8usize..200, 1..5), share in 0.1f64..1.0) {
            let all: Vec<usize> = [32].into_iter().chain(hidden).chain([10]).collect();
            let chain = ChannelGraph::chain(&all);
            let sizes = chain.sizes(&all);
            let budget = ((share * sizes.iter().sum::<usize>() as f64) as usize).max(all.len() * 64);
            prop_assume!(budget <= sizes.iter().sum());
            let p = densities(&sizes, budget).unwrap();
            let used: f64 = p.iter().zip(&sizes).map(|(p, n)| p * *n as f64).sum();
            prop_assert!((used - budget as f64).abs() < 1e-6 * budget as f64);
            let cropped = widths(&chain, &p, budget, 1).unwrap();
            prop_assert!(chain.weights(&cropped) <= budget);
            // One more channel in every free group would exceed the budget, or all are full.
            let more: Vec<usize> = cropped.iter().zip(&chain.groups).map(|(w, g)| if g.is_fixed() { *w } else { (w + 1).min(g.width) }).collect();
            prop_assert!(chain.weights(&more) > budget || cropped == all);
        }
    }
}
