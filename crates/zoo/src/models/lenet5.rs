//! LeNet-5, and the network of PyTorch's "Training a classifier" tutorial, which is LeNet-5 in colour.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use regrow_inference::{ConvTap, DenseExecutor, ForwardWith, LayerExecutor};
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_train::Classifier;
use regrow_train::classifier::ConvHooks;
use regrow_train::classifier::Headed;

/// `conv1` 6 5x5, `conv2` 16 5x5 (each ReLU and 2x2 max-pool), `fc1` 120, `fc2` 84, `fc3`.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet5 {
    /// Of these [`widths`](Self::widths): for 28x28 images with `padding` 2, 32x32 with `padding` 0.
    pub fn new([channels, c1, c2, f1, f2, classes]: [usize; 6], padding: usize, device: &Device) -> Self {
        let padding = PaddingConfig2d::Explicit(padding, padding, padding, padding);
        Self {
            conv1: Conv2dConfig::new([channels, c1], [5, 5]).with_padding(padding).init(device),
            conv2: Conv2dConfig::new([c1, c2], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc1: LinearConfig::new(c2 * 25, f1).init(device),
            fc2: LinearConfig::new(f1, f2).init(device),
            fc3: LinearConfig::new(f2, classes).init(device),
        }
    }

    /// The published widths: input channels, `conv1`, `conv2`, `fc1`, `fc2`, classes.
    pub fn widths(channels: usize, classes: usize) -> [usize; 6] {
        [channels, 6, 16, 120, 84, classes]
    }

    /// Channel graph of its layers.
    pub fn layout(channels: usize, classes: usize) -> ChannelGraph {
        let mut chain = ChannelGraph::chain(&Self::widths(channels, classes));
        // 5x5 kernels; `fc1` reads maps of 5x5.
        chain.layers[..3].iter_mut().for_each(|layer| layer.area = 25);
        (chain.layers[0].positions, chain.layers[1].positions) = (28 * 28, 10 * 10);
        chain
    }
}

impl Classifier for LeNet5 {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }
}

impl LeNet5 {
    fn features_by(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.pool.forward(relu(layers.conv2d("conv1", &self.conv1, images)));
        let x = self.pool.forward(relu(layers.conv2d("conv2", &self.conv2, x)));
        let x = relu(layers.linear("fc1", &self.fc1, x.flatten::<2>(1, 3)));
        relu(layers.linear("fc2", &self.fc2, x))
    }
}

impl ForwardWith<Tensor<4>> for LeNet5 {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.features_by(images, layers);
        layers.linear("fc3", &self.fc3, x)
    }
}

impl Headed for LeNet5 {
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

impl ConvHooks for LeNet5 {
    fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
        [&self.conv1, &self.conv2].map(|conv| (conv.weight.lazy_shape()[0], [5, 5])).into()
    }

    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut ConvTap::new(after))
    }
}
