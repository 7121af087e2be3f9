//! A multilayer perceptron on flattened images.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use regrow_inference::{DenseExecutor, ForwardWith, LayerExecutor};
use regrow_train::Classifier;
use regrow_train::classifier::Headed;

/// Three linear layers with ReLU between: `fc1`, `fc2`, `fc3`. With 784-300-100-10 it is
/// LeNet-300-100 (LeCun et al., 1998).
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl Mlp {
    /// From the width of the input, of the two hidden layers and of the output.
    pub fn new([input, first, second, output]: [usize; 4], device: &Device) -> Self {
        Self {
            fc1: LinearConfig::new(input, first).init(device),
            fc2: LinearConfig::new(first, second).init(device),
            fc3: LinearConfig::new(second, output).init(device),
        }
    }
}

impl Classifier for Mlp {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }
}

impl Mlp {
    fn features_by(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = relu(layers.linear("fc1", &self.fc1, images.flatten::<2>(1, 3)));
        relu(layers.linear("fc2", &self.fc2, x))
    }
}

impl ForwardWith<Tensor<4>> for Mlp {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.features_by(images, layers);
        layers.linear("fc3", &self.fc3, x)
    }
}

impl Headed for Mlp {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut DenseExecutor)
    }

    fn head(&self) -> &Linear {
        &self.fc3
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.fc3
    }
}
