//! The networks of the tables, and one type for any of them.

pub mod convnet;
pub mod lenet5;
pub mod mlp;
pub mod mnist_cnn;
mod narrow;
pub mod residual_mlp;
pub mod resnet;

use burn::module::Module;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::Tensor;
use regrow_inference::{ForwardWith, LayerExecutor};
use regrow_train::Classifier;
use regrow_train::classifier::{ConvHooks, Headed};
use regrow_train::gated_forward::{GatedForward, Gates};

pub use convnet::ConvNet;
pub use lenet5::LeNet5;
pub use mlp::Mlp;
pub use mnist_cnn::MnistCnn;
pub use residual_mlp::ResidualMlp;
pub use resnet::ResNet;

/// Any network of the zoo.
#[derive(Module, Debug)]
pub enum Net {
    /// A multilayer perceptron.
    Mlp(Mlp),
    /// LeNet-5 or its colour form.
    LeNet5(LeNet5),
    /// The MNIST CNN.
    MnistCnn(MnistCnn),
    /// A multilayer perceptron of residual blocks.
    ResidualMlp(ResidualMlp),
    /// A CIFAR ResNet.
    ResNet(ResNet),
    /// Three convolutions with batch norm.
    ConvNet(ConvNet),
}

impl Classifier for Net {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Mlp(net) => net.logits(images),
            Self::LeNet5(net) => net.logits(images),
            Self::MnistCnn(net) => net.logits(images),
            Self::ResidualMlp(net) => net.logits(images),
            Self::ResNet(net) => net.logits(images),
            Self::ConvNet(net) => net.logits(images),
        }
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        match self {
            Self::ResidualMlp(net) => net.batch_norms(f),
            Self::ResNet(net) => net.batch_norms(f),
            Self::ConvNet(net) => net.batch_norms(f),
            Self::Mlp(_) | Self::LeNet5(_) | Self::MnistCnn(_) => {}
        }
    }
}

impl ForwardWith<Tensor<4>> for Net {
    type Output = Tensor<2>;

    fn run(&self, images: Tensor<4>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        match self {
            Self::Mlp(net) => net.run(images, layers),
            Self::LeNet5(net) => net.run(images, layers),
            Self::MnistCnn(net) => net.run(images, layers),
            Self::ResidualMlp(net) => net.run(images, layers),
            Self::ResNet(net) => net.run(images, layers),
            Self::ConvNet(net) => net.run(images, layers),
        }
    }
}

impl Headed for Net {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Mlp(net) => net.features(images),
            Self::LeNet5(net) => net.features(images),
            Self::MnistCnn(net) => net.features(images),
            Self::ResidualMlp(net) => net.features(images),
            Self::ResNet(net) => net.features(images),
            Self::ConvNet(net) => net.features(images),
        }
    }

    fn head(&self) -> &Linear {
        match self {
            Self::Mlp(net) => net.head(),
            Self::LeNet5(net) => net.head(),
            Self::MnistCnn(net) => net.head(),
            Self::ResidualMlp(net) => net.head(),
            Self::ResNet(net) => net.head(),
            Self::ConvNet(net) => net.head(),
        }
    }

    fn head_mut(&mut self) -> &mut Linear {
        match self {
            Self::Mlp(net) => net.head_mut(),
            Self::LeNet5(net) => net.head_mut(),
            Self::MnistCnn(net) => net.head_mut(),
            Self::ResidualMlp(net) => net.head_mut(),
            Self::ResNet(net) => net.head_mut(),
            Self::ConvNet(net) => net.head_mut(),
        }
    }
}

/// Multilayer perceptrons have no convolution.
impl ConvHooks for Net {
    fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
        match self {
            Self::LeNet5(net) => net.convolutions(),
            Self::MnistCnn(net) => net.convolutions(),
            Self::ResNet(net) => net.convolutions(),
            Self::ConvNet(net) => net.convolutions(),
            Self::Mlp(_) | Self::ResidualMlp(_) => Vec::new(),
        }
    }

    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
        match self {
            Self::LeNet5(net) => net.tapped(images, after),
            Self::MnistCnn(net) => net.tapped(images, after),
            Self::ResNet(net) => net.tapped(images, after),
            Self::ConvNet(net) => net.tapped(images, after),
            Self::Mlp(_) | Self::ResidualMlp(_) => self.features(images),
        }
    }
}

/// Networks without residual blocks have nothing to switch off.
impl GatedForward for Net {
    fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2> {
        match self {
            Self::ResidualMlp(net) => net.gated(images, gates),
            Self::ResNet(net) => net.gated(images, gates),
            Self::Mlp(_) | Self::LeNet5(_) | Self::MnistCnn(_) | Self::ConvNet(_) => self.logits(images),
        }
    }

    fn narrowed(self, kept: &[Vec<bool>]) -> Self {
        match self {
            Self::ResidualMlp(net) => Self::ResidualMlp(net.narrowed(kept)),
            Self::ResNet(net) => Self::ResNet(net.narrowed(kept)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::Arch;

    fn images(arch: Arch) -> Tensor<4> {
        let [channels, height, width] = arch.input();
        let values: Vec<f32> = (0..3 * channels * height * width).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_data(TensorData::new(values, [3, channels, height, width]), &regrow_device::current())
    }

    fn values(logits: Tensor<2>) -> Vec<f32> {
        logits.into_data().iter().collect()
    }

    /// Gates that are the same for every sample, `kept` of each block's channels.
    fn constant(kept: &[bool], samples: usize) -> Gates {
        let row: Vec<f32> = kept.iter().map(|k| if *k { 1.0 } else { 0.0 }).collect();
        let inside = Tensor::<2>::from_data(
            TensorData::new(row.repeat(samples), [samples, kept.len()]),
            &regrow_device::current(),
        );
        Gates { whole: inside.clone().max_dim(1), inside: Some(inside) }
    }

    #[test]
    fn every_convolution_is_tapped_once_and_in_order() {
        let of = |arch: Arch| (arch.init(10, 3, &regrow_device::current()), arch);
        let small = (crate::convnet([3, 10], 3, &regrow_device::current()), Arch::ResNet20);
        let [lenet, cnn, resnet, mlp] = [Arch::CifarLeNet, Arch::MnistCnn, Arch::ResNet20, Arch::Mlp].map(of);
        for ((net, arch), convolutions) in [(lenet, 2), (cnn, 2), (resnet, 19), (mlp, 0), (small, 3)] {
            let (net, mut seen) = (net.valid(), Vec::new());
            let features = net.tapped(images(arch), &mut |i, maps| {
                seen.push((i, maps.dims()[1]));
                maps
            });
            let there: Vec<usize> = net.convolutions().into_iter().map(|(channels, _)| channels).collect();
            assert_eq!(seen, there.iter().copied().enumerate().collect::<Vec<_>>(), "{arch}");
            assert_eq!(there.len(), convolutions, "{arch}");
            assert_eq!(values(net.head().forward(features)), values(net.logits(images(arch))), "{arch}");
        }
    }

    #[test]
    fn open_gates_leave_a_network_as_it_is_and_closed_ones_may_go() {
        for arch in [Arch::MlpResidual, Arch::ResNet20] {
            let (net, layout) = (arch.init(10, 3, &regrow_device::current()).valid(), arch.layout(10));
            let widths: Vec<usize> = layout.removable().iter().map(|g| layout.groups[*g].width).collect();
            let open = net.gated(images(arch), &mut |block, _| constant(&vec![true; widths[block]], 3));
            assert_eq!(values(open), values(net.logits(images(arch))), "{arch}");
            // Every third channel; the second block and the first of the last stage not at all.
            let keeps = |block: usize, channel: usize| channel.is_multiple_of(3) && block != 1 && block != 6;
            let kept: Vec<Vec<bool>> =
                widths.iter().enumerate().map(|(b, w)| (0..*w).map(|c| keeps(b, c)).collect()).collect();
            let gated = values(net.gated(images(arch), &mut |block, input| {
                assert_eq!(input.dims()[0], 3);
                constant(&kept[block], 3)
            }));
            let small = net.clone().narrowed(&kept);
            assert!(small.num_params() < net.num_params() / 2);
            let largest = gated.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (a, b) in gated.iter().zip(values(small.logits(images(arch)))) {
                assert!((a - b).abs() <= 1e-5 * largest.max(1.0), "{arch}: {a} {b}");
            }
        }
    }
}
