//! A small convolutional network with batch norm, for images of any size from 8x8.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use regrow_inference::{ConvTap, DenseExecutor, ForwardWith, LayerExecutor};
use regrow_train::Classifier;
use regrow_train::classifier::ConvHooks;
use regrow_train::classifier::Headed;

/// Three times `conv` 3x3, `norm`, ReLU and 2x2 max-pool, with 16, 32 and 64 channels; the mean over pixels;
/// `head`.
#[derive(Module, Debug)]
pub struct ConvNet {
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    pool: MaxPool2d,
    head: Linear,
}

const WIDTHS: [usize; 3] = [16, 32, 64];

impl ConvNet {
    /// For images of `channels` channels.
    pub fn new(channels: usize, classes: usize, device: &Device) -> Self {
        let conv = |(input, output): (usize, usize)| {
            Conv2dConfig::new([input, output], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device)
        };
        let inputs = std::iter::once(channels).chain(WIDTHS);
        Self {
            convs: inputs.zip(WIDTHS).map(conv).collect(),
            norms: WIDTHS.iter().map(|width| BatchNormConfig::new(*width).init(device)).collect(),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            head: LinearConfig::new(WIDTHS[2], classes).init(device),
        }
    }
}

impl Classifier for ConvNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        self.norms.iter_mut().for_each(f);
    }
}

impl ConvNet {
    fn features_by(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let step = |x, (i, (conv, norm)): (usize, (&Conv2d, &BatchNorm))| {
            self.pool.forward(relu(norm.forward(layers.conv2d(&format!("convs.{i}"), conv, x))))
        };
        let x = self.convs.iter().zip(&self.norms).enumerate().fold(images, step);
        x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3)
    }
}

impl ForwardWith<Tensor<4>> for ConvNet {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.features_by(images, layers);
        layers.linear("head", &self.head, x)
    }
}

impl Headed for ConvNet {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut DenseExecutor)
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.head
    }
}

impl ConvHooks for ConvNet {
    fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
        WIDTHS.map(|width| (width, [3, 3])).into()
    }

    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut ConvTap::new(after))
    }
}
