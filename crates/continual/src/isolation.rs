//! One network shared out among tasks: a mask for each, and whatever a mask cannot say (biases, norms,
//! the head) as the task left it. Shared by methods that isolate parameters.

use burn::module::ParamId;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::weight::{Select, stored};
use regrow_sparse_core::{Error, Mask, MaskSet, Result};
use regrow_train::classifier::Headed;

use crate::params::{Flags, Vector};

/// What each task has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolation {
    /// Masks of linear and convolution weights, the head apart.
    pub(crate) masks: Vec<MaskSet>,
    /// The numbers of all other parameters.
    pub(crate) own: Vec<Vec<Vec<f32>>>,
}

/// The weights that masks are about.
pub(crate) fn select() -> Select {
    Select::default()
}

/// Whether a parameter is the head's.
pub(crate) fn is_head<M: Headed>(model: &M) -> impl Fn(ParamId) -> bool + use<M> {
    let head = model.head();
    let ids = [Some(head.weight.id), head.bias.as_ref().map(|b| b.id)];
    move |id| ids.contains(&Some(id))
}

/// All that any of `masks` keeps.
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
    /// `model` as a task knows it: the weights of `mask`, and `own`.
    pub(crate) fn show<M: Headed>(&self, model: &M, mask: &MaskSet, own: &[Vec<f32>]) -> Result<M> {
        let flags = Flags::kept(model, mask, &|_| false)?;
        let model = Vector::of(model).with_outside(&flags, own).put(model.clone());
        apply_masks(model, mask, Gradient::Masked, Base::Kept)
    }

    /// Remembers what `model` has outside of masks.
    pub(crate) fn leave<M: Headed>(&mut self, model: &M) -> Result<()> {
        let flags = Flags::kept(model, &uniform(model, true)?, &|_| true)?;
        self.own.push(Vector::of(model).outside(&flags));
        Ok(())
    }

    /// How many numbers this takes: masks at a bit for each weight, 32 to a number.
    pub(crate) fn added(&self) -> usize {
        let bits: usize = self.masks.iter().map(MaskSet::weights).sum();
        bits.div_ceil(32) + self.own.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// For a run to be resumed: how many tasks have masks, masks as 0 and 1, then `own`.
    pub(crate) fn state(&self) -> Vec<Vec<f32>> {
        let bits = |mask: &Mask| mask.to_bools().into_iter().map(|k| if k { 1.0 } else { 0.0 }).collect();
        let masks = self.masks.iter().flat_map(|set| set.iter().map(|(_, mask)| bits(mask)).collect::<Vec<_>>());
        let own = self.own.iter().flatten().cloned();
        std::iter::once(vec![self.masks.len() as f32]).chain(masks).chain(own).collect()
    }

    /// Back from [`Isolation::state`].
    pub(crate) fn restored<M: Headed>(state: Vec<Vec<f32>>, model: &M) -> Result<Self> {
        let Some((count, rest)) = state.split_first() else { return Ok(Self::default()) };
        let weights = stored(model, &select())?;
        let others = Flags::kept(model, &uniform(model, true)?, &|_| true)?.outside();
        let count = count.first().map_or(0, |n| *n as usize);
        let foreign = || Error::Argument("a saved state belongs to another network".into());
        let (masks, own) = rest.split_at_checked(count * weights.len()).ok_or_else(foreign)?;
        if !own.len().is_multiple_of(others) {
            return Err(foreign());
        }
        let set = |bits: &[Vec<f32>]| -> MaskSet {
            let pairs = weights.iter().zip(bits);
            pairs.map(|(w, bits)| (w.path.clone(), Mask::from_fn(w.shape.clone(), |i| bits[i] != 0.0))).collect()
        };
        let masks = masks.chunks(weights.len()).map(set).collect();
        Ok(Self { masks, own: own.chunks(others).map(<[Vec<f32>]>::to_vec).collect() })
    }
}

/// Numbers of a model that must not move.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    /// True where a number may move.
    pub(crate) free: Flags,
    /// What the others are.
    pub(crate) values: Vector,
}

impl Frozen {
    /// `model` with the frozen numbers set back.
    pub(crate) fn hold<M: Headed>(&self, model: M) -> M {
        Vector::of(&model).or_else(&self.free, &self.values).put(model)
    }
}
