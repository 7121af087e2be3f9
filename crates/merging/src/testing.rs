//! Tensors for the tests of the methods.

use regrow_sparse_core::Result;

use crate::tensors::{Operand, Operands, TensorMerge};

/// The merge of vectors named `m0`, `m1`, ...
pub(crate) fn try_merge(method: &dyn TensorMerge, base: Option<&[f32]>, models: &[&[f32]]) -> Result<Vec<f32>> {
    let names: Vec<String> = (0..models.len()).map(|i| format!("m{i}")).collect();
    let models: Vec<Operand<'_>> = names.iter().zip(models).map(|(name, values)| Operand::new(name, values)).collect();
    let shape = [models.first().map_or(0, |m| m.values.len())];
    method.merge(&Operands::new("w", &shape, base, &models)?)
}

pub(crate) fn merge(method: &dyn TensorMerge, base: Option<&[f32]>, models: &[&[f32]]) -> Vec<f32> {
    try_merge(method, base, models).unwrap()
}

pub(crate) fn close(found: &[f32], expected: &[f32], within: f32) {
    regrow_testing::assert_close(found, expected, within.into());
}

/// `n` numbers between -1 and 1 that differ by `seed`.
pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mixed = |i: usize| regrow_sparse_core::seed::mix(seed, i as u64) >> 40;
    (0..n).map(|i| mixed(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}
