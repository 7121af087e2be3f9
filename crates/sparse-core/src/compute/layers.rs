//! Who computes the layers of a model: they themselves, or sparse ones in their place.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use super::trial::{Options, Trial, Verdict, Weights};
use super::{SparseConv2d, SparseLinear};
use crate::Result;

/// Computes layers for a model that runs; each has a name of its own in it.
pub trait Layers {
    /// The outputs `[batch, d_out]` of `layer` for `x`, `[batch, d_in]`.
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2>;

    /// The outputs of `layer` for `images`, `[batch, in, height, width]`.
    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4>;
}

/// Layers as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock;

impl Layers for Stock {
    fn linear(&mut self, _name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x)
    }

    fn conv2d(&mut self, _name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        layer.forward(images)
    }
}

/// Every layer computes itself; what convolutions give is told to someone, with their number, who says what
/// goes on in its place.
pub struct Tap<'a> {
    after: &'a mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>,
    convolutions: usize,
}

impl<'a> Tap<'a> {
    /// Before the first convolution.
    pub fn new(after: &'a mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Self {
        Self { after, convolutions: 0 }
    }
}

impl Layers for Tap<'_> {
    fn linear(&mut self, _name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        layer.forward(x)
    }

    fn conv2d(&mut self, _name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        self.convolutions += 1;
        (self.after)(self.convolutions - 1, layer.forward(images))
    }
}

/// Layers of a part of a model, whose names begin with that of the part.
pub struct Within<'a> {
    part: String,
    all: &'a mut dyn Layers,
}

impl<'a> Within<'a> {
    /// Of this part.
    pub fn new(part: impl Into<String>, all: &'a mut dyn Layers) -> Self {
        Self { part: part.into(), all }
    }
}

impl Layers for Within<'_> {
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        self.all.linear(&format!("{}.{name}", self.part), layer, x)
    }

    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        self.all.conv2d(&format!("{}.{name}", self.part), layer, images)
    }
}

/// A model that leaves its layers to someone else to compute.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use regrow_sparse_core::compute::{Layered, Layers, Options, compress};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     first: Linear,
///     second: Linear,
/// }
///
/// impl Layered<Tensor<2>> for Net {
///     type Output = Tensor<2>;
///
///     fn run(&self, x: Tensor<2>, layers: &mut dyn Layers) -> Tensor<2> {
///         let x = relu(layers.linear("first", &self.first, x));
///         layers.linear("second", &self.second, x)
///     }
/// }
///
/// let device = Device::default();
/// let net = Net { first: LinearConfig::new(8, 16).init(&device), second: LinearConfig::new(16, 4).init(&device) };
/// let sample = Tensor::ones([1, 8], &device);
/// let (net, verdicts) = compress(net, sample.clone(), &Options::default())?;
/// // Nothing is pruned, so nothing is sparse.
/// assert!(verdicts.iter().all(|verdict| verdict.chosen.is_none()));
/// assert_eq!(net.run(sample).dims(), [1, 4]);
/// # Ok::<(), regrow_sparse_core::Error>(())
/// ```
pub trait Layered<I> {
    /// What it gives.
    type Output;

    /// The output for `input`, its layers computed by `layers`.
    fn run(&self, input: I, layers: &mut dyn Layers) -> Self::Output;
}

/// A layer that takes another's place.
#[derive(Clone, Debug)]
pub(super) enum Sparse {
    Linear(SparseLinear),
    Conv2d(SparseConv2d),
}

/// A model of which some layers are computed sparse: for use, not for training.
#[derive(Clone, Debug)]
pub struct Compressed<M> {
    /// The model. Its own layers stay in memory, unless [`Compressed::without_dense`] is wanted.
    pub model: M,
    layers: BTreeMap<String, Sparse>,
    /// The weights of layers that are computed sparse.
    weights: Vec<ParamId>,
}

impl<M> Compressed<M> {
    /// The output for `input`.
    pub fn run<I>(&self, input: I) -> M::Output
    where
        M: Layered<I>,
    {
        self.model.run(input, &mut self.layers())
    }

    /// Its layers, for a model that runs in parts.
    pub fn layers(&self) -> Swapped<'_> {
        Swapped(&self.layers)
    }

    /// The same in less memory: of weights that are computed sparse the shapes stay, a single zero stands for all
    /// their values. The model is then of use through [`Compressed::run`] and [`Compressed::layers`] alone.
    pub fn without_dense(mut self) -> Self
    where
        M: Module,
    {
        // A mask would be as large as what it masks.
        self.model = self.model.materialize().map(&mut Emptied(&self.weights));
        self
    }

    /// How many layers are sparse.
    pub fn sparse(&self) -> usize {
        self.layers.len()
    }
}

/// Puts nothing where these weights are.
struct Emptied<'a>(&'a [ParamId]);

impl ModuleMapper for Emptied<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.contains(&param.id) {
            // Strides of zero: no memory but the one number.
            true => param.map(|weight| Tensor::<D>::zeros([1; D], &weight.device()).expand(weight.dims())),
            false => param,
        }
    }
}

/// Layers of which some are sparse.
pub struct Swapped<'a>(&'a BTreeMap<String, Sparse>);

impl Layers for Swapped<'_> {
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        match self.0.get(name) {
            Some(Sparse::Linear(sparse)) => sparse.forward(x),
            _ => layer.forward(x),
        }
    }

    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        match self.0.get(name) {
            Some(Sparse::Conv2d(sparse)) => sparse.forward(images),
            _ => layer.forward(images),
        }
    }
}

/// Runs `model` on `sample`, which should be as large as what it will be used on, and measures each layer on
/// what reaches it there, dense and in every sparse form that its zeros allow. Those that are faster sparse
/// become so; the verdicts say which, and why the others do not.
///
/// A layer is measured as it will be met, after the weights of the others have passed through the processor's
/// caches: one that is met again at once would be read from there.
///
/// # Errors
/// A layer whose weights are not finite.
pub fn compress<I, M>(model: M, sample: I, options: &Options) -> Result<(Compressed<M>, Vec<Verdict>)>
where
    I: Clone,
    M: Layered<I>,
{
    compress_by(model, options, |model, trial| {
        let _ = model.run(sample.clone(), trial);
        Ok(())
    })
}

/// The same for a model that `run` runs: twice, once to count its weights.
///
/// # Errors
/// As [`compress`], and those of `run`.
pub fn compress_by<M>(
    model: M,
    options: &Options,
    run: impl Fn(&M, &mut dyn Layers) -> Result<()>,
) -> Result<(Compressed<M>, Vec<Verdict>)> {
    let mut weights = Weights::default();
    run(&model, &mut weights)?;
    let mut trial = Trial::new(options.clone(), &weights);
    run(&model, &mut trial)?;
    let ((layers, weights), verdicts) = trial.finish()?;
    Ok((Compressed { model, layers, weights }, verdicts))
}
