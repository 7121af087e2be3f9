//! Shared by the tests of this crate: a small data set and small networks.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use regrow_sparse_core::seed::mix;
use regrow_train::Classifier;
use regrow_train::classifier::{Examples, Headed};

use crate::strategy::TaskContext;
use crate::stream::{LogitScope, Scenario, TaskStream};

/// Square images of alternating classes: noise, and a bright pixel at the class's position.
pub(crate) struct Toy {
    len: usize,
    classes: usize,
    side: usize,
}

impl Toy {
    pub(crate) fn new(len: usize, classes: usize) -> Self {
        Self { len, classes, side: 3 }
    }

    pub(crate) fn with_side(self, side: usize) -> Self {
        Self { side, ..self }
    }

    pub(crate) fn split(&self, scenario: Scenario, tasks: usize) -> TaskStream<'_> {
        TaskStream::split_evenly(scenario, (self, self, self.classes), tasks, None).expect("a stream")
    }
}

impl Examples for Toy {
    fn len(&self) -> usize {
        self.len
    }

    fn images(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        let pixels = self.side * self.side;
        let value = |i: usize, p: usize| {
            let noise = uniform(i as u64, p as u64);
            if p == i % self.classes { 1.0 + noise } else { 0.5 * noise }
        };
        let values: Vec<f32> = indices.iter().flat_map(|i| (0..pixels).map(move |p| value(*i, p))).collect();
        Tensor::from_data(TensorData::new(values, [indices.len(), 1, self.side, self.side]), device)
    }

    fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|i| i % self.classes).collect()
    }
}

/// A number in [-0.5, 0.5).
pub(crate) fn uniform(seed: u64, i: u64) -> f32 {
    (mix(seed, i) % 10_007) as f32 / 10_007.0 - 0.5
}

/// `head(relu(hidden(x)))`.
#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) hidden: Linear,
    pub(crate) head: Linear,
}

impl Net {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(relu(self.hidden.forward(x)))
    }
}

/// A network of these widths, drawn from `seed`.
pub(crate) fn net(input: usize, hidden: usize, classes: usize, seed: u64) -> Net {
    let layer = |stream: u64, rows: usize, cols: usize| {
        let scale = 2.0 / (rows as f32).sqrt();
        let values: Vec<f32> = (0..rows * cols).map(|i| scale * uniform(mix(seed, stream), i as u64)).collect();
        let bias: Vec<f32> = (0..cols).map(|i| 0.1 * uniform(mix(seed, stream + 9), i as u64)).collect();
        linear(rows, cols, values, bias)
    };
    Net { hidden: layer(1, input, hidden), head: layer(2, hidden, classes) }
}

/// A layer of `values` `[rows, cols]`.
pub(crate) fn linear(rows: usize, cols: usize, values: Vec<f32>, bias: Vec<f32>) -> Linear {
    let device = regrow_device::current();
    let weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, cols]), &device));
    let bias = Some(Param::from_tensor(Tensor::from_data(TensorData::new(bias, [cols]), &device)));
    Linear { weight, bias }
}

impl Classifier for Net {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images))
    }
}

impl Headed for Net {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        relu(self.hidden.forward(images.flatten::<2>(1, 3)))
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.head
    }
}

/// The first task of `stream`, before its first step.
pub(crate) fn context<'a>(
    stream: &'a TaskStream<'a>,
    scope: LogitScope,
    batch: usize,
    device: &'a Device,
) -> TaskContext<'a> {
    TaskContext { total_steps: 1, step_seed: 5, ..TaskContext::new(stream, 0, scope, batch, device) }
}
