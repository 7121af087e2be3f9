//! How LAMP's authors share weights among layers, and how we do.
#![allow(clippy::unwrap_used)]

use regrow_sparse_core::Budget;
use regrow_sparse_core::mask::budget::{Allocate, Layer};
use regrow_sparse_core::model::evidence::Evidence;
use serde_json::Value;

/// Their f32 sums and their strict thresholds may move single weights between layers.
const LAMP_SLACK: usize = 1;
/// They prune `round(amount * n)` in each layer, so that the total is off; ours is exact.
const ERK_SLACK: usize = 1;

#[test]
fn lamp_and_erk_keep_as_many_as_the_authors() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/budgets.json")).unwrap();
    let read = |name: &str| -> (Vec<usize>, Vec<f32>) {
        let shape = fixture["shapes"][name].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize);
        let values = fixture["weights"][name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().abs() as f32);
        (shape.collect(), values.collect())
    };
    let names = ["0.weight", "1.weight", "2.weight"];
    let tensors = names.map(read);
    let layers: Vec<Layer<'_>> =
        names.iter().zip(&tensors).map(|(name, (shape, scores))| Layer::new(name, shape, scores)).collect();
    for (key, budget, slack) in [("lamp", Budget::Lamp, LAMP_SLACK), ("erk", Budget::Erk, ERK_SLACK)] {
        for (sparsity, kept) in fixture[key].as_object().unwrap() {
            let pruned = budget.allocate(&layers, &Evidence::NONE, sparsity.parse().unwrap()).unwrap();
            for ((layer, pruned), kept) in layers.iter().zip(pruned).zip(kept.as_array().unwrap()) {
                let (ours, theirs) = (layer.len() - pruned, kept.as_u64().unwrap() as usize);
                assert!(ours.abs_diff(theirs) <= slack, "{key} at {sparsity}, {}: {ours}, {theirs}", layer.name);
            }
        }
    }
}
