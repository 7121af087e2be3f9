//! A multilayer perceptron of residual blocks on flattened 8x8 images.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use regrow_inference::{DenseExecutor, ForwardWith, LayerExecutor, ScopedExecutor};
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_train::Classifier;
use regrow_train::classifier::Headed;
use regrow_train::gated_forward::{GatedForward, Gates};

use super::narrow;

/// Blocks of the full network.
const BLOCKS: usize = 8;

/// `input`, eight blocks `x + bn2(fc2(relu(bn1(fc1(x)))))`, `output`.
#[derive(Module, Debug)]
pub struct ResidualMlp {
    input: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

/// Two linear layers with batch norm around a shortcut; without them, the shortcut.
#[derive(Module, Debug)]
pub struct Block {
    fc1: Option<Linear>,
    bn1: Option<BatchNorm>,
    fc2: Option<Linear>,
    bn2: Option<BatchNorm>,
}

impl ResidualMlp {
    /// Channel graph of its layers. Groups: the image, what the blocks add to, the inside of each
    /// block, the classes.
    pub fn layout(classes: usize) -> ChannelGraph {
        let mut layout = ChannelGraph::default();
        let (image, stream) = (layout.group(64, 64), layout.group(64, 1));
        layout.linear(image, stream);
        for _ in 0..BLOCKS {
            let inside = layout.group(64, 0);
            layout.linear(stream, inside);
            layout.linear(inside, stream);
        }
        let head = layout.group(classes, classes);
        layout.linear(stream, head);
        layout
    }

    /// Its groups of these widths.
    ///
    /// # Panics
    /// If there are not as many widths as the [layout](Self::layout) has groups.
    pub fn new(widths: &[usize], device: &Device) -> Self {
        let linear = |input, output| LinearConfig::new(input, output).init(device);
        let block = |inside: usize| Block {
            fc1: (inside > 0).then(|| linear(widths[1], inside)),
            bn1: (inside > 0).then(|| BatchNormConfig::new(inside).init(device)),
            fc2: (inside > 0).then(|| linear(inside, widths[1])),
            bn2: (inside > 0).then(|| BatchNormConfig::new(widths[1]).init(device)),
        };
        Self {
            input: linear(widths[0], widths[1]),
            blocks: widths[2..2 + BLOCKS].iter().map(|inside| block(*inside)).collect(),
            output: linear(widths[1], widths[2 + BLOCKS]),
        }
    }
}

impl Classifier for ResidualMlp {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut DenseExecutor)
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        for block in &mut self.blocks {
            block.bn1.iter_mut().chain(&mut block.bn2).for_each(&mut *f);
        }
    }
}

impl ResidualMlp {
    fn features_by(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = relu(layers.linear("input", &self.input, images.flatten::<2>(1, 3)));
        let step = |x, (i, block): (usize, &Block)| {
            block.forward(x, None, &mut ScopedExecutor::new(format!("blocks.{i}"), &mut *layers))
        };
        self.blocks.iter().enumerate().fold(x, step)
    }
}

impl ForwardWith<Tensor<4>> for ResidualMlp {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = self.features_by(images, layers);
        layers.linear("output", &self.output, x)
    }
}

impl Headed for ResidualMlp {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.features_by(images, &mut DenseExecutor)
    }

    fn head(&self) -> &Linear {
        &self.output
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.output
    }
}

impl GatedForward for ResidualMlp {
    fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2> {
        let x = relu(self.input.forward(images.flatten::<2>(1, 3)));
        let step = |x: Tensor<2>, (i, block): (usize, &Block)| {
            let gate = gates(i, x.clone());
            block.forward(x, Some(gate), &mut DenseExecutor)
        };
        self.output.forward(self.blocks.iter().enumerate().fold(x, step))
    }

    fn narrowed(mut self, kept: &[Vec<bool>]) -> Self {
        for (block, kept) in self.blocks.iter_mut().zip(kept) {
            block.fc1 = block.fc1.take().and_then(|fc| narrow::linear_outputs(fc, kept));
            block.bn1 = block.bn1.take().and_then(|bn| narrow::norm(bn, kept));
            block.fc2 = block.fc2.take().and_then(|fc| narrow::linear_inputs(fc, kept));
            block.bn2 = block.bn2.take().filter(|_| block.fc2.is_some());
        }
        self
    }
}

impl Block {
    fn forward(&self, x: Tensor<2>, gates: Option<Gates>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let Self { fc1: Some(fc1), bn1: Some(bn1), fc2: Some(fc2), bn2: Some(bn2) } = self else { return x };
        let (whole, inside) = gates.map_or((None, None), |gates| (Some(gates.whole), gates.inside));
        let gated = |y: Tensor<2>, gate: Option<Tensor<2>>| if let Some(gate) = gate { y * gate } else { y };
        let y = gated(relu(bn1.forward(layers.linear("fc1", fc1, x.clone()))), inside);
        x + gated(bn2.forward(layers.linear("fc2", fc2, y)), whole)
    }
}
