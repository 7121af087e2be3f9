//! Updates of RigL, ISS-P and BiP against their authors' code, on the same weights and gradients.
#![allow(clippy::unwrap_used)]

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use regrow_pruners::{BipConfig, IsspConfig, RiglConfig};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks, masks};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::PruningOptimizer;
use regrow_sparse_core::model::weight::{Select, stored, weights};
use regrow_sparse_core::{Budget, Mask, MaskSet, Pattern};
use regrow_testing::assert_close;
use serde_json::Value;

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn bits(mask: &Mask) -> String {
    mask.to_bools().iter().map(|keep| if *keep { '1' } else { '0' }).collect()
}

/// A kernel in PyTorch's shape.
fn kernel(value: &Value, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(numbers(value), shape), device)
}

/// A matrix `[d_out, d_in]`, as Burn stores it.
fn matrix(value: &Value, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::<2>::from_data(TensorData::new(numbers(value), shape), device).transpose()
}

fn conv(weight: Tensor<4>) -> Conv2d {
    let [output, input, height, width] = weight.dims();
    let layer = Conv2dConfig::new([input, output], [height, width]).with_bias(false).init(&weight.device());
    Conv2d { weight: Param::from_tensor(weight), ..layer }
}

fn linear(weight: Tensor<2>) -> Linear {
    let [input, output] = weight.dims();
    let layer = LinearConfig::new(input, output).with_bias(false).init(&weight.device());
    Linear { weight: Param::from_tensor(weight), ..layer }
}

#[derive(Module, Debug)]
struct One {
    a: Linear,
}

#[test]
fn rigl_moves_the_same_weights() {
    let fixture = fixture(include_str!("fixtures/rigl.json"));
    let device = regrow_device::current().autodiff();
    let net = One { a: linear(matrix(&fixture["weights"], [8, 40], &device)) };
    let before = fixture["before"].as_str().unwrap().as_bytes();
    let sparse: MaskSet =
        [("a.weight".to_string(), Mask::from_fn([8, 40], |i| before[i] == b'1'))].into_iter().collect();
    let net = apply_masks(net, &sparse, Gradient::Dense, Base::Zeroed).unwrap();
    // A million steps to go, so that the fraction is still that of the start.
    let pruner = RiglConfig::new(1_000_000).with_every(1).with_fraction(0.300_001);
    let pruner = pruner.with_dropped_among_candidates(true).init().unwrap();
    let pruner = pruner.with_select(Select::default().with_head());
    let mut optimizer = PruningOptimizer::new(pruner, SgdConfig::new().build(), &net).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(net.a.weight.id, matrix(&fixture["gradient"], [8, 40], &device.inner()));
    let net = optimizer.step(0.0, net, grads).unwrap();
    assert_eq!(bits(masks(&net).unwrap().get("a.weight").unwrap()), fixture["after"].as_str().unwrap());
}

#[derive(Module, Debug)]
struct Two {
    conv: Conv2d,
    fc: Linear,
}

#[test]
fn issp_shrinks_the_same_weights() {
    let fixture = fixture(include_str!("fixtures/issp.json"));
    let device = regrow_device::current().autodiff();
    let start = &fixture["start"];
    let mut net = Two {
        conv: conv(kernel(&start["conv.weight"], [5, 4, 3, 3], &device)),
        fc: linear(matrix(&start["fc.weight"], [10, 16], &device)),
    };
    let recipe = Recipe::default().with_budget(Budget::Uniform).with_select(Select::default().with_head());
    let pruner = IsspConfig::new(0.7, 100).init().unwrap().with_recipe(recipe);
    let mut optimizer = PruningOptimizer::new(pruner, SgdConfig::new().build(), &net).unwrap();
    for moves in fixture["moves"].as_array().unwrap() {
        let inner = device.clone().inner();
        let mut grads = GradientsParams::new();
        // Against the gradient, at a rate of 1.
        grads.register(net.conv.weight.id, kernel(&moves["conv.weight"], [5, 4, 3, 3], &inner).neg());
        grads.register(net.fc.weight.id, matrix(&moves["fc.weight"], [10, 16], &inner).neg());
        net = optimizer.step(1.0, net, grads).unwrap();
    }
    for weight in weights(&net, &Select::default().with_head()).unwrap() {
        assert_close(&weight.values, &numbers(&fixture["after"][&weight.path]), 2e-6);
    }
}

#[derive(Module, Debug)]
struct Convs {
    a: Conv2d,
    b: Conv2d,
}

#[test]
fn bip_keeps_the_same_filters() {
    // The published 1/gamma moves none of them either, theirs included.
    [0.0, 1e-4].into_iter().for_each(bip_keeps);
}

fn bip_keeps(inverse_gamma: f64) {
    let fixture = fixture(include_str!("fixtures/bip.json"));
    let device = regrow_device::current().autodiff();
    let shapes = [[8, 2, 3, 3], [6, 8, 3, 3]];
    let mut net = Convs {
        a: conv(kernel(&fixture["start"]["a.weight"], shapes[0], &device)),
        b: conv(kernel(&fixture["start"]["b.weight"], shapes[1], &device)),
    };
    let select = Select::default().with_head();
    let recipe = Recipe::default().with_budget(Budget::Uniform).with_pattern(Pattern::Rows).with_select(select.clone());
    // So many steps that the rate of the scores stays what it is.
    let bip = BipConfig::new(0.5, 1_000_000_000)
        .with_beta(0.25)
        .with_inverse_gamma(inverse_gamma)
        .init()
        .unwrap()
        .with_recipe(recipe);
    let mut optimizer = PruningOptimizer::new(bip, SgdConfig::new().build(), &net).unwrap();
    let gradients = fixture["gradients"].as_array().unwrap();
    let mut seen = Vec::new();
    for step in 0..8usize {
        let inner = device.clone().inner();
        // The first step of ours puts on the mask; theirs leaves the weights alone there.
        let rate = if step == 0 { 0.0 } else { 0.1 };
        let of = &gradients[step.saturating_sub(1)];
        let mut grads = GradientsParams::new();
        grads.register(net.a.weight.id, kernel(&of["a.weight"], shapes[0], &inner));
        grads.register(net.b.weight.id, kernel(&of["b.weight"], shapes[1], &inner));
        net = optimizer.step(rate, net, grads).unwrap();
        if step % 2 == 1 {
            seen.push(masks(&net).unwrap());
        }
    }
    for (ours, theirs) in seen.iter().zip(fixture["masks"].as_array().unwrap()) {
        for (path, mask) in ours.iter() {
            let columns = mask.len() / mask.shape()[0];
            let filters: String = bits(mask).chars().step_by(columns).collect();
            assert_eq!(filters, theirs[path].as_str().unwrap(), "{path}");
        }
    }
    assert_eq!(seen.len(), 4);
    for weight in stored(&net, &select).unwrap() {
        assert_close(&weight.values, &numbers(&fixture["after"][&weight.path]), 2e-6);
    }
}
