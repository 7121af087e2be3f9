//! ResNet for CIFAR (He et al., arXiv 1512.03385, sec. 4.2): depth 6n + 2, shortcuts of option A.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::AvgPool2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use regrow_inference::{ConvTap, DenseExecutor, ForwardWith, LayerExecutor, ScopedExecutor};
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_train::Classifier;
use regrow_train::classifier::ConvHooks;
use regrow_train::classifier::Headed;
use regrow_train::gated_forward::{GatedForward, Gates};

use super::narrow;

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

/// Two 3x3 convolutions around a shortcut; without them, the shortcut.
#[derive(Module, Debug)]
pub struct Block {
    conv1: Option<Conv2d>,
    bn1: Option<BatchNorm>,
    conv2: Option<Conv2d>,
    bn2: Option<BatchNorm>,
    stride: usize,
    output: usize,
}

impl ResNet {
    /// Channel graph of the layers at depth `6 * blocks + 2`. Groups: the image, the three stages
    /// (what blocks add to each other has one width), the inside of each block, the classes.
    pub fn layout(blocks: usize, classes: usize) -> ChannelGraph {
        let mut layout = ChannelGraph::default();
        let image = layout.group(3, 3);
        let stages = [(16, 32 * 32), (32, 16 * 16), (64, 8 * 8)];
        let [first, second, third] = stages.map(|(width, _)| layout.group(width, 1));
        layout.convolution(image, first, 9, 32 * 32);
        let mut before = first;
        for (stage, (width, pixels)) in [first, second, third].into_iter().zip(stages) {
            for _ in 0..blocks {
                let inside = layout.group(width, 0);
                layout.convolution(before, inside, 9, pixels);
                layout.convolution(inside, stage, 9, pixels);
                before = stage;
            }
        }
        let head = layout.group(classes, classes);
        layout.linear(before, head);
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

impl ResNet {
    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.layer1.iter().chain(&self.layer2).chain(&self.layer3)
    }

    /// The head's inputs, where `gates(i, x)` returns how open each block is.
    fn through(
        &self,
        images: Tensor<4>,
        layers: &mut dyn LayerExecutor,
        mut gates: impl FnMut(usize, &Tensor<4>) -> Option<Gates>,
    ) -> Tensor<2> {
        let x = relu(self.bn1.forward(layers.conv2d("conv1", &self.conv1, images)));
        let step = |x, (i, block): (usize, &Block)| {
            let gates = gates(i, &x);
            let (stage, place) = (1 + i / self.layer1.len(), i % self.layer1.len());
            block.forward(x, gates, &mut ScopedExecutor::new(format!("layer{stage}.{place}"), &mut *layers))
        };
        pooled(self.blocks().enumerate().fold(x, step))
    }
}

impl Classifier for ResNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        f(&mut self.bn1);
        for block in self.layer1.iter_mut().chain(&mut self.layer2).chain(&mut self.layer3) {
            block.bn1.iter_mut().chain(&mut block.bn2).for_each(&mut *f);
        }
    }
}

impl ForwardWith<Tensor<4>> for ResNet {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.through(images, layers, |_, _| None);
        layers.linear("linear", &self.linear, x)
    }
}

impl Headed for ResNet {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.through(images, &mut DenseExecutor, |_, _| None)
    }

    fn head(&self) -> &Linear {
        &self.linear
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.linear
    }
}

impl ConvHooks for ResNet {
    fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
        let inside = self.blocks().flat_map(|block| block.conv1.iter().chain(&block.conv2));
        std::iter::once(&self.conv1).chain(inside).map(|conv| (conv.weight.lazy_shape()[0], [3, 3])).collect()
    }

    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        self.through(images, &mut ConvTap::new(after), |_, _| None)
    }
}

impl GatedForward for ResNet {
    fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2> {
        self.linear.forward(self.through(images, &mut DenseExecutor, |i, x| Some(gates(i, pooled(x.clone())))))
    }

    fn narrowed(mut self, kept: &[Vec<bool>]) -> Self {
        let blocks = self.layer1.iter_mut().chain(&mut self.layer2).chain(&mut self.layer3);
        for (block, kept) in blocks.zip(kept) {
            block.conv1 = block.conv1.take().and_then(|conv| narrow::conv_outputs(conv, kept));
            block.bn1 = block.bn1.take().and_then(|bn| narrow::norm(bn, kept));
            block.conv2 = block.conv2.take().and_then(|conv| narrow::conv_inputs(conv, kept));
            block.bn2 = block.bn2.take().filter(|_| block.conv2.is_some());
        }
        self
    }
}

/// The mean over pixels, `[batch, channels]`.
fn pooled(x: Tensor<4>) -> Tensor<2> {
    x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3)
}

impl Block {
    fn new([input, inside, output]: [usize; 3], stride: usize, device: &Device) -> Self {
        let norm = |channels: usize| BatchNormConfig::new(channels).init(device);
        let there = inside > 0;
        Self {
            conv1: there.then(|| conv3x3(input, inside, stride, device)),
            bn1: there.then(|| norm(inside)),
            conv2: there.then(|| conv3x3(inside, output, 1, device)),
            bn2: there.then(|| norm(output)),
            stride,
            output,
        }
    }

    fn forward(&self, x: Tensor<4>, gates: Option<Gates>, layers: &mut dyn LayerExecutor) -> Tensor<4> {
        let Self { conv1: Some(conv1), bn1: Some(bn1), conv2: Some(conv2), bn2: Some(bn2), .. } = self else {
            return relu(self.shortcut(x));
        };
        let (whole, inside) = gates.map_or((None, None), |gates| (Some(gates.whole), gates.inside));
        let gated = |y: Tensor<4>, gate: Option<Tensor<2>>| match gate {
            Some(gate) => y * gate.unsqueeze_dims::<4>(&[-1, -1]),
            None => y,
        };
        let y = gated(relu(bn1.forward(layers.conv2d("conv1", conv1, x.clone()))), inside);
        relu(gated(bn2.forward(layers.conv2d("conv2", conv2, y)), whole) + self.shortcut(x))
    }

    /// Option A: every second pixel, the new channels zero, half of them on each side. In an unevenly narrowed network,
    /// surplus channels are left out, the last ones first.
    fn shortcut(&self, x: Tensor<4>) -> Tensor<4> {
        if self.stride == 1 {
            return x;
        }
        // The mean over a window of one pixel: exact, and fast on every backend, while a strided slice is slow or
        // (libtorch, backward) fails.
        let thinned = AvgPool2dConfig::new([1, 1]).with_strides([self.stride; 2]).init().forward(x);
        let (have, want) = (thinned.dims()[1], self.output);
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
