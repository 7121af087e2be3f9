//! How a total sparsity is distributed over layers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::mask::matrix_dims;
use crate::mask::schedule::check_sparsity;
use crate::mask::top_k::shares_of;
use crate::model::evidence::{Evidence, Needs};
use crate::{Error, Result};

/// The input of a budget: one layer's name, shape (PyTorch's) and scores (row-major, larger = kept, minus infinity =
/// already pruned).
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The parameter's path.
    pub name: &'a str,
    /// PyTorch's shape.
    pub shape: &'a [usize],
    /// The number of its block; in a model without blocks, each layer is its own block.
    pub block: usize,
    scores: Scores<'a>,
}

/// Reads the scores of a layer.
pub type ReadScores<'a> = dyn Fn() -> Result<Vec<f32>> + Sync + 'a;

/// Where the scores of a layer are.
#[derive(Clone, Copy)]
enum Scores<'a> {
    Here(&'a [f32]),
    Read(&'a ReadScores<'a>),
}

impl fmt::Debug for Scores<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "in memory",
            Self::Read(_) => "read when asked for",
        })
    }
}

impl<'a> Layer<'a> {
    /// A layer with its scores in memory.
    pub fn new(name: &'a str, shape: &'a [usize], scores: &'a [f32]) -> Self {
        Self { name, shape, block: 0, scores: Scores::Here(scores) }
    }

    /// A layer whose scores are read when a budget needs them, perhaps more than once: one layer is in memory at a
    /// time.
    pub fn on_demand(name: &'a str, shape: &'a [usize], read: &'a ReadScores<'a>) -> Self {
        Self { name, shape, block: 0, scores: Scores::Read(read) }
    }

    /// With the number of its block.
    pub fn with_block(mut self, block: usize) -> Self {
        self.block = block;
        self
    }

    /// One score per weight.
    ///
    /// # Errors
    /// If they must be read and that fails.
    pub fn scores(&self) -> Result<Cow<'a, [f32]>> {
        match self.scores {
            Scores::Here(scores) => Ok(Cow::Borrowed(scores)),
            Scores::Read(read) => read().map(Cow::Owned),
        }
    }

    /// The number of its weights.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `(d_out, everything else)`.
    pub fn dims(&self) -> (usize, usize) {
        matrix_dims(self.shape)
    }
}

/// A budget: how the pruned weights are distributed over layers. [`Budget`] has the ones that need only shapes and
/// scores.
///
/// The same budget works on a Burn model ([`Recipe`](crate::model::recipe::Recipe)) and on a model that is pruned block by
/// block.
pub trait Allocate: fmt::Debug + Send + Sync {
    /// The budget's name, as on the command line.
    fn name(&self) -> &'static str;

    /// What it needs besides shapes and scores.
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    /// How many weights to prune in each layer; `sparsity` is that of all layers together.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), NaN scores, missing evidence, an impossible distribution.
    fn allocate(&self, layers: &[Layer<'_>], evidence: &Evidence, sparsity: f64) -> Result<Vec<usize>>;

    /// The same as fractions of each layer's weights.
    ///
    /// # Errors
    /// As [`Allocate::allocate`].
    fn sparsities(&self, layers: &[Layer<'_>], evidence: &Evidence, sparsity: f64) -> Result<Vec<f64>> {
        let counts = self.allocate(layers, evidence, sparsity)?;
        Ok(layers.iter().zip(counts).map(|(layer, count)| count as f64 / layer.len().max(1) as f64).collect())
    }

    /// How it distributes without reading the scores, which may then stay on their device.
    fn shares(&self) -> Share {
        Share::ByScores
    }
}

/// What a budget must read of the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nothing: shapes, names and evidence decide.
    ByShape,
    /// The smallest scores of all layers together are pruned.
    Global,
    /// The scores, in CPU memory.
    ByScores,
}

impl<B: Allocate + 'static> From<B> for Box<dyn Allocate> {
    fn from(budget: B) -> Self {
        Box::new(budget)
    }
}

/// The budgets that need only shapes and scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Budget {
    /// The same sparsity in every layer.
    Uniform,
    /// Uniform with the first layer dense and the last at most 80 % sparse (Gale et al., arXiv 1902.09574, sec. 4.2).
    UniformPlus,
    /// The smallest scores of all layers together.
    #[default]
    Global,
    /// Erdős–Rényi (SET, arXiv 1707.04780): density of a layer proportional to `(d_in + d_out) / (d_in d_out)` of its
    /// channels, those that would exceed 1 stay dense.
    Er,
    /// Erdős–Rényi kernel (RigL, arXiv 1911.11134, sec. 3): density of a layer proportional to
    /// `sum(dims) / product(dims)`, those that would exceed 1 stay dense.
    Erk,
    /// LAMP (arXiv 2010.07611, eq. 3): global threshold on
    /// `score(u) = w_u^2 / sum of w_v^2 over all v of the layer not smaller than u`.
    Lamp,
    /// A sparsity in [0, 1] for each named layer (1: all of it is pruned); layers not named stay dense.
    Explicit(BTreeMap<String, f64>),
}

/// The largest sparsity of the last layer with [`Budget::UniformPlus`].
const LAST_AT_MOST: f64 = 0.8;

impl Budget {
    /// The names [`Budget::parse`] reads.
    pub const NAMES: [&'static str; 6] = ["er", "erk", "global", "lamp", "uniform", "uniform-plus"];

    /// Parses one of [`Budget::NAMES`].
    ///
    /// # Errors
    /// For any other name; the message lists the known ones.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "er" => Ok(Self::Er),
            "erk" => Ok(Self::Erk),
            "global" => Ok(Self::Global),
            "lamp" => Ok(Self::Lamp),
            "uniform" => Ok(Self::Uniform),
            "uniform-plus" => Ok(Self::UniformPlus),
            _ => Err(Error::Argument(format!("unknown budget `{name}`: use {}", Self::NAMES.join(", ")))),
        }
    }

    /// How many weights to prune in each layer.
    ///
    /// With `Uniform` and `Explicit` each layer has exactly its own rounded count (halves to even, as
    /// `torch.nn.utils.prune` does), with the others the counts add up to exactly `round(sparsity * n)` over all `n`
    /// weights.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), NaN scores, a name that no layer has, a total that cannot be met.
    fn counts(&self, layers: &[Layer<'_>], sparsity: f64) -> Result<Vec<usize>> {
        check_sparsity(sparsity)?;
        match self {
            Self::Uniform => Ok(layers.iter().map(|l| rounded(sparsity, l.len())).collect()),
            Self::UniformPlus => uniform_plus(layers, sparsity),
            Self::Er => erdos_renyi(layers, sparsity, |l| {
                let channels = &l.shape[..l.shape.len().min(2)];
                dims_sum(channels) / channels.iter().product::<usize>().max(1) as f64
            }),
            Self::Erk => erdos_renyi(layers, sparsity, |l| dims_sum(l.shape) / l.len().max(1) as f64),
            Self::Explicit(named) => explicit(named, layers),
            Self::Global => global(layers, sparsity, &|layer| layer.scores()),
            Self::Lamp if layers.iter().all(|l| matches!(l.scores, Scores::Here(_))) => {
                let lamps = layers.par_iter().map(lamp).collect::<Result<Vec<_>>>()?;
                let ready: Vec<_> = layers.iter().zip(&lamps).map(|(l, s)| Layer::new(l.name, l.shape, s)).collect();
                global(&ready, sparsity, &|layer| layer.scores())
            }
            Self::Lamp => global(layers, sparsity, &|layer| lamp(layer).map(Cow::Owned)),
        }
    }
}

impl Allocate for Budget {
    fn name(&self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::UniformPlus => "uniform-plus",
            Self::Global => "global",
            Self::Er => "er",
            Self::Erk => "erk",
            Self::Lamp => "lamp",
            Self::Explicit(_) => "explicit",
        }
    }

    fn allocate(&self, layers: &[Layer<'_>], _evidence: &Evidence, sparsity: f64) -> Result<Vec<usize>> {
        self.counts(layers, sparsity)
    }

    fn sparsities(&self, layers: &[Layer<'_>], _evidence: &Evidence, sparsity: f64) -> Result<Vec<f64>> {
        let counts = self.counts(layers, sparsity)?;
        Ok(match self {
            // The sparsities as given, not as rounded.
            Self::Uniform => vec![sparsity; layers.len()],
            Self::Explicit(named) => layers.iter().map(|l| named.get(l.name).copied().unwrap_or(0.0)).collect(),
            _ => layers.iter().zip(counts).map(|(l, n)| n as f64 / l.len().max(1) as f64).collect(),
        })
    }

    fn shares(&self) -> Share {
        match self {
            Self::Global => Share::Global,
            Self::Lamp => Share::ByScores,
            _ => Share::ByShape,
        }
    }
}

/// `round(sparsity * n)`, halves to even.
pub fn rounded(sparsity: f64, n: usize) -> usize {
    (sparsity * n as f64).round_ties_even() as usize
}

/// The scores of a layer.
type ScoresOf<'s> = dyn Fn(&Layer<'s>) -> Result<Cow<'s, [f32]>> + 's;

/// Prunes the smallest of all scores; among equal ones, those of later layers and higher indices.
fn global<'s>(layers: &[Layer<'s>], sparsity: f64, scores: &ScoresOf<'s>) -> Result<Vec<usize>> {
    if let [only] = layers {
        return Ok(vec![rounded(sparsity, only.len())]);
    }
    let total: usize = layers.iter().map(Layer::len).sum();
    let kept = shares_of(layers.len(), total - rounded(sparsity, total), |i| scores(&layers[i]))?;
    Ok(layers.iter().zip(kept).map(|(layer, kept)| layer.len() - kept).collect())
}

/// The first layer loses nothing, the last at most its share, the others share the rest equally.
fn uniform_plus(layers: &[Layer<'_>], sparsity: f64) -> Result<Vec<usize>> {
    let [_, between @ .., last] = layers else {
        return Ok(layers.iter().map(|l| rounded(sparsity, l.len())).collect());
    };
    let total: usize = layers.iter().map(Layer::len).sum();
    let prune = rounded(sparsity, total);
    let inner: usize = between.iter().map(Layer::len).sum();
    let equal = prune as f64 / (inner + last.len()).max(1) as f64;
    let of_last = rounded(equal.min(LAST_AT_MOST), last.len());
    let rest = prune.saturating_sub(of_last);
    if rest > inner {
        return Err(Error::Argument(format!(
            "sparsity {sparsity} cannot be had with the first layer dense and the last at most {LAST_AT_MOST} sparse"
        )));
    }
    let sizes: Vec<usize> = between.iter().map(Layer::len).collect();
    let want: Vec<f64> = sizes.iter().map(|n| rest as f64 * *n as f64 / inner.max(1) as f64).collect();
    Ok([vec![0], share_out(rest, &want, &sizes), vec![of_last]].concat())
}

/// Densities proportional to `density`, those that would exceed 1 being 1.
fn erdos_renyi(layers: &[Layer<'_>], sparsity: f64, density: impl Fn(&Layer<'_>) -> f64) -> Result<Vec<usize>> {
    let sizes: Vec<usize> = layers.iter().map(Layer::len).collect();
    let total: usize = sizes.iter().sum();
    let keep = total - rounded(sparsity, total);
    let raw: Vec<f64> = layers.iter().map(density).collect();
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

/// Integers near `want` that add up to `total`: floors first, then one more to the largest remainders (ties to the
/// earlier layer), never above `most`.
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
    let scores = layer.scores()?;
    if let Some(bad) = scores.iter().find(|s| s.is_nan()) {
        return Err(Error::tensor(layer.name, format!("a score is {bad}")));
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let score = |i: &u32| scores[*i as usize];
    // Largest first; among equal ones the lower index, which thus gets the larger LAMP score.
    order.par_sort_unstable_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let mut out = vec![f32::NEG_INFINITY; scores.len()];
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer<'a>(name: &'a str, shape: &'a [usize], scores: &'a [f32]) -> Layer<'a> {
        Layer::new(name, shape, scores)
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
        assert_eq!(Budget::Global.allocate(&layers, &Evidence::NONE, 0.5).unwrap(), [4, 0]);
        assert_eq!(Budget::Lamp.allocate(&layers, &Evidence::NONE, 0.5).unwrap(), [2, 2]);
        assert_eq!(Budget::Lamp.allocate(&layers, &Evidence::NONE, 0.75).unwrap(), [3, 3]);
    }

    #[test]
    fn erk_keeps_small_layers_denser_and_meets_the_total() {
        let (a, b) = (vec![1.0; 64 * 32], vec![1.0; 8 * 8]);
        let layers = [layer("a", &[64, 32], &a), layer("b", &[8, 8], &b)];
        let pruned = Budget::Erk.allocate(&layers, &Evidence::NONE, 0.9).unwrap();
        assert_eq!(pruned.iter().sum::<usize>(), rounded(0.9, 64 * 32 + 64));
        // density proportional to 96/2048 and 16/64, so 64-by-8 weights keep (96 + 16) parts.
        let share = (96.0 / 2048.0) / (16.0 / 64.0);
        let density = |i: usize, n: usize| (n - pruned[i]) as f64 / n as f64;
        assert!((density(0, 2048) / density(1, 64) - share).abs() < 0.02);
    }

    #[test]
    fn uniform_plus_spares_the_first_layer_and_the_last_in_part() {
        let (a, b, c) = (vec![1.0; 100], vec![1.0; 1000], vec![1.0; 100]);
        let layers = [layer("a", &[10, 10], &a), layer("b", &[100, 10], &b), layer("c", &[10, 10], &c)];
        let pruned = |s| Budget::UniformPlus.allocate(&layers, &Evidence::NONE, s);
        // 600 over the 1100 of the last two layers.
        assert_eq!(pruned(0.5).unwrap(), [0, 545, 55]);
        // 1080 of 1200: the last layer stops at 80.
        assert_eq!(pruned(0.9).unwrap(), [0, 1000, 80]);
        assert!(pruned(0.95).unwrap_err().to_string().contains("first layer dense"));
        assert_eq!(Budget::UniformPlus.allocate(&layers[..1], &Evidence::NONE, 0.5).unwrap(), [50]);
    }

    #[test]
    fn er_of_matrices_is_erk_and_of_kernels_counts_channels() {
        let (a, b) = (vec![1.0; 64 * 32], vec![1.0; 16 * 8]);
        let of = |budget: Budget, layers: &[Layer<'_>]| budget.allocate(layers, &Evidence::NONE, 0.8).unwrap();
        let flat = [layer("a", &[64, 32], &a), layer("b", &[16, 8], &b)];
        assert_eq!(of(Budget::Er, &flat), of(Budget::Erk, &flat));
        // The same channels by kernels of 3 x 3: densities as without, where ERK's kernels count.
        let (a, b) = (vec![1.0; 64 * 32 * 9], vec![1.0; 16 * 8 * 9]);
        let kernels = [layer("a", &[64, 32, 3, 3], &a), layer("b", &[16, 8, 3, 3], &b)];
        let nine: Vec<usize> = of(Budget::Er, &flat).iter().map(|n| 9 * n).collect();
        assert!(of(Budget::Er, &kernels).iter().zip(&nine).all(|(a, b)| a.abs_diff(*b) <= 9));
        assert_ne!(of(Budget::Er, &kernels), of(Budget::Erk, &kernels));
    }

    #[test]
    fn scores_that_are_read_layer_by_layer_give_the_same_counts() {
        let scores: Vec<Vec<f32>> = (0..5usize)
            .map(|l| (0..400usize).map(|i| ((i * 7919 + l * 31) % 997) as f32 * (l + 1) as f32).collect())
            .collect();
        let here: Vec<Layer<'_>> = scores.iter().map(|s| layer("l", &[20, 20], s)).collect();
        let read: Vec<_> = scores.iter().map(|s| move || Ok(s.clone())).collect();
        let far: Vec<Layer<'_>> = read.iter().map(|read| Layer::on_demand("l", &[20, 20], read)).collect();
        for budget in [Budget::Global, Budget::Lamp, Budget::Erk, Budget::UniformPlus] {
            let of = |layers: &[Layer<'_>]| budget.allocate(layers, &Evidence::NONE, 0.6).unwrap();
            assert_eq!(of(&here), of(&far), "{budget:?}");
        }
    }

    #[test]
    fn explicit_names_must_exist() {
        let w = [1.0; 10];
        let layers = [layer("a", &[10], &w), layer("b", &[10], &w)];
        let budget = |name: &str, s| Budget::Explicit([(name.to_string(), s)].into());
        assert_eq!(budget("b", 0.25).allocate(&layers, &Evidence::NONE, 0.0).unwrap(), [0, 2]);
        assert!(budget("c", 0.25).allocate(&layers, &Evidence::NONE, 0.0).unwrap_err().to_string().starts_with("c: "));
        assert!(budget("b", 1.5).allocate(&layers, &Evidence::NONE, 0.0).is_err());
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
            for budget in [Budget::Global, Budget::Er, Budget::Erk, Budget::Lamp] {
                let pruned = budget.allocate(&layers, &Evidence::NONE, sparsity).unwrap();
                prop_assert_eq!(pruned.iter().sum::<usize>(), rounded(sparsity, total), "{:?}", budget);
                prop_assert!(pruned.iter().zip(&scores).all(|(p, s)| *p <= s.len()));
            }
        }
    }
}
