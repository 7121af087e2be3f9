//! Shared by the methods' tests: small weights, without a model.

use burn::module::{Module, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::model::probe::Probe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, Weight, weights};
use regrow_sparse_core::{Mask, MaskSet, Result};

/// A weight with values by rule, without a mask.
pub(crate) fn weight(path: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> Weight {
    let values = (0..shape.iter().product()).map(value).collect();
    Weight { path: path.into(), id: ParamId::new(), shape: shape.to_vec(), values, mask: None }
}

/// Rows of 0 and 1 as one mask.
pub(crate) fn bits(mask: &Mask) -> String {
    mask.to_bools().iter().map(|keep| if *keep { '1' } else { '0' }).collect()
}

/// Weights whose stored values do not change; masks are applied as the pruner decides. The gradient of a weight is its
/// value.
pub(crate) struct Still(pub(crate) Vec<Weight>);

impl View for Still {
    fn weights(&mut self) -> Result<Vec<Weight>> {
        let under = |w: &Weight| match &w.mask {
            Some(mask) => w.clone().under(mask),
            None => Ok(w.clone()),
        };
        self.0.iter().map(under).collect()
    }

    fn stored(&mut self) -> Result<Vec<Weight>> {
        Ok(self.0.clone())
    }

    fn gradients(&mut self) -> Result<Vec<Vec<f32>>> {
        Ok(self.0.iter().map(|w| w.values.clone()).collect())
    }
}

/// The scores of a chain's weights, head included, its loss given.
pub(crate) fn scores(
    chain: &Chain,
    score: &dyn Score,
    loss: impl Fn(&Chain) -> Tensor<1> + Send + 'static,
) -> Result<Vec<Vec<f32>>> {
    let select = Select::default().with_head();
    let evidence = Probe::new().with_loss(loss).evidence(chain, &select, &score.needs())?;
    regrow_sparse_core::model::score::scores(&weights(chain, &select)?, score, &evidence)
}

/// The masks that `pruner` chooses in `steps` steps, with the step of each.
pub(crate) fn masks_over(pruner: &mut impl Pruner, view: &mut Still, steps: usize) -> Vec<(usize, MaskSet)> {
    let mut seen = Vec::new();
    for step in 0..steps {
        let masks = match pruner.update(step, view).expect("masks can be chosen") {
            Change::Masks(masks) | Change::Regrown { masks, .. } => masks,
            Change::None | Change::Scale(..) => continue,
        };
        for weight in &mut view.0 {
            weight.mask = masks.get(&weight.path).cloned();
        }
        seen.push((step, masks));
    }
    seen
}

/// `y = b (a . x)`: two layers without biases, on a device with gradients.
#[derive(Module, Debug)]
pub(crate) struct Chain {
    pub(crate) first: Linear,
    pub(crate) second: Linear,
}

impl Chain {
    pub(crate) fn new(a: &[f32], b: f32) -> Self {
        let device = regrow_device::current().autodiff();
        let layer = |values: Vec<f32>| {
            let shape = [values.len(), 1];
            let weight = Tensor::<2>::from_data(TensorData::new(values, shape), &device);
            let layer = LinearConfig::new(shape[0], 1).with_bias(false).init(&device);
            Linear { weight: Param::from_tensor(weight), ..layer }
        };
        Self { first: layer(a.to_vec()), second: layer(vec![b]) }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }

    /// The one output for one input.
    pub(crate) fn output(&self, x: &[f32]) -> Tensor<1> {
        let x = TensorData::new(x.to_vec(), [1, x.len()]);
        self.forward(Tensor::from_data(x, &self.first.weight.val().device())).sum()
    }
}
