//! ResNet for CIFAR (He et al., arXiv 1512.03385, sec. 4.2): depth 6n + 2, shortcuts of option A.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::AvgPool2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::{Classifier, layout::Layout};

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
    /// How the layers of depth `6 * blocks + 2` hang together. Groups: the image, the three stages
    /// (what blocks add to each other has one width), the inside of each block, the classes.
    pub fn layout(blocks: usize, classes: usize) -> Layout {
        let mut layout = Layout::default();
        let image = layout.group(3, true);
        let stages = [16, 32, 64].map(|width| layout.group(width, false));
        layout.layer(image, stages[0], 9);
        let mut before = stages[0];
        for (stage, width) in stages.into_iter().zip([16, 32, 64]) {
            for _ in 0..blocks {
                let inside = layout.group(width, false);
                layout.layer(before, inside, 9);
                layout.layer(inside, stage, 9);
                before = stage;
            }
        }
        let head = layout.group(classes, true);
        layout.layer(before, head, 1);
        layout
    }

    /// Of depth `6 * blocks + 2`, its groups of these widths.
    ///
    /// # Panics
    /// If there are not as many widths as the [layout](Self::layout) has groups.
    pub fn new(blocks: usize, widths: &[usize], device: &Device) -> Self {
        let stages = [widths[1], widths[2], widths[3]];
        let stage = |i: usize| -> Vec<Block> {
            let entry = stages[i.saturating_sub(1)];
            let block = |b: usize| {
                let (input, stride) = if b == 0 { (entry, if i == 0 { 1 } else { 2 }) } else { (stages[i], 1) };
                Block::new([input, widths[4 + i * blocks + b], stages[i]], stride, device)
            };
            (0..blocks).map(block).collect()
        };
        Self {
            conv1: conv3x3(widths[0], stages[0], 1, device),
            bn1: BatchNormConfig::new(stages[0]).init(device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            linear: LinearConfig::new(stages[2], widths[4 + 3 * blocks]).with_initializer(kaiming()).init(device),
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
    fn new([input, inside, output]: [usize; 3], stride: usize, device: &Device) -> Self {
        Self {
            conv1: conv3x3(input, inside, stride, device),
            bn1: BatchNormConfig::new(inside).init(device),
            conv2: conv3x3(inside, output, 1, device),
            bn2: BatchNormConfig::new(output).init(device),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = self.bn2.forward(self.conv2.forward(y));
        relu(y + self.shortcut(x))
    }

    /// Option A: every second pixel, the new channels zero, half of them on each side. Of a network
    /// made narrower unevenly, channels that are too many are left out, the last ones.
    fn shortcut(&self, x: Tensor<4>) -> Tensor<4> {
        if self.stride == 1 {
            return x;
        }
        // The mean of one pixel in a window of one: exact, and quick on every backend, where a slice
        // with steps is slow or (libtorch, backwards) fails.
        let thinned = AvgPool2dConfig::new([1, 1]).with_strides([self.stride; 2]).init().forward(x);
        let (have, want) = (thinned.dims()[1], self.bn2.gamma.lazy_shape().as_slice()[0]);
        let missing = want.saturating_sub(have);
        let sides = (missing / 2, missing - missing / 2);
        thinned.narrow(1, 0, have.min(want)).pad([(0, 0), sides, (0, 0), (0, 0)], PadMode::Constant(0.0))
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
