//! The parameters of a module as flat tensors.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};

use super::ParameterFlags;

/// One flat tensor for each float parameter of a module, in the module's order, detached from gradient graphs.
/// Parameters are taken as stored, also under masks.
#[derive(Clone, Debug)]
pub struct ParameterVector(Vec<Tensor<1>>);

impl ParameterVector {
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
    pub fn or_else(&self, flags: &ParameterFlags, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0).zip(flags.flags());
        Self(pairs.map(|((mine, theirs), flag)| theirs.clone().mask_where(flag.clone(), mine.clone())).collect())
    }

    /// On the CPU, the tensors of parameters without a mask in `flags`.
    pub fn outside(&self, flags: &ParameterFlags) -> Vec<Vec<f32>> {
        let free = self.0.iter().zip(flags.masked()).filter(|(_, masked)| !**masked);
        free.map(|(t, _)| t.to_data().iter::<f32>().collect()).collect()
    }

    /// The same numbers with those of [`ParameterVector::outside`] replaced.
    pub fn with_outside(&self, flags: &ParameterFlags, numbers: &[Vec<f32>]) -> Self {
        let mut numbers = numbers.iter();
        let one = |(t, masked): (&Tensor<1>, &bool)| match (masked, t.dims()[0]) {
            (true, _) => t.clone(),
            (false, len) => match numbers.next() {
                Some(own) => Tensor::from_data(TensorData::new(own.clone(), [len]), &t.device()),
                None => t.clone(),
            },
        };
        Self(self.0.iter().zip(flags.masked()).map(one).collect())
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

    /// The values on the CPU, tensor by tensor.
    pub fn to_host(&self) -> Vec<Vec<f32>> {
        self.0.iter().map(|t| t.to_data().iter::<f32>().collect()).collect()
    }

    /// From values on the CPU, for `model`.
    ///
    /// # Errors
    /// If they are not of the model's shape.
    pub fn from_host<M: Module>(numbers: Vec<Vec<f32>>, model: &M) -> Result<Self> {
        let like = Self::of(model);
        let lengths: Vec<usize> = like.0.iter().map(|t| t.dims()[0]).collect();
        let got: Vec<usize> = numbers.iter().map(Vec::len).collect();
        if got != lengths {
            return Err(Error::ShapeMismatch { tensor: "the network's parameters".into(), expected: lengths, got });
        }
        let one = |(numbers, like): (Vec<f32>, &Tensor<1>)| {
            let len = numbers.len();
            Tensor::from_data(TensorData::new(numbers, [len]), &like.device())
        };
        Ok(Self(numbers.into_iter().zip(&like.0).map(one).collect()))
    }

    /// As a state, with a tensor for each parameter, to resume a run.
    pub fn to_state(&self) -> State {
        numbers_to_state(&self.to_host())
    }

    /// Restored from [`ParameterVector::to_state`], for `model`.
    ///
    /// # Errors
    /// If it is not of the model's shape.
    pub fn from_state<M: Module>(state: State, model: &M) -> Result<Self> {
        Self::from_host(numbers_from_state(state)?, model)
    }
}

/// Lists of numbers as the tensors `0`, `1`, ... of a state.
pub(crate) fn numbers_to_state(numbers: &[Vec<f32>]) -> State {
    let mut state = State::default();
    numbers.iter().enumerate().for_each(|(i, values)| state.set_reals(i.to_string(), values.clone()));
    state
}

/// Restored from [`numbers_to_state`].
pub(crate) fn numbers_from_state(mut state: State) -> Result<Vec<Vec<f32>>> {
    (0..state.names().count()).map(|i| state.take_reals(&i.to_string())).collect()
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
        let before = ParameterVector::of(&model);
        assert_eq!((before.len(), before.to_host().len()), (4 * 3 + 3 + 3 * 2 + 2, 4));
        let twice = before.plus(1.0, &before);
        let model = twice.clone().put(model);
        assert_eq!(ParameterVector::of(&model).to_host(), twice.to_host());
        assert!((twice.dot(&before) - 2.0 * before.dot(&before)).abs() < 1e-6);
        let x = Tensor::<2>::ones([1, 4], &regrow_device::current().autodiff());
        let loss = model.forward(x).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let flat = ParameterVector::gradients(&model, &gradients);
        // The last bias changes every output by one.
        assert_eq!(flat.to_host()[3], [1.0, 1.0]);
        let back = flat.clone().into_gradients(&model, &gradients);
        assert_eq!(ParameterVector::gradients(&model, &back).to_host(), flat.to_host());
        let wrong = ParameterVector::from_host(vec![vec![0.0]], &model);
        assert!(matches!(wrong, Err(Error::ShapeMismatch { .. })));
        assert_eq!(ParameterVector::from_state(flat.to_state(), &model).unwrap().to_host(), flat.to_host());
        assert_eq!(ParameterVector::from_host(flat.to_host(), &model).unwrap().to_host(), flat.to_host());
    }
}
