//! Flags for the values of a module's parameters: which may change, which have a mask.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use regrow_sparse_core::model::weight::pruned_flags;
use regrow_sparse_core::{MaskSet, Result};

/// One flag for each value of a module's parameters, and which of the parameters have a mask.
#[derive(Clone, Debug)]
pub struct ParameterFlags {
    flags: Vec<Tensor<1, Bool>>,
    masked: Vec<bool>,
}

impl ParameterFlags {
    /// True where `masks` keep a weight of `model`; for a parameter without a mask, the result of `rest`.
    ///
    /// # Errors
    /// If a mask fits no parameter.
    pub fn kept<M: Module>(model: &M, masks: &MaskSet, rest: &dyn Fn(ParamId) -> bool) -> Result<Self> {
        struct Read<'a> {
            pruned: Vec<(ParamId, Vec<bool>)>,
            rest: &'a dyn Fn(ParamId) -> bool,
            found: ParameterFlags,
        }
        impl ModuleVisitor for Read<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let device: Device = param.base().inner().device();
                let len = param.lazy_shape().num_elements();
                let mask = self.pruned.iter().find(|(id, _)| *id == param.id);
                let kept = match mask {
                    Some((_, pruned)) => pruned.iter().map(|p| !p).collect(),
                    None => vec![(self.rest)(param.id); len],
                };
                self.found.masked.push(mask.is_some());
                self.found.flags.push(Tensor::from_data(TensorData::new(kept, [len]), &device));
            }
        }
        let found = Self { flags: Vec::new(), masked: Vec::new() };
        let mut read = Read { pruned: pruned_flags(model, masks)?, rest, found };
        model.visit(&mut read);
        Ok(read.found)
    }

    /// The same for whole parameters: true where `free` is true for the parameter. The others count as masked.
    pub fn of_parameters<M: Module>(model: &M, free: &dyn Fn(ParamId) -> bool) -> Self {
        struct Read<'a>(&'a dyn Fn(ParamId) -> bool, ParameterFlags);
        impl ModuleVisitor for Read<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let device: Device = param.base().inner().device();
                let (free, len) = ((self.0)(param.id), param.lazy_shape().num_elements());
                self.1.masked.push(!free);
                self.1.flags.push(Tensor::from_data(TensorData::new(vec![free; len], [len]), &device));
            }
        }
        let mut read = Read(free, Self { flags: Vec::new(), masked: Vec::new() });
        model.visit(&mut read);
        read.1
    }

    /// True where `free` is true for a value: its parameter, and its index there. None counts as masked.
    pub fn of_numbers<M: Module>(model: &M, free: &dyn Fn(ParamId, usize) -> bool) -> Self {
        struct Read<'a>(&'a dyn Fn(ParamId, usize) -> bool, ParameterFlags);
        impl ModuleVisitor for Read<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let device: Device = param.base().inner().device();
                let len = param.lazy_shape().num_elements();
                let free: Vec<bool> = (0..len).map(|i| (self.0)(param.id, i)).collect();
                self.1.masked.push(false);
                self.1.flags.push(Tensor::from_data(TensorData::new(free, [len]), &device));
            }
        }
        let mut read = Read(free, Self { flags: Vec::new(), masked: Vec::new() });
        model.visit(&mut read);
        read.1
    }

    /// The flags, parameter by parameter.
    pub(crate) fn flags(&self) -> &[Tensor<1, Bool>] {
        &self.flags
    }

    /// Which parameters have a mask.
    pub(crate) fn masked(&self) -> &[bool] {
        &self.masked
    }

    /// How many parameters have no mask.
    pub fn outside(&self) -> usize {
        self.masked.iter().filter(|masked| !**masked).count()
    }
}
