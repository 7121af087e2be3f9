//! A pruning step on the device that holds the model, so that large weights need not be copied to the CPU, nor their
//! mask flags back: only one bit per weight is copied.
//!
//! The masks equal those that the CPU would choose, bit for bit. All unusual cases (a value that is not finite, a
//! pattern that does not divide, a score that uses more than each weight alone) are left to the CPU, which reports any
//! error.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Tensor};

use crate::mask::budget::{Layer, Share, rounded};
use crate::mask::schedule::check_sparsity;
use crate::mask::top_k::Scores;
use crate::mask::top_k::on_device::{kept, words};
use crate::model::recipe::Recipe;
use crate::model::score::Score;
use crate::model::weight::MASK_PATH;
use crate::model::weight::{Slot, slots};
use crate::{Mask, MaskSet, Pattern};
use regrow_device::has_own_memory;

/// Weights per layer from which a step is worth some dozens of kernel launches and waits. An estimate: the CPU takes
/// some milliseconds to fetch and rank this many.
const LARGE: usize = 1 << 20;

/// What a step chose.
pub(crate) struct DeviceMasks {
    /// The masks, for the processor.
    pub(crate) masks: MaskSet,
    /// By parameter path one flag for each stored position, on the device: true where the mask prunes.
    pub(crate) pruned: BTreeMap<String, Tensor<1, Bool>>,
}

/// The masks of `model` at `sparsity` by `score`; none where its weights are not large, not on a device with a memory
/// of its own, or the step is the processor's for another reason.
pub(crate) fn masks_on_device<M: Module>(
    model: &M,
    recipe: &Recipe,
    score: &dyn Score,
    sparsity: f64,
) -> Option<DeviceMasks> {
    let slots = slots(model, &recipe.select);
    let device = &slots.first()?.device;
    let worth = has_own_memory(device)
        && slots.iter().all(|slot| slot.device == *device)
        && slots.iter().map(Slot::len).sum::<usize>() >= slots.len() * LARGE;
    worth.then(|| step(model, slots, recipe, score, sparsity)).flatten()
}

/// The same wherever the weights are.
fn step<M: Module>(
    model: &M,
    slots: Vec<Slot>,
    recipe: &Recipe,
    score: &dyn Score,
    sparsity: f64,
) -> Option<DeviceMasks> {
    check_sparsity(sparsity).ok()?;
    let layers = device_layers(model, slots)?;
    let scores = layers.iter().map(|layer| layer.scores(score)).collect::<Option<Vec<_>>>()?;
    let kept = match recipe.pattern {
        Pattern::Unstructured => by_budget(&layers, &scores, recipe, sparsity)?,
        Pattern::NofM { n, m } if recipe.pattern.fixed_sparsity() == Some(sparsity) => {
            scores.iter().map(|scores| scores.n_of_m(n, m)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    DeviceMasks::of(layers.iter().zip(kept).collect())
}

/// What `keep` keeps of the weight in `slot`, given its values and which dimension of them counts outputs; none where
/// the weight is not large, not on a device with a memory of its own, not finite, or `keep` knows none.
pub(crate) fn layer_masks<M: Module>(model: &M, slot: &Slot, keep: &Keep<'_>) -> Option<DeviceMasks> {
    let worth = has_own_memory(&slot.device) && slot.len() >= LARGE;
    worth.then(|| step_of(model, slot, keep)).flatten()
}

/// Returns which values are kept; the second argument is the output dimension.
pub(crate) type Keep<'a> = dyn Fn(&Tensor<2>, usize) -> Option<Tensor<2, Bool>> + 'a;

/// The same wherever the weight is.
fn step_of<M: Module>(model: &M, slot: &Slot, keep: &Keep<'_>) -> Option<DeviceMasks> {
    let mut layer = device_layers(model, vec![slot.clone()])?.pop()?;
    // What is pruned counts as zero, and may be kept again.
    if let Some(pruned) = layer.pruned.take() {
        layer.values = layer.values.mask_fill(pruned, 0.0);
    }
    let kept = layer.is_finite().then(|| keep(&layer.values, slot.outputs())).flatten()?;
    DeviceMasks::of(vec![(&layer, kept)])
}

impl DeviceMasks {
    /// Of layers with what is kept of each; none if that is something that is pruned already.
    fn of(layers: Vec<(&DeviceLayer, Tensor<2, Bool>)>) -> Option<Self> {
        let mut chosen = Self { masks: MaskSet::new(), pruned: BTreeMap::new() };
        for (layer, kept) in layers {
            if layer.revives(&kept) {
                return None;
            }
            let slot = &layer.slot;
            let words = words(kept.clone(), slot.outputs());
            chosen.masks.insert(&slot.path, Mask::from_words(slot.kind.outer_shape(&slot.stored), words).ok()?);
            chosen.pruned.insert(slot.path.clone(), kept.bool_not().reshape([slot.len()]));
        }
        Some(chosen)
    }
}

/// Of unstructured masks what is kept, the total shared as the budget says.
fn by_budget(
    layers: &[DeviceLayer],
    scores: &[Scores],
    recipe: &Recipe,
    sparsity: f64,
) -> Option<Vec<Tensor<2, Bool>>> {
    let sizes: Vec<usize> = layers.iter().map(|layer| layer.slot.len()).collect();
    match recipe.budget.shares() {
        Share::Global => {
            let total = sizes.iter().sum();
            return kept(scores, &vec![0; sizes.len()], &[total - rounded(sparsity, total)]);
        }
        Share::ByScores => return None,
        Share::ByShape => {}
    }
    let shapes: Vec<Vec<usize>> = layers.iter().map(|layer| layer.slot.kind.outer_shape(&layer.slot.stored)).collect();
    let named = layers.iter().zip(&shapes).map(|(layer, shape)| Layer::new(&layer.slot.path, shape, &[]));
    let shapes: Vec<Layer<'_>> = named.enumerate().map(|(i, layer)| layer.with_block(i)).collect();
    let prune = recipe.budget.allocate(&shapes, &recipe.evidence, sparsity).ok()?;
    let keep: Vec<usize> = sizes.iter().zip(prune).map(|(size, prune)| size - prune).collect();
    kept(scores, &(0..scores.len()).collect::<Vec<_>>(), &keep)
}

/// A prunable weight where the model has it.
struct DeviceLayer {
    slot: Slot,
    /// As it is stored, as a matrix.
    values: Tensor<2>,
    /// Where its mask prunes.
    pruned: Option<Tensor<2, Bool>>,
}

impl DeviceLayer {
    /// Its scores, minus infinity where it is pruned already; none if a value is not finite, or the score looks at
    /// more than each weight alone.
    fn scores(&self, score: &dyn Score) -> Option<Scores> {
        let values = self.is_finite().then(|| score.on_device(self.values.clone())).flatten()?;
        let values = match &self.pruned {
            Some(pruned) => values.mask_fill(pruned.clone(), f32::NEG_INFINITY),
            None => values,
        };
        Some(Scores::new(values, self.slot.outputs()))
    }

    fn is_finite(&self) -> bool {
        let finite = self.values.clone().abs().lower_equal_elem(f32::MAX).int().sum().into_data().convert::<i64>();
        finite.iter::<i64>().eq([self.slot.len() as i64])
    }

    /// Whether a weight that is pruned already would be kept.
    fn revives(&self, kept: &Tensor<2, Bool>) -> bool {
        let revived = self.pruned.clone().map(|pruned| pruned.bool_and(kept.clone()).any());
        revived.is_some_and(|any| any.into_data().convert::<bool>().iter::<bool>().any(|any| any))
    }
}

/// The weights of `slots`; none if one is not f32.
fn device_layers<M: Module>(model: &M, slots: Vec<Slot>) -> Option<Vec<DeviceLayer>> {
    let mut reader = Reader { path: Vec::new(), slots: &slots, values: BTreeMap::new(), pruned: BTreeMap::new() };
    model.visit(&mut reader);
    let Reader { mut values, mut pruned, .. } = reader;
    let found: Vec<_> = slots.iter().map(|slot| (values.remove(&slot.path), pruned.remove(&slot.path))).collect();
    let place = |(slot, (values, pruned)): (Slot, (Option<Tensor<2>>, _))| {
        let values = values.filter(|values| values.dtype() == DType::F32)?;
        Some(DeviceLayer { slot, values, pruned })
    };
    slots.into_iter().zip(found).map(place).collect()
}

/// Collects the tensors of `slots` by path.
struct Reader<'a> {
    path: Vec<String>,
    slots: &'a [Slot],
    values: BTreeMap<String, Tensor<2>>,
    pruned: BTreeMap<String, Tensor<2, Bool>>,
}

impl Reader<'_> {
    fn slot(&self, path: &str) -> Option<(String, [usize; 2])> {
        let slot = self.slots.iter().find(|slot| slot.path == path)?;
        Some((slot.path.clone(), slot.matrix()))
    }
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((path, matrix)) = self.slot(&self.path.join(".")) {
            self.values.insert(path, param.val().detach().reshape(matrix));
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let path = self.path.join(".");
        let slot = path.strip_suffix(MASK_PATH).and_then(|path| self.slot(path.strip_suffix('.')?));
        if let Some((path, matrix)) = slot {
            self.pruned.insert(path, param.val().reshape(matrix));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::mask::budget::Budget;
    use crate::model::evidence::Evidence;
    use crate::model::masked::{Base, Gradient, apply_masks, masks};
    use crate::model::score::{LayerView, magnitudes};
    use crate::model::weight::{Select, weights};
    use crate::{Error, Result};

    struct Size;

    impl Score for Size {
        fn name(&self) -> &'static str {
            "size"
        }

        fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
            Ok(magnitudes(layer))
        }

        fn on_device(&self, values: Tensor<2>) -> Option<Tensor<2>> {
            Some(values.abs())
        }
    }

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        wide: Linear,
        head: Linear,
    }

    /// Numbers with ties.
    fn net(device: &Device) -> Net {
        let fill =
            |n: usize| -> Vec<f32> { (0..n).map(|i| ((i * 7919 % 211) as f32 - 100.0) / 64.0 + 0.001).collect() };
        let mut net = Net {
            conv: Conv2dConfig::new([4, 6], [3, 3]).init(device),
            wide: LinearConfig::new(24, 10).init(device),
            head: LinearConfig::new(10, 8).init(device),
        };
        let conv = Tensor::from_data(TensorData::new(fill(216), [6, 4, 3, 3]), device);
        net.conv.weight = Param::from_tensor(conv);
        net.wide.weight = Param::from_tensor(Tensor::from_data(TensorData::new(fill(240), [24, 10]), device));
        net
    }

    fn here(model: &Net, recipe: &Recipe, sparsity: f64) -> Option<DeviceMasks> {
        step(model, slots(model, &recipe.select), recipe, &Size, sparsity)
    }

    fn by_processor(model: &Net, recipe: &Recipe, sparsity: f64) -> Result<MaskSet> {
        recipe.masks(&weights(model, &recipe.select)?, &Size, sparsity)
    }

    fn recipes() -> Vec<Recipe> {
        let explicit = Budget::Explicit([("wide.weight".to_string(), 0.7)].into());
        let budgets = [Budget::Global, Budget::Uniform, Budget::Erk, explicit];
        budgets.map(|budget| Recipe::default().with_budget(budget)).into()
    }

    #[test]
    fn masks_are_those_of_the_processor() {
        let plain = regrow_device::current();
        for net in [net(&plain), net(&plain.autodiff())] {
            for (recipe, sparsity) in recipes().into_iter().flat_map(|r| [0.3, 0.5, 0.9].map(|s| (r.clone(), s))) {
                let want = by_processor(&net, &recipe, sparsity).unwrap();
                let got = here(&net, &recipe, sparsity).unwrap();
                assert_eq!(got.masks.difference(&want), None, "{recipe:?} {sparsity}");
                for slot in slots(&net, &recipe.select) {
                    let flags = got.pruned[&slot.path].clone().into_data().convert::<bool>();
                    let want = slot.pruned_flags(want.get(&slot.path).unwrap());
                    assert_eq!(flags.iter::<bool>().collect::<Vec<_>>(), want, "{}", slot.path);
                }
            }
        }
    }

    #[test]
    fn groups_are_those_of_the_processor() {
        let net = net(&regrow_device::current());
        for (n, m) in [(1, 2), (2, 4), (1, 1), (3, 4), (1, 6)] {
            let recipe = Recipe::default().with_pattern(Pattern::NofM { n, m });
            let sparsity = 1.0 - n as f64 / m as f64;
            let want = by_processor(&net, &recipe, sparsity).unwrap();
            assert_eq!(here(&net, &recipe, sparsity).unwrap().masks.difference(&want), None, "{n}:{m}");
        }
        let odd = Recipe::default().with_pattern(Pattern::NofM { n: 2, m: 5 });
        assert!(here(&net, &odd, 0.6).is_none());
    }

    #[test]
    fn what_is_pruned_stays_pruned_and_too_few_are_the_processors_to_refuse() {
        let net = net(&regrow_device::current());
        for recipe in recipes() {
            let first = by_processor(&net, &recipe, 0.4).unwrap();
            let masked = apply_masks(net.clone(), &first, Gradient::Masked, Base::Kept).unwrap();
            let want = by_processor(&masked, &recipe, 0.8).unwrap();
            let got = here(&masked, &recipe, 0.8);
            assert_eq!(got.map(|got| got.masks.difference(&want)), Some(None), "{recipe:?}");
            let less = by_processor(&masked, &recipe, 0.1);
            assert!(here(&masked, &recipe, 0.1).is_none() != less.is_ok(), "{recipe:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_processor() {
        struct Far;
        impl Score for Far {
            fn name(&self) -> &'static str {
                "far"
            }
            fn score(&self, _layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
                Err(Error::Argument("not asked".into()))
            }
        }
        let device = regrow_device::current();
        let mut net = net(&device);
        let recipe = Recipe::default();
        assert!(step(&net, slots(&net, &recipe.select), &recipe, &Far, 0.5).is_none());
        assert!(here(&net, &recipe, 1.5).is_none());
        assert!(here(&net, &recipe.clone().with_pattern(Pattern::Rows), 0.5).is_none());
        assert!(here(&net, &recipe.clone().with_budget(Budget::Lamp), 0.5).is_none());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 240];
            values[77] = bad;
            net.wide.weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, [24, 10]), &device));
            assert!(here(&net, &recipe, 0.5).is_none(), "{bad}");
        }
        // Small weights are chosen by the processor on every device.
        assert!(masks_on_device(&net, &recipe, &Size, 0.5).is_none());
    }

    #[test]
    fn what_a_solver_keeps_of_a_weight_is_told_as_bits_and_as_flags() {
        let mut net = net(&regrow_device::current());
        let of = |net: &Net, keep: &Keep<'_>| {
            let slot = slots(net, &Select::default()).into_iter().find(|slot| slot.path == "wide.weight").unwrap();
            step_of(net, &slot, keep)
        };
        let zeros = |values: &Tensor<2>, outputs: usize| {
            assert_eq!((values.dims(), outputs), ([24, 10], 1));
            Some(values.clone().equal_elem(0.0))
        };
        assert_eq!(of(&net, &zeros).unwrap().masks.get("wide.weight").unwrap().kept(), 0);
        // Pruned weights count as zero, and may grow back.
        let mask = Mask::from_fn([10, 24], |i| i % 7 != 3);
        let masks: MaskSet = [("wide.weight".to_string(), mask.clone())].into_iter().collect();
        net = apply_masks(net, &masks, Gradient::Masked, Base::Kept).unwrap();
        let got = of(&net, &zeros).unwrap();
        assert_eq!(got.masks.get("wide.weight"), Some(&mask.inverted()));
        let pruned = got.pruned["wide.weight"].clone().into_data().convert::<bool>();
        let in_order = |i: usize| mask.keeps(i % 10 * 24 + i / 10);
        assert_eq!(pruned.iter::<bool>().collect::<Vec<_>>(), (0..240).map(in_order).collect::<Vec<_>>());
        net.wide.weight = net.wide.weight.map(|weight| weight * f32::NAN);
        assert!(of(&net, &|_, _| panic!("asked of values that are not finite")).is_none());
    }

    #[test]
    fn a_large_layer_is_pruned_as_by_the_processor_on_every_device() {
        let plain = regrow_device::current();
        for device in [plain.clone(), plain.autodiff()] {
            let layer = LinearConfig::new(1024, 1040).with_bias(false).init(&device);
            let recipe = Recipe::default();
            assert_eq!(masks_on_device(&layer, &recipe, &Size, 0.5).is_some(), has_own_memory(&device));
            let want = recipe.masks(&weights(&layer, &recipe.select).unwrap(), &Size, 0.5).unwrap();
            assert_eq!(recipe.masks_in(&layer, &Size, 0.5).unwrap().difference(&want), None);
            let (pruned, got) = recipe.prune(layer, &Size, 0.5).unwrap();
            assert_eq!(got.difference(&want), None);
            assert_eq!(masks(&pruned).unwrap().difference(&want), None);
            let effective = pruned.weight.val();
            let zeros = effective.clone().into_data().iter::<f32>().filter(|w| *w == 0.0).count();
            assert_eq!(zeros, 1024 * 1040 / 2);
            // A training model continues to train, under the mask.
            if device.is_autodiff() {
                let grads = GradientsParams::from_grads((effective.clone() * effective).sum().backward(), &pruned);
                let gradient = grads.get::<2>(pruned.weight.id).expect("a gradient").into_data();
                assert_eq!(gradient.iter::<f32>().filter(|g| *g == 0.0).count(), zeros);
            }
        }
    }
}
