//! GraSP: keep the gradient flowing (Wang et al., arXiv 2002.07376).
//!
//! With `g = dL/dw` and `H` the Hessian, removing a weight changes the gradient's norm by
//! `S(w) = -w * (H g)` (eq. 8); the weights of largest `S` are removed. Ours, larger = kept:
//! `score = w * (H g) / (|sum over all| + 1e-10)`, at initialization.
//!
//! `H g` is a central difference of gradients, `(g(w + e g) - g(w - e g)) / (2 e)`, since Burn's
//! autodiff is of first order.

use burn::module::Module;
use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::model::gradients::{gradient, norm, shifted, times};
use regrow_sparse_core::model::weight::{Select, weights};

/// How far the difference reaches, as a fraction of the weights' norm.
const REACH: f64 = 1e-3;

/// The scores of the prunable weights of `model`, one list for each, for
/// [`Recipe::masks_of`](regrow_sparse_core::model::score::Recipe::masks_of).
///
/// `loss` is that of the scoring examples; the paper divides the logits by 200 first. It is called
/// three times and must be the same each time.
///
/// # Errors
/// If the model is on a device without gradients, or a weight or gradient is not finite.
pub fn grasp<M: Module>(model: &M, select: &Select, loss: impl Fn(&M) -> Tensor<1>) -> Result<Vec<Vec<f32>>> {
    let weights = weights(model, select)?;
    let first = gradient(model, select, &loss)?;
    let length = norm(first.iter());
    if length == 0.0 {
        return Ok(first);
    }
    let reach = REACH * norm(weights.iter().map(|w| &w.values)) / length;
    let ahead = gradient(&shifted(model.clone(), select, &first, reach)?, select, &loss)?;
    let behind = gradient(&shifted(model.clone(), select, &first, -reach)?, select, &loss)?;
    let product = ahead.into_iter().zip(behind).map(|(ahead, behind)| {
        let slope = |(a, b): (f32, f32)| ((f64::from(a) - f64::from(b)) / (2.0 * reach)) as f32;
        ahead.into_iter().zip(behind).map(slope).collect()
    });
    let mut scores = times(&weights, product.collect());
    let sum = scores.iter().flatten().map(|s| f64::from(*s)).sum::<f64>().abs() + 1e-10;
    scores.iter_mut().flatten().for_each(|s| *s = (f64::from(*s) / sum) as f32);
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chain;

    /// `y = b (a . x)`, `L = y^2 / 2`: with `s = a . x`, `dL/da = b^2 s x`, `dL/db = b s^2`, and
    /// `H g` follows by hand.
    #[test]
    fn equals_the_exact_hessian_product() {
        let (a, b, x) = ([0.5f64, -0.25], 1.5f64, [1.0f64, 2.0 / 3.0]);
        let chain = Chain::new(&a.map(|v| v as f32), b as f32);
        let input = x.map(|v| v as f32);
        let loss = |m: &Chain| m.output(&input).powf_scalar(2.0) * 0.5;
        let scores = grasp(&chain, &Select::default().with_head(), loss).unwrap();
        let s = a[0] * x[0] + a[1] * x[1];
        let (ga, gb) = (x.map(|x| b * b * s * x), b * s * s);
        let ds = ga[0] * x[0] + ga[1] * x[1];
        let ha: Vec<f64> = x.iter().map(|x| (2.0 * b * gb * s + b * b * ds) * x).collect();
        let hb = gb * s * s + 2.0 * b * s * ds;
        let raw = [a[0] * ha[0], a[1] * ha[1], b * hb];
        let sum = raw.iter().sum::<f64>().abs();
        // The difference of gradients makes more of what products are off.
        let roundoff = regrow_device::roundoff(&regrow_device::current());
        let tolerance = f64::from(20.0 * roundoff).max(2e-4);
        for (got, want) in scores.concat().iter().zip(raw) {
            assert!((f64::from(*got) - want / sum).abs() < tolerance, "{got} {}", want / sum);
        }
    }
}
