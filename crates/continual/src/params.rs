//! A network's parameters, or something of their shape, as numbers to calculate with.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use regrow_sparse_core::model::weight::pruned_flags;
use regrow_sparse_core::{Error, MaskSet, Result};

/// One flat tensor for each float parameter of a module, in the module's order, apart from any graph
/// of gradients. Parameters are taken as they are stored, under masks too.
#[derive(Clone, Debug)]
pub struct Vector(Vec<Tensor<1>>);

impl Vector {
    /// The parameters of `model`.
    pub fn of<M: Module>(model: &M) -> Self {
        #[derive(Default)]
        struct Read(Vec<Tensor<1>>);
        impl ModuleVisitor for Read {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.push(flat(param.base()));
            }
        }
        let mut read = Read::default();
        model.visit(&mut read);
        Self(read.0)
    }

    /// The gradients of its parameters; zero where there is none.
    pub fn gradients<M: Module>(model: &M, gradients: &GradientsParams) -> Self {
        struct Read<'a>(&'a GradientsParams, Vec<Tensor<1>>);
        impl ModuleVisitor for Read<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let none = || flat(param.base()).zeros_like();
                self.1.push(self.0.get::<D>(param.id).map_or_else(none, flat));
            }
        }
        let mut read = Read(gradients, Vec::new());
        model.visit(&mut read);
        Self(read.1)
    }

    /// As gradients for an optimizer of `model`, for those parameters that have one in `like`.
    pub fn into_gradients<M: Module>(self, model: &M, like: &GradientsParams) -> GradientsParams {
        struct Write<'a>(std::vec::IntoIter<Tensor<1>>, &'a GradientsParams, GradientsParams);
        impl ModuleVisitor for Write<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(values) = self.0.next() else { return };
                if self.1.get::<D>(param.id).is_some() {
                    self.2.register::<D>(param.id, values.reshape(param.lazy_shape()));
                }
            }
        }
        let mut write = Write(self.0.into_iter(), like, GradientsParams::new());
        model.visit(&mut write);
        write.2
    }

    /// `model` with these parameters.
    pub fn put<M: Module>(self, model: M) -> M {
        struct Write(std::vec::IntoIter<Tensor<1>>);
        impl ModuleMapper for Write {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(values) = self.0.next() else { return param };
                let (id, tensor, mapper) = param.consume();
                let (tracked, wants) = (tensor.is_autodiff(), tensor.is_require_grad());
                let values = values.reshape(tensor.shape());
                let values = if tracked { Tensor::from_inner(values) } else { values };
                Param::from_mapped_value(id, values.set_require_grad(wants), mapper)
            }
        }
        model.map(&mut Write(self.0.into_iter()))
    }

    /// Zeros of the same shape.
    pub fn zeros(&self) -> Self {
        self.map(|t| t.zeros_like())
    }

    /// `f` of each tensor.
    pub fn map(&self, f: impl Fn(Tensor<1>) -> Tensor<1>) -> Self {
        Self(self.0.iter().map(|t| f(t.clone())).collect())
    }

    /// `f` of each pair of tensors.
    pub fn zip(&self, other: &Self, f: impl Fn(Tensor<1>, Tensor<1>) -> Tensor<1>) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| f(a.clone(), b.clone())).collect())
    }

    /// `self + factor * other`.
    pub fn plus(&self, factor: f64, other: &Self) -> Self {
        self.zip(other, |a, b| a + b * factor)
    }

    /// `self - other`.
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    /// The elementwise product.
    pub fn times(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    /// The inner product, summed over tensors in f64.
    pub fn dot(&self, other: &Self) -> f64 {
        let one = |(a, b): (&Tensor<1>, &Tensor<1>)| f64::from((a.clone() * b.clone()).sum().into_scalar::<f32>());
        self.0.iter().zip(&other.0).map(one).sum()
    }

    /// `self` where `flags` say true, else `other`.
    pub fn or_else(&self, flags: &Flags, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0).zip(&flags.flags);
        Self(pairs.map(|((mine, theirs), flag)| theirs.clone().mask_where(flag.clone(), mine.clone())).collect())
    }

    /// On the host, the tensors of parameters that `flags` know no mask of.
    pub fn outside(&self, flags: &Flags) -> Vec<Vec<f32>> {
        let free = self.0.iter().zip(&flags.masked).filter(|(_, masked)| !**masked);
        free.map(|(t, _)| t.to_data().iter::<f32>().collect()).collect()
    }

    /// The same numbers with those of [`Vector::outside`] replaced.
    pub fn with_outside(&self, flags: &Flags, numbers: &[Vec<f32>]) -> Self {
        let mut numbers = numbers.iter();
        let one = |(t, masked): (&Tensor<1>, &bool)| match (masked, t.dims()[0]) {
            (true, _) => t.clone(),
            (false, len) => match numbers.next() {
                Some(own) => Tensor::from_data(TensorData::new(own.clone(), [len]), &t.device()),
                None => t.clone(),
            },
        };
        Self(self.0.iter().zip(&flags.masked).map(one).collect())
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        self.0.iter().all(|t| t.clone().abs().sum().into_scalar::<f32>().is_finite())
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|t| t.dims()[0]).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers on the host, tensor by tensor.
    pub fn to_host(&self) -> Vec<Vec<f32>> {
        self.0.iter().map(|t| t.to_data().iter::<f32>().collect()).collect()
    }

    /// Back from the host, for `model`.
    ///
    /// # Errors
    /// If they are not of the model's shape.
    pub fn from_host<M: Module>(numbers: Vec<Vec<f32>>, model: &M) -> Result<Self> {
        let like = Self::of(model);
        if numbers.len() != like.0.len() || numbers.iter().zip(&like.0).any(|(n, t)| n.len() != t.dims()[0]) {
            return Err(Error::Argument("a saved state belongs to another network".into()));
        }
        let one = |(numbers, like): (Vec<f32>, &Tensor<1>)| {
            let len = numbers.len();
            Tensor::from_data(TensorData::new(numbers, [len]), &like.device())
        };
        Ok(Self(numbers.into_iter().zip(&like.0).map(one).collect()))
    }
}

/// One flag for each number of a module's parameters, and which of these carry a mask.
#[derive(Clone, Debug)]
pub struct Flags {
    flags: Vec<Tensor<1, Bool>>,
    masked: Vec<bool>,
}

impl Flags {
    /// True where `masks` keep a weight of `model`; of a parameter without a mask, what `rest` says of
    /// it.
    ///
    /// # Errors
    /// If a mask fits no parameter.
    pub fn kept<M: Module>(model: &M, masks: &MaskSet, rest: &dyn Fn(ParamId) -> bool) -> Result<Self> {
        struct Read<'a> {
            pruned: Vec<(ParamId, Vec<bool>)>,
            rest: &'a dyn Fn(ParamId) -> bool,
            found: Flags,
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

    /// The same for all numbers of a parameter: true where `free` says so of it. The others count as
    /// masked.
    pub fn of_parameters<M: Module>(model: &M, free: &dyn Fn(ParamId) -> bool) -> Self {
        struct Read<'a>(&'a dyn Fn(ParamId) -> bool, Flags);
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

    /// True where `free` says so of a number: its parameter, and its place there. None counts as masked.
    pub fn of_numbers<M: Module>(model: &M, free: &dyn Fn(ParamId, usize) -> bool) -> Self {
        struct Read<'a>(&'a dyn Fn(ParamId, usize) -> bool, Flags);
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

    /// How many parameters carry no mask.
    pub fn outside(&self) -> usize {
        self.masked.iter().filter(|masked| !**masked).count()
    }
}

/// Burn's linear and convolution layers, as containers are told.
pub(crate) const LAYERS: [&str; 7] = [
    "Struct:Linear",
    "Struct:Conv1d",
    "Struct:Conv2d",
    "Struct:Conv3d",
    "Struct:ConvTranspose1d",
    "Struct:ConvTranspose2d",
    "Struct:ConvTranspose3d",
];

/// Burn's norms, likewise.
pub(crate) const NORMS: [&str; 5] =
    ["Struct:BatchNorm", "Struct:GroupNorm", "Struct:InstanceNorm", "Struct:LayerNorm", "Struct:RmsNorm"];

/// The parameters of `model` within a container of which `kind` says yes, told as `Struct:Linear`.
pub fn within<M: Module>(model: &M, kind: &dyn Fn(&str) -> bool) -> BTreeSet<ParamId> {
    struct Read<'a>(&'a dyn Fn(&str) -> bool, Vec<bool>, BTreeSet<ParamId>);
    impl ModuleVisitor for Read<'_> {
        fn enter_module(&mut self, _name: &str, container: &str) {
            self.1.push((self.0)(container));
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.1.contains(&true) {
                self.2.insert(param.id);
            }
        }
    }
    let mut read = Read(kind, Vec::new(), BTreeSet::new());
    model.visit(&mut read);
    read.2
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let tensor = tensor.inner();
    let len = tensor.shape().num_elements();
    tensor.reshape([len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::net;

    #[test]
    fn parameters_and_gradients_go_out_and_come_back() {
        let model = net(4, 3, 2, 1).train();
        let before = Vector::of(&model);
        assert_eq!((before.len(), before.to_host().len()), (4 * 3 + 3 + 3 * 2 + 2, 4));
        let twice = before.plus(1.0, &before);
        let model = twice.clone().put(model);
        assert_eq!(Vector::of(&model).to_host(), twice.to_host());
        assert!((twice.dot(&before) - 2.0 * before.dot(&before)).abs() < 1e-6);
        let x = Tensor::<2>::ones([1, 4], &regrow_device::current().autodiff());
        let loss = model.forward(x).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let flat = Vector::gradients(&model, &gradients);
        // The last bias moves every output by one.
        assert_eq!(flat.to_host()[3], [1.0, 1.0]);
        let back = flat.clone().into_gradients(&model, &gradients);
        assert_eq!(Vector::gradients(&model, &back).to_host(), flat.to_host());
        assert!(Vector::from_host(vec![vec![0.0]], &model).is_err());
        assert_eq!(Vector::from_host(flat.to_host(), &model).unwrap().to_host(), flat.to_host());
    }
}
