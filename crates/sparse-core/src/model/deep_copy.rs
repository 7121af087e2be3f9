//! Copies of models that share nothing with the original.
//!
//! Burn keeps running statistics of normalizations behind a pointer that clones share: mapping or training a clone also
//! changes the original's.

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Device;

/// A copy of `model`, on its device and in its mode, with its own running statistics.
pub fn deep_clone<M: Module>(model: &M) -> M {
    let mut flags = Flags(Vec::new());
    model.visit(&mut flags);
    // Only this creates new statistics; it turns gradients and flags off.
    let own = model.valid();
    let own = if model.devices().iter().all(Device::is_autodiff) { own.train() } else { own };
    own.map(&mut Set(flags.0.into_iter()))
}

/// A deep copy of `model` as by [`deep_clone`], on `device` and in the model's mode.
pub fn clone_to_device<M: Module>(model: &M, device: &Device) -> M {
    let own = deep_clone(model);
    let trains = own.devices().iter().all(Device::is_autodiff);
    let device = if trains { device.clone().autodiff() } else { device.clone() };
    if own.devices() == [device.clone()] { own } else { own.fork(&device) }
}

/// The flags of a model (whether it trains, and the like), in order.
struct Flags(Vec<bool>);

impl ModuleVisitor for Flags {
    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.push(flag.is_enabled());
    }
}

struct Set(std::vec::IntoIter<bool>);

impl ModuleMapper for Set {
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        match self.0.next() {
            Some(value) => flag.with_value(value),
            None => flag,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Tensor;

    use super::*;
    use crate::model::gradients::with_fixed_statistics;

    struct Times(f64);

    impl ModuleMapper for Times {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor * self.0)
        }
    }

    fn variance(norm: &BatchNorm) -> Vec<f32> {
        norm.running_var.value_sync().into_data().iter::<f32>().collect()
    }

    #[test]
    fn what_becomes_of_the_copy_is_not_seen_in_the_original() {
        let plain = regrow_device::current();
        for device in [plain.clone(), plain.autodiff()] {
            let norm = BatchNormConfig::new(2).init(&device);
            let copy = deep_clone(&norm).map(&mut Times(3.0));
            assert_eq!((variance(&copy), variance(&norm)), (vec![3.0; 2], vec![1.0; 2]));
            let numbers = Tensor::<4>::from_data([[[[1.0, 5.0]], [[2.0, -2.0]]]], &device);
            let _ = deep_clone(&norm).forward(numbers);
            assert_eq!(variance(&norm), [1.0; 2]);
            assert_eq!(copy.devices(), norm.devices());
        }
    }

    #[test]
    fn a_copy_onto_a_device_keeps_mode_and_values() {
        let plain = regrow_device::current();
        for device in [plain.clone(), plain.clone().autodiff()] {
            let norm = BatchNormConfig::new(2).init(&device);
            let copy = clone_to_device(&norm, &plain).map(&mut Times(3.0));
            assert_eq!((copy.devices(), variance(&norm)), (vec![device], vec![1.0; 2]));
        }
    }

    #[test]
    fn it_trains_or_not_as_the_original_does() {
        let device = regrow_device::current().autodiff();
        let norm = BatchNormConfig::new(2).init(&device);
        let enabled = |norm: &BatchNorm| {
            let mut flags = Flags(Vec::new());
            norm.visit(&mut flags);
            flags.0
        };
        assert!(enabled(&deep_clone(&norm)).iter().all(|on| *on) && !enabled(&norm).is_empty());
        assert!(deep_clone(&norm).gamma.is_require_grad());
        let fixed = with_fixed_statistics(deep_clone(&norm));
        assert!(enabled(&deep_clone(&fixed)).iter().all(|on| !*on));
        assert!(enabled(&norm).iter().all(|on| *on));
    }
}
