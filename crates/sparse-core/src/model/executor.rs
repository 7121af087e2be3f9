//! How the layers of a model are computed: by themselves, by sparse replacements, or with an observer.

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

/// Computes layers for a running model; each layer has a unique name in it.
pub trait LayerExecutor {
    /// The outputs `[batch, d_out]` of `layer` for `x`, `[batch, d_in]`.
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2>;

    /// The outputs of `layer` for `images`, `[batch, in, height, width]`.
    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4>;
}

/// Computes layers unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenseExecutor;

impl LayerExecutor for DenseExecutor {
    fn linear(&mut self, _name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x)
    }

    fn conv2d(&mut self, _name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        layer.forward(images)
    }
}

/// Every layer computes itself; the outputs of convolutions are passed, with their number, to a callback, which returns
/// what is used in their place.
pub struct ConvTap<'a> {
    after: &'a mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>,
    convolutions: usize,
}

impl<'a> ConvTap<'a> {
    /// Before the first convolution.
    pub fn new(after: &'a mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Self {
        Self { after, convolutions: 0 }
    }
}

impl LayerExecutor for ConvTap<'_> {
    fn linear(&mut self, _name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x)
    }

    fn conv2d(&mut self, _name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        self.convolutions += 1;
        (self.after)(self.convolutions - 1, layer.forward(images))
    }
}

/// The layers of a part of a model, whose names start with the part's name.
pub struct ScopedExecutor<'a> {
    part: String,
    all: &'a mut dyn LayerExecutor,
}

impl<'a> ScopedExecutor<'a> {
    /// For this part.
    pub fn new(part: impl Into<String>, all: &'a mut dyn LayerExecutor) -> Self {
        Self { part: part.into(), all }
    }
}

impl LayerExecutor for ScopedExecutor<'_> {
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        self.all.linear(&format!("{}.{name}", self.part), layer, x)
    }

    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        self.all.conv2d(&format!("{}.{name}", self.part), layer, images)
    }
}

/// A model whose layers can be computed by an executor.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use regrow_sparse_core::model::executor::{DenseExecutor, ForwardWith, LayerExecutor};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     first: Linear,
///     second: Linear,
/// }
///
/// impl ForwardWith<Tensor<2>> for Net {
///     type Output = Tensor<2>;
///
///     fn run(&self, x: Tensor<2>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
///         let x = relu(layers.linear("first", &self.first, x));
///         layers.linear("second", &self.second, x)
///     }
/// }
///
/// let device = Device::default();
/// let net = Net { first: LinearConfig::new(8, 16).init(&device), second: LinearConfig::new(16, 4).init(&device) };
/// // The layers as they are; `regrow_inference::compress` swaps in sparse ones that are faster.
/// assert_eq!(net.run(Tensor::ones([1, 8], &device), &mut DenseExecutor).dims(), [1, 4]);
/// ```
pub trait ForwardWith<I> {
    /// Its output.
    type Output;

    /// The output for `input`, its layers computed by `layers`.
    fn run(&self, input: I, layers: &mut dyn LayerExecutor) -> Self::Output;
}
