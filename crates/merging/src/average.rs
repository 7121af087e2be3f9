//! The weighted average of Burn models, the step that every soup shares.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::model::deep_copy::deep_clone;
use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::{Error, Result};

/// `sum_i weights_i * model_i`, parameter by parameter, batch-norm statistics included; structure,
/// parameter ids and masks are those of the first model.
///
/// Sums are taken pairwise in f32, so that averaging a power of two of identical models with equal weights returns that
/// model bit for bit.
///
/// # Errors
/// No models, another number of weights than models, weights that do not add up to 1, models with different masks (the
/// message says where they differ) or different parameters.
pub fn average<M: Module>(models: &[M], weights: &[f64]) -> Result<M> {
    let Some((first, rest)) = models.split_first() else {
        return Err(Error::Argument("there are no models to average".into()));
    };
    if weights.len() != models.len() {
        return Err(Error::Argument(format!("{} weights for {} models", weights.len(), models.len())));
    }
    let sum: f64 = weights.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(Error::Argument(format!("the weights of an average add up to {sum}, not to 1")));
    }
    let mask = masks(first)?;
    for (i, model) in rest.iter().enumerate() {
        if let Some(place) = mask.difference(&masks(model)?) {
            return Err(Error::Argument(format!(
                "models 1 and {} have different masks, their average would be denser: {place}",
                i + 2
            )));
        }
    }
    let tensors: Vec<Vec<Leaf>> = models.iter().map(leaves).collect();
    let mut mean = tensors[0].clone();
    for (i, leaf) in mean.iter_mut().enumerate() {
        let column: Vec<&Leaf> =
            tensors.iter().map(|t| t.get(i)).collect::<Option<_>>().ok_or_else(|| mismatch(&leaf.path))?;
        if column.iter().any(|c| c.path != leaf.path || c.shape != leaf.shape) {
            return Err(mismatch(&leaf.path));
        }
        leaf.values = combined(&column, weights);
    }
    let mut replace = Replace { path: Vec::new(), values: mean.into_iter() };
    Ok(deep_clone(first).map(&mut replace))
}

/// `1/m` for each of `m` models.
pub fn equal_weights(m: usize) -> Vec<f64> {
    vec![1.0 / m as f64; m]
}

fn mismatch(path: &str) -> Error {
    Error::tensor(path, "the models do not have the same parameters of the same shape")
}

/// One parameter's stored values.
#[derive(Clone)]
struct Leaf {
    path: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn combined(column: &[&Leaf], weights: &[f64]) -> Vec<f32> {
    let equal = weights.iter().all(|w| w == &weights[0]);
    let value = |i: usize| {
        let term = |m: usize| if equal { column[m].values[i] } else { column[m].values[i] * weights[m] as f32 };
        let sum = pairwise(0, column.len(), &term);
        if equal { sum * weights[0] as f32 } else { sum }
    };
    (0..column[0].values.len()).map(value).collect()
}

/// The sum of `term(from..to)`, summed by halves.
fn pairwise(from: usize, to: usize, term: &impl Fn(usize) -> f32) -> f32 {
    match to - from {
        1 => term(from),
        n => pairwise(from, from + n / 2, term) + pairwise(from + n / 2, to, term),
    }
}

fn leaves<M: Module>(model: &M) -> Vec<Leaf> {
    let mut read = Read::default();
    model.visit(&mut read);
    read.found
}

#[derive(Default)]
struct Read {
    path: Vec<String>,
    found: Vec<Leaf>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.base().into_data().convert::<f32>();
        let shape = data.shape().as_slice().to_vec();
        self.found.push(Leaf { path: self.path.join("."), shape, values: data.iter::<f32>().collect() });
    }
}

struct Replace {
    path: Vec<String>,
    values: std::vec::IntoIter<Leaf>,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(leaf) = self.values.next() else { return param };
        let id: ParamId = param.id;
        let device = param.lazy_device();
        let dtype = param.base().dtype();
        let tensor = Tensor::from_data(TensorData::new(leaf.values, leaf.shape), (&device, dtype));
        let require_grad = param.base().is_require_grad();
        let (_, _, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.set_require_grad(require_grad), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::RunningState;
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
    use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
    use regrow_sparse_core::{Mask, MaskSet};

    use super::*;

    fn layer(seed: u64) -> Linear {
        regrow_device::current().seed(seed);
        let layer = LinearConfig::new(5, 3).init(&regrow_device::current());
        let _ = (layer.weight.val(), layer.bias.as_ref().map(|b| b.val()));
        layer
    }

    fn masked(layer: Linear, keep: impl Fn(usize) -> bool) -> Linear {
        let masks = MaskSet::from_iter([("weight".to_string(), Mask::from_fn([3, 5], keep))]);
        apply_masks(layer, &masks, Gradient::Masked, Base::Zeroed).unwrap()
    }

    fn values(layer: &Linear) -> Vec<f32> {
        layer.weight.val().into_data().iter::<f32>().collect()
    }

    #[test]
    fn four_of_the_same_give_it_back_bit_for_bit() {
        let one = layer(1);
        let same = vec![one.clone(), one.clone(), one.clone(), one.clone()];
        assert_eq!(values(&average(&same, &equal_weights(4)).unwrap()), values(&one));
        assert_eq!(values(&average(&same[..1], &[1.0]).unwrap()), values(&one));
    }

    #[test]
    fn the_soup_of_linear_models_is_the_ensemble_of_their_outputs() {
        let models = [layer(1), layer(2), layer(3)];
        let soup = average(&models, &equal_weights(3)).unwrap();
        let x = Tensor::<2>::ones([1, 5], &regrow_device::current());
        let mean = models.iter().map(|m| m.forward(x.clone())).reduce(|a, b| a + b).unwrap() / 3.0;
        let gap: f32 = (soup.forward(x) - mean).abs().max().into_scalar();
        let roundoff = regrow_device::roundoff(&regrow_device::current());
        assert!(gap < roundoff.max(1e-6), "{gap}");
    }

    #[test]
    fn running_statistics_are_averaged_and_those_of_the_first_model_stay_its_own() {
        let device = regrow_device::current();
        let norms = [1.0, 3.0].map(|variance| {
            let mut norm = BatchNormConfig::new(2).init(&device);
            norm.running_var = RunningState::new(Tensor::full([2], variance, &device));
            norm
        });
        let variance = |norm: &BatchNorm| norm.running_var.value().into_data().iter::<f32>().collect::<Vec<_>>();
        let soup = average(&norms, &equal_weights(2)).unwrap();
        assert_eq!(variance(&soup), [2.0; 2]);
        assert_eq!(norms.each_ref().map(variance), [vec![1.0; 2], vec![3.0; 2]]);
    }

    #[test]
    fn masks_are_kept_and_different_ones_refused() {
        let keep = |i: usize| i.is_multiple_of(2);
        let models = [masked(layer(1), keep), masked(layer(2), keep)];
        let soup = average(&models, &[0.25, 0.75]).unwrap();
        assert_eq!(masks(&soup).unwrap(), masks(&models[0]).unwrap());
        assert_eq!(values(&soup).iter().filter(|w| **w == 0.0).count(), 7);
        let other = [masked(layer(1), keep), masked(layer(2), |i| i != 4)];
        let says = average(&other, &equal_weights(2)).unwrap_err().to_string();
        assert!(says.contains("weight differs, first at index 1"), "{says}");
        assert!(average(&[masked(layer(1), keep), layer(2)], &equal_weights(2)).is_err());
    }

    #[test]
    fn weights_must_fit() {
        assert!(average::<Linear>(&[], &[]).is_err());
        assert!(average(&[layer(1)], &[0.5]).is_err());
        assert!(average(&[layer(1), layer(2)], &[1.0]).is_err());
    }
}
