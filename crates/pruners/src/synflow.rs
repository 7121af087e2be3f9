//! SynFlow: pruning without data that never cuts a network through (Tanaka et al., arXiv 2006.05467).
//!
//! With every parameter and statistic replaced by its absolute value and an input of ones, `R` is the
//! sum of the outputs and `score = |w| * dR/d|w|` (eq. 4 and 5). In round `k` of `n` the density goes
//! to `d^(k/n)`, all layers together, and the scores are computed anew on what is left (algorithm 1).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::gradients::{gradient, times, with_fixed_statistics};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::score::Recipe;
use regrow_sparse_core::model::weight::weights;
use regrow_sparse_core::{Error, MaskSet, Result, Schedule};

/// The paper's number of rounds.
pub const ROUNDS: usize = 100;

/// The masks of `model` at `sparsity` after `rounds` rounds; the model is left as it is.
///
/// `forward` maps an input of ones, in the shape of one example, to the outputs. Everything is
/// computed in f64 where the device has it (`R` of a deep network overflows f32) and divided by `R`,
/// so that the scores of a layer without bias sum to 1.
///
/// # Errors
/// No round, sparsity outside [0, 1), no `R` above zero, values beyond the range of the device's
/// floats, and whatever the recipe refuses.
pub fn synflow<M: Module, const I: usize, const O: usize>(
    model: &M,
    recipe: &Recipe,
    sparsity: f64,
    rounds: usize,
    example: [usize; I],
    forward: impl Fn(&M, Tensor<I>) -> Tensor<O>,
) -> Result<MaskSet> {
    if rounds == 0 {
        return Err(Error::Argument("SynFlow needs at least one round".into()));
    }
    let device = model.devices().into_iter().next().unwrap_or_default().inner().autodiff();
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let ones = Tensor::<I>::ones(example, &device).cast(dtype);
    let response = |m: &M| forward(m, ones.clone()).sum();
    let mut linear = linearized(model, dtype);
    let schedule = Schedule::new(Curve::Geometric, 0.0, sparsity, 0, 1, rounds)?;
    let mut masks = MaskSet::new();
    for round in 1..=rounds {
        let whole: f64 = response(&linear).into_scalar();
        if !whole.is_finite() || whole <= 0.0 {
            return Err(Error::Argument(format!(
                "SynFlow's R is {whole} in round {round}: the network is cut through, or its values overflow"
            )));
        }
        let weights = weights(&linear, &recipe.select)?;
        let slopes = gradient(&linear, &recipe.select, |m| response(m) / whole)?;
        masks = recipe.masks_of(&weights, times(&weights, slopes), schedule.sparsity(round))?;
        linear = apply_masks(linear, &masks, Gradient::Masked, Base::Zeroed)?;
    }
    Ok(masks)
}

/// A copy with every parameter and statistic replaced by its absolute value, batch norms fixed.
fn linearized<M: Module>(model: &M, dtype: DType) -> M {
    struct Absolute(DType);
    impl ModuleMapper for Absolute {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.abs().cast(self.0))
        }
    }
    // Through `valid`: clones of a module share the statistics of their batch norms.
    with_fixed_statistics(model.valid().map(&mut Absolute(dtype)).train())
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::Budget;
    use regrow_sparse_core::model::weight::Select;

    use super::*;
    use crate::testing::Chain;

    fn all() -> Recipe {
        Recipe::default().with_select(Select::default().with_head())
    }

    #[test]
    fn what_flows_into_a_neuron_flows_out_of_it() {
        let chain = Chain::new(&[1.0, -2.0, 0.5], -3.0);
        let linear = linearized(&chain, DType::F64);
        let ones = Tensor::<2>::ones([1, 3], &linear.first.weight.val().device()).cast(DType::F64);
        let slopes = gradient(&linear, &all().select, |m| m.forward(ones.clone()).sum()).unwrap();
        let scores = times(&weights(&linear, &all().select).unwrap(), slopes);
        // R = 3 (1 + 2 + 0.5), in every layer.
        assert_eq!(scores, [vec![3.0, 6.0, 1.5], vec![10.5]]);
    }

    #[test]
    fn a_single_path_is_never_cut() {
        let chain = Chain::new(&[1.0, -2.0, 0.5], 0.001);
        let masks = synflow(&chain, &all(), 0.5, 10, [1, 3], |m, x| m.forward(x)).unwrap();
        // Magnitude would take the bridge of 0.001 first.
        assert_eq!(masks.get("second.weight").unwrap().kept(), 1);
        assert_eq!(masks.get("first.weight").unwrap().to_bools(), [false, true, false]);
        assert_eq!(chain.first.weight.val().into_data().iter::<f32>().collect::<Vec<_>>(), [1.0, -2.0, 0.5]);
    }

    #[test]
    fn no_round_and_a_network_that_is_cut_through_are_refused() {
        let refused = |b, rounds, budget| {
            let recipe = all().with_budget(budget);
            let chain = Chain::new(&[1.0, -2.0, 0.5], b);
            synflow(&chain, &recipe, 0.75, rounds, [1, 3], |m, x| m.forward(x)).unwrap_err().to_string()
        };
        assert!(refused(1.0, 0, Budget::Global).contains("at least one round"));
        assert!(refused(0.0, 3, Budget::Global).contains("R is 0"));
    }
}
