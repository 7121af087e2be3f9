//! The networks of the tables, and one type for any of them.

pub mod lenet5;
pub mod mlp;
pub mod mnist_cnn;
pub mod resnet;

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::Tensor;
use regrow_sparse_core::Classifier;

pub use lenet5::LeNet5;
pub use mlp::Mlp;
pub use mnist_cnn::MnistCnn;
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
    /// A CIFAR ResNet.
    ResNet(ResNet),
}

impl Classifier for Net {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Mlp(net) => net.logits(images),
            Self::LeNet5(net) => net.logits(images),
            Self::MnistCnn(net) => net.logits(images),
            Self::ResNet(net) => net.logits(images),
        }
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        if let Self::ResNet(net) = self {
            net.batch_norms(f);
        }
    }
}
