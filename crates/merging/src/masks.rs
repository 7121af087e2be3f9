//! How a merge treats zeros of masked models.

use rayon::prelude::*;
use regrow_sparse_core::Result;

use crate::sums::PIECE;
use crate::tensors::Operands;

/// How zeros that the models have in common are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// They are merged like other values.
    #[default]
    Ignore,
    /// An entry that is zero in every model is zero in the result.
    Keep,
    /// As `Keep`, and models whose zeros differ in a tensor of two or more dimensions are rejected: their merge would
    /// be denser than each of them (SMS, arXiv 2306.16788).
    Same,
}

impl Masks {
    /// The words of a recipe.
    pub const WORDS: [(&'static str, Self); 3] = [("ignore", Self::Ignore), ("keep", Self::Keep), ("same", Self::Same)];

    /// Rejects tensors whose zeros differ if they must not.
    ///
    /// # Errors
    /// If zeros differ and the choice is [`Masks::Same`].
    pub fn check(self, tensor: &Operands<'_>) -> Result<()> {
        if self != Self::Same || tensor.shape().len() < 2 {
            return Ok(());
        }
        let models = tensor.all();
        let first = models[0];
        for other in &models[1..] {
            let differs = |(a, b): (&f32, &f32)| (*a == 0.0) != (*b == 0.0);
            if let Some(at) = first.values.iter().zip(other.values).position(differs) {
                let reason = format!(
                    "{} and {} have different masks, first at index {at}; their merge would be denser",
                    first.model, other.model
                );
                return Err(tensor.error(reason));
            }
        }
        Ok(())
    }

    /// Zeroes the entries of `merged` that must stay zero.
    pub fn apply(self, tensor: &Operands<'_>, merged: &mut [f32]) {
        if self == Self::Ignore {
            return;
        }
        merged.par_chunks_mut(PIECE).enumerate().for_each(|(piece, merged)| {
            for (k, value) in (piece * PIECE..).zip(merged) {
                if tensor.all().iter().all(|model| model.values[k] == 0.0) {
                    *value = 0.0;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Operand;

    #[test]
    fn common_zeros_stay_and_others_are_refused_if_asked() {
        let models = [Operand::new("a", &[0.0, 1.0, 0.0, 2.0]), Operand::new("b", &[0.0, 3.0, 1.0, -0.0])];
        let tensor = Operands::new("w", &[2, 2], None, &models).unwrap();
        let applied = |masks: Masks| {
            let mut merged = [9.0; 4];
            masks.apply(&tensor, &mut merged);
            merged
        };
        assert_eq!(applied(Masks::Ignore), [9.0; 4]);
        assert_eq!(applied(Masks::Keep), [0.0, 9.0, 9.0, 9.0]);
        assert!(Masks::Keep.check(&tensor).is_ok());
        let says = Masks::Same.check(&tensor).unwrap_err().to_string();
        assert!(says.contains("w: a and b have different masks, first at index 2"), "{says}");
        // Biases have no mask.
        let vector = Operands::new("b", &[4], None, &models).unwrap();
        assert!(Masks::Same.check(&vector).is_ok());
    }
}
