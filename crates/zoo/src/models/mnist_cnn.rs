//! The CNN of an early pytorch/examples `mnist`, the network of much pruning work on MNIST.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use regrow_inference::{ConvTap, DenseExecutor, ForwardWith, LayerExecutor};
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_train::Classifier;
use regrow_train::classifier::ConvHooks;
use regrow_train::classifier::Headed;

/// `conv1` 20 5x5, `conv2` 50 5x5 (each ReLU and 2x2 max-pool), `fc1` 500, `fc2`; images 28x28.
#[derive(Module, Debug)]
pub struct MnistCnn {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
}

impl MnistCnn {
    /// The published widths: input, `conv1`, `conv2`, `fc1`, classes.
    pub fn widths(classes: usize) -> [usize; 5] {
        [1, 20, 50, 500, classes]
    }

    /// Channel graph of its layers.
    pub fn layout(classes: usize) -> ChannelGraph {
        let mut chain = ChannelGraph::chain(&Self::widths(classes));
        // 5x5 kernels; `fc1` reads maps of 4x4.
        chain.layers[..2].iter_mut().for_each(|layer| layer.area = 25);
        chain.layers[2].area = 16;
        (chain.layers[0].positions, chain.layers[1].positions) = (24 * 24, 8 * 8);
        chain
    }

    /// Of these [`widths`](Self::widths).
    pub fn new([channels, c1, c2, f1, classes]: [usize; 5], device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([channels, c1], [5, 5]).init(device),
            conv2: Conv2dConfig::new([c1, c2], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc1: LinearConfig::new(c2 * 16, f1).init(device),
            fc2: LinearConfig::new(f1, classes).init(device),
        }
    }
}

impl Classifier for MnistCnn {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }
}

impl MnistCnn {
    fn features_by(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.pool.forward(relu(layers.conv2d("conv1", &self.conv1, images)));
        let x = self.pool.forward(relu(layers.conv2d("conv2", &self.conv2, x)));
        relu(layers.linear("fc1", &self.fc1, x.flatten::<2>(1, 3)))
    }
}

impl ForwardWith<Tensor<4>> for MnistCnn {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.features_by(images, layers);
        layers.linear("fc2", &self.fc2, x)
    }
}

impl Headed for MnistCnn {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut DenseExecutor)
    }

    fn head(&self) -> &Linear {
        &self.fc2
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.fc2
    }
}

impl ConvHooks for MnistCnn {
    fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
        [&self.conv1, &self.conv2].map(|conv| (conv.weight.lazy_shape()[0], [5, 5])).into()
    }

    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut ConvTap::new(after))
    }
}
