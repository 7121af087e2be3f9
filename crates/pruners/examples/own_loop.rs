//! Pruning in a training loop of one's own: two lines, marked below. The task: which of two rings a point lies on.
//!
//! `cargo run --release -p regrow-pruners --example own_loop`

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_pruners::prelude::*;

#[derive(Module, Debug)]
struct Model {
    first: Linear,
    second: Linear,
    head: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        let layer = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        Self { first: layer(2, 64), second: layer(64, 64), head: layer(64, 2) }
    }

    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(relu(self.second.forward(relu(self.first.forward(x)))))
    }
}

/// `count` points on the two rings, in turns, and the ring of each.
fn rings(count: usize, shift: f32, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let point = |i: usize| {
        let (angle, wobble) = (i as f32 * 2.399 + shift, (i as f32 * 1.7 + shift).sin());
        let radius = if i.is_multiple_of(2) { 1.0 } else { 2.0 } + 0.4 * wobble;
        [radius * angle.cos(), radius * angle.sin()]
    };
    let points: Vec<f32> = (0..count).flat_map(point).collect();
    let labels: Vec<i64> = (0..count as i64).map(|i| i % 2).collect();
    let points = Tensor::from_data(TensorData::new(points, [count, 2]), device);
    (points, Tensor::from_data(TensorData::new(labels, [count]), device))
}

fn main() -> Result<(), Error> {
    let device = Device::default().autodiff();
    device.seed(0);
    let mut model = Model::new(&device);
    let criterion = CrossEntropyLossConfig::new().init(&device);

    // From step 100, every 20 steps, 20 times, along Zhu and Gupta's cubic curve to 90 % zeros.
    let pruner = GmpConfig::new(0.9).with_begin(100).with_every(20).init()?; // line one
    let mut optimizer = PruningOptimizer::new(pruner, AdamConfig::new().build(), &model)?; // line two

    for step in 1..=800 {
        let (points, labels) = rings(256, step as f32, &device);
        let loss = criterion.forward(model.logits(points), labels);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(5e-3, model, grads)?;
        if step % 100 == 0 {
            let (points, labels) = rings(1000, 0.5, &Device::default());
            let right = model.valid().logits(points).argmax(1).flatten::<1>(0, 1).equal(labels);
            let accuracy = right.int().sum().into_scalar::<i64>() as f64 / 1000.0;
            println!("step {step}: sparsity {:.3}, test accuracy {accuracy:.3}", masks(&model)?.sparsity());
        }
    }
    Ok(())
}
