//! SynFlow: pruning without data that never removes a whole layer (Tanaka et al., arXiv 2006.05467).
//!
//! With every parameter and statistic replaced by its absolute value and an input of ones, `R` is the sum of the
//! outputs and `score = |w| * dR/d|w|` (eq. 4 and 5). In round `k` of `n` the density goes to `d^(k/n)`, all layers
//! together, and the scores are recomputed on the remaining weights (algorithm 1): `OneShot::new(SynFlow,
//! sparsity)?.with_rounds(synflow::ROUNDS)?`.

use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::score::{LayerView, Score};

/// The paper's number of rounds.
pub const ROUNDS: usize = 100;

/// The flow through each weight, divided by `R`, so that the scores of a layer without bias sum to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct SynFlow;

impl Score for SynFlow {
    fn name(&self) -> &'static str {
        "synflow"
    }

    fn needs(&self) -> Needs {
        Needs::SYNAPTIC_FLOW
    }

    fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>> {
        Ok(layer.values.iter().zip(evidence.synaptic_flow(layer)?).map(|(w, slope)| w.abs() * slope).collect())
    }
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::Budget;
    use regrow_sparse_core::model::probe::Probe;
    use regrow_sparse_core::model::recipe::Recipe;
    use regrow_sparse_core::model::score::scores;
    use regrow_sparse_core::model::weight::{Select, weights};

    use super::*;
    use crate::OneShot;
    use crate::testing::Chain;

    fn all() -> Recipe {
        Recipe::default().with_select(Select::default().with_head())
    }

    fn ones() -> Probe<Chain> {
        Probe::new().with_response([1, 3], |m: &Chain, x| m.forward(x))
    }

    #[test]
    fn what_flows_into_a_neuron_flows_out_of_it() {
        let chain = Chain::new(&[1.0, -2.0, 0.5], -3.0);
        let evidence = ones().evidence(&chain, &all().select, &SynFlow.needs()).unwrap();
        let scores = scores(&weights(&chain, &all().select).unwrap(), &SynFlow, &evidence).unwrap();
        // R = 3 (1 + 2 + 0.5) in every layer, of which these are the shares.
        let share = |v: f32| (f64::from(v) / 10.5) as f32;
        regrow_testing::assert_close(&scores.concat(), &[share(3.0), share(6.0), share(1.5), 1.0], 1e-7);
    }

    #[test]
    fn a_single_path_is_never_cut() {
        let chain = Chain::new(&[1.0, -2.0, 0.5], 0.001);
        let rounds = OneShot::new(SynFlow, 0.5).unwrap().with_rounds(10).unwrap().with_recipe(all());
        let masks = rounds.masks(&chain, &ones()).unwrap();
        // Magnitude would prune the bridge of 0.001 first.
        assert_eq!(masks.get("second.weight").unwrap().kept(), 1);
        assert_eq!(masks.get("first.weight").unwrap().to_bools(), [false, true, false]);
        assert_eq!(chain.first.weight.val().into_data().iter::<f32>().collect::<Vec<_>>(), [1.0, -2.0, 0.5]);
    }

    #[test]
    fn a_network_that_is_cut_through_is_refused() {
        let recipe = all().with_budget(Budget::Global);
        let rounds = OneShot::new(SynFlow, 0.75).unwrap().with_rounds(3).unwrap().with_recipe(recipe);
        let says = rounds.masks(&Chain::new(&[1.0, -2.0, 0.5], 0.0), &ones()).unwrap_err().to_string();
        assert!(says.contains("R is 0"), "{says}");
    }
}
