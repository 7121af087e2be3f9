//! Gradients outside of training, for scores that use the loss.

use std::collections::BTreeMap;

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use crate::model::weight::{Select, Slot, Weight, gradients, slots};
use crate::{Error, Result};

/// The gradients of `loss` at the prunable weights of `model`, one list for each, in their order.
///
/// The gradient of a masked weight is the one that its mask lets through.
///
/// # Errors
/// If the model is on a device without gradients, or one of them is missing, NaN or infinite.
pub fn gradient<M: Module>(model: &M, select: &Select, loss: impl Fn(&M) -> Tensor<1>) -> Result<Vec<Vec<f32>>> {
    if !model.devices().iter().all(burn::tensor::Device::is_autodiff) {
        let says = "scores from gradients need the model on a device with gradients (`device.autodiff()`)";
        return Err(Error::Argument(says.into()));
    }
    let grads = GradientsParams::from_grads(loss(model).backward(), model);
    gradients(model, select, &grads)
}

/// `model` with batch norms that use their running statistics without changing them, and without dropout, on any
/// device.
pub fn with_fixed_statistics<M: Module>(model: M) -> M {
    struct Fixed(Vec<String>);
    impl ModuleMapper for Fixed {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn map_flag(&mut self, param: Param<Flag>) -> Param<Flag> {
            match self.0.last().is_some_and(|name| name == "training") {
                true => param.with_value(false),
                false => param,
            }
        }
    }
    model.map(&mut Fixed(Vec::new()))
}

/// `model` with `by * direction` added to its prunable weights, one list for each, in their order.
///
/// # Errors
/// If there is not one number per weight.
pub fn shifted<M: Module>(model: M, select: &Select, direction: &[Vec<f32>], by: f64) -> Result<M> {
    let slots = slots(&model, select);
    if slots.len() != direction.len() {
        return Err(Error::Argument(format!("{} directions for {} weights", direction.len(), slots.len())));
    }
    let mut stored = BTreeMap::new();
    for (slot, values) in slots.iter().zip(direction) {
        stored.insert(slot.path.clone(), in_stored_order(slot, values)?);
    }
    Ok(model.map(&mut Shift { path: Vec::new(), stored, by }))
}

/// The Euclidean norm of all values together.
pub fn norm<'a>(values: impl Iterator<Item = &'a Vec<f32>>) -> f64 {
    values.flatten().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Each weight times the factor at its position.
pub fn times(weights: &[Weight], factors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let product = |(weight, factors): (&Weight, Vec<f32>)| -> Vec<f32> {
        weight.values.iter().zip(factors).map(|(w, f)| w * f).collect()
    };
    weights.iter().zip(factors).map(product).collect()
}

fn in_stored_order(slot: &Slot, values: &[f32]) -> Result<TensorData> {
    let len: usize = slot.stored.iter().product();
    if values.len() != len {
        return Err(Error::tensor(&slot.path, format!("has {len} weights, its direction {} numbers", values.len())));
    }
    Ok(TensorData::new(slot.to_stored(values.to_vec()), slot.stored.clone()))
}

struct Shift {
    path: Vec<String>,
    stored: BTreeMap<String, TensorData>,
    by: f64,
}

impl ModuleMapper for Shift {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(direction) = self.stored.remove(&self.path.join(".")) else { return param };
        let by = self.by;
        param.map(|tensor| {
            let direction = Tensor::<D>::from_data(direction, &tensor.device()).cast(tensor.dtype());
            let required = tensor.is_require_grad();
            let moved = tensor.detach() + direction * by;
            if required { moved.detach().require_grad() } else { moved }
        })
    }
}
