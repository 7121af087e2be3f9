//! Any Burn optimizer, with the weights it updates and its state kept zero under the masks.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ParamGroup};
use burn::optim::{LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::model::masked::{Base, Gradient, factor};
use crate::model::weight::matching_slots;
use crate::model::weight::{Select, Slot, slots};
use crate::{MaskSet, Result};

/// The masks as the optimizer sees them: set new ones here whenever the model's masks change.
#[derive(Clone, Debug, Default)]
pub struct OptimizerMasks(Vec<(Slot, Handle)>);

impl OptimizerMasks {
    /// Sets new masks. At its next step the optimizer zeroes weights, gradients and state (momentum, moments) of
    /// everything they prune.
    ///
    /// # Errors
    /// If `model` has no such weights.
    pub fn set<M: Module>(&self, model: &M, masks: &MaskSet) -> Result<()> {
        matching_slots(model, masks)?;
        for (slot, handle) in &self.0 {
            let flags = masks.get(&slot.path).map(|mask| slot.pruned_flags(mask));
            handle.set(flags);
        }
        Ok(())
    }

    /// What the next step will zero, weights and state: everything pruned by masks that were set since the last step. A
    /// run that is saved between two steps must save it.
    pub fn pending(&self) -> MaskSet {
        let of = |(slot, handle): &(Slot, Handle)| {
            let flags = handle.lock();
            // Flags that the slot itself has made fit it.
            flags.cleared.as_ref().and_then(|cleared| Some((slot.path.clone(), slot.mask_of(cleared).ok()?)))
        };
        self.0.iter().filter_map(of).collect()
    }
}

/// What an optimizer does to a weight under a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrunedWeightUpdate {
    /// Weight, gradient and state (momentum, moments) are zero: a weight that grows back starts at zero.
    #[default]
    Zero,
    /// The weight stays unchanged, gradient and state are zero: a weight that grows back starts where it was.
    Frozen,
    /// Weight and state are updated as if there were no mask.
    Learning,
}

impl PrunedWeightUpdate {
    /// What applying a mask does to the stored weight.
    pub fn base(self) -> Base {
        if self == Self::Zero { Base::Zeroed } else { Base::Kept }
    }
}

/// `optimizer` for the whole of `model`, masked on the weights that `select` selects.
///
/// `gradient` is the gradient form of the model's masks (see [`Gradient`]), `under` what happens to pruned weights.
///
/// Gradient clipping, if wanted, is set on the result (`with_grad_clipping`); it then applies to the parameters without
/// a mask. Build it before training: the groups start without state.
pub fn masked_optimizer<M: Module, O: Optimizer>(
    model: &M,
    select: &Select,
    optimizer: O,
    gradient: Gradient,
    under: PrunedWeightUpdate,
) -> (ModuleOptimizer, OptimizerMasks) {
    let mut whole = ModuleOptimizer::from(optimizer.clone());
    let mut masks = Vec::new();
    let masked = if under == PrunedWeightUpdate::Learning { Vec::new() } else { slots(model, select) };
    for slot in masked {
        let handle = Handle::default();
        let masked = MaskedOptimizer { inner: optimizer.clone(), handle: handle.clone(), gradient, under };
        whole = whole.with_group(ParamGroup::from_ids(vec![slot.id]), masked, None);
        masks.push((slot, handle));
    }
    (whole, OptimizerMasks(masks))
}

/// What the optimizer of one parameter shares with the code that changes its mask.
#[derive(Clone, Debug, Default)]
struct Handle(Arc<Mutex<Flags>>);

#[derive(Debug, Default)]
struct Flags {
    pruned: Option<Vec<bool>>,
    /// The same on the device, created at the first step that needs it.
    ready: Option<Tensor<1, Bool>>,
    /// What was pruned at any time since the last step, if masks have changed: zeroed at the next step.
    cleared: Option<Vec<bool>>,
    /// Whether the inner optimizer moves weights whose gradient and state are zero.
    leaks: bool,
}

impl Handle {
    fn set(&self, pruned: Option<Vec<bool>>) {
        let mut flags = self.lock();
        flags.cleared = match (flags.cleared.take(), &pruned) {
            (Some(before), Some(now)) => Some(before.iter().zip(now).map(|(a, b)| *a || *b).collect()),
            (None, now) => now.clone(),
            (before, None) => before,
        };
        flags.pruned = pruned;
        flags.ready = None;
    }

    /// The flags for a tensor on `device`, and what to clear if they are new since the last call.
    fn take(&self, device: &Device) -> Option<(Tensor<1, Bool>, Option<Tensor<1, Bool>>)> {
        let upload = |flags: Vec<bool>| {
            let len = flags.len();
            Tensor::from_data(TensorData::new(flags, [len]), device)
        };
        let mut flags = self.lock();
        if flags.ready.as_ref().is_none_or(|ready| ready.device() != *device) {
            flags.ready = Some(upload(flags.pruned.clone()?));
        }
        let cleared = flags.cleared.take().map(upload);
        flags.ready.clone().map(|ready| (ready, cleared))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Flags> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One parameter's optimizer with its mask.
///
/// Zero weights with zero state and zero gradients stay zero under every elementwise optimizer, so weights and state
/// are masked only when the mask has changed, and gradients only if the model lets them through. An optimizer that
/// mixes entries (Muon) is detected at its first step under a new mask; its weights are masked at every step.
#[derive(Clone)]
struct MaskedOptimizer<O> {
    inner: O,
    handle: Handle,
    gradient: Gradient,
    under: PrunedWeightUpdate,
}

impl<O: Optimizer> Optimizer for MaskedOptimizer<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let Some((pruned, cleared)) = self.handle.take(&tensor.device()) else {
            return self.inner.step(lr, tensor, grad, state);
        };
        let pruned = pruned.reshape(tensor.shape());
        let cleared = cleared.map(|flags| flags.reshape(tensor.shape()));
        let grad = match self.gradient {
            Gradient::Dense => factor(pruned.clone(), &grad) * grad,
            Gradient::Masked => grad,
        };
        let state = match &cleared {
            Some(cleared) => state.and_then(|s| masked_state::<O, D>(s, cleared)),
            None => state,
        };
        if self.under == PrunedWeightUpdate::Frozen {
            let (moved, state) = self.inner.step(lr, tensor.clone(), grad, state);
            return (moved.mask_where(pruned, tensor), state);
        }
        let zero = |t: Tensor<D>| t.mask_fill(pruned.clone(), 0.0);
        let changed = cleared.is_some();
        let tensor = if changed { zero(tensor) } else { tensor };
        let (tensor, state) = self.inner.step(lr, tensor, grad, state);
        if changed {
            let under = tensor.clone().mask_fill(pruned.clone().bool_not(), 0.0).abs().max();
            self.handle.lock().leaks |= under.into_scalar::<f32>() != 0.0;
        }
        let leaks = self.handle.lock().leaks;
        (if leaks { zero(tensor) } else { tensor }, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}

/// `state` with every tensor of the parameter's shape masked; `None`, a fresh start, if it cannot be decomposed.
fn masked_state<O: Optimizer, const D: usize>(state: O::State<D>, pruned: &Tensor<D, Bool>) -> Option<O::State<D>> {
    let zero = |t: Tensor<D>| t.mask_fill(pruned.clone(), 0.0);
    let mut sink = StateSink::default();
    state.state_flatten("", &mut sink);
    let mut source = StateSource::new(sink.scalars.into_iter().collect());
    let device = pruned.device();
    for (name, data) in sink.tensors {
        let same_shape = data.shape().as_slice() == pruned.shape().as_slice();
        let data = if same_shape { zero(Tensor::from_data(data, &device)).into_data() } else { data };
        source.insert_tensor(name, data);
    }
    O::State::<D>::state_unflatten("", &mut source, &device)
}
