//! The architectures by name, and their tensors.

use std::array;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::model::channel_graph::{ChannelGraph, Group};
use regrow_sparse_core::{Error, Result};

use crate::data::Normalization;
use crate::models::{ConvNet, LeNet5, Mlp, MnistCnn, Net, ResNet, ResidualMlp};
use crate::names::{Role, visit_names};

/// An architecture of the zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// PyTorch's CIFAR-10 tutorial network, 62,006 parameters.
    CifarLeNet,
    /// LeNet-5 on 28x28 images.
    LeNet5,
    /// LeNet-300-100 on 28x28 images.
    Mlp,
    /// Eight residual blocks of 64 on 8x8 images.
    MlpResidual,
    /// 64-128-64 on 8x8 images.
    MlpSmall,
    /// The CNN of pytorch/examples' MNIST, 431,080 parameters.
    MnistCnn,
    /// ResNet-20 for CIFAR.
    ResNet20,
    /// ResNet-32 for CIFAR.
    ResNet32,
    /// ResNet-56 for CIFAR.
    ResNet56,
}

/// One tensor of an architecture, with PyTorch's name and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Such as `layer1.0.conv1.weight`.
    pub name: String,
    /// PyTorch's shape: `[d_out, d_in]`, `[out, in, kh, kw]`.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
    /// The number of positions of one example it is applied to: the size of the output map for a convolution, 1 for a
    /// linear layer, 0 for tensors that are not multiplied.
    pub positions: usize,
}

impl Arch {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::CifarLeNet,
        Self::LeNet5,
        Self::Mlp,
        Self::MlpResidual,
        Self::MlpSmall,
        Self::MnistCnn,
        Self::ResNet20,
        Self::ResNet32,
        Self::ResNet56,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CifarLeNet => "cifar-lenet",
            Self::LeNet5 => "lenet5",
            Self::Mlp => "mlp",
            Self::MlpResidual => "mlp-residual",
            Self::MlpSmall => "mlp-small",
            Self::MnistCnn => "mnist-cnn",
            Self::ResNet20 => "resnet20",
            Self::ResNet32 => "resnet32",
            Self::ResNet56 => "resnet56",
        }
    }

    /// The architecture with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| Error::Argument(format!("unknown architecture `{name}`: use {}", known())))
    }

    /// Channels, height and width of its input.
    pub fn input(self) -> [usize; 3] {
        match self {
            Self::MlpResidual | Self::MlpSmall => [1, 8, 8],
            Self::Mlp | Self::LeNet5 | Self::MnistCnn => [1, 28, 28],
            _ => [3, 32, 32],
        }
    }

    /// The normalization that its published weights need, if it differs from the data set's.
    pub fn normalization(self) -> Option<Normalization> {
        (self == Self::CifarLeNet).then(|| Normalization::bytes(&[0.5; 3], &[0.5; 3]))
    }

    /// Channel graph of its layers, for `classes` classes: what can be made narrower. The last
    /// group is the classes.
    pub fn layout(self, classes: usize) -> ChannelGraph {
        match self {
            Self::CifarLeNet => LeNet5::layout(3, classes),
            Self::LeNet5 => LeNet5::layout(1, classes),
            Self::Mlp => ChannelGraph::chain(&[784, 300, 100, classes]),
            Self::MlpResidual => ResidualMlp::layout(classes),
            Self::MlpSmall => ChannelGraph::chain(&[64, 128, 64, classes]),
            Self::MnistCnn => MnistCnn::layout(classes),
            Self::ResNet20 => ResNet::layout(3, classes),
            Self::ResNet32 => ResNet::layout(5, classes),
            Self::ResNet56 => ResNet::layout(9, classes),
        }
    }

    /// A fresh network for `classes` classes; the same for the same `seed` and device.
    pub fn init(self, classes: usize, seed: u64, device: &Device) -> Net {
        self.draw(&self.layout(classes).widths(), seed, device)
    }

    /// A fresh network whose groups of activations, those of its [layout](Self::layout), have these
    /// widths; the same for the same `seed` and device.
    ///
    /// # Errors
    /// A width for each group is missing, is above the full one's or below the least.
    pub fn init_narrow(self, widths: &[usize], seed: u64, device: &Device) -> Result<Net> {
        let layout = self.layout(widths.last().copied().unwrap_or(0));
        let fits = |(group, width): (&Group, &usize)| (group.least..=group.width).contains(width);
        match widths.len() == layout.groups.len() && layout.groups.iter().zip(widths).all(fits) {
            true => Ok(self.draw(widths, seed, device)),
            false => Err(Error::Argument(format!("{self} has widths {:?}, not {widths:?}", layout.widths()))),
        }
    }

    fn draw(self, widths: &[usize], seed: u64, device: &Device) -> Net {
        drawn(seed, device, || self.build(widths, device))
    }

    /// Its tensors, in the order in which PyTorch lists them.
    pub fn tensors(self, classes: usize) -> Vec<TensorSpec> {
        self.narrow_tensors(&self.layout(classes).widths())
    }

    /// Its tensors if its groups have these widths.
    pub(crate) fn narrow_tensors(self, widths: &[usize]) -> Vec<TensorSpec> {
        let net = self.build(widths, &regrow_device::current());
        let mut specs = Vec::new();
        visit_names(&net, &mut |name, shape, role| specs.push(TensorSpec { name, shape, role, positions: 0 }));
        let layout = self.layout(widths.last().copied().unwrap_or(0));
        let there = layout.layers.iter().filter(|link| widths[link.input] * widths[link.output] > 0);
        for (spec, link) in specs.iter_mut().filter(|spec| spec.role.is_weight()).zip(there) {
            spec.positions = link.positions;
        }
        specs
    }

    /// As many widths as its layout has groups.
    fn build(self, widths: &[usize], device: &Device) -> Net {
        let width = |i: usize| widths[i];
        match self {
            Self::CifarLeNet => Net::LeNet5(LeNet5::new(array::from_fn(width), 0, device)),
            Self::LeNet5 => Net::LeNet5(LeNet5::new(array::from_fn(width), 2, device)),
            Self::Mlp | Self::MlpSmall => Net::Mlp(Mlp::new(array::from_fn(width), device)),
            Self::MlpResidual => Net::ResidualMlp(ResidualMlp::new(widths, device)),
            Self::MnistCnn => Net::MnistCnn(MnistCnn::new(array::from_fn(width), device)),
            Self::ResNet20 => Net::ResNet(ResNet::new(3, widths, device)),
            Self::ResNet32 => Net::ResNet(ResNet::new(5, widths, device)),
            Self::ResNet56 => Net::ResNet(ResNet::new(9, widths, device)),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fresh multilayer perceptron of these widths: input, two hidden layers, output; the same for the same
/// `seed` and device.
pub fn mlp(widths: [usize; 4], seed: u64, device: &Device) -> Net {
    Arch::Mlp.draw(&widths, seed, device)
}

/// A fresh [`ResNet`] of depth `6 * blocks + 2` for images of `channels` channels, of any size that can be
/// halved twice; the same for the same `seed` and device.
pub fn resnet(blocks: usize, [channels, classes]: [usize; 2], seed: u64, device: &Device) -> Net {
    let mut widths = ResNet::layout(blocks, classes).widths();
    widths[0] = channels;
    drawn(seed, device, || Net::ResNet(ResNet::new(blocks, &widths, device)))
}

/// A fresh [`ConvNet`] for images of `channels` channels; the same for the same `seed` and device.
pub fn convnet([channels, classes]: [usize; 2], seed: u64, device: &Device) -> Net {
    drawn(seed, device, || Net::ConvNet(ConvNet::new(channels, classes, device)))
}

/// The parameters of `build` on `device`, drawn from `seed` independently of other threads.
pub fn drawn<M: Module>(seed: u64, device: &Device, build: impl FnOnce() -> M) -> M {
    // The generator belongs to the device, and parameters are drawn at their first use: seed, build and draw under one
    // lock, or two threads would share one sequence.
    static DRAWING: Mutex<()> = Mutex::new(());
    let _guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let net = build();
    net.visit(&mut Draw);
    net
}

/// Reads every parameter once, which draws those that are still lazy.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}

#[cfg(test)]
mod tests {
    use regrow_train::Classifier;

    use super::*;

    #[test]
    fn parameters_are_as_many_as_published() {
        let count = |arch: Arch| -> usize {
            let learned = arch.tensors(10).into_iter().filter(|t| t.role != Role::Statistic);
            learned.map(|t| t.shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(Arch::Mlp), 266_610);
        assert_eq!(count(Arch::MnistCnn), 431_080);
        assert_eq!(count(Arch::CifarLeNet), 62_006);
        assert_eq!(count(Arch::ResNet20), 269_722);
        assert_eq!(count(Arch::ResNet56), 853_018);
    }

    #[test]
    fn one_seed_one_network_and_the_promised_shapes() {
        let device = regrow_device::current();
        for arch in Arch::ALL {
            let [c, h, w] = arch.input();
            let out = |seed: u64| {
                let net = arch.init(7, seed, &device).valid();
                net.logits(Tensor::ones([2, c, h, w], &device)).into_data()
            };
            let first = out(1);
            assert_eq!(first.shape().as_slice(), [2, 7], "{arch}");
            assert_eq!(first, out(1), "{arch}");
            assert_ne!(first, out(2), "{arch}");
        }
    }

    #[test]
    fn the_layout_is_that_of_the_built_network() {
        for arch in Arch::ALL {
            let layout = arch.layout(7);
            let mut widths: Vec<usize> = layout.widths().iter().map(|w| w.div_ceil(3)).collect();
            for (group, width) in layout.groups.iter().zip(&mut widths) {
                *width = (*width).max(group.least);
            }
            let mut shallow = widths.clone();
            layout.removable().iter().skip(1).for_each(|group| shallow[*group] = 0);
            for widths in [layout.widths(), widths, shallow] {
                let weights = arch.narrow_tensors(&widths).into_iter().filter(|t| t.role.is_weight());
                let sizes: Vec<usize> = weights.map(|t| t.shape.iter().product()).collect();
                let there: Vec<usize> = layout.sizes(&widths).into_iter().filter(|size| *size > 0).collect();
                assert_eq!(sizes, there, "{arch}");
                let [channels, height, width] = arch.input();
                let device = regrow_device::current();
                let net = arch.init_narrow(&widths, 1, &device).unwrap();
                let images = Tensor::<4>::ones([2, channels, height, width], &device);
                assert_eq!(net.logits(images).dims(), [2, 7], "{arch}");
            }
        }
        for bad in [vec![], vec![64, 0, 64, 10], vec![64, 129, 64, 10], vec![63, 1, 1, 10]] {
            let refused = Arch::MlpSmall.init_narrow(&bad, 0, &regrow_device::current()).unwrap_err();
            assert!(refused.to_string().contains("has widths [64, 128, 64, "), "{refused}");
        }
    }

    #[test]
    fn stages_of_any_widths_can_be_joined() {
        let mut widths = Arch::ResNet20.layout(10).widths();
        // The second stage narrower than the first, the third wider by an odd number.
        (widths[1], widths[2], widths[3]) = (9, 4, 7);
        let net = Arch::ResNet20.init_narrow(&widths, 1, &regrow_device::current()).unwrap();
        let logits = net.logits(Tensor::<4>::ones([1, 3, 32, 32], &regrow_device::current())).into_data();
        assert!(logits.shape()[..] == [1, 10] && logits.iter::<f32>().all(f32::is_finite), "{logits}");
    }

    #[test]
    fn the_last_weight_is_the_head() {
        let tensors = Arch::ResNet20.tensors(10);
        let heads: Vec<_> = tensors.iter().filter(|t| t.role == Role::Head).map(|t| t.name.as_str()).collect();
        assert_eq!(heads, ["linear.weight"]);
        assert!(Arch::parse("resnet21").unwrap_err().to_string().contains("resnet20"));
    }
}
