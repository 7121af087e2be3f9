//! Wanda and SparseGPT against their authors' code, on the same weights and inputs.
#![allow(clippy::unwrap_used)]

use burn::module::ParamId;
use burn::tensor::{Tensor, TensorData};
use regrow_pruners::{SparseGptConfig, Wanda};
use regrow_sparse_core::Pattern;
use regrow_sparse_core::layerwise::{LayerSolver, LayerTarget, PrunedLayer};
use regrow_sparse_core::model::weight::Weight;
use regrow_testing::assert_close;
use serde_json::Value;

const ROWS: usize = 16;
const COLS: usize = 32;
const TWO_OF_FOUR: LayerTarget = LayerTarget { sparsity: 0.5, pattern: Pattern::NofM { n: 2, m: 4 } };

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn solve(fixture: &Value, solver: &dyn LayerSolver, goal: &LayerTarget) -> PrunedLayer {
    let device = regrow_device::current();
    let mut observer = solver.observe(COLS, &device);
    for sequence in fixture["inputs"].as_array().unwrap() {
        let values = numbers(sequence);
        let tokens = values.len() / COLS;
        observer.add(Tensor::from_data(TensorData::new(values, [tokens, COLS]), &device));
    }
    let values = numbers(&fixture["weights"]);
    let weight = Weight { path: "a".into(), id: ParamId::new(), shape: vec![ROWS, COLS], values, mask: None };
    observer.solve(&weight, goal).unwrap()
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/layerwise.json")).unwrap()
}

#[test]
fn wanda_keeps_the_same_weights() {
    let fixture = fixture();
    let half = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    for (key, goal) in [("wanda", half), ("wanda 2:4", TWO_OF_FOUR)] {
        let mask = solve(&fixture, &Wanda::default(), &goal).mask;
        let bits: String = mask.to_bools().iter().map(|keep| if *keep { '1' } else { '0' }).collect();
        assert_eq!(bits, fixture[key].as_str().unwrap(), "{key}");
    }
}

#[test]
fn sparsegpt_gives_the_same_weights() {
    let fixture = fixture();
    // Theirs prunes one weight more than half of each block of 16 x 8.
    let half = LayerTarget { sparsity: 65.0 / 128.0, pattern: Pattern::Unstructured };
    let solver = SparseGptConfig::new().with_block(8).init().unwrap();
    let roundoff = regrow_device::roundoff(&regrow_device::current());
    let tolerance = (4.0 * roundoff).max(1e-4);
    for (key, goal) in [("sparsegpt", half), ("sparsegpt 2:4", TWO_OF_FOUR)] {
        let PrunedLayer { mask, values } = solve(&fixture, &solver, &goal);
        let theirs = numbers(&fixture[key]);
        assert_close(&values.unwrap(), &theirs, f64::from(tolerance));
        assert_eq!(mask.to_bools(), theirs.iter().map(|w| *w != 0.0).collect::<Vec<_>>(), "{key}");
    }
}
