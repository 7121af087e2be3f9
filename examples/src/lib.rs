//! What the example programs share: a Burn model as a user would write it, and batches of digits.
//!
//! The programs are in `examples/`, as `burn_train` (`SupervisedTraining`); those that need one crate are in that
//! crate's `examples/`, as `own_loop` in regrow-pruners.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_train::classifier::Examples;
use regrow_zoo::data::Images;

/// A perceptron for 8x8 digits; nothing in it knows of pruning.
#[derive(Module, Debug)]
pub struct Model {
    hidden: Linear,
    output: Linear,
}

impl Model {
    /// With 128 hidden units.
    pub fn new(device: &Device) -> Self {
        Self { hidden: LinearConfig::new(64, 128).init(device), output: LinearConfig::new(128, 10).init(device) }
    }

    /// Logits `[batch, 10]` of `images` `[batch, 64]`.
    pub fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(images)))
    }

    /// The mean cross-entropy of a batch.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        let logits = self.forward(batch.images.clone());
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, batch.labels.clone())
    }

    /// The share of `data` that is classified right.
    pub fn accuracy(&self, data: &Images, device: &Device) -> f64 {
        let all: Vec<usize> = (0..data.len()).collect();
        let batch = Batch::of(data, &all, device);
        let guesses = self.forward(batch.images).argmax(1).reshape([-1]);
        let right: i64 = guesses.equal(batch.labels).int().sum().into_scalar();
        right as f64 / data.len() as f64
    }
}

/// Some images with their labels.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, 64]`, normalized.
    pub images: Tensor<2>,
    /// `[batch]`.
    pub labels: Tensor<1, Int>,
}

impl Batch {
    /// The images of `data` at `indices`.
    pub fn of(data: &Images, indices: &[usize], device: &Device) -> Self {
        let images = data.images(indices, device).reshape([indices.len(), 64]);
        let labels: Vec<i64> = data.labels(indices).into_iter().map(|label| label as i64).collect();
        Self { images, labels: Tensor::from_data(TensorData::new(labels, [indices.len()]), device) }
    }
}
