//! How the layers of a model are computed: by themselves, or by sparse replacements.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use regrow_sparse_core::model::executor::{ForwardWith, LayerExecutor};

use crate::autotune::{Autotune, LayerTiming, Options, Weights};
use crate::{SparseConv2d, SparseLinear};
use regrow_sparse_core::Result;

/// A layer's sparse replacement.
#[derive(Clone, Debug)]
pub(super) enum Sparse {
    Linear(SparseLinear),
    Conv2d(SparseConv2d),
}

/// A model with some layers computed sparse: for inference, not for training.
#[derive(Clone, Debug)]
pub struct Compressed<M> {
    /// The model. Its own layers stay in memory, unless [`Compressed::without_dense`] is used.
    pub model: M,
    layers: BTreeMap<String, Sparse>,
    /// The weights of layers that are computed sparse.
    weights: Vec<ParamId>,
}

impl<M> Compressed<M> {
    /// The output for `input`.
    pub fn run<I>(&self, input: I) -> M::Output
    where
        M: ForwardWith<I>,
    {
        self.model.run(input, &mut self.layers())
    }

    /// Its layers, for a model that runs in parts.
    pub fn layers(&self) -> Swapped<'_> {
        Swapped(&self.layers)
    }

    /// The same in less memory: weights that are computed sparse keep their shapes, but a single zero replaces all
    /// their values. The model then works only through [`Compressed::run`] and [`Compressed::layers`].
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

/// Replaces these weights by empty ones.
struct Emptied<'a>(&'a [ParamId]);

impl ModuleMapper for Emptied<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.contains(&param.id) {
            // Strides of zero: no memory but one number.
            true => param.map(|weight| Tensor::<D>::zeros([1; D], &weight.device()).expand(weight.dims())),
            false => param,
        }
    }
}

/// Layers of which some are sparse.
pub struct Swapped<'a>(&'a BTreeMap<String, Sparse>);

impl LayerExecutor for Swapped<'_> {
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

/// Runs `model` on `sample`, which should be as large as in later use, and measures each layer on the inputs that reach
/// it there, dense and in every sparse form that its zeros allow. Those that are faster sparse become sparse; the
/// verdicts say which, and why the others do not.
///
/// A layer is measured as in use, after the weights of the others have passed through the CPU's caches: run twice in a
/// row, it would be read from there.
///
/// # Errors
/// A layer whose weights are not finite.
pub fn compress<I, M>(model: M, sample: I, options: &Options) -> Result<(Compressed<M>, Vec<LayerTiming>)>
where
    I: Clone,
    M: ForwardWith<I>,
{
    compress_by(model, options, |model, autotune| {
        let _ = model.run(sample.clone(), autotune);
        Ok(())
    })
}

/// The same for a model that is run by `run`: twice, once to count its weights.
///
/// # Errors
/// As [`compress`], and those of `run`.
pub fn compress_by<M>(
    model: M,
    options: &Options,
    run: impl Fn(&M, &mut dyn LayerExecutor) -> Result<()>,
) -> Result<(Compressed<M>, Vec<LayerTiming>)> {
    let mut weights = Weights::default();
    run(&model, &mut weights)?;
    let mut autotune = Autotune::new(options.clone(), &weights);
    run(&model, &mut autotune)?;
    let ((layers, weights), verdicts) = autotune.finish()?;
    Ok((Compressed { model, layers, weights }, verdicts))
}
