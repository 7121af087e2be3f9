//! GraSP: keep the gradient flowing (Wang et al., arXiv 2002.07376).
//!
//! With `g = dL/dw` and `H` the Hessian, removing a weight changes the gradient's norm by
//! `S(w) = -w * (H g)` (eq. 8); the weights of largest `S` are removed. Ours, larger = kept:
//! `score = w * (H g) / (|sum over all| + 1e-10)`. The paper: at initialization, logits divided by 200 first.

use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::score::{LayerView, Score};

/// How much the gradient's norm loses with each weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grasp;

impl Score for Grasp {
    fn name(&self) -> &'static str {
        "grasp"
    }

    fn needs(&self) -> Needs {
        Needs::HESSIAN_GRADIENT
    }

    fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>> {
        Ok(layer.values.iter().zip(evidence.hessian_gradient(layer)?).map(|(w, h)| w * h).collect())
    }

    fn normalize(&self, scores: &mut [Vec<f32>]) {
        let sum = scores.iter().flatten().map(|s| f64::from(*s)).sum::<f64>().abs() + 1e-10;
        scores.iter_mut().flatten().for_each(|s| *s = (f64::from(*s) / sum) as f32);
    }
}

#[cfg(test)]
mod tests {
    use regrow_testing::assert_close;

    use super::*;
    use crate::testing::{Chain, scores};

    /// `y = b (a . x)`, `L = y^2 / 2`: with `s = a . x`, `dL/da = b^2 s x`, `dL/db = b s^2`, and
    /// `H g` follows by hand.
    #[test]
    fn equals_the_exact_hessian_product() {
        let (a, b, x) = ([0.5f64, -0.25], 1.5f64, [1.0f64, 2.0 / 3.0]);
        let chain = Chain::new(&a.map(|v| v as f32), b as f32);
        let input = x.map(|v| v as f32);
        let scores = scores(&chain, &Grasp, move |m: &Chain| m.output(&input).powf_scalar(2.0) * 0.5).unwrap();
        let s = a[0] * x[0] + a[1] * x[1];
        let (ga, gb) = (x.map(|x| b * b * s * x), b * s * s);
        let ds = ga[0] * x[0] + ga[1] * x[1];
        let ha: Vec<f64> = x.iter().map(|x| (2.0 * b * gb * s + b * b * ds) * x).collect();
        let hb = gb * s * s + 2.0 * b * s * ds;
        let raw = [a[0] * ha[0], a[1] * ha[1], b * hb];
        let sum = raw.iter().sum::<f64>().abs();
        // The difference of gradients amplifies the error of products.
        let roundoff = regrow_device::roundoff(&regrow_device::current());
        assert_close(&scores.concat(), &raw.map(|r| r / sum), f64::from(20.0 * roundoff).max(2e-4));
    }
}
