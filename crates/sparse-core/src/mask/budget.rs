//! How a total sparsity is shared among layers.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::mask::matrix_dims;
use crate::mask::schedule::check_sparsity;
use crate::mask::top_k::shares;
use crate::{Error, Result};

/// What a budget looks at: one layer's name, shape (PyTorch's) and scores (row-major, larger =
/// kept, minus infinity = already pruned).
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The parameter's path.
    pub name: &'a str,
    /// PyTorch's shape.
    pub shape: &'a [usize],
    /// One score per weight.
    pub scores: &'a [f32],
}

/// How the weights to prune are shared among layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Budget {
    /// The same sparsity in every layer.
    Uniform,
    /// The smallest scores of all layers together.
    #[default]
    Global,
    /// Erdős–Rényi kernel (RigL, arXiv 1911.11134, sec. 3): density of a layer proportional to
    /// `sum(dims) / product(dims)`, those that would exceed 1 stay dense.
    Erk,
    /// LAMP (arXiv 2010.07611, eq. 3): global threshold on
    /// `score(u) = w_u^2 / sum of w_v^2 over all v of the layer not smaller than u`.
    Lamp,
    /// A sparsity in [0, 1] for each named layer (1: it goes entirely); layers not named stay dense.
    Explicit(BTreeMap<String, f64>),
}

impl Budget {
    /// The names [`Budget::parse`] reads.
    pub const NAMES: [&'static str; 4] = ["erk", "global", "lamp", "uniform"];

    /// Reads one of [`Budget::NAMES`].
    ///
    /// # Errors
    /// For anything else, naming what is known.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "erk" => Ok(Self::Erk),
            "global" => Ok(Self::Global),
            "lamp" => Ok(Self::Lamp),
            "uniform" => Ok(Self::Uniform),
            _ => Err(Error::Argument(format!("unknown budget `{name}`: use {}", Self::NAMES.join(", ")))),
        }
    }

    /// How many weights to prune in each layer.
    ///
    /// With `Global`, `Erk` and `Lamp` the counts add up to exactly `round(sparsity * n)` over all
    /// `n` weights, with `Uniform` and `Explicit` each layer has exactly its own rounded count
    /// (halves to even, as `torch.nn.utils.prune` does).
    ///
    /// # Errors
    /// Sparsity outside [0, 1), NaN scores, a name that no layer has.
    pub fn allocate(&self, layers: &[Layer<'_>], sparsity: f64) -> Result<Vec<usize>> {
        check_sparsity(sparsity)?;
        if let Some(by_shape) = self.by_shape(layers, sparsity) {
            return by_shape;
        }
        let lamps: Vec<Vec<f32>>;
        let scores: Vec<&[f32]> = if *self == Self::Lamp {
            lamps = layers.par_iter().map(lamp).collect::<Result<_>>()?;
            lamps.iter().map(Vec::as_slice).collect()
        } else {
            layers.iter().map(|l| l.scores).collect()
        };
        global(&scores, sparsity)
    }

    /// The same of a sparsity that is in [0, 1), without a look at scores; none where the budget needs them.
    pub(crate) fn by_shape(&self, layers: &[Layer<'_>], sparsity: f64) -> Option<Result<Vec<usize>>> {
        match self {
            Self::Uniform => Some(Ok(layers.iter().map(|l| rounded(sparsity, l.len())).collect())),
            Self::Erk => Some(erk(layers, sparsity)),
            Self::Explicit(named) => Some(explicit(named, layers)),
            Self::Global | Self::Lamp => None,
        }
    }
}

/// `round(sparsity * n)`, halves to even.
pub fn rounded(sparsity: f64, n: usize) -> usize {
    (sparsity * n as f64).round_ties_even() as usize
}

/// Prunes the smallest of all scores; of equal ones, those of later layers and higher indices.
fn global(scores: &[&[f32]], sparsity: f64) -> Result<Vec<usize>> {
    if let [only] = scores {
        return Ok(vec![rounded(sparsity, only.len())]);
    }
    let total: usize = scores.iter().map(|s| s.len()).sum();
    let kept = shares(scores, total - rounded(sparsity, total))?;
    Ok(scores.iter().zip(kept).map(|(s, kept)| s.len() - kept).collect())
}

fn erk(layers: &[Layer<'_>], sparsity: f64) -> Result<Vec<usize>> {
    let sizes: Vec<usize> = layers.iter().map(Layer::len).collect();
    let total: usize = sizes.iter().sum();
    let keep = total - rounded(sparsity, total);
    let raw: Vec<f64> = layers.iter().map(|l| dims_sum(l.shape) / l.len().max(1) as f64).collect();
    let mut dense = vec![false; layers.len()];
    // Each round fixes the layers whose density would exceed 1 and rescales the rest.
    loop {
        let fixed: usize = (0..sizes.len()).filter(|&i| dense[i]).map(|i| sizes[i]).sum();
        let weight: f64 = (0..sizes.len()).filter(|&i| !dense[i]).map(|i| raw[i] * sizes[i] as f64).sum();
        let scale = keep.saturating_sub(fixed) as f64 / weight;
        let over: Vec<usize> = (0..sizes.len()).filter(|&i| !dense[i] && raw[i] * scale > 1.0).collect();
        if over.is_empty() {
            let want = |i: usize| if dense[i] { sizes[i] as f64 } else { raw[i] * scale * sizes[i] as f64 };
            let kept = share_out(keep, &(0..sizes.len()).map(want).collect::<Vec<_>>(), &sizes);
            return Ok(sizes.iter().zip(kept).map(|(n, k)| n - k).collect());
        }
        over.into_iter().for_each(|i| dense[i] = true);
    }
}

/// The numerator of ERK: all dimensions of the kernel; a vector or scalar counts its length.
fn dims_sum(shape: &[usize]) -> f64 {
    shape.iter().sum::<usize>() as f64
}

/// Whole numbers near `want` that add up to `total`: floors first, then one more to the largest
/// remainders (ties to the earlier layer), never above `most`.
fn share_out(total: usize, want: &[f64], most: &[usize]) -> Vec<usize> {
    let mut got: Vec<usize> = want.iter().zip(most).map(|(w, m)| (w.floor() as usize).min(*m)).collect();
    let mut order: Vec<usize> = (0..want.len()).collect();
    order.sort_by(|a, b| want[*b].fract().total_cmp(&want[*a].fract()).then(a.cmp(b)));
    let mut left = total.saturating_sub(got.iter().sum());
    while left > 0 {
        let before = left;
        for &i in order.iter().filter(|&&i| got[i] < most[i]).take(left).collect::<Vec<_>>() {
            got[i] += 1;
            left -= 1;
        }
        if left == before {
            break;
        }
    }
    got
}

/// LAMP scores of one layer; what is already pruned stays at minus infinity.
fn lamp(layer: &Layer<'_>) -> Result<Vec<f32>> {
    if let Some(bad) = layer.scores.iter().find(|s| s.is_nan()) {
        return Err(Error::tensor(layer.name, format!("a score is {bad}")));
    }
    let mut order: Vec<u32> = (0..layer.scores.len() as u32).collect();
    let score = |i: &u32| layer.scores[*i as usize];
    // Largest first; of equal ones the lower index, which thus gets the larger LAMP score.
    order.par_sort_unstable_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let mut out = vec![f32::NEG_INFINITY; layer.scores.len()];
    let mut sum = 0.0f64;
    for i in order.iter().filter(|i| score(i) > f32::NEG_INFINITY) {
        let square = f64::from(score(i)).powi(2);
        sum += square;
        out[*i as usize] = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
    }
    Ok(out)
}

fn explicit(named: &BTreeMap<String, f64>, layers: &[Layer<'_>]) -> Result<Vec<usize>> {
    if let Some(name) = named.keys().find(|name| layers.iter().all(|l| l.name != name.as_str())) {
        return Err(Error::tensor(name, "a sparsity is given for it, but there is no such prunable layer"));
    }
    let pruned = |l: &Layer<'_>| match named.get(l.name) {
        Some(sparsity) if (0.0..=1.0).contains(sparsity) => Ok(rounded(*sparsity, l.len())),
        Some(sparsity) => Err(Error::tensor(l.name, format!("sparsity {sparsity} is outside [0, 1]"))),
        None => Ok(0),
    };
    layers.iter().map(pruned).collect()
}

impl Layer<'_> {
    /// The number of its weights.
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// `(d_out, everything else)`.
    pub fn dims(&self) -> (usize, usize) {
        matrix_dims(self.shape)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer<'a>(name: &'a str, shape: &'a [usize], scores: &'a [f32]) -> Layer<'a> {
        Layer { name, shape, scores }
    }

    #[test]
    fn lamp_by_hand() {
        let scores = lamp(&layer("a", &[3], &[1.0, 2.0, 3.0])).unwrap();
        for (got, want) in scores.iter().zip([1.0 / 14.0, 4.0 / 13.0, 1.0]) {
            assert!((got - want).abs() < 1e-7);
        }
    }

    #[test]
    fn lamp_spares_the_largest_of_each_layer_where_global_empties_one() {
        let (small, large) = ([0.01, 0.02, 0.03, 0.04], [10.0, 20.0, 30.0, 40.0]);
        let layers = [layer("a", &[4], &small), layer("b", &[4], &large)];
        assert_eq!(Budget::Global.allocate(&layers, 0.5).unwrap(), [4, 0]);
        assert_eq!(Budget::Lamp.allocate(&layers, 0.5).unwrap(), [2, 2]);
        assert_eq!(Budget::Lamp.allocate(&layers, 0.75).unwrap(), [3, 3]);
    }

    #[test]
    fn erk_keeps_small_layers_denser_and_meets_the_total() {
        let (a, b) = (vec![1.0; 64 * 32], vec![1.0; 8 * 8]);
        let layers = [layer("a", &[64, 32], &a), layer("b", &[8, 8], &b)];
        let pruned = Budget::Erk.allocate(&layers, 0.9).unwrap();
        assert_eq!(pruned.iter().sum::<usize>(), rounded(0.9, 64 * 32 + 64));
        // density proportional to 96/2048 and 16/64, so 64-by-8 weights keep (96 + 16) parts.
        let share = (96.0 / 2048.0) / (16.0 / 64.0);
        let density = |i: usize, n: usize| (n - pruned[i]) as f64 / n as f64;
        assert!((density(0, 2048) / density(1, 64) - share).abs() < 0.02);
    }

    #[test]
    fn explicit_names_must_exist() {
        let w = [1.0; 10];
        let layers = [layer("a", &[10], &w), layer("b", &[10], &w)];
        let budget = |name: &str, s| Budget::Explicit([(name.to_string(), s)].into());
        assert_eq!(budget("b", 0.25).allocate(&layers, 0.0).unwrap(), [0, 2]);
        assert!(budget("c", 0.25).allocate(&layers, 0.0).unwrap_err().to_string().starts_with("c: "));
        assert!(budget("b", 1.5).allocate(&layers, 0.0).is_err());
    }

    #[test]
    fn halves_go_to_even_as_in_pytorch() {
        assert_eq!((rounded(0.5, 5), rounded(0.5, 7), rounded(0.25, 10)), (2, 4, 2));
    }

    proptest! {
        #[test]
        fn totals_are_exact(sizes in prop::collection::vec((1usize..20, 1usize..20), 1..5), sparsity in 0.0f64..0.999, seed in any::<u32>()) {
            let scores: Vec<Vec<f32>> = sizes.iter().enumerate().map(|(l, (r, c))| (0..(r * c) as u32)
                .map(|i| (i.wrapping_add(l as u32 * 977) ^ seed).wrapping_mul(2654435761) as f32 / 4e9).collect()).collect();
            let shapes: Vec<Vec<usize>> = sizes.iter().map(|(r, c)| vec![*r, *c]).collect();
            let layers: Vec<Layer> = scores.iter().zip(&shapes).map(|(s, shape)| layer("l", shape, s)).collect();
            let total: usize = scores.iter().map(Vec::len).sum();
            for budget in [Budget::Global, Budget::Erk, Budget::Lamp] {
                let pruned = budget.allocate(&layers, sparsity).unwrap();
                prop_assert_eq!(pruned.iter().sum::<usize>(), rounded(sparsity, total), "{:?}", budget);
                prop_assert!(pruned.iter().zip(&scores).all(|(p, s)| *p <= s.len()));
            }
        }
    }
}
