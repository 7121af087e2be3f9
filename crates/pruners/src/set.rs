//! Sparse evolutionary training (SET; Mocanu et al., arXiv 1707.04780): sparse from the start.
//!
//! Every few steps each layer drops the fraction `zeta` of its weights with the smallest `|w|` and
//! grows as many at random places, from zero (algorithm 1; there the smallest positive and the
//! largest negative weights, which is the same by absolute value).

use burn::config::Config;
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow, random_growth};
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{MaskSet, Result};

use crate::moving::{Rhythm, fraction, sparse};

/// The settings of [`Set`].
#[derive(Config, Debug)]
pub struct SetConfig {
    /// The step after which masks stay fixed.
    pub until: usize,
    /// Steps between two updates.
    #[config(default = 100)]
    pub every: usize,
    /// `zeta`, the fraction of each layer's weights that moves.
    #[config(default = 0.3)]
    pub fraction: f64,
    /// The random seed.
    #[config(default = 0)]
    pub seed: u64,
}

impl SetConfig {
    /// Over the default selection of weights.
    ///
    /// # Errors
    /// If `every` is zero, `until` comes before the first update, or the fraction is outside [0, 1].
    pub fn init(&self) -> Result<Set> {
        let (rhythm, fraction) = (Rhythm::new(self.every, self.until)?, fraction(self.fraction)?);
        Ok(Set { rhythm, fraction, seed: self.seed, select: Select::default() })
    }
}

/// Drops the smallest, grows at random; every layer keeps its number of weights.
///
/// The model must have masks when training starts (the paper: random, Erdős–Rényi).
#[derive(Clone, Debug)]
pub struct Set {
    rhythm: Rhythm,
    fraction: f64,
    seed: u64,
    select: Select,
}

impl Set {
    /// Over another selection of weights.
    pub fn with_select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }
}

impl Pruner for Set {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if !self.rhythm.due(step) {
            return Ok(Change::None);
        }
        let weights = sparse(view.weights()?)?;
        let seed = mix(self.seed, step as u64);
        let moved = weights.iter().enumerate().map(|(layer, weight)| {
            let count = (self.fraction * weight.mask_or_dense().kept() as f64) as usize;
            let growth = random_growth(weight.values.len(), mix(seed, layer as u64));
            Ok((weight.path.clone(), drop_and_grow(weight, count, &growth, Candidates::Pruned)?))
        });
        Ok(Change::Masks(moved.collect::<Result<MaskSet>>()?))
    }

    fn select(&self) -> Select {
        self.select.clone()
    }
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::Mask;

    use super::*;
    use crate::testing::{Still, masks_over, weight};

    fn start() -> Still {
        let mut layer = weight("a", &[10, 10], |i| (i * 37 % 101) as f32 + 1.0);
        layer.mask = Some(Mask::from_fn([10, 10], |i| i % 4 == 0));
        Still(vec![layer])
    }

    #[test]
    fn layers_keep_their_counts_and_the_seed_decides() {
        let run =
            |seed| masks_over(&mut SetConfig::new(10).with_every(2).with_seed(seed).init().unwrap(), &mut start(), 20);
        let masks = run(1);
        assert_eq!(masks.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 3, 5, 7]);
        assert!(masks.iter().all(|(_, m)| m.weights() - m.pruned() == 25));
        assert_eq!(masks, run(1));
        assert_ne!(masks, run(2));
    }

    #[test]
    fn seven_of_25_move_and_the_largest_stay() {
        let before = start().0.remove(0);
        let after = masks_over(&mut SetConfig::new(2).with_every(1).init().unwrap(), &mut start(), 1).remove(0).1;
        let (old, new) = (before.mask_or_dense(), after.get("a").unwrap().clone());
        let stayed: Vec<f32> = (0..100).filter(|i| old.keeps(*i) && new.keeps(*i)).map(|i| before.values[i]).collect();
        let dropped: Vec<f32> =
            (0..100).filter(|i| old.keeps(*i) && !new.keeps(*i)).map(|i| before.values[i]).collect();
        assert_eq!((stayed.len(), dropped.len()), (18, 7));
        let least = stayed.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(dropped.iter().all(|w| *w <= least));
    }

    #[test]
    fn a_dense_model_is_refused() {
        let dense = &mut Still(vec![weight("a", &[4], |i| i as f32)]);
        let says = SetConfig::new(9).with_every(1).init().unwrap().update(0, dense).unwrap_err().to_string();
        assert!(says.contains("carries no mask"), "{says}");
        assert!(SetConfig::new(9).with_every(0).init().is_err() && SetConfig::new(5).with_every(10).init().is_err());
        assert!(SetConfig::new(9).with_every(1).with_fraction(1.5).init().is_err());
    }
}
