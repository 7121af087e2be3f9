//! The diagonal Fisher information of a model (Matena & Raffel, arXiv 2111.09832, section 3.1): how much each
//! parameter matters to the model's predictions, independent of labels.
//!
//! ```text
//! F = mean over examples x of  sum over classes y of  p(y | x) (grad log p(y | x))^2
//! ```
//!
//! For a classifier the expectation over classes is exact: a forward and a backward pass for each example and class.
//! Each gradient is that of one example and one class. Sums are taken in f64. Batch norms use their running statistics,
//! which have no information of their own.
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use regrow_merging::information::gather;
//! use regrow_train::Classifier;
//!
//! #[derive(burn::module::Module, Debug)]
//! struct Net {
//!     head: Linear,
//! }
//!
//! impl Classifier for Net {
//!     fn logits(&self, images: Tensor<4>) -> Tensor<2> {
//!         self.head.forward(images.flatten(1, 3))
//!     }
//! }
//!
//! let device = regrow_device::current().autodiff();
//! let net = Net { head: LinearConfig::new(4, 2).init(&device) };
//! let images = vec![Tensor::ones([1, 1, 2, 2], &device)];
//! let information = gather(&net, images, |_| ())?;
//! assert!(information.head.weight.val().min().into_scalar::<f32>() > 0.0);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::model::deep_copy::deep_clone;
use regrow_sparse_core::model::gradients::with_fixed_statistics;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Classifier;

/// A model whose parameters are the diagonal Fisher information of those of `model`, which must be on a device with
/// gradients, over `images`, `[1, channels, height, width]` each. Parameters without gradients are zero. `watch` is
/// called with the number of finished images.
///
/// # Errors
/// No images, a device without gradients, outputs or gradients that are not finite.
pub fn gather<M: Classifier>(
    model: &M,
    images: impl IntoIterator<Item = Tensor<4>>,
    watch: impl FnMut(usize),
) -> Result<M> {
    gather_by(model, images, of_classes, watch)
}

/// Adds an image to the information of a classifier: every class, weighted by its probability.
pub fn of_classes<M: Classifier>(model: &M, image: Tensor<4>, add: &mut Add<'_>) {
    let classes = model.logits(image.clone()).dims()[1];
    for class in 0..classes {
        let log_likelihood = log_softmax(model.logits(image.clone()), 1).narrow(1, class, 1).flatten(0, 1);
        let probability = f64::from(log_likelihood.clone().into_scalar::<f32>()).exp();
        add(probability, log_likelihood);
    }
}

/// Adds the squared gradient of a log-likelihood (one number), times a weight.
pub type Add<'a> = dyn FnMut(f64, Tensor<1>) + 'a;

/// The same for any model: `squares` adds an example's contribution, and the information is the mean over examples.
///
/// If there are too many outputs to process each, one output sampled by its probability represents all: its squared
/// gradient has the same expectation.
///
/// # Errors
/// No examples, a device without gradients, gradients that are not finite.
pub fn gather_by<M: Module, X>(
    model: &M,
    examples: impl IntoIterator<Item = X>,
    squares: impl FnMut(&M, X, &mut Add<'_>),
    mut watch: impl FnMut(usize),
) -> Result<M> {
    gather_on(model, FisherSums::default(), examples, squares, |sums| {
        watch(sums.examples);
        Ok(())
    })
}

/// The sums so far, to resume from after an interruption.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FisherSums {
    /// The number of examples.
    pub examples: usize,
    /// For each parameter, in the order in which the model is visited, a sum for each of its values; empty if it had no
    /// gradient.
    pub of_parameters: Vec<Vec<f64>>,
}

/// Continues from `sums` with the remaining `examples`. `watch` is called with the sums after each.
///
/// # Errors
/// As [`gather_by`]; sums of another model; errors of `watch`.
pub fn gather_on<M: Module, X, E: From<Error>>(
    model: &M,
    mut sums: FisherSums,
    examples: impl IntoIterator<Item = X>,
    mut squares: impl FnMut(&M, X, &mut Add<'_>),
    mut watch: impl FnMut(&FisherSums) -> Result<(), E>,
) -> Result<M, E> {
    let refused = |says: &str| E::from(Error::Argument(says.into()));
    if !model.devices().iter().all(burn::tensor::Device::is_autodiff) {
        return Err(refused("Fisher information needs the model on a device with gradients (`device.autodiff()`)"));
    }
    let model = with_fixed_statistics(deep_clone(model));
    let mut places = Places::default();
    model.visit(&mut places);
    if sums.examples == 0 {
        sums.of_parameters = vec![Vec::new(); places.0.len()];
    }
    if !places.fit(&sums) {
        return Err(refused("the sums to go on with are of another model"));
    }
    for example in examples {
        squares(&model, example, &mut |weight, log_likelihood| {
            let grads = GradientsParams::from_grads(log_likelihood.backward(), &model);
            model.visit(&mut Squares { places: &places, sums: &mut sums.of_parameters, weight, grads: &grads });
        });
        sums.examples += 1;
        watch(&sums)?;
    }
    let finite = sums.of_parameters.iter().flatten().all(|v| v.is_finite());
    match (sums.examples, finite) {
        (0, _) => Err(refused("Fisher information is gathered over at least one example")),
        (_, false) => Err(refused("the model's outputs or gradients are not finite")),
        _ => Ok(model.map(&mut Means { places, sums })),
    }
}

/// For each parameter its index in visiting order, and its size.
#[derive(Default)]
struct Places(HashMap<ParamId, (usize, usize)>);

impl Places {
    fn fit(&self, sums: &FisherSums) -> bool {
        let fits = |(place, size): &(usize, usize)| {
            sums.of_parameters.get(*place).is_some_and(|sums| sums.is_empty() || sums.len() == *size)
        };
        sums.of_parameters.len() == self.0.len() && self.0.values().all(fits)
    }
}

impl ModuleVisitor for Places {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (place, size) = (self.0.len(), param.lazy_shape().num_elements());
        self.0.entry(param.id).or_insert((place, size));
    }
}

/// Adds weighted squares of gradients, by parameter.
struct Squares<'a> {
    places: &'a Places,
    sums: &'a mut [Vec<f64>],
    weight: f64,
    grads: &'a GradientsParams,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.grads.get::<D>(param.id) else { return };
        let Some((place, _)) = self.places.0.get(&param.id) else { return };
        let gradient: Vec<f32> = gradient.into_data().convert::<f32>().iter::<f32>().collect();
        let sums = &mut self.sums[*place];
        sums.resize(gradient.len(), 0.0);
        sums.iter_mut().zip(gradient).for_each(|(s, g)| *s += self.weight * f64::from(g).powi(2));
    }
}

/// Replaces parameters by means.
struct Means {
    places: Places,
    sums: FisherSums,
}

impl ModuleMapper for Means {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let place = self.places.0.get(&param.id).map(|(place, _)| *place);
        let found = place.and_then(|place| self.sums.of_parameters.get_mut(place)).map(std::mem::take);
        let count = self.sums.examples as f64;
        param.map(|tensor| match found.filter(|sums| !sums.is_empty()) {
            None => tensor.zeros_like(),
            Some(sums) => {
                let means: Vec<f32> = sums.iter().map(|s| (s / count) as f32).collect();
                Tensor::from_data(TensorData::new(means, tensor.dims()), &tensor.device())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;
    use burn::tensor::activation::softmax;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
    }

    impl Classifier for Net {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            self.layer.forward(images.flatten(1, 3))
        }
    }

    #[test]
    fn of_a_linear_model_it_is_the_variance_of_the_classes_times_the_squared_input() {
        let device = regrow_device::current().autodiff();
        let net = Net { layer: LinearConfig::new(3, 4).init(&device) };
        let images: Vec<[f32; 3]> = vec![[0.5, -1.0, 2.0], [1.5, 0.0, -0.3]];
        let tensor = |x: &[f32; 3]| Tensor::<4>::from_data([[[x.to_owned()]]], &device);
        let mut seen = Vec::new();
        let found = gather(&net, images.iter().map(tensor), |n| seen.push(n)).unwrap();
        assert_eq!(seen, [1, 2]);
        let read = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<f32>>();
        let (weight, bias) = (read(found.layer.weight.val()), found.layer.bias.unwrap().val());
        let bias: Vec<f32> = bias.into_data().iter::<f32>().collect();
        let probabilities: Vec<Vec<f32>> = images.iter().map(|x| read(softmax(net.logits(tensor(x)), 1))).collect();
        let tolerance = (4.0 * regrow_device::roundoff(&device)).max(1e-6);
        for k in 0..4 {
            // E_y [(1[y = k] - p_k)^2] = p_k (1 - p_k).
            let variance = |i: usize| probabilities[i][k] * (1.0 - probabilities[i][k]);
            assert!((bias[k] - (variance(0) + variance(1)) / 2.0).abs() < tolerance);
            for j in 0..3 {
                let wanted = (variance(0) * images[0][j].powi(2) + variance(1) * images[1][j].powi(2)) / 2.0;
                // Burn stores [in, out].
                assert!((weight[j * 4 + k] - wanted).abs() < tolerance, "{j} {k}");
            }
        }
    }

    #[derive(Module, Debug)]
    struct Normed {
        norm: BatchNorm,
    }

    impl Classifier for Normed {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            self.norm.forward(images).flatten(1, 3)
        }
    }

    #[test]
    fn the_model_and_its_running_statistics_stay_as_they_are() {
        let device = regrow_device::current().autodiff();
        let net = Normed { norm: BatchNormConfig::new(3).init(&device) };
        let image = Tensor::<4>::from_data([[[[0.5]], [[-1.0]], [[2.0]]]], &device);
        let found = gather(&net, [image], |_| ()).unwrap();
        let variance = |net: &Normed| net.norm.running_var.value_sync().into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!((variance(&found), variance(&net)), (vec![0.0; 3], vec![1.0; 3]));
    }

    #[test]
    fn sums_are_gone_on_with() {
        let device = regrow_device::current().autodiff();
        let net = Net { layer: LinearConfig::new(3, 4).init(&device) };
        let images = || (0..5).map(|i| Tensor::<4>::full([1, 1, 1, 3], 0.3 * i as f32 - 0.5, &device));
        let whole = gather(&net, images(), |_| ()).unwrap();
        let mut kept = Vec::new();
        let watch = |sums: &FisherSums| -> Result<()> {
            kept.push(sums.clone());
            if sums.examples == 3 { Err(Error::Argument("killed".into())) } else { Ok(()) }
        };
        assert!(gather_on(&net, FisherSums::default(), images(), of_classes, watch).is_err());
        let read = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<f32>>();
        let ok = |_: &FisherSums| -> Result<()> { Ok(()) };
        for sums in kept {
            let again = gather_on(&net, sums.clone(), images().skip(sums.examples), of_classes, ok).unwrap();
            assert_eq!(read(again.layer.weight.val()), read(whole.layer.weight.val()));
            let mut other = sums;
            other.of_parameters[0].pop();
            let says = gather_on(&net, other, images(), of_classes, ok).unwrap_err().to_string();
            assert!(says.contains("another model"), "{says}");
        }
    }

    #[test]
    fn nothing_to_look_at_is_refused() {
        let net = |device: &Device| Net { layer: LinearConfig::new(3, 4).init(device) };
        let device = regrow_device::current();
        assert!(gather(&net(&device), [], |_| ()).unwrap_err().to_string().contains("with gradients"));
        let device = device.autodiff();
        assert!(gather(&net(&device), [], |_| ()).unwrap_err().to_string().contains("at least one example"));
        let nan = Tensor::<4>::full([1, 1, 1, 3], f32::NAN, &device);
        assert!(gather(&net(&device), [nan], |_| ()).unwrap_err().to_string().contains("not finite"));
    }
}
