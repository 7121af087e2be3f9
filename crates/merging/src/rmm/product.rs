//! By product: `x_i` is `D_i = L_i R_i`. No entry of it is ever formed.
//!
//! ```text
//! <D_i, D_j> = sum over a, b of (L_i^T L_j)_ab (R_i R_j^T)_ab       X^T X = V diag(S^2) V^T, n x n
//! basis      sum_i V_ik D_i, of rank n r, or truncated to a rank, its coefficients refitted
//! ```

use faer::Mat;
use regrow_sparse_core::Result;

use super::eigens::{Eigens, GramPreprocess};
use super::space::Bases;
use crate::low_rank::{LowRank, eigen};

/// The decomposition, and how the Gram matrix was prepared.
pub(super) fn eigens(models: &[LowRank], centred: bool, normalized: bool) -> Result<(GramPreprocess, Eigens)> {
    let n = models.len();
    let products = LowRank::gram(models)?;
    let before = GramPreprocess::new(n, centred, normalized, |i| products[(i, i)].max(0.0).sqrt());
    let mut gram: Vec<f64> = (0..n * n).map(|k| products[(k / n, k % n)]).collect();
    before.apply(&mut gram);
    let eigens = Eigens::of(&gram, n)?;
    Ok((before, eigens))
}

/// Basis models `sum_i V_ik D_i`, truncated if requested, and then the best-fitting coefficients.
pub(super) fn form(
    models: &[LowRank],
    before: &GramPreprocess,
    eigens: &Eigens,
    rank: Option<usize>,
    fitted: usize,
) -> Result<Bases> {
    let combined = |weights: &[f64]| {
        let sum = LowRank::sum(&weights.iter().copied().zip(models).collect::<Vec<_>>())?;
        rank.map_or(Ok(sum.clone()), |rank| sum.truncated(rank))
    };
    let share = 1.0 / models.len() as f64;
    let mean = before.centred.then(|| combined(&vec![share; models.len()])).transpose()?;
    let one = |k: usize| combined(&before.weights(eigens.vector(0, k)).collect::<Vec<_>>());
    let basis = (0..fitted).map(one).collect::<Result<Vec<_>>>()?;
    let coefficients = match rank {
        None => before.coefficients(eigens.first(0, fitted)).collect(),
        Some(_) => refitted(models, mean.as_ref(), &basis)?,
    };
    Ok(Bases::Products { mean, basis, coefficients })
}

/// The coefficients `[p, n]` of least squared error.
fn refitted(models: &[LowRank], mean: Option<&LowRank>, basis: &[LowRank]) -> Result<Vec<f32>> {
    let (p, n) = (basis.len(), models.len());
    if p == 0 {
        return Ok(Vec::new());
    }
    let (values, vectors) = {
        let gram = LowRank::gram(basis)?;
        eigen(&Mat::from_fn(p, p, |i, j| gram[(i, j)]))?
    };
    let mut coefficients = vec![0.0f32; p * n];
    for (i, model) in models.iter().enumerate() {
        let target = |b: &LowRank| Ok(b.dot(model)? - mean.map_or(Ok(0.0), |m| b.dot(m))?);
        let target = basis.iter().map(target).collect::<Result<Vec<f64>>>()?;
        for k in (0..p).filter(|k| values[*k] > 1e-12 * values[0]) {
            let along = (0..p).map(|a| vectors[(a, k)] * target[a]).sum::<f64>() / values[k];
            (0..p).for_each(|a| coefficients[a * n + i] += (along * vectors[(a, k)]) as f32);
        }
    }
    Ok(coefficients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_rank::tests::noise;
    use crate::rmm::testing::{by, dense_fit, models, near, total};
    use crate::rmm::{Granularity, Rmm, Space};

    #[test]
    fn products_equal_the_dense_svd() {
        let models = models(4);
        for p in 1..=3 {
            let space = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().space(p).unwrap();
            let dense = dense_fit(&models.iter().map(LowRank::dense).collect::<Vec<_>>(), p);
            for (task, dense) in dense.iter().enumerate() {
                near(&space.revert(task).unwrap().dense(), dense);
            }
        }
    }

    #[test]
    fn no_random_basis_is_better() {
        let models = models(4);
        let x = Mat::from_fn(12 * 9, 4, |l, i| f64::from(models[i].dense()[l]));
        let best = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().dropped();
        for (seed, p) in [(1, 1), (2, 2), (3, 3), (4, 2)] {
            let values = noise(12 * 9 * p, seed);
            let q = Mat::from_fn(12 * 9, p, |i, k| f64::from(values[i * p + k])).qr().compute_thin_Q();
            let rest = &x - &q * (q.transpose() * &x);
            assert!(rest.squared_norm_l2() >= best[p - 1]);
        }
    }

    #[test]
    fn truncated_basis_models_are_refitted() {
        let models = models(4);
        let error = |rank: usize, p: usize| {
            let rmm = by(Granularity::Product).with_rank(Some(rank)).init().unwrap();
            let space = rmm.solve(models.clone()).unwrap().space(p).unwrap();
            (total(&space, &models), space)
        };
        let whole = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().dropped();
        for p in 1..=3 {
            // A rank as large as that of all models together truncates nothing.
            assert!((error(9, p).0 - whole[p - 1]).abs() < 1e-4 * whole[0], "{p}");
            let (lost, space) = error(2, p);
            assert!(lost > whole[p - 1]);
            // Any other coefficients are worse.
            let Bases::Products { mean, basis, coefficients } = space.form.clone() else { panic!("products") };
            for i in 0..coefficients.len() {
                let mut moved = coefficients.clone();
                moved[i] += 0.05;
                let form = Bases::Products { mean: mean.clone(), basis: basis.clone(), coefficients: moved };
                assert!(total(&Space { models: 4, form }, &models) > lost);
            }
        }
    }
}
