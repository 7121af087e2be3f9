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

use burn::config::Config;
use burn::optim::GradientsParams;
use nalgebra::{DMatrix, DVector};
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_train::classifier::Headed;

use crate::buffer::BufferPolicy;
use crate::memory::{self, Memory};
use crate::params::ParameterVector;
use crate::registry::{ANY_SCENARIO, MEMORY};
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

/// The ridge of the quadratic program.
const RIDGE: f64 = 1e-3;
/// Maximum number of rounds of active sets, which end by themselves except for rounding, and the relative rounding
/// error of a slope.
const ROUNDS: usize = 1000;
const ROUNDING: f64 = 1e-12;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "gem",
    summary: "a step must not raise the loss of any earlier task on its examples in memory",
    paper: "arXiv 1706.08840",
    needs: ANY_SCENARIO,
    params: &[
        MEMORY,
        Param {
            name: "margin",
            meaning: "least strength of each earlier task's gradient",
            default: "0.5",
            range: Range::NON_NEGATIVE,
        },
    ],
};

/// Settings of [`Gem`].
#[derive(Config, Debug, PartialEq)]
pub struct GemConfig {
    /// Examples kept.
    pub memory: usize,
    /// The paper's gamma: the minimum coefficient of each earlier task's gradient in a step that conflicts with one.
    #[config(default = 0.5)]
    pub margin: f64,
}

impl GemConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory holds nothing, or the margin is negative.
    pub fn init(&self) -> Result<Gem> {
        INFO.check("memory", self.memory)?;
        INFO.check("margin", self.margin)?;
        Ok(Gem { memory: Memory::new(self.memory)?, margin: self.margin })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        Ok(Self::new(params.count("memory")?).with_margin(params.real("margin")?))
    }
}

/// Gradient episodic memory; made by [`GemConfig::init`].
#[derive(Clone, Debug)]
pub struct Gem {
    memory: Memory,
    margin: f64,
}

/// Minimizes `1/2 v P v + q v` over `v >= margin`, for a positive definite `P`: by active sets (Lawson & Hanson,
/// Solving Least Squares Problems, ch. 23).
///
/// All coordinates are fixed at the margin first. The one with the steepest descent is freed, and all free ones move to
/// where their slopes are zero, or until one of them reaches the margin and is fixed again; this repeats while a slope
/// descends.
pub fn quadratic_program(p: &DMatrix<f64>, q: &DVector<f64>, margin: f64) -> DVector<f64> {
    let mut v = DVector::from_element(q.len(), margin);
    let mut free = Vec::new();
    for _ in 0..ROUNDS {
        let held = (0..q.len()).filter(|i| !free.contains(i)).map(|i| (i, descent(p, q, &v, i)));
        match held.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
            Some((steepest, descent)) if descent > ROUNDING => free.push(steepest),
            _ => break,
        }
        while let Some(wanted) = stationary(p, q, margin, &free) {
            let met = |(i, wanted): (&usize, &f64)| {
                (*wanted <= margin).then(|| (*i, (v[*i] - margin) / (v[*i] - wanted).max(f64::MIN_POSITIVE)))
            };
            let first = free.iter().zip(&wanted).filter_map(met).min_by(|(_, a), (_, b)| a.total_cmp(b));
            let (hit, step) = first.map_or((None, 1.0), |(i, step)| (Some(i), step));
            free.iter().zip(&wanted).for_each(|(i, wanted)| v[*i] += step * (wanted - v[*i]));
            let Some(hit) = hit else { break };
            v[hit] = margin;
            free.retain(|i| v[*i] > margin);
        }
    }
    v
}

/// How steeply the objective falls along coordinate `i`, relative to the size of the terms of its slope.
fn descent(p: &DMatrix<f64>, q: &DVector<f64>, v: &DVector<f64>, i: usize) -> f64 {
    let terms = || (0..v.len()).map(|j| p[(i, j)] * v[j]).chain([q[i]]);
    -terms().sum::<f64>() / terms().map(f64::abs).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// The point where the slopes of all `free` coordinates are zero while the others are fixed at the margin; `None` if
/// none is free, or if numbers are not finite.
fn stationary(p: &DMatrix<f64>, q: &DVector<f64>, margin: f64, free: &[usize]) -> Option<DVector<f64>> {
    if free.is_empty() {
        return None;
    }
    let held = |i: usize| (0..q.len()).filter(|j| !free.contains(j)).map(|j| p[(i, j)] * margin).sum::<f64>();
    let right = DVector::from_fn(free.len(), |a, _| -q[free[a]] - held(free[a]));
    let left = p.select_rows(free).select_columns(free);
    let found = left.cholesky()?.solve(&right);
    found.iter().all(|v| v.is_finite()).then_some(found)
}

/// `g` changed so that it conflicts with none of `references`; unchanged if it conflicts with none.
pub fn project(g: &ParameterVector, references: &[ParameterVector], margin: f64) -> ParameterVector {
    let q = DVector::from_fn(references.len(), |i, _| references[i].dot(g));
    if q.iter().all(|along| *along >= 0.0) {
        return g.clone();
    }
    let p = gram(references);
    let v = quadratic_program(&p, &q, margin);
    references.iter().zip(&v).fold(g.clone(), |g, (reference, v)| g.plus(*v, reference))
}

/// Inner products of all pairs of `references`, with the ridge.
fn gram(references: &[ParameterVector]) -> DMatrix<f64> {
    let ridge = |i: usize, j: usize| if i == j { RIDGE } else { 0.0 };
    DMatrix::from_fn(references.len(), references.len(), |i, j| references[i].dot(&references[j]) + ridge(i, j))
}

impl<M: Headed> Strategy<M> for Gem {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &TaskContext<'_>) -> Result<GradientsParams> {
        let of = |task: usize| -> Vec<Example> {
            self.memory.kept().iter().map(|kept| kept.item.0).filter(|example| example.task == task).collect()
        };
        let reference = |examples: Vec<Example>| {
            let loss = at.cross_entropy(model.logits(at.images(&examples)), &examples).mean();
            ParameterVector::gradients(model, &GradientsParams::from_grads(loss.backward(), model))
        };
        let earlier = (0..at.task).map(of).filter(|examples| !examples.is_empty());
        let references: Vec<ParameterVector> = earlier.map(reference).collect();
        if references.is_empty() {
            return Ok(gradients);
        }
        let g = project(&ParameterVector::gradients(model, &gradients), &references, self.margin);
        Ok(g.into_gradients(model, &gradients))
    }

    fn end_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        memory::offer_task(&mut self.memory, BufferPolicy::ClassBalanced, at);
        Ok(model)
    }

    fn state(&self) -> State {
        memory::state(&self.memory)
    }

    fn restore(&mut self, state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        self.memory = memory::restored(self.memory.capacity(), state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regrow_sparse_core::Error;

    use super::*;
    use crate::testing::net;

    fn vector(numbers: [f32; 5]) -> ParameterVector {
        let [a, b, c, d, e] = numbers;
        ParameterVector::from_host(vec![vec![a, b], vec![c], vec![d], vec![e]], &net(2, 1, 1, 1)).unwrap()
    }

    #[test]
    fn by_hand() {
        // One reference: v = 1 / (1 + eps), the smallest value that removes the conflict.
        let (g, against) = (vector([1.0, -1.0, 0.0, 0.0, 0.0]), vector([0.0, 1.0, 0.0, 0.0, 0.0]));
        let found = project(&g, std::slice::from_ref(&against), 0.0).to_host();
        assert!((found[0][1] + 1.0 - 1.0 / 1.001).abs() < 1e-6 && found[0][0] == 1.0, "{found:?}");
        // At least the margin, even where less would do.
        let far = project(&g, &[against], 3.0).to_host();
        assert!((far[0][1] - 2.0).abs() < 1e-6, "{far:?}");
        let along = vector([1.0, -0.5, 0.0, 0.0, 0.0]);
        assert_eq!(project(&g, &[along], 0.5).to_host(), g.to_host(), "nothing is in the way");
        let config = GemConfig::new(9);
        for bad in [GemConfig::new(0), config.clone().with_margin(-0.1), config.with_margin(f64::NAN)] {
            assert!(matches!(bad.init(), Err(Error::InvalidParameter { .. })), "{bad}");
        }
    }

    /// Fails unless the result of `quadratic_program` satisfies the Kuhn-Tucker conditions, and that of `project`
    /// conflicts with no reference.
    fn check(g: [f32; 5], references: &[[f32; 5]]) {
        let (g, references) = (vector(g), references.iter().copied().map(vector).collect::<Vec<_>>());
        let (p, q) = (gram(&references), DVector::from_fn(references.len(), |i, _| references[i].dot(&g)));
        let v = quadratic_program(&p, &q, 0.0);
        let moved = project(&g, &references, 0.0);
        for (i, reference) in references.iter().enumerate() {
            // The slope is zero, or positive where v is at its bound.
            let slope = q[i] + p.row(i).tr_dot(&v);
            assert!(slope > -1e-9 && (v[i] == 0.0 || slope < 1e-9), "{slope} {v:?}");
            if q.iter().any(|along| *along < 0.0) {
                assert!(moved.dot(reference) >= -RIDGE * v[i] - 1e-4);
            }
        }
    }

    #[test]
    fn references_that_nearly_depend_on_each_other() {
        // Coordinate descent was 6e-6 away from the minimum here after 5000 rounds.
        let references = [
            [-0.7123702, 0.0, -0.16223678, -1.5732957, 0.0],
            [-1.8628728, -1.7025373, 1.4270787, -1.3684267, -0.8383037],
            [1.0115418, 0.08832741, -0.61425024, 1.2938793, -0.052431423],
            [0.0, 1.1381938, 0.5301671, 0.0, 0.89626026],
        ];
        check([0.0, 0.0, 0.0, 1.4916606, 0.0], &references);
        let twice = [[1.0, 0.0, 0.0, 0.0, 0.0]; 3];
        check([-1.0, 1.0, 0.0, 0.0, 0.0], &twice);
    }

    #[test]
    fn where_numbers_are_not_finite_or_nothing_is_asked_it_ends() {
        let of = |p: f64, q: f64| quadratic_program(&DMatrix::from_element(1, 1, p), &DVector::from_element(1, q), 0.5);
        assert_eq!(of(f64::NAN, -1.0), DVector::from_element(1, 0.5));
        assert!(quadratic_program(&DMatrix::zeros(0, 0), &DVector::zeros(0), 0.5).is_empty());
    }

    proptest! {
        #[test]
        fn no_reference_is_gone_against(
            g in prop::array::uniform5(-2.0f32..2.0),
            references in prop::collection::vec(prop::array::uniform5(-2.0f32..2.0), 1..9),
        ) {
            check(g, &references);
        }
    }
}
