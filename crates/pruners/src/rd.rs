//! RD: layer-adaptive budgets by measured output distortion (Xu et al., arXiv 2308.10438).
//!
//! `D_l(a)` is the mean squared change of the model's outputs when layer `l` alone loses the fraction `a` of its
//! smallest `|w|`. The distortion of many layers is nearly the sum of theirs (sec. 3.1), so the fractions that minimise
//! `sum_l D_l(a_l)` at a given number of weights are a knapsack problem with one choice per layer, solved by dynamic
//! programming in time linear in the number of layers (sec. 3.2): `best_l(k) = min over a of D_l(a) + best_{l-1}(k -
//! kept_l(a))`.

use burn::tensor::Tensor;
use rayon::prelude::*;
use regrow_checkpoint::Checkpoint;
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{BlockModel, LayerRef, read_weight};
use regrow_sparse_core::mask::budget::{Allocate, Layer, Share, rounded};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::probe::check_amounts;
use regrow_sparse_core::model::score::magnitudes;
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{Budget, Error, Pattern, Result};

pub use regrow_sparse_core::model::probe::{Distortion, distortions};

/// Number of units in which weights are counted when a budget is solved.
pub(crate) const UNITS: usize = 4000;

/// The budget with the least output distortion, measured at these amounts.
#[derive(Clone, Debug, PartialEq)]
pub struct Rd {
    amounts: Vec<f64>,
}

impl Rd {
    /// Measured at `steps` amounts up to 0.99, evenly spaced, and at zero.
    ///
    /// # Errors
    /// No step.
    pub fn new(steps: usize) -> Result<Self> {
        match steps {
            0 => Err(Error::Argument("RD measures each layer at one amount at least".into())),
            _ => Ok(Self { amounts: grid(steps, 0.99) }),
        }
    }

    /// Measured at custom amounts.
    ///
    /// # Errors
    /// Amounts outside [0, 1].
    pub fn at(amounts: Vec<f64>) -> Result<Self> {
        check_amounts(&amounts)?;
        Ok(Self { amounts })
    }
}

impl Allocate for Rd {
    fn name(&self) -> &'static str {
        "rd"
    }

    fn needs(&self) -> Needs {
        Needs::distortions(self.amounts.clone())
    }

    fn allocate(&self, layers: &[Layer<'_>], evidence: &Evidence, sparsity: f64) -> Result<Vec<usize>> {
        let curve = |(layer, values): (&Layer<'_>, &Vec<f64>)| Distortion {
            name: layer.name.into(),
            weights: layer.len(),
            values: values.clone(),
        };
        let curves: Vec<Distortion> = layers.iter().zip(evidence.distortions(layers.len())?).map(curve).collect();
        counts(&curves, &self.amounts, sparsity, UNITS)
    }

    fn shares(&self) -> Share {
        Share::ByShape
    }
}

/// `steps + 1` amounts from 0 to `most`, evenly spaced.
///
/// The authors' grid goes to 1. Then a whole layer can be the cheapest to remove: the distortion of outputs is bounded
/// by their size, while curves of other layers keep growing, and a network with a removed layer cannot be retrained.
/// Below 1 a part of every layer stays.
pub fn grid(steps: usize, most: f64) -> Vec<f64> {
    (0..=steps).map(|i| most * i as f64 / steps.max(1) as f64).collect()
}

/// How to measure a model of blocks, one block in memory at a time.
pub struct Look<'a, M: BlockModel> {
    /// The model.
    pub model: &'a M,
    /// Its weights.
    pub source: &'a Checkpoint,
    /// What all blocks need to know about a sequence.
    pub context: &'a M::SequenceContext,
    /// Fractions of a layer's weights, as for [`distortions`].
    pub amounts: &'a [f64],
    /// Which layers are measured, by the names of their tensors.
    pub admits: &'a dyn Fn(&str) -> bool,
    /// The outputs `[batch, tokens, outputs]` from hidden states after the last block.
    pub outputs: &'a dyn Fn(Tensor<3>) -> Tensor<3>,
}

impl<M: BlockModel> Look<'_, M> {
    /// As [`distortions`]; every token of `hidden`, the inputs of the first block, is an input.
    ///
    /// Blocks before a layer are run once, those after it once for each of its amounts: one copy of the hidden states
    /// is stored per amount. `watch` is called with the finished blocks and the total.
    ///
    /// # Errors
    /// As [`distortions`], and errors of loading a block.
    pub fn distortions(&self, hidden: &HiddenStates, watch: &mut dyn FnMut(usize, usize)) -> Result<Vec<Distortion>> {
        check_amounts(self.amounts)?;
        let blocks = self.model.blocks();
        let mut whole = hidden.map(|x| x)?;
        self.run(0, std::slice::from_mut(&mut whole))?;
        let mut inputs = hidden.map(|x| x)?;
        let mut found = Vec::new();
        for index in 0..blocks {
            let block = self.model.load(self.source, index)?;
            for layer in self.model.layers(index).iter().filter(|layer| (self.admits)(&layer.tensor)) {
                found.push(self.curve((index, &block), layer, &inputs, &whole)?);
            }
            let (model, context) = (self.model, self.context);
            inputs.advance(|x| model.forward(&block, x, context, &mut |_, _| {}))?;
            watch(index + 1, blocks);
        }
        Ok(found)
    }

    /// The distortions of one layer of block `index`, whose inputs are `inputs`; `whole` are the hidden states after
    /// the last block of the unchanged model.
    fn curve(
        &self,
        (index, block): (usize, &M::Block),
        layer: &LayerRef,
        inputs: &HiddenStates,
        whole: &HiddenStates,
    ) -> Result<Distortion> {
        let weight = read_weight(self.source, layer)?;
        let (model, context) = (self.model, self.context);
        let without = |amount: &f64| {
            let values = smallest_gone(&weight, rounded(*amount, weight.values.len()))?;
            let block = self.model.replaced(block, layer, &values);
            inputs.map(|x| model.forward(&block, x, context, &mut |_, _| {}))
        };
        let mut pruned = self.amounts.iter().map(without).collect::<Result<Vec<_>>>()?;
        self.run(index + 1, &mut pruned)?;
        let values = pruned.iter().map(|hidden| self.distance(whole, hidden)).collect::<Result<Vec<_>>>()?;
        Ok(Distortion { name: weight.path, weights: weight.values.len(), values })
    }

    /// Runs hidden states through all blocks from `first` on.
    fn run(&self, first: usize, all: &mut [HiddenStates]) -> Result<()> {
        let (model, context) = (self.model, self.context);
        for index in first..model.blocks() {
            let block = model.load(self.source, index)?;
            for hidden in all.iter_mut() {
                hidden.advance(|x| model.forward(&block, x, context, &mut |_, _| {}))?;
            }
        }
        Ok(())
    }

    /// The mean over tokens of the squared distance of the outputs.
    fn distance(&self, a: &HiddenStates, b: &HiddenStates) -> Result<f64> {
        let (mut sum, mut tokens) = (0.0, 0);
        for i in 0..a.len() {
            let (a, b) = ((self.outputs)(a.get(i)?), (self.outputs)(b.get(i)?));
            tokens += a.dims()[0] * a.dims()[1];
            sum +=
                (a - b).powf_scalar(2.0).sum().into_data().convert::<f32>().iter::<f32>().map(f64::from).sum::<f64>();
        }
        match f64::is_finite(sum) {
            true => Ok(sum / tokens.max(1) as f64),
            false => Err(Error::Argument("an output of the model is not finite".into())),
        }
    }
}

/// The values of `weight`, with the `count` smallest set to zero.
fn smallest_gone(weight: &Weight, count: usize) -> Result<Vec<f32>> {
    let mask = Pattern::Unstructured.mask(&weight.shape, &magnitudes(weight), count)?;
    Ok(weight.values.iter().enumerate().map(|(i, w)| if mask.keeps(i) { *w } else { 0.0 }).collect())
}

/// The budget that minimises the summed distortion at `sparsity` over all layers together: exactly `round(sparsity *
/// n)` of the `n` weights are pruned.
///
/// Weights are counted in units of `n / units`; some thousands of units are plenty; the remainder of rounding goes to
/// the layers that gain most by it. Curves are made non-decreasing first.
///
/// # Errors
/// Sparsity outside [0, 1), no layer, curves and amounts of different lengths, or amounts that
/// cannot reach the sparsity.
pub fn allocate(curves: &[Distortion], amounts: &[f64], sparsity: f64, units: usize) -> Result<Budget> {
    let counts = counts(curves, amounts, sparsity, units)?;
    let pruned = |(c, count): (&Distortion, usize)| (c.name.clone(), count as f64 / c.weights as f64);
    Ok(Budget::Explicit(curves.iter().zip(counts).map(pruned).collect()))
}

/// How many weights of each layer are pruned.
fn counts(curves: &[Distortion], amounts: &[f64], sparsity: f64, units: usize) -> Result<Vec<usize>> {
    check_sparsity(sparsity)?;
    if curves.is_empty() || curves.iter().any(|c| c.values.len() != amounts.len()) {
        return Err(Error::Argument("every layer needs one distortion for each amount".into()));
    }
    let total: usize = curves.iter().map(|c| c.weights).sum();
    let keep = total - rounded(sparsity, total);
    let unit = (total / units.max(1)).max(1);
    let choices: Vec<Vec<Choice>> = curves.iter().map(|c| choices(c, amounts, unit)).collect();
    let chosen = solve(&choices, keep / unit).ok_or_else(|| {
        Error::Argument(format!("no choice of these amounts leaves as few as {keep} of {total} weights"))
    })?;
    let mut kept: Vec<usize> = choices.iter().zip(&chosen).map(|(c, i)| c[*i].kept).collect();
    spend(keep, &mut kept, &choices, &chosen, curves);
    Ok(curves.iter().zip(kept).map(|(c, kept)| c.weights - kept).collect())
}

/// One amount of one layer.
#[derive(Clone, Copy, Debug)]
struct Choice {
    kept: usize,
    /// `kept` in whole units, rounded up, so that a sum of units never exceeds the budget.
    units: usize,
    distortion: f64,
}

fn choices(curve: &Distortion, amounts: &[f64], unit: usize) -> Vec<Choice> {
    let mut worst = 0.0f64;
    let one = |(amount, value): (&f64, &f64)| {
        worst = worst.max(*value);
        let kept = curve.weights - rounded(*amount, curve.weights);
        Choice { kept, units: kept.div_ceil(unit), distortion: worst }
    };
    amounts.iter().zip(&curve.values).map(one).collect()
}

/// The index of each layer's choice, by dynamic programming over layers and units kept; `None` if
/// no combination fits.
fn solve(choices: &[Vec<Choice>], budget: usize) -> Option<Vec<usize>> {
    let mut best = vec![0.0; budget + 1];
    let mut picked: Vec<Vec<u32>> = Vec::with_capacity(choices.len());
    for layer in choices {
        let cell = |k: usize| {
            let fits = layer.iter().enumerate().filter(|(_, c)| c.units <= k);
            let cost = fits.map(|(i, c)| (c.distortion + best[k - c.units], i as u32));
            // Among equal costs the first, which prunes least.
            cost.fold((f64::INFINITY, 0), |a, b| if b.0 < a.0 { b } else { a })
        };
        let (next, pick): (Vec<f64>, Vec<u32>) = (0..=budget).into_par_iter().map(cell).unzip();
        best = next;
        picked.push(pick);
    }
    let mut left = budget;
    let mut chosen = vec![0; choices.len()];
    if !best[left].is_finite() {
        return None;
    }
    for l in (0..choices.len()).rev() {
        chosen[l] = picked[l][left] as usize;
        left -= choices[l][chosen[l]].units;
    }
    Some(chosen)
}

/// Gives the weights that rounding left over to the layers where one more gains most.
fn spend(keep: usize, kept: &mut [usize], choices: &[Vec<Choice>], chosen: &[usize], curves: &[Distortion]) {
    let gain = |l: usize| {
        let now = choices[l][chosen[l]];
        let denser = choices[l].iter().filter(|c| c.kept > now.kept);
        denser.map(|c| (now.distortion - c.distortion) / (c.kept - now.kept) as f64).fold(0.0, f64::max)
    };
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by(|a, b| gain(*b).total_cmp(&gain(*a)).then(a.cmp(b)));
    let mut left = keep - kept.iter().sum::<usize>();
    for l in order {
        let more = left.min(curves[l].weights - kept[l]);
        kept[l] += more;
        left -= more;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regrow_sparse_core::model::weight::Select;

    use super::*;
    use crate::testing::Chain;

    fn curve(name: &str, weights: usize, values: &[f64]) -> Distortion {
        Distortion { name: name.into(), weights, values: values.to_vec() }
    }

    fn pruned(budget: Budget, curves: &[Distortion]) -> Vec<usize> {
        let Budget::Explicit(shares) = budget else { panic!("a share for every layer") };
        curves.iter().map(|c| rounded(shares[&c.name], c.weights)).collect()
    }

    /// The least distortion of all combinations that keep at most `keep`.
    fn exhaustive(curves: &[Distortion], amounts: &[f64], keep: usize) -> f64 {
        let Some((first, rest)) = curves.split_first() else { return 0.0 };
        let mut worst = 0.0f64;
        let of = |(amount, value): (&f64, &f64)| {
            worst = worst.max(*value);
            let kept = first.weights - rounded(*amount, first.weights);
            if kept <= keep { worst + exhaustive(rest, amounts, keep - kept) } else { f64::INFINITY }
        };
        amounts.iter().zip(&first.values).map(of).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn by_hand_on_two_layers() {
        let amounts = grid(4, 1.0);
        let curves = [curve("a", 100, &[0.0, 1.0, 2.0, 3.0, 4.0]), curve("b", 100, &[0.0, 0.1, 0.2, 0.3, 9.0])];
        assert_eq!(pruned(allocate(&curves, &amounts, 0.5, 1000).unwrap(), &curves), [25, 75]);
        assert_eq!(pruned(allocate(&curves, &amounts, 0.37, 1000).unwrap(), &curves), [0, 74]);
        assert_eq!(pruned(allocate(&curves, &amounts, 0.0, 1000).unwrap(), &curves), [0, 0]);
    }

    #[test]
    fn equal_convex_layers_share_equally_and_a_factor_changes_nothing() {
        let amounts = grid(10, 1.0);
        let values: Vec<f64> = amounts.iter().map(|a| a * a).collect();
        let curves = ["a", "b", "c"].map(|name| curve(name, 200, &values));
        assert_eq!(pruned(allocate(&curves, &amounts, 0.6, 600).unwrap(), &curves), [120, 120, 120]);
        let scaled = curves.clone().map(|c| Distortion { values: c.values.iter().map(|v| v * 7.0).collect(), ..c });
        assert_eq!(allocate(&curves, &amounts, 0.35, 50).unwrap(), allocate(&scaled, &amounts, 0.35, 50).unwrap());
    }

    #[test]
    fn a_budget_that_the_amounts_cannot_meet_is_refused() {
        let curves = [curve("a", 100, &[0.0, 1.0])];
        let says = allocate(&curves, &[0.0, 0.5], 0.9, 100).unwrap_err().to_string();
        assert!(says.contains("as few as 10 of 100"), "{says}");
        assert!(allocate(&curves, &[0.0], 0.5, 100).is_err() && allocate(&[], &[], 0.5, 100).is_err());
    }

    #[test]
    fn distortion_of_a_chain_by_hand() {
        // y = 3 (x1 - 2 x2) on (1, 1) and (2, 0): -3 and 6; without the weight 1: -6 and 0.
        let chain = Chain::new(&[1.0, -2.0], 3.0);
        let device = chain.first.weight.val().device();
        let inputs = Tensor::<2>::from_data([[1.0f32, 1.0], [2.0, 0.0]], &device);
        let select = Select::default().with_head();
        let curves =
            distortions(&chain, &select, &[0.0, 0.5, 1.0], |m| m.forward(inputs.clone()), &mut |_| {}).unwrap();
        assert_eq!(curves[0].values, [0.0, (9.0 + 36.0) / 2.0, (9.0 + 36.0) / 2.0]);
        // Half of one weight is none (halves to even).
        assert_eq!(curves[1].values, [0.0, 0.0, (9.0 + 36.0) / 2.0]);
        assert!(distortions(&chain, &select, &[1.5], |m| m.forward(inputs.clone()), &mut |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn equals_the_exhaustive_search(
            raw in prop::collection::vec((1usize..30, prop::collection::vec(0u32..1000, 6)), 1..5), sparsity in 0.0f64..0.99,
        ) {
            let amounts = grid(5, 1.0);
            let named = |(i, (weights, values)): (usize, &(usize, Vec<u32>))| {
                let mut values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
                values[0] = 0.0;
                curve(&format!("layer{i}"), *weights, &values)
            };
            let curves: Vec<Distortion> = raw.iter().enumerate().map(named).collect();
            let total: usize = curves.iter().map(|c| c.weights).sum();
            let keep = total - rounded(sparsity, total);
            let choices: Vec<Vec<Choice>> = curves.iter().map(|c| choices(c, &amounts, 1)).collect();
            let chosen = solve(&choices, keep).unwrap();
            let cost: f64 = choices.iter().zip(&chosen).map(|(c, i)| c[*i].distortion).sum();
            prop_assert!((cost - exhaustive(&curves, &amounts, keep)).abs() < 1e-9);
            let pruned = pruned(allocate(&curves, &amounts, sparsity, total).unwrap(), &curves);
            prop_assert_eq!(pruned.iter().sum::<usize>(), rounded(sparsity, total));
        }
    }
}
