//! Gradient episodic memory (Lopez-Paz & Ranzato, arXiv 1706.08840, eq. 11): a step must not raise the loss
//! of any earlier task on its examples in memory.
//!
//! ```text
//! G_k = gradient on the memory of task k;  g' = g                          if g . G_k >= 0 for all k
//! min over v >= margin  1/2 v (G G^T + eps I) v + (G g) v;  g' = g + G^T v     else
//! ```
//!
//! `margin` is the paper's gamma; `eps` is the authors' ridge of 0.001. Every step takes a gradient on the
//! memory of every earlier task. The memory is balanced by classes (the authors: the last examples of each
//! task).

use burn::optim::GradientsParams;
use regrow_sparse_core::Result;
use regrow_sparse_core::classifier::Headed;

use crate::buffer::Keeping;
use crate::distill::factor;
use crate::memory::{self, Memory};
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// The ridge of the quadratic program.
const RIDGE: f64 = 1e-3;
/// Most rounds of coordinate descent, and the movement at which it ends.
const ROUNDS: usize = 5000;
const STILL: f64 = 1e-12;

/// Gradient episodic memory.
#[derive(Clone, Debug)]
pub struct Gem {
    memory: Memory,
    margin: f64,
}

impl Gem {
    /// With a memory of `capacity` examples and a margin (the authors: 0.5).
    ///
    /// # Errors
    /// If it holds nothing, or the margin is negative.
    pub fn new(capacity: usize, margin: f64) -> Result<Self> {
        Ok(Self { memory: Memory::new(capacity)?, margin: factor(margin, "margin")? })
    }
}

/// What minimizes `1/2 v P v + q v` over `v >= margin`, for a positive definite `P`: coordinate descent.
pub fn program(p: &[Vec<f64>], q: &[f64], margin: f64) -> Vec<f64> {
    let mut v = vec![margin; q.len()];
    for _ in 0..ROUNDS {
        let mut moved = 0.0f64;
        for i in 0..v.len() {
            let others: f64 = (0..v.len()).filter(|j| *j != i).map(|j| p[i][j] * v[j]).sum();
            let best = (-(q[i] + others) / p[i][i]).max(margin);
            moved = moved.max((best - v[i]).abs());
            v[i] = best;
        }
        if moved <= STILL {
            break;
        }
    }
    v
}

/// `g` moved so that it goes against none of `references`; as it is if it goes against none.
pub fn project(g: &Vector, references: &[Vector], margin: f64) -> Vector {
    let q: Vec<f64> = references.iter().map(|reference| reference.dot(g)).collect();
    if q.iter().all(|along| *along >= 0.0) {
        return g.clone();
    }
    let products = |(i, a): (usize, &Vector)| {
        let ridge = |j: usize| if i == j { RIDGE } else { 0.0 };
        references.iter().enumerate().map(|(j, b)| a.dot(b) + ridge(j)).collect()
    };
    let p: Vec<Vec<f64>> = references.iter().enumerate().map(products).collect();
    let v = program(&p, &q, margin);
    references.iter().zip(v).fold(g.clone(), |g, (reference, v)| g.plus(v, reference))
}

impl<M: Headed> Strategy<M> for Gem {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &Stage<'_>) -> Result<GradientsParams> {
        let of = |task: usize| -> Vec<Example> {
            self.memory.kept().iter().map(|kept| kept.item.0).filter(|example| example.task == task).collect()
        };
        let reference = |examples: Vec<Example>| {
            let loss = at.cross_entropy(model.logits(at.images(&examples)), &examples).mean();
            Vector::gradients(model, &GradientsParams::from_grads(loss.backward(), model))
        };
        let earlier = (0..at.task).map(of).filter(|examples| !examples.is_empty());
        let references: Vec<Vector> = earlier.map(reference).collect();
        if references.is_empty() {
            return Ok(gradients);
        }
        let g = project(&Vector::gradients(model, &gradients), &references, self.margin);
        Ok(g.into_gradients(model, &gradients))
    }

    fn end(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        memory::offer_task(&mut self.memory, Keeping::ClassBalanced, at);
        Ok(model)
    }

    fn state(&self) -> Vec<Vec<f32>> {
        memory::state(&self.memory)
    }

    fn restore(&mut self, state: Vec<Vec<f32>>, _model: &M, _at: &Stage<'_>) -> Result<()> {
        self.memory = memory::restored(self.memory.capacity(), &state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::net;

    fn vector(numbers: [f32; 5]) -> Vector {
        let [a, b, c, d, e] = numbers;
        Vector::from_host(vec![vec![a, b], vec![c], vec![d], vec![e]], &net(2, 1, 1, 1)).unwrap()
    }

    #[test]
    fn by_hand() {
        // One reference: v = 1 / (1 + eps), the least that takes away what goes against it.
        let (g, against) = (vector([1.0, -1.0, 0.0, 0.0, 0.0]), vector([0.0, 1.0, 0.0, 0.0, 0.0]));
        let found = project(&g, std::slice::from_ref(&against), 0.0).to_host();
        assert!((found[0][1] + 1.0 - 1.0 / 1.001).abs() < 1e-6 && found[0][0] == 1.0, "{found:?}");
        // At least the margin, even where less would do.
        let far = project(&g, &[against], 3.0).to_host();
        assert!((far[0][1] - 2.0).abs() < 1e-6, "{far:?}");
        let along = vector([1.0, -0.5, 0.0, 0.0, 0.0]);
        assert_eq!(project(&g, &[along], 0.5).to_host(), g.to_host(), "nothing is in the way");
        assert!(Gem::new(9, -0.1).is_err() && Gem::new(0, 0.5).is_err() && Gem::new(9, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn no_reference_is_gone_against(
            g in prop::array::uniform5(-2.0f32..2.0),
            references in prop::collection::vec(prop::array::uniform5(-2.0f32..2.0), 1..5),
        ) {
            let (g, references) = (vector(g), references.into_iter().map(vector).collect::<Vec<_>>());
            let q: Vec<f64> = references.iter().map(|r| r.dot(&g)).collect();
            let p: Vec<Vec<f64>> = (0..q.len())
                .map(|i| (0..q.len()).map(|j| references[i].dot(&references[j]) + if i == j { RIDGE } else { 0.0 }).collect())
                .collect();
            let v = program(&p, &q, 0.0);
            let moved = project(&g, &references, 0.0);
            for (i, reference) in references.iter().enumerate() {
                // Kuhn and Tucker: the slope is zero, or positive where v is at its bound.
                let slope = q[i] + p[i].iter().zip(&v).map(|(p, v)| p * v).sum::<f64>();
                prop_assert!(slope > -1e-6 && (v[i] == 0.0 || slope < 1e-6), "{slope} {v:?}");
                if q.iter().any(|along| *along < 0.0) {
                    prop_assert!(moved.dot(reference) >= -RIDGE * v[i] - 1e-4);
                }
            }
        }
    }
}
