//! Aligns the factors of all models: `L Q` and `Q^-1 R` are factors of the same `D_i`, and stacked factors depend on
//! the choice.
//!
//! ```text
//! balanced     D_i = U S V^T            L = U sqrt(S), R = sqrt(S) V^T
//! procrustes   L Q, Q^T R with the orthogonal Q of least ||L Q - L_0||^2 + ||Q^T R - R_0||^2
//!              L^T L_0 + R R_0^T = U S V^T, Q = U V^T
//! ```
//!
//! where `L_0 R_0` are the balanced factors of the models' mean.

use rayon::prelude::*;
use regrow_sparse_core::Result;

use super::settings::Align;
use crate::low_rank::{LowRank, diverged};

/// The factors of all models, aligned with `align`.
pub(super) fn aligned(models: Vec<LowRank>, align: Align) -> Result<Vec<LowRank>> {
    if align == Align::None {
        return Ok(models);
    }
    let rank = models.iter().map(LowRank::rank).max().unwrap_or(0);
    let balanced = |model: &LowRank| {
        let svd = model.svd()?;
        model.balanced(&svd.u, &svd.s, &svd.v, rank)
    };
    let all = models.par_iter().map(balanced).collect::<Result<Vec<_>>>()?;
    if align == Align::Balanced {
        return Ok(all);
    }
    let share = 1.0 / all.len() as f64;
    let mean = LowRank::sum(&all.iter().map(|m| (share, m)).collect::<Vec<_>>())?;
    let reference = mean.leading(rank)?;
    all.par_iter().map(|model| rotated(model, &reference)).collect()
}

/// `L Q` and `Q^T R` with the orthogonal `Q` that brings them nearest to those of `reference`.
fn rotated(model: &LowRank, reference: &LowRank) -> Result<LowRank> {
    let (left, right, r) = (model.left64(), model.right64(), model.rank());
    let cross = left.transpose() * reference.left64() + &right * reference.right64().transpose();
    let svd = cross.svd().map_err(|_| diverged(r, r))?;
    let rotation = svd.U() * svd.V().transpose();
    LowRank::of((&left * &rotation).as_ref(), (rotation.transpose() * &right).as_ref())
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::*;
    use crate::low_rank::tests::{noise, random};
    use crate::rmm::testing::{SHAPE, by, models, total};
    use crate::rmm::{Granularity, Rmm};

    #[test]
    fn alignment_forgets_how_the_product_was_split() {
        let models = models(3);
        // The same products from other factors: L Q and Q^-1 R.
        let split = |model: &LowRank, scale: f32| {
            let left = model.left().iter().map(|v| v * scale).collect();
            LowRank::new(left, model.right().iter().map(|v| v / scale).collect(), SHAPE).unwrap()
        };
        let other: Vec<LowRank> = models.iter().zip([1.0, 4.0, 0.1]).map(|(m, s)| split(m, s)).collect();
        let error = |rmm: Rmm, of: &[LowRank]| total(&rmm.solve(of.to_vec()).unwrap().space(1).unwrap(), &models);
        for align in [Align::Balanced, Align::Procrustes] {
            let rmm = by(Granularity::Layer).with_align(align).init().unwrap();
            assert!((error(rmm, &models) / error(rmm, &other) - 1.0).abs() < 1e-3);
        }
        let plain = Rmm::new(Granularity::Layer);
        assert!((error(plain, &models) / error(plain, &other) - 1.0).abs() > 0.1);
        // Procrustes recovers a common alignment that random rotations of the factors hide.
        let rotated = |model: &LowRank, seed: u64| {
            let values = noise(9, seed);
            let q = Mat::from_fn(3, 3, |i, k| f64::from(values[i * 3 + k])).qr().compute_thin_Q();
            let [m, r, d] = SHAPE;
            let left = (0..m * r)
                .map(|i| (0..r).map(|a| f64::from(model.left()[i / r * r + a]) * q[(a, i % r)]).sum::<f64>() as f32);
            let right = (0..r * d)
                .map(|i| (0..r).map(|a| f64::from(model.right()[a * d + i % d]) * q[(a, i / d)]).sum::<f64>() as f32);
            LowRank::new(left.collect(), right.collect(), SHAPE).unwrap()
        };
        let hidden: Vec<LowRank> = (0..3).map(|i| rotated(&random(SHAPE, 5), i)).collect();
        let error = |rmm: Rmm| {
            let space = rmm.solve(hidden.clone()).unwrap().space(1).unwrap();
            total(&space, &hidden) / hidden.iter().map(LowRank::squared_norm).sum::<f64>()
        };
        let procrustes = by(Granularity::Layer).with_align(Align::Procrustes);
        assert!(error(plain) > 0.05 && error(procrustes.init().unwrap()) < 1e-9);
    }
}
