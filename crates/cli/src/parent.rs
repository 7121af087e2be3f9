//! Whether a checkpoint looks like the one that another was fine-tuned from.

use regrow_checkpoint::{Checkpoint, Dtype, Entry};

use crate::error::{Error, Result};
use crate::text;

/// Cosine below which a base counts as unrelated: independently trained weights have cosines near 0, fine-tuned ones
/// near 1 with their parent's.
const STRANGER: f64 = 0.1;
/// Fine-tuning does not move weights by this many norms of the base.
const FAR: f64 = 2.0;
/// Values of a tensor that are compared: fewer would suffice to detect an unrelated base.
const LOOKED_AT: usize = 1 << 20;

/// Rejects a base that has little in common with `model`, judged by the largest matrix of both and the largest that is
/// not an embedding, which may be frozen.
pub fn check(base: &Checkpoint, name: &str, model: &Checkpoint) -> Result<()> {
    let floating = |entry: &&Entry| matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
    let common = |entry: &&Entry| model.entry(&entry.name).is_ok_and(|own| own.shape == entry.shape);
    let matrices = base.entries().iter().filter(|entry| entry.shape.len() > 1).filter(floating).filter(common);
    let largest = matrices.clone().max_by_key(|entry| entry.elements());
    let within = matrices.filter(|entry| !text::is_embedding(&entry.name)).max_by_key(|entry| entry.elements());
    for entry in largest.into_iter().chain(within.filter(|within| largest.is_some_and(|l| l.name != within.name))) {
        let reason = match Likeness::of(&base.values(&entry.name)?, &model.values(&entry.name)?) {
            Likeness { cosine, .. } if cosine < STRANGER => {
                format!("the cosine of their {} is {cosine:.3}", entry.name)
            }
            Likeness { far, .. } if far > FAR => format!("their {} differ by {far:.1} times its norm", entry.name),
            _ => String::new(),
        };
        [base, model].iter().for_each(|checkpoint| checkpoint.release(&entry.name));
        if !reason.is_empty() {
            let path = base.path().display();
            let but = "--any-base goes on all the same";
            return Err(Error::Argument(format!("{path}: does not look like the parent of {name}: {reason} ({but})")));
        }
    }
    Ok(())
}

/// How similar two tensors are.
struct Likeness {
    cosine: f64,
    /// The norm of their difference over that of the first.
    far: f64,
}

impl Likeness {
    fn of(base: &[f32], model: &[f32]) -> Self {
        let count = base.len().min(model.len()).min(LOOKED_AT);
        let (mut cross, mut own, mut other) = (0.0f64, 0.0f64, 0.0f64);
        for (b, m) in base[..count].iter().zip(&model[..count]) {
            let (b, m) = (f64::from(*b), f64::from(*m));
            (cross, own, other) = (cross + b * m, own + b * b, other + m * m);
        }
        // Zeros tell nothing, and NaN is reported elsewhere.
        if !(own > 0.0 && other > 0.0) {
            return Self { cosine: 1.0, far: 0.0 };
        }
        Self { cosine: cross / (own * other).sqrt(), far: ((own - 2.0 * cross + other).max(0.0) / own).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_and_unlike() {
        let like = Likeness::of(&[3.0, 4.0], &[3.0, 4.5]);
        assert!(like.cosine > 0.99 && (like.far - 0.1).abs() < 1e-12);
        assert_eq!(Likeness::of(&[1.0, 0.0], &[0.0, 1.0]).cosine, 0.0);
        assert!(Likeness::of(&[1.0, 0.0], &[4.0, 0.0]).far > FAR);
        let nothing = Likeness::of(&[0.0; 2], &[1.0, 2.0]);
        assert_eq!((nothing.cosine, nothing.far), (1.0, 0.0));
    }
}
