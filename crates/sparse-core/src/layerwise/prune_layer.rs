//! Pruning a layer of a model in memory by the inputs it has seen, as [`layerwise`](crate::layerwise) does with a model
//! on disk.

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::{Tensor, TensorData};

use crate::layerwise::{InputObserver, LayerTarget, PrunedLayer};
use crate::model::masked::{Base, Gradient, apply_masks, attach};
use crate::model::on_device::layer_masks;
use crate::model::weight::everything;
use crate::model::weight::{Slot, slots, weights};
use crate::{Error, Mask, MaskSet, Result};

/// Prunes the weight at `path` of `model`, such as `layers.0.weight`, by the inputs `observer` has seen: pruned weights
/// are set to zero and masked, kept weights get the solver's values. Returns the model with the weight's mask.
///
/// An existing mask is replaced; the weights that it prunes count as zero. A weight of a million elements or more stays
/// on a device with its own memory, such as a GPU, if the solver can choose there ([`InputObserver::kept_on_device`]).
///
/// # Errors
/// No such weight; weights or inputs that are not finite; a pattern that does not divide a row.
pub fn prune_layer<M: Module>(
    model: M,
    path: &str,
    observer: &dyn InputObserver,
    goal: &LayerTarget,
) -> Result<(M, Mask)> {
    let slot = slots(&model, &everything()).into_iter().find(|slot| slot.path == path);
    let slot = slot.ok_or_else(|| Error::tensor(path, "the model has no such weight"))?;
    let keep = |values: &Tensor<2>, outputs: usize| observer.kept_on_device(values, outputs, goal);
    if let Some(chosen) = layer_masks(&model, &slot, &keep) {
        let mask = chosen.masks.get(path).cloned();
        let mask = mask.ok_or_else(|| Error::tensor(path, "has no mask"))?;
        return Ok((attach(model, &chosen.pruned, Gradient::Masked, Base::Zeroed), mask));
    }
    let only = everything().only(ParamGroup::from_ids(vec![slot.id]));
    let weight = weights(&model, &only)?.swap_remove(0);
    let PrunedLayer { mask, values } = observer.solve(&weight, goal)?;
    let model = match values {
        Some(values) => model.map(&mut Write { values: Some(slot.to_stored(values)), slot: &slot }),
        None => model,
    };
    let masks: MaskSet = [(path.to_string(), mask.clone())].into_iter().collect();
    Ok((apply_masks(model, &masks, Gradient::Masked, Base::Zeroed)?, mask))
}

/// Gives a parameter new values, in storage order.
struct Write<'a> {
    slot: &'a Slot,
    values: Option<Vec<f32>>,
}

impl ModuleMapper for Write<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.id != self.slot.id {
            return param;
        }
        let Some(values) = self.values.take() else { return param };
        let (id, old, mapper) = param.consume();
        let data = TensorData::new(values, old.shape()).convert_dtype(old.dtype());
        let mut tensor = Tensor::from_data(data, &old.device());
        if old.is_require_grad() {
            tensor = tensor.require_grad();
        }
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;
    use crate::Pattern;
    use crate::layerwise::{DataFree, LayerSolver};
    use crate::model::evidence::Evidence;
    use crate::model::score::{LayerView, Score, magnitudes};
    use crate::model::weight::Weight;

    const HALF: LayerTarget = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };

    #[derive(Clone)]
    struct Size;

    impl Score for Size {
        fn name(&self) -> &'static str {
            "size"
        }

        fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
            Ok(magnitudes(layer))
        }
    }

    /// Keeps the first half, doubled.
    struct Halves;

    impl InputObserver for Halves {
        fn add(&mut self, _sequence: Tensor<2>) {}

        fn solve(&self, weight: &Weight, _goal: &LayerTarget) -> Result<PrunedLayer> {
            let half = weight.values.len() / 2;
            let values = weight.values.iter().map(|w| 2.0 * w).collect();
            Ok(PrunedLayer { mask: Mask::from_fn(weight.shape.clone(), |i| i < half), values: Some(values) })
        }
    }

    fn layer(device: &Device) -> Linear {
        let mut layer = LinearConfig::new(3, 2).with_bias(false).init(device);
        layer.weight = Param::from_tensor(Tensor::from_data([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], device));
        layer
    }

    fn values(layer: &Linear) -> Vec<f32> {
        layer.weight.val().into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_layer_is_masked_and_has_the_solvers_values() {
        let plain = regrow_device::current();
        for device in [plain.clone(), plain.autodiff()] {
            let observer = DataFree(Size).observe(3, &device);
            let (small, mask) = prune_layer(layer(&device), "weight", observer.as_ref(), &HALF).unwrap();
            assert_eq!(values(&small), [0.0, 4.0, 0.0, 5.0, 0.0, 6.0]);
            assert_eq!(mask.to_bools(), [false, false, false, true, true, true]);
            // Another mask replaces it; what was pruned was zero.
            let (other, mask) = prune_layer(small, "weight", &Halves, &HALF).unwrap();
            assert_eq!(values(&other), [0.0; 6]);
            assert_eq!(mask.to_bools(), [true, true, true, false, false, false]);
            let (twice, _) = prune_layer(layer(&device), "weight", &Halves, &HALF).unwrap();
            assert_eq!(values(&twice), [2.0, 0.0, 4.0, 0.0, 6.0, 0.0]);
        }
    }

    #[test]
    fn a_weight_that_is_not_there_or_no_number_is_refused() {
        let device = regrow_device::current();
        let refused = |layer: Linear, path: &str| prune_layer(layer, path, &Halves, &HALF).unwrap_err().to_string();
        assert!(refused(layer(&device), "bias").contains("no such weight"));
        let mut bad = layer(&device);
        bad.weight = bad.weight.map(|weight| weight * f32::NAN);
        assert!(refused(bad, "weight").contains("NaN"));
    }
}
