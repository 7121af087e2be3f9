//! One network divided among tasks: a mask for each, and a copy of all parameters without a mask (biases, norms, the
//! head) at the end of each task. Shared by methods that isolate parameters.

use burn::module::ParamId;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::weight::{Select, Weight, stored};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Mask, MaskSet, Result};
use regrow_train::classifier::Headed;

use crate::params::{ParameterFlags, ParameterVector, numbers_from_state, numbers_to_state};

/// What is stored for each task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolation {
    /// Masks of linear and convolution weights, except the head.
    pub(crate) masks: Vec<MaskSet>,
    /// The values of all other parameters.
    pub(crate) own: Vec<Vec<Vec<f32>>>,
}

/// The weights that have masks.
pub(crate) fn select() -> Select {
    Select::default()
}

/// Whether a parameter is the head's.
pub(crate) fn is_head<M: Headed>(model: &M) -> impl Fn(ParamId) -> bool + use<M> {
    let head = model.head();
    let ids = [Some(head.weight.id), head.bias.as_ref().map(|b| b.id)];
    move |id| ids.contains(&Some(id))
}

/// The union of `masks`.
pub(crate) fn union(masks: &[MaskSet]) -> Result<Option<MaskSet>> {
    let Some((first, rest)) = masks.split_first() else { return Ok(None) };
    rest.iter().try_fold(first.clone(), |all, more| both(&all, more)).map(Some)
}

fn both(a: &MaskSet, b: &MaskSet) -> Result<MaskSet> {
    let missing = |path: &str| Error::tensor(path, "one task has a mask for it, another none");
    a.iter().map(|(path, mask)| Ok((path.to_string(), mask.or(b.get(path).ok_or_else(|| missing(path))?)?))).collect()
}

/// What `masks` do not keep.
pub(crate) fn inverted(masks: &MaskSet) -> MaskSet {
    masks.iter().map(|(path, mask)| (path.to_string(), mask.inverted())).collect()
}

/// Masks that keep all weights of `model`, or none.
pub(crate) fn uniform<M: Headed>(model: &M, kept: bool) -> Result<MaskSet> {
    let weights = stored(model, &select())?.into_iter();
    Ok(weights.map(|w| (w.path, Mask::from_fn(w.shape, |_| kept))).collect())
}

impl Isolation {
    /// `model` for a task: the weights of `mask`, and `own`.
    pub(crate) fn task_model<M: Headed>(&self, model: &M, mask: &MaskSet, own: &[Vec<f32>]) -> Result<M> {
        let flags = ParameterFlags::kept(model, mask, &|_| false)?;
        let model = ParameterVector::of(model).with_outside(&flags, own).put(model.clone());
        apply_masks(model, mask, Gradient::Masked, Base::Kept)
    }

    /// Stores the parameters of `model` that have no mask.
    pub(crate) fn record_task<M: Headed>(&mut self, model: &M) -> Result<()> {
        let flags = ParameterFlags::kept(model, &uniform(model, true)?, &|_| true)?;
        self.own.push(ParameterVector::of(model).outside(&flags));
        Ok(())
    }

    /// How many numbers this takes: masks at one bit per weight, 32 to a number.
    pub(crate) fn added(&self) -> usize {
        let bits: usize = self.masks.iter().map(MaskSet::weights).sum();
        bits.div_ceil(32) + self.own.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// To resume a run: masks as bits, 64 to a number, and the tensors of `own`, task by task.
    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        state.set_integer("masked_tasks", self.masks.len() as u64);
        state.set_integer("ended_tasks", self.own.len() as u64);
        for (task, masks) in self.masks.iter().enumerate() {
            let mut bits = State::default();
            masks.iter().for_each(|(path, mask)| bits.set_integers(path, mask.words().to_vec()));
            state.set_nested(&format!("mask.{task}"), bits);
        }
        for (task, own) in self.own.iter().enumerate() {
            state.set_nested(&format!("own.{task}"), numbers_to_state(own));
        }
        state
    }

    /// Restored from [`Isolation::state`]; empty for an empty state.
    pub(crate) fn restored<M: Headed>(mut state: State, model: &M) -> Result<Self> {
        if state.is_empty() {
            return Ok(Self::default());
        }
        let weights = stored(model, &select())?;
        let others = ParameterFlags::kept(model, &uniform(model, true)?, &|_| true)?.outside();
        let (masked, ended) = (state.integer("masked_tasks")?, state.integer("ended_tasks")?);
        let mut masks = |task: u64| -> Result<MaskSet> {
            let mut bits = state.take_nested(&format!("mask.{task}"));
            let one =
                |w: &Weight| Ok((w.path.clone(), Mask::from_words(w.shape.clone(), bits.take_integers(&w.path)?)?));
            weights.iter().map(one).collect()
        };
        let masks = (0..masked).map(&mut masks).collect::<Result<Vec<_>>>()?;
        let mut own = |task: u64| -> Result<Vec<Vec<f32>>> {
            let own = numbers_from_state(state.take_nested(&format!("own.{task}")))?;
            match own.len() == others {
                true => Ok(own),
                false => {
                    let (expected, got) = (vec![others], vec![own.len()]);
                    Err(Error::ShapeMismatch { tensor: format!("own.{task}"), expected, got })
                }
            }
        };
        let own = (0..ended).map(&mut own).collect::<Result<_>>()?;
        Ok(Self { masks, own })
    }
}

/// Values of a model that must not change.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    /// True where a value may change.
    pub(crate) free: ParameterFlags,
    /// The values of the others.
    pub(crate) values: ParameterVector,
}

impl Frozen {
    /// `model` with the frozen numbers set back.
    pub(crate) fn hold<M: Headed>(&self, model: M) -> M {
        ParameterVector::of(&model).or_else(&self.free, &self.values).put(model)
    }
}
