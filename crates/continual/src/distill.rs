//! Distillation from an earlier network: shared by methods that distil.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};

/// The distillation loss of each example, `[examples]` (Hinton et al., arXiv 1503.02531):
///
/// ```text
/// KD_b = - sum_{c in classes} p_T(old)_bc log p_T(new)_bc        p_T = softmax(logits / T) over `classes`
/// ```
///
/// There is no factor `T^2`. `old` and `new` are `[examples, classes]`; gradients reach `new` only.
pub fn distillation(old: Tensor<2>, new: Tensor<2>, classes: Range<usize>, temperature: f64) -> Tensor<1> {
    let part = |logits: Tensor<2>| logits.narrow(1, classes.start, classes.len()) / temperature;
    let targets = softmax(part(old.inner()), 1);
    (log_softmax(part(new), 1) * targets).sum_dim(1).squeeze_dim::<1>(1).neg()
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn logits(values: [f32; 6]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [2, 3]), &regrow_device::current().autodiff())
    }

    #[test]
    fn equal_logits_give_the_entropy_and_no_gradient() {
        let old = logits([1.0, -0.5, 9.0, 0.3, 0.2, -9.0]);
        let new = old.clone().detach().require_grad();
        let loss = distillation(old.clone(), new.clone(), 0..2, 2.0);
        let p = 1.0 / (1.0 + (-0.75f32).exp());
        let entropy = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let first: Vec<f32> = loss.to_data().iter().collect();
        assert!((first[0] - entropy).abs() < 1e-6);
        let gradient = new.grad(&loss.sum().backward()).expect("a gradient");
        assert!(gradient.abs().max().into_scalar::<f32>() < 1e-7);
    }
}
