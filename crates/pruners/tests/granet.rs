//! One update of GraNet against the authors' code, on the same weights and gradients.
#![allow(clippy::unwrap_used)]

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use regrow_pruners::GranetConfig;
use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::PruningOptimizer;
use regrow_sparse_core::model::weight::{Select, weights};
use serde_json::Value;

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    fc: Linear,
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The two tensors of the fixture's `key`, as Burn stores them.
fn tensors(fixture: &Value, key: &str, device: &Device) -> (Tensor<4>, Tensor<2>) {
    let values = |name: &str| numbers(&fixture["weights"][name][key]);
    let conv = Tensor::from_data(TensorData::new(values("conv.weight"), [8, 3, 3, 3]), device);
    let fc = Tensor::<2>::from_data(TensorData::new(values("fc.weight"), [20, 15]), device).transpose();
    (conv, fc)
}

#[test]
fn an_update_equals_the_authors() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/granet.json")).unwrap();
    let device = regrow_device::current().autodiff();
    let (kernel, matrix) = tensors(&fixture, "values", &device);
    let conv = Conv2dConfig::new([3, 8], [3, 3]).with_bias(false).init(&device);
    let fc = LinearConfig::new(15, 20).with_bias(false).init(&device);
    let mut net = Net {
        conv: Conv2d { weight: Param::from_tensor(kernel), ..conv },
        fc: Linear { weight: Param::from_tensor(matrix), ..fc },
    };
    // Their threshold is strict and keeps one weight fewer than int(516 (1 - 0.7875)): 108.
    let sparsity = 408.0 / 516.0;
    let pruner = GranetConfig::new(sparsity, 1000).with_initial(sparsity).with_every(10).with_updates(Some(1));
    let pruner = pruner.with_first_rate(0.37).with_last_rate(0.37).init().unwrap();
    let pruner = pruner.with_recipe(Recipe::default().with_select(Select::default().with_head())).unwrap();
    let mut optimizer = PruningOptimizer::new(pruner, SgdConfig::new().build(), &net).unwrap();
    for _ in 0..10 {
        let (conv, fc) = tensors(&fixture, "gradient", &device.clone().inner());
        let mut grads = GradientsParams::new();
        grads.register(net.conv.weight.id, conv);
        grads.register(net.fc.weight.id, fc);
        net = optimizer.step(0.0, net, grads).unwrap();
    }
    let row = |keep: &bool| if *keep { '1' } else { '0' };
    for (path, mask) in masks(&net).unwrap().iter() {
        let drawn: String = mask.to_bools().iter().map(row).collect();
        assert_eq!(drawn, fixture["after_regrowth"][path].as_str().unwrap(), "{path}");
    }
    for weight in weights(&net, &Select::default().with_head()).unwrap() {
        assert_eq!(weight.values, numbers(&fixture["weights_after"][&weight.path]), "{}", weight.path);
    }
}
