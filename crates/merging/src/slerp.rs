//! Spherical linear interpolation between two tensors (Shoemake, SIGGRAPH 1985), as flat vectors:
//!
//! ```text
//! c = <W_0, W_1> / (|W_0| |W_1|)        theta = arccos c
//! W = [sin((1-t) theta) W_0 + sin(t theta) W_1] / sin theta
//! W = (1-t) W_0 + t W_1                 where |c| > 0.9995
//! ```

use burn::config::Config;
use regrow_sparse_core::Result;

use crate::params::{MergeParams, check_fractions};
use crate::sums::{inner_products, weighted_sum};
use crate::tensors::{Operands, TensorMerge};

/// Cosines beyond which linear interpolation is used.
const COLLINEAR: f64 = 0.9995;
/// Vectors shorter than this have no direction: their inner product is not normalized.
const SHORT: f64 = 1e-8;

/// Settings of [`Slerp`].
#[derive(Config, Debug, PartialEq)]
pub struct SlerpConfig {
    /// The position on the arc: 0 is the first tensor, 1 the second.
    pub t: f64,
}

/// On the arc from the first model to the second; with one model, from the base to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slerp {
    t: f64,
}

impl SlerpConfig {
    /// The method.
    ///
    /// # Errors
    /// A `t` outside `[0, 1]`.
    pub fn init(&self) -> Result<Slerp> {
        check_fractions("t", &[self.t])?;
        Ok(Slerp { t: self.t })
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { t: params.number("t")? })
    }
}

impl TensorMerge for Slerp {
    fn name(&self) -> &'static str {
        "slerp"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let ends = match tensor.models(1) {
            Ok(one) => [tensor.base()?, one[0].values],
            Err(_) => tensor.models(2).map(|two| [two[0].values, two[1].values])?,
        };
        let products = inner_products(2, tensor.elements(), |i, k| ends[i][k]);
        let norm = |i: usize| match products[i][i].sqrt() {
            norm if norm > SHORT => norm,
            _ => 1.0,
        };
        let cosine = products[0][1] / (norm(0) * norm(1));
        let (first, second) = match cosine.abs() > COLLINEAR {
            true => (1.0 - self.t, self.t),
            false => {
                let angle = cosine.acos();
                (((1.0 - self.t) * angle).sin() / angle.sin(), (self.t * angle).sin() / angle.sin())
            }
        };
        Ok(weighted_sum(&[(first as f32, ends[0]), (second as f32, ends[1])]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, merge};

    fn at(t: f64) -> Slerp {
        SlerpConfig::new(t).init().unwrap()
    }

    #[test]
    fn halfway_between_right_angles() {
        let half = at(0.5);
        let wanted = [2f32.sqrt(), 0.5f32.sqrt()];
        close(&merge(&half, None, &[&[2.0, 0.0], &[0.0, 1.0]]), &wanted, 1e-5);
        close(&merge(&half, Some(&[2.0, 0.0]), &[&[0.0, 1.0]]), &wanted, 1e-5);
    }

    #[test]
    fn the_ends_are_the_models_and_the_straight_line_is_taken_where_there_is_no_arc() {
        let (a, b): (&[f32], &[f32]) = (&[1.0, 2.0, -1.0], &[0.5, -1.0, 3.0]);
        close(&merge(&at(0.0), None, &[a, b]), a, 1e-6);
        close(&merge(&at(1.0), None, &[a, b]), b, 1e-6);
        close(&merge(&at(0.25), None, &[a, &[2.0, 4.0, -2.0]]), &[1.25, 2.5, -1.25], 1e-6);
        close(&merge(&at(0.5), None, &[&[1.0], &[-3.0]]), &[-1.0], 1e-6);
        close(&merge(&at(0.5), None, &[&[0.0; 2], &[0.0; 2]]), &[0.0; 2], 1e-6);
    }

    #[test]
    fn two_ends_and_a_place_between_them() {
        assert!(SlerpConfig::new(1.5).init().is_err() && SlerpConfig::new(f64::NAN).init().is_err());
        let three = crate::testing::try_merge(&at(0.5), None, &[&[1.0], &[1.0], &[1.0]]);
        assert!(three.unwrap_err().to_string().contains("3 models"));
    }
}
