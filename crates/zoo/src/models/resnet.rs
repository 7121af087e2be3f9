//! ResNet for CIFAR (He et al., arXiv 1512.03385, sec. 4.2): depth 6n + 2, shortcuts of option A.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::AvgPool2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::Classifier;

/// `conv1`, `bn1`, three stages of `n` blocks with 16, 32, 64 channels, global mean, `linear`.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    linear: Linear,
}

/// Two 3x3 convolutions around a shortcut.
#[derive(Module, Debug)]
pub struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    stride: usize,
}

impl ResNet {
    /// Of depth `6 * blocks + 2`.
    pub fn new(blocks: usize, classes: usize, device: &Device) -> Self {
        let stage = |input: usize, output: usize| -> Vec<Block> {
            let first = |i: usize| if i == 0 { input } else { output };
            (0..blocks).map(|i| Block::new(first(i), output, device)).collect()
        };
        Self {
            conv1: conv3x3(3, 16, 1, device),
            bn1: BatchNormConfig::new(16).init(device),
            layer1: stage(16, 16),
            layer2: stage(16, 32),
            layer3: stage(32, 64),
            linear: LinearConfig::new(64, classes).with_initializer(kaiming()).init(device),
        }
    }
}

impl Classifier for ResNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(images)));
        let blocks = self.layer1.iter().chain(&self.layer2).chain(&self.layer3);
        let x = blocks.fold(x, |x, block| block.forward(x));
        let pooled = x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
        self.linear.forward(pooled)
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        f(&mut self.bn1);
        for block in self.layer1.iter_mut().chain(&mut self.layer2).chain(&mut self.layer3) {
            f(&mut block.bn1);
            f(&mut block.bn2);
        }
    }
}

impl Block {
    fn new(input: usize, output: usize, device: &Device) -> Self {
        let stride = output / input;
        Self {
            conv1: conv3x3(input, output, stride, device),
            bn1: BatchNormConfig::new(output).init(device),
            conv2: conv3x3(output, output, 1, device),
            bn2: BatchNormConfig::new(output).init(device),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = self.bn2.forward(self.conv2.forward(y));
        relu(y + self.shortcut(x))
    }

    /// Option A: every second pixel, the new channels zero, half of them on each side.
    fn shortcut(&self, x: Tensor<4>) -> Tensor<4> {
        if self.stride == 1 {
            return x;
        }
        let channels = x.dims()[1];
        // The mean of one pixel in a window of one: exact, and quick on every backend, where a slice
        // with steps is slow or (libtorch, backwards) fails.
        let thinned = AvgPool2dConfig::new([1, 1]).with_strides([self.stride; 2]).init().forward(x);
        let sides = channels * (self.stride - 1) / 2;
        thinned.pad([(0, 0), (sides, sides), (0, 0), (0, 0)], PadMode::Constant(0.0))
    }
}

fn conv3x3(input: usize, output: usize, stride: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([input, output], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false)
        .with_initializer(kaiming())
        .init(device)
}

/// He et al., arXiv 1502.01852: normal with variance 2 / fan-in.
fn kaiming() -> Initializer {
    Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: false }
}
