//! Shared by dynamic sparsity methods: when masks change, and a check that there is a mask.

use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{Error, Result};

/// After every `every`-th step, as long as fewer than `until` steps are done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    pub(crate) every: usize,
    pub(crate) until: usize,
}

impl Rhythm {
    /// # Errors
    /// If `every` is zero or `until` comes before the first update.
    pub(crate) fn new(every: usize, until: usize) -> Result<Self> {
        match (every, until) {
            (0, _) => Err(Error::Argument("masks need at least one step between updates".into())),
            (every, until) if until <= every => Err(Error::Argument(format!(
                "masks that move every {every} steps until step {until} never move: the end comes before the first update"
            ))),
            (every, until) => Ok(Self { every, until }),
        }
    }

    /// Whether masks change after step `step` (counted from 0).
    pub(crate) fn due(&self, step: usize) -> bool {
        (step + 1).is_multiple_of(self.every) && step + 1 < self.until
    }
}

/// Rejects a fraction outside [0, 1].
pub(crate) fn fraction(value: f64) -> Result<f64> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Error::Argument(format!("{value} is no fraction of a layer's weights: use 0 to 1"))),
    }
}

/// Rejects weights without a mask.
pub(crate) fn sparse(weights: Vec<Weight>) -> Result<Vec<Weight>> {
    match weights.iter().find(|w| w.mask.is_none()) {
        Some(dense) => Err(Error::tensor(
            &dense.path,
            "carries no mask: this method moves the weights of a sparse model, so prune it before training",
        )),
        None => Ok(weights),
    }
}
