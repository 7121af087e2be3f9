//! Evidence from a user's model: closures define how to run it.
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::tensor::{Device, Tensor};
//! use regrow_sparse_core::model::evidence::Needs;
//! use regrow_sparse_core::model::probe::Probe;
//! use regrow_sparse_core::model::weight::Select;
//!
//! let device = Device::default().autodiff();
//! let model: burn::nn::Linear = LinearConfig::new(4, 2).init(&device);
//! let x = Tensor::<2>::ones([3, 4], &device);
//! let probe = Probe::new().with_loss(move |m: &burn::nn::Linear| m.forward(x.clone()).powf_scalar(2.0).mean());
//! let evidence = probe.evidence(&model, &Select::default(), &Needs::GRADIENTS)?;
//! # let _ = evidence;
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::layerwise::Moments;
use crate::mask::budget::rounded;
use crate::model::deep_copy::deep_clone;
use crate::model::evidence::{Evidence, Needs};
use crate::model::executor::LayerExecutor;
use crate::model::gradients::{gradient, norm, shifted, with_fixed_statistics};
use crate::model::masked::{Base, Gradient, apply_masks};
use crate::model::score::magnitudes;
use crate::model::weight::{Select, Weight, weights};
use crate::{Error, MaskSet, Pattern, Result};

/// The step of the difference of gradients that approximates `H g`, as a fraction of the weights' norm.
const REACH: f64 = 1e-3;

type Loss<'a, M> = dyn Fn(&M) -> Tensor<1> + Send + 'a;
type Response<'a, M> = dyn Fn(&M, &Device, DType) -> Tensor<1> + Send + 'a;
type Inputs<'a, M> = dyn Fn(&M, &mut dyn LayerExecutor) + Send + 'a;
type Outputs<'a, M> = dyn Fn(&M) -> Tensor<2> + Send + 'a;

/// How to run a model for evidence about its weights. The model itself is not changed: every run uses a copy with its
/// own batch-norm statistics.
pub struct Probe<M> {
    loss: Option<Box<Loss<'static, M>>>,
    response: Option<Box<Response<'static, M>>>,
    inputs: Option<Box<Inputs<'static, M>>>,
    outputs: Option<Box<Outputs<'static, M>>>,
    fixed: bool,
}

impl<M> Default for Probe<M> {
    fn default() -> Self {
        Self { loss: None, response: None, inputs: None, outputs: None, fixed: false }
    }
}

impl<M> Probe<M> {
    /// A probe that provides nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the loss of some examples, for gradients and Hessian-gradient products. It must be the same each time.
    ///
    /// Batch norms run as set in the model: with the batch's statistics while it trains.
    pub fn with_loss(mut self, loss: impl Fn(&M) -> Tensor<1> + Send + 'static) -> Self {
        self.loss = Some(Box::new(loss));
        self
    }

    /// With batch norms that use their running statistics in the loss, and without dropout.
    pub fn with_fixed_statistics(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// With the outputs for an input of ones, in the shape of one example, for synaptic flow.
    pub fn with_response<const I: usize, const O: usize>(
        mut self,
        example: [usize; I],
        forward: impl Fn(&M, Tensor<I>) -> Tensor<O> + Send + 'static,
    ) -> Self {
        let sum = move |m: &M, device: &Device, dtype| forward(m, Tensor::<I>::ones(example, device).cast(dtype)).sum();
        self.response = Some(Box::new(sum));
        self
    }

    /// With a run over calibration inputs, every layer computed by the second argument (`layers.linear("fc", &model.fc,
    /// x)`, by the path of its parameters), for statistics of the layers' inputs.
    pub fn with_inputs(mut self, run: impl Fn(&M, &mut dyn LayerExecutor) + Send + 'static) -> Self {
        self.inputs = Some(Box::new(run));
        self
    }

    /// With the outputs of calibration inputs, `[inputs, outputs]`, for output distortions.
    pub fn with_outputs(mut self, outputs: impl Fn(&M) -> Tensor<2> + Send + 'static) -> Self {
        self.outputs = Some(Box::new(outputs));
        self
    }

    /// The kinds of evidence that it can provide.
    pub fn offers(&self) -> Needs {
        let (loss, inputs) = (self.loss.is_some(), self.inputs.is_some());
        Needs {
            gradients: loss,
            hessian_gradient: loss,
            synaptic_flow: self.response.is_some(),
            input_norms: inputs,
            input_moments: inputs,
            outliers: inputs.then_some(0.0),
            distortions: self.outputs.is_some().then(Vec::new),
        }
    }
}

impl<M: Module> Probe<M> {
    /// What `needs` names, for the weights of `model` that `select` selects.
    ///
    /// # Errors
    /// If the given closures cannot provide it, the model is on a device without gradients but needs them, or something
    /// is not finite.
    pub fn evidence(&self, model: &M, select: &Select, needs: &Needs) -> Result<Evidence> {
        needs.check(&self.offers(), "the method")?;
        let mut evidence = Evidence::default();
        if let Some(loss) = self.loss.as_ref().filter(|_| needs.gradients || needs.hessian_gradient) {
            let slopes = self.slopes(model, select, loss)?;
            if needs.hessian_gradient {
                evidence = evidence.with_hessian_gradient(self.products(model, select, loss, &slopes)?);
            }
            if needs.gradients {
                evidence = evidence.with_gradients(slopes);
            }
        }
        if let Some(response) = self.response.as_ref().filter(|_| needs.synaptic_flow) {
            evidence = evidence.with_synaptic_flow(flow(model, select, response)?);
        }
        if let Some(run) = self.inputs.as_ref() {
            evidence = with_inputs(evidence, model, select, run, needs)?;
        }
        if let (Some(outputs), Some(amounts)) = (self.outputs.as_ref(), &needs.distortions) {
            let curves = distortions(&model.valid(), select, amounts, outputs, &mut |_| {})?;
            evidence = evidence.with_distortions(curves.into_iter().map(|curve| curve.values).collect());
        }
        Ok(evidence)
    }

    /// A separate copy of the model for the loss: clones of a module share the statistics of their batch norms.
    fn copy(&self, model: &M) -> M {
        let copy = deep_clone(model);
        if self.fixed { with_fixed_statistics(copy) } else { copy }
    }

    fn slopes(&self, model: &M, select: &Select, loss: &Loss<'_, M>) -> Result<Vec<Vec<f32>>> {
        gradient(&self.copy(model), select, loss)
    }

    /// `H g` as a central difference of gradients, `(g(w + e g) - g(w - e g)) / (2 e)`: Burn's autodiff is first-order
    /// only.
    fn products(&self, model: &M, select: &Select, loss: &Loss<'_, M>, first: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let length = norm(first.iter());
        if length == 0.0 {
            return Ok(first.to_vec());
        }
        let weights = weights(model, select)?;
        let reach = REACH * norm(weights.iter().map(|w| &w.values)) / length;
        let at = |by: f64| gradient(&shifted(self.copy(model), select, first, by)?, select, loss);
        let (ahead, behind) = (at(reach)?, at(-reach)?);
        let slope = |(a, b): (f32, f32)| ((f64::from(a) - f64::from(b)) / (2.0 * reach)) as f32;
        let layer = |(ahead, behind): (Vec<f32>, Vec<f32>)| ahead.into_iter().zip(behind).map(slope).collect();
        Ok(ahead.into_iter().zip(behind).map(layer).collect())
    }
}

/// `dR/d|w| / R`. Everything is computed in f64 if the device supports it: `R` of a deep network overflows f32.
fn flow<M: Module>(model: &M, select: &Select, response: &Response<'_, M>) -> Result<Vec<Vec<f32>>> {
    let device = model.devices().into_iter().next().unwrap_or_default().inner().autodiff();
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let linear = linearized(model, dtype);
    let whole: f64 = response(&linear, &device, dtype).into_scalar();
    if !whole.is_finite() || whole <= 0.0 {
        let why = "the network is cut through, or its values overflow";
        return Err(Error::Argument(format!("synaptic flow's R is {whole}: {why}")));
    }
    gradient(&linear, select, |m| response(m, &device, dtype) / whole)
}

/// A copy with every parameter and statistic replaced by its absolute value, batch norms fixed.
fn linearized<M: Module>(model: &M, dtype: DType) -> M {
    struct Absolute(DType);
    impl ModuleMapper for Absolute {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.abs().cast(self.0))
        }
    }
    // Through `valid`: clones of a module share the statistics of their batch norms.
    with_fixed_statistics(model.valid().map(&mut Absolute(dtype)).train())
}

/// Adds statistics of the layer inputs of `model` while `run` runs it.
fn with_inputs<M: Module>(
    mut evidence: Evidence,
    model: &M,
    select: &Select,
    run: &Inputs<'_, M>,
    needs: &Needs,
) -> Result<Evidence> {
    if !needs.input_norms && !needs.input_moments && needs.outliers.is_none() {
        return Ok(evidence);
    }
    let mut seen = Moments::default();
    run(&model.valid(), &mut seen);
    let seen = seen.values()?;
    let weights = weights(model, select)?;
    let moment = |weight: &Weight| {
        let name = weight.path.strip_suffix(".weight").unwrap_or(&weight.path);
        let moment = seen.get(name).filter(|moment| moment.len() == weight.dims().1.pow(2)).cloned();
        moment.ok_or_else(|| Error::tensor(&weight.path, "the calibration run did not reach it as a plain layer"))
    };
    let moments = weights.iter().map(moment).collect::<Result<Vec<_>>>()?;
    let diagonal = |(weight, moment): (&Weight, &Vec<f32>)| -> Vec<f32> {
        let cols = weight.dims().1;
        (0..cols).map(|j| moment[j * cols + j].max(0.0).sqrt()).collect()
    };
    let norms: Vec<Vec<f32>> = weights.iter().zip(&moments).map(diagonal).collect();
    if let Some(times) = needs.outliers {
        let shares = weights.iter().zip(&norms).map(|(weight, norms)| outlier_share(&[(weight, norms)], times));
        evidence = evidence.with_outliers(shares.collect());
    }
    if needs.input_norms {
        evidence = evidence.with_input_norms(norms);
    }
    Ok(if needs.input_moments { evidence.with_input_moments(moments) } else { evidence })
}

/// The share of the weights of `layers`, given with the norms of their inputs, whose `|w_ij| ||x_j||` is more than
/// `times` the mean over all of them.
pub fn outlier_share<N: AsRef<[f32]>>(layers: &[(&Weight, N)], times: f64) -> f64 {
    let metrics = || {
        layers.iter().flat_map(|(weight, norms)| {
            let norms = norms.as_ref();
            weight.values.iter().enumerate().map(move |(i, w)| f64::from(w.abs() * norms[i % norms.len()]))
        })
    };
    let (sum, all) = metrics().fold((0.0, 0usize), |(sum, n), m| (sum + m, n + 1));
    let limit = times * sum / all.max(1) as f64;
    metrics().filter(|m| *m > limit).count() as f64 / all.max(1) as f64
}

/// The effect of pruning one layer alone on the outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Distortion {
    /// The layer's path.
    pub name: String,
    /// Its number of weights.
    pub weights: usize,
    /// For each amount pruned, the mean over inputs of the squared change of the outputs.
    pub values: Vec<f64>,
}

/// Measures every layer at every one of `amounts` (fractions of its weights; the smallest `|w|` are pruned).
///
/// `outputs` runs a model on the calibration inputs, `[inputs, outputs]`, batch norms in evaluation
/// mode; it is called `1 + layers * amounts` times at most. `watch` is called before each layer.
///
/// # Errors
/// Amounts outside [0, 1], weights or outputs that are not finite.
pub fn distortions<M: Module>(
    model: &M,
    select: &Select,
    amounts: &[f64],
    outputs: impl Fn(&M) -> Tensor<2>,
    watch: &mut dyn FnMut(&str),
) -> Result<Vec<Distortion>> {
    check_amounts(amounts)?;
    let [inputs, _] = outputs(model).dims();
    let whole = numbers(outputs(model))?;
    let measure = |weight: &Weight| {
        watch(&weight.path);
        let of = |amount: &f64| -> Result<f64> {
            let count = rounded(*amount, weight.values.len());
            if count == 0 {
                return Ok(0.0);
            }
            let pruned = numbers(outputs(&without(model, weight, count)?))?;
            let squares = whole.par_iter().zip(&pruned).map(|(a, b)| f64::from(a - b).powi(2));
            Ok(squares.sum::<f64>() / inputs.max(1) as f64)
        };
        let values = amounts.iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(Distortion { name: weight.path.clone(), weights: weight.values.len(), values })
    };
    weights(model, select)?.iter().map(measure).collect()
}

/// Checks that amounts are fractions.
///
/// # Errors
/// For the first one outside [0, 1].
pub fn check_amounts(amounts: &[f64]) -> Result<()> {
    match amounts.iter().find(|a| !(0.0..=1.0).contains(*a)) {
        Some(bad) => Err(Error::Argument(format!("{bad} is no fraction of a layer's weights: use 0 to 1"))),
        None => Ok(()),
    }
}

/// `model` with the `count` smallest weights of one layer set to zero.
fn without<M: Module>(model: &M, weight: &Weight, count: usize) -> Result<M> {
    let mask = Pattern::Unstructured.mask(&weight.shape, &magnitudes(weight), count)?;
    let masks: MaskSet = [(weight.path.clone(), mask)].into_iter().collect();
    apply_masks(model.clone(), &masks, Gradient::Masked, Base::Zeroed)
}

fn numbers(outputs: Tensor<2>) -> Result<Vec<f32>> {
    let values: Vec<f32> = outputs.into_data().convert::<f32>().iter::<f32>().collect();
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(Error::Argument("an output of the model is not finite".into())),
    }
}
