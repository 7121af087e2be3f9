//! Spherical linear interpolation between two tensors (Shoemake, SIGGRAPH 1985), as flat vectors:
//!
//! ```text
//! c = <W_0, W_1> / (|W_0| |W_1|)        theta = arccos c
//! W = [sin((1-t) theta) W_0 + sin(t theta) W_1] / sin theta
//! W = (1-t) W_0 + t W_1                 where |c| > 0.9995
//! ```

use regrow_sparse_core::{Error, Result};

use crate::sums::{inner_products, weighted_sum};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// Cosines beyond which the straight line is taken.
const COLLINEAR: f64 = 0.9995;
/// Vectors shorter than this have no direction: their inner product counts as it is.
const SHORT: f64 = 1e-8;

/// Between the first model and the second; with one model, between the base and it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slerp {
    t: f64,
}

impl Slerp {
    /// At `t`: 0 is the first tensor, 1 the second.
    ///
    /// # Errors
    /// A `t` outside `[0, 1]`.
    pub fn new(t: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&t) {
            true => Ok(Self { t }),
            false => Err(Error::Argument(format!("`t` of a spherical interpolation lies in [0, 1], not at {t}"))),
        }
    }

    /// From `t`.
    ///
    /// # Errors
    /// As [`Slerp::new`], or it is missing.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Self::new(parameters.required("t")?)
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
    use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

    use super::*;
    use crate::testing::{close, merge};

    #[test]
    fn halfway_between_right_angles() {
        let half = Slerp::new(0.5).unwrap();
        close(&merge(&half, None, &[&[2.0, 0.0], &[0.0, 1.0]]), &[SQRT_2, FRAC_1_SQRT_2], 1e-5);
        close(&merge(&half, Some(&[2.0, 0.0]), &[&[0.0, 1.0]]), &[SQRT_2, FRAC_1_SQRT_2], 1e-5);
    }

    #[test]
    fn the_ends_are_the_models_and_the_straight_line_is_taken_where_there_is_no_arc() {
        let (a, b): (&[f32], &[f32]) = (&[1.0, 2.0, -1.0], &[0.5, -1.0, 3.0]);
        close(&merge(&Slerp::new(0.0).unwrap(), None, &[a, b]), a, 1e-6);
        close(&merge(&Slerp::new(1.0).unwrap(), None, &[a, b]), b, 1e-6);
        close(&merge(&Slerp::new(0.25).unwrap(), None, &[a, &[2.0, 4.0, -2.0]]), &[1.25, 2.5, -1.25], 1e-6);
        close(&merge(&Slerp::new(0.5).unwrap(), None, &[&[1.0], &[-3.0]]), &[-1.0], 1e-6);
        close(&merge(&Slerp::new(0.5).unwrap(), None, &[&[0.0; 2], &[0.0; 2]]), &[0.0; 2], 1e-6);
    }

    #[test]
    fn two_ends_and_a_place_between_them() {
        assert!(Slerp::new(1.5).is_err() && Slerp::new(f64::NAN).is_err());
        let three = crate::testing::try_merge(&Slerp::new(0.5).unwrap(), None, &[&[1.0], &[1.0], &[1.0]]);
        assert!(three.unwrap_err().to_string().contains("3 models"));
    }
}
