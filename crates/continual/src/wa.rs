//! Weight aligning (Zhao et al., arXiv 1911.07053): after each task the head's vectors of new classes are scaled to the
//! same mean length as those of old ones.
//!
//! ```text
//! L = (1 - lambda) CE + lambda KD        lambda = C_old / (C_old + C_new),  KD over old classes, T = 2
//! gamma = mean ||w_old|| / mean ||w_new||;  w_new <- gamma w_new                          after the task
//! ```
//!
//! Trained on the task's examples and herded exemplars together, without oversampling. Biases are not changed. The
//! paper's clipping of the head to non-negative weights ([`WaConfig::clipped`]) is off, as in public reimplementations.

use burn::config::Config;
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::distill::distillation;
use crate::exemplars::herd;
use crate::memory::{self, Memory};
use crate::registry::{CLASS_SCENARIO, MEMORY};
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

const TEMPERATURE: f64 = 2.0;

/// Mean lengths of a head's vectors, and the factor that made them equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// Mean length of old classes.
    pub old: f64,
    /// Mean length of new classes, before.
    pub new: f64,
    /// The factor of the new vectors; 1 if nothing was changed.
    pub gamma: f64,
}

/// Aligns the classes `old..all` of `head` with its first `old` classes; later ones are not changed.
///
/// Nothing is changed if the new vectors have no finite length above zero.
///
/// # Errors
/// If there are no old or no new classes, or the head has fewer.
pub fn align(head: &mut Linear, old: usize, all: usize) -> Result<Alignment> {
    let [_, classes] = head.weight.lazy_shape().dims::<2>();
    if old == 0 || old >= all || all > classes {
        let says = format!("{old} old of {all} classes cannot be aligned in a head of {classes}");
        return Err(Error::Argument(says));
    }
    let lengths = lengths(head);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (old_mean, new_mean) = (mean(&lengths[..old]), mean(&lengths[old..all]));
    let gamma = old_mean / new_mean;
    let gamma = if new_mean > 0.0 && gamma.is_finite() && gamma > 0.0 { gamma } else { 1.0 };
    let factors: Vec<f32> = (0..classes).map(|c| if (old..all).contains(&c) { gamma as f32 } else { 1.0 }).collect();
    let factors = TensorData::new(factors, [1, classes]);
    change(head, |w| {
        let factors = Tensor::<2>::from_data(factors, &w.device());
        w * factors
    });
    Ok(Alignment { old: old_mean, new: new_mean, gamma })
}

/// Replaces the head's weight by `f` of it, as a trainable leaf.
fn change(head: &mut Linear, f: impl FnOnce(Tensor<2>) -> Tensor<2>) {
    head.weight = head.weight.clone().map(|w| {
        let (tracked, wants) = (w.is_autodiff(), w.is_require_grad());
        let changed = f(w.inner());
        let changed = if tracked { Tensor::from_inner(changed) } else { changed };
        changed.set_require_grad(wants)
    });
}

/// The length of each class's vector, sums in f64.
pub fn lengths(head: &Linear) -> Vec<f64> {
    let [_, classes] = head.weight.lazy_shape().dims::<2>();
    let values: Vec<f32> = head.weight.val().into_data().iter::<f32>().collect();
    let mut squares = vec![0.0f64; classes];
    for row in values.chunks(classes) {
        squares.iter_mut().zip(row).for_each(|(s, w)| *s += f64::from(*w).powi(2));
    }
    squares.into_iter().map(f64::sqrt).collect()
}

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "wa",
    summary: "replay of exemplars with distillation; the head's vectors of new classes are made as long as old ones",
    paper: "arXiv 1911.07053",
    needs: CLASS_SCENARIO,
    params: &[
        MEMORY,
        Param {
            name: "distillation",
            meaning: "whether the network before the task is distilled",
            default: "true",
            range: Range::Flag,
        },
        Param {
            name: "alignment",
            meaning: "whether the head is aligned; if not, lengths are measured only",
            default: "true",
            range: Range::Flag,
        },
        Param {
            name: "only-shrinking",
            meaning: "align only where new vectors are longer than old ones (not in the paper)",
            default: "false",
            range: Range::Flag,
        },
        Param {
            name: "clipped",
            meaning: "keep the head's weights from going below zero",
            default: "false",
            range: Range::Flag,
        },
    ],
};

/// Settings of [`Wa`]: replay of exemplars with distillation and weight aligning. Each can be turned off.
#[derive(Config, Debug, PartialEq)]
pub struct WaConfig {
    /// Exemplars kept.
    pub memory: usize,
    /// Whether the network before the task is distilled.
    #[config(default = true)]
    pub distillation: bool,
    /// Whether the head is aligned. If not, lengths are only measured.
    #[config(default = true)]
    pub alignment: bool,
    /// Whether the head is aligned only after tasks whose vectors are longer than old ones, as some reimplementations
    /// do. The paper has no such condition.
    #[config(default = false)]
    pub only_shrinking: bool,
    /// Whether the head's weights are clipped at zero.
    #[config(default = false)]
    pub clipped: bool,
}

impl WaConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory holds nothing.
    pub fn init<M>(&self) -> Result<Wa<M>> {
        INFO.check("memory", self.memory)?;
        Ok(Wa { memory: Memory::new(self.memory)?, config: self.clone(), old: None, alignments: Vec::new() })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let config = Self::new(params.count("memory")?).with_distillation(params.flag("distillation")?);
        let config = config.with_alignment(params.flag("alignment")?).with_clipped(params.flag("clipped")?);
        Ok(config.with_only_shrinking(params.flag("only-shrinking")?))
    }
}

/// Weight aligning; made by [`WaConfig::init`].
#[derive(Clone, Debug)]
pub struct Wa<M> {
    memory: Memory,
    config: WaConfig,
    /// The network before the task.
    old: Option<M>,
    alignments: Vec<Alignment>,
}

impl<M> Wa<M> {
    /// The alignments after each task except the first.
    pub fn alignments(&self) -> &[Alignment] {
        &self.alignments
    }
}

/// The weight of old classes: `C_old / (C_old + C_new)`.
pub fn share(old: usize, new: usize) -> f64 {
    old as f64 / (old + new) as f64
}

impl<M: Headed> Strategy<M> for Wa<M> {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Class
    }

    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        let exemplars = self.memory.kept().iter().map(|k| k.item.0);
        at.stream.train(at.task).into_iter().chain(exemplars).collect()
    }

    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        self.old = (at.task > 0 && self.config.distillation).then(|| model.valid());
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        let images = at.images(batch);
        let logits = model.logits(images.clone());
        let losses = at.cross_entropy(logits.clone(), batch);
        let Some(old) = &self.old else { return Ok(losses) };
        let new = at.stream.classes_of(at.task);
        let lambda = share(new.start, new.len());
        let kept = distillation(old.logits(images.inner()), logits, 0..new.start, TEMPERATURE);
        Ok(losses * (1.0 - lambda) + kept * lambda)
    }

    fn after_step(&mut self, mut model: M, _batch: &[Example], _at: &TaskContext<'_>) -> Result<M> {
        if self.config.clipped {
            change(model.head_mut(), |w| w.clamp_min(0.0));
        }
        Ok(model)
    }

    fn end_task(&mut self, mut model: M, at: &TaskContext<'_>) -> Result<M> {
        if at.task > 0 {
            let (old, all) = (at.stream.seen(at.task - 1).end, at.stream.seen(at.task).end);
            let unaligned = model.head().clone();
            let found = align(model.head_mut(), old, all)?;
            if !self.config.alignment || self.config.only_shrinking && found.gamma > 1.0 {
                *model.head_mut() = unaligned;
            }
            self.alignments.push(found);
        }
        herd(&mut self.memory, &model, at)?;
        Ok(model)
    }

    fn added(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.num_params())
    }

    fn findings(&self) -> Vec<(String, f64)> {
        let Some(last) = self.alignments.last() else { return Vec::new() };
        let found = [("length of old classes", last.old), ("length of new classes", last.new), ("gamma", last.gamma)];
        found.map(|(name, value)| (name.into(), value)).into()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_nested("memory", memory::state(&self.memory));
        state.set_doubles("alignments", self.alignments.iter().flat_map(|a| [a.old, a.new, a.gamma]).collect());
        state
    }

    fn restore(&mut self, mut state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        let alignments = state.take_doubles("alignments")?;
        let one = |[old, new, gamma]: &[f64; 3]| Alignment { old: *old, new: *new, gamma: *gamma };
        self.alignments = alignments.as_chunks::<3>().0.iter().map(one).collect();
        self.memory = memory::restored(self.memory.capacity(), state.take_nested("memory"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use regrow_testing::assert_close;

    use super::*;
    use crate::testing::linear;

    /// `[in, out]` of the rows given as classes.
    fn head(classes: &[[f32; 2]]) -> Linear {
        let n = classes.len();
        let values = (0..2 * n).map(|i| classes[i % n][i / n]).collect();
        linear(2, n, values, vec![0.5; n])
    }

    fn values(head: &Linear) -> Vec<f32> {
        head.weight.val().into_data().iter().collect()
    }

    #[test]
    fn aligned_by_hand() {
        let mut h = head(&[[3.0, 4.0], [0.0, 3.0], [6.0, 8.0], [0.0, 6.0]]);
        let found = align(&mut h, 2, 4).unwrap();
        assert_eq!(found, Alignment { old: 4.0, new: 8.0, gamma: 0.5 });
        assert_eq!(values(&h), values(&head(&[[3.0, 4.0], [0.0, 3.0], [3.0, 4.0], [0.0, 3.0]])));
        assert_eq!(align(&mut h, 2, 4).unwrap().gamma, 1.0);
        assert_eq!(h.bias.as_ref().map(|b| b.val().into_data().iter::<f32>().sum::<f32>()), Some(2.0));
    }

    #[test]
    fn means_agree_and_the_scale_of_new_classes_does_not_matter() {
        let rows = [[0.3, -1.2], [2.0, 0.1], [0.7, 0.9], [-3.0, 1.0], [9.0, 9.0]];
        let mut a = head(&rows);
        align(&mut a, 2, 4).unwrap();
        let l = lengths(&a);
        assert!(((l[0] + l[1]) / (l[2] + l[3]) - 1.0).abs() < 1e-6);
        assert_eq!(values(&a)[4], 9.0, "a class to come stays");
        let mut b = head(&rows.map(|[x, y]| if x == 0.7 || x == -3.0 { [4.0 * x, 4.0 * y] } else { [x, y] }));
        align(&mut b, 2, 4).unwrap();
        assert_close(&values(&a), &values(&b), 1e-6);
    }

    #[test]
    fn what_cannot_be_aligned() {
        let mut h = head(&[[1.0, 0.0], [0.0, 0.0]]);
        let before = values(&h);
        assert_eq!(align(&mut h, 1, 2).unwrap().gamma, 1.0);
        assert_eq!(values(&h), before);
        assert!(align(&mut h, 0, 2).is_err() && align(&mut h, 2, 2).is_err() && align(&mut h, 1, 3).is_err());
        assert!((share(50, 10) - 0.8333).abs() < 1e-4 && share(0, 5) == 0.0);
    }
}
