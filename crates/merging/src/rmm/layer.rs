//! By layer: `x_i` is the whole of `L_i`, or of `R_i`.
//!
//! ```text
//! X [m r, n] and X [d r, n]                       X^T X = V diag(S^2) V^T, n x n
//! ```

use regrow_sparse_core::Result;

use super::eigens::{Eigens, GramPreprocess};
use super::factor::Factor;
use crate::sums::gram;

/// The decomposition of all rows together.
pub(super) fn eigens(factor: &Factor<'_>, before: &GramPreprocess) -> Result<Eigens> {
    let n = factor.count();
    let mut gram = gram(&(0..n).map(|model| factor.values(model)).collect::<Vec<_>>());
    before.apply(&mut gram);
    Eigens::of(&gram, n)
}

#[cfg(test)]
mod tests {
    use crate::rmm::testing::{dense_fit, models, near};
    use crate::rmm::{Granularity, Rmm};

    #[test]
    fn whole_factors_equal_the_dense_svd() {
        let models = models(4);
        for p in 1..=3 {
            let space = Rmm::new(Granularity::Layer).solve(models.clone()).unwrap().space(p).unwrap();
            let left = dense_fit(&models.iter().map(|m| m.left().to_vec()).collect::<Vec<_>>(), p);
            let right = dense_fit(&models.iter().map(|m| m.right().to_vec()).collect::<Vec<_>>(), p);
            for task in 0..4 {
                near(space.revert(task).unwrap().left(), &left[task]);
                near(space.revert(task).unwrap().right(), &right[task]);
            }
        }
    }
}
