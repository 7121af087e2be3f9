//! Masks through training: what is pruned stays exactly zero, whatever the optimizer.
#![allow(clippy::unwrap_used)]

use burn::module::{Module, Param, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, MuonConfig, Optimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks, masks};
use regrow_sparse_core::model::optimizer::{PrunedWeightUpdate, masked_optimizer};
use regrow_sparse_core::model::sparsify::{Change, Pruner, PruningOptimizer, View};
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Mask, MaskSet, Result};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
}

impl Net {
    /// Weights in (-0.3, 0.3) by rule: the process's generator is shared with tests beside this one.
    fn new(seed: u64, device: &Device) -> Self {
        // Without biases: Muon takes matrices only.
        let linear = |d_in: usize, d_out: usize| {
            let value = |i: u64| (mix(seed, i) % 10_007) as f32 / 10_007.0 * 0.6 - 0.3;
            let values: Vec<f32> = (0..(d_in * d_out) as u64).map(value).collect();
            let weight = Tensor::<2>::from_data(TensorData::new(values, [d_in, d_out]), device);
            let layer = LinearConfig::new(d_in, d_out).with_bias(false).init(device);
            Linear { weight: Param::from_tensor(weight), ..layer }
        };
        Self { first: linear(12, 10), second: linear(10, 4) }
    }

    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        self.second.forward(relu(self.first.forward(x))).powf_scalar(2.0).mean()
    }
}

fn device() -> Device {
    regrow_device::current().autodiff()
}

fn two_masks() -> MaskSet {
    let mask = |shape: [usize; 2], every: usize| Mask::from_fn(shape, move |i| i.is_multiple_of(every));
    MaskSet::from_iter([
        ("first.weight".to_string(), mask([10, 12], 3)),
        ("second.weight".to_string(), mask([4, 10], 2)),
    ])
}

fn base(linear: &Linear) -> Vec<f32> {
    linear.weight.base().into_data().iter::<f32>().collect()
}

fn effective(linear: &Linear) -> Vec<f32> {
    linear.weight.val().into_data().iter::<f32>().collect()
}

/// In PyTorch's order, as masks are.
fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..values.len()).map(|i| values[i % rows * cols + i / rows]).collect()
}

fn assert_zero_exactly_where_pruned(net: &Net, masks: &MaskSet) {
    for (path, linear, d_in, d_out) in [("first.weight", &net.first, 12, 10), ("second.weight", &net.second, 10, 4)] {
        let values = transposed(&base(linear), d_in, d_out);
        let mask = masks.get(path).expect("a mask");
        for (i, value) in values.iter().enumerate() {
            assert_eq!(*value == 0.0, !mask.keeps(i), "{path} at {i}: {value}");
        }
    }
}

fn steps(net: Net, optimizer: &mut ModuleOptimizer, count: usize) -> Net {
    (0..count).fold(net, |net, _| {
        let loss = net.loss(Tensor::random([16, 12], Distribution::Default, &device()));
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        optimizer.step(0.05, net, grads)
    })
}

/// Trains densely for a while, so that momentum is everywhere, then masks and trains on.
fn zero_through<O: Optimizer>(optimizer: O, gradient: Gradient) {
    let net = Net::new(1, &device());
    let (mut optimizer, handle) =
        masked_optimizer(&net, &Select::default().with_head(), optimizer, gradient, PrunedWeightUpdate::Zero);
    let net = steps(net, &mut optimizer, 5);
    let masks = two_masks();
    let net = apply_masks(net, &masks, gradient, Base::Zeroed).unwrap();
    handle.set(&net, &masks).unwrap();
    let before = base(&net.first);
    let net = steps(net, &mut optimizer, 20);
    assert_zero_exactly_where_pruned(&net, &masks);
    assert_ne!(base(&net.first), before, "the kept weights learn");
}

fn sgd() -> impl Optimizer {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(WeightDecayConfig::new(5e-4))).build()
}

#[test]
fn sgd_with_momentum_and_decay_leaves_zeros() {
    zero_through(sgd(), Gradient::Masked);
    zero_through(sgd(), Gradient::Dense);
}

#[test]
fn adam_and_adamw_leave_zeros() {
    zero_through(AdamConfig::new().with_weight_decay(Some(WeightDecayConfig::new(5e-4))).build(), Gradient::Masked);
    zero_through(AdamWConfig::new().with_weight_decay(0.01).build(), Gradient::Masked);
    zero_through(AdamWConfig::new().with_weight_decay(0.01).build(), Gradient::Dense);
}

#[test]
fn muon_mixes_entries_and_is_held_to_the_mask() {
    zero_through(MuonConfig::new().build(), Gradient::Masked);
}

#[test]
fn without_the_wrapper_the_base_drifts_and_the_forward_pass_does_not() {
    let net = Net::new(1, &device());
    let mut optimizer = ModuleOptimizer::from(sgd());
    let net = steps(net, &mut optimizer, 5);
    let net = apply_masks(net, &two_masks(), Gradient::Masked, Base::Zeroed).unwrap();
    let net = steps(net, &mut optimizer, 5);
    let zeros = |values: Vec<f32>| values.into_iter().filter(|v| *v == 0.0).count();
    assert_eq!(zeros(effective(&net.first)), 80);
    assert!(zeros(base(&net.first)) < 80, "old momentum moves the base");
}

#[test]
fn velocity_is_zero_where_pruned() {
    let net = Net::new(1, &device());
    let (mut optimizer, handle) =
        masked_optimizer(&net, &Select::default().with_head(), sgd(), Gradient::Masked, PrunedWeightUpdate::Zero);
    let net = steps(net, &mut optimizer, 5);
    let masks = two_masks();
    let net = apply_masks(net, &masks, Gradient::Masked, Base::Zeroed).unwrap();
    handle.set(&net, &masks).unwrap();
    let net = steps(net, &mut optimizer, 3);
    // With no gradient, the next step moves a weight by its velocity alone.
    let still = apply_masks(net.clone(), &dense_masks(), Gradient::Masked, Base::Kept).unwrap();
    handle.set(&still, &dense_masks()).unwrap();
    let grads = GradientsParams::from_grads((still.loss(Tensor::zeros([4, 12], &device())) * 0.0).backward(), &still);
    let moved = optimizer.step(1.0, still, grads);
    let values = transposed(&base(&moved.first), 12, 10);
    let mask = masks.get("first.weight").expect("a mask");
    assert!(values.iter().enumerate().all(|(i, v)| mask.keeps(i) || *v == 0.0));
    assert_ne!(base(&moved.first), base(&net.first), "velocity is there where weights are kept");
}

fn dense_masks() -> MaskSet {
    two_masks().iter().map(|(path, mask)| (path.to_string(), Mask::dense(mask.shape().to_vec()))).collect()
}

#[test]
fn both_forms_have_the_masked_value_and_their_gradient() {
    let masks = two_masks();
    let net = |gradient| apply_masks(Net::new(3, &device()), &masks, gradient, Base::Kept).unwrap();
    let (masked, dense) = (net(Gradient::Masked), net(Gradient::Dense));
    assert_eq!(effective(&masked.first), effective(&dense.first));
    let gradient = |net: &Net| -> Vec<f32> {
        let grads = net.loss(Tensor::ones([2, 12], &device())).backward();
        net.first.weight.base().grad(&grads).expect("a gradient").into_data().iter::<f32>().collect()
    };
    let mask = masks.get("first.weight").expect("a mask");
    let (masked, dense) = (transposed(&gradient(&masked), 12, 10), transposed(&gradient(&dense), 12, 10));
    for i in 0..masked.len() {
        match mask.keeps(i) {
            true => assert_eq!(masked[i], dense[i]),
            false => assert_eq!(masked[i], 0.0),
        }
    }
    assert!((0..dense.len()).any(|i| !mask.keeps(i) && dense[i] != 0.0));
}

#[test]
fn records_and_materialized_weights_keep_the_mask() {
    let masks_before = two_masks();
    let net = apply_masks(Net::new(4, &device()), &masks_before, Gradient::Masked, Base::Kept).unwrap();
    let blank = apply_masks(Net::new(5, &device()), &dense_masks(), Gradient::Masked, Base::Kept).unwrap();
    let loaded = blank.load_record(net.clone().into_record());
    assert_eq!(masks(&loaded).unwrap(), masks_before);
    assert_eq!(effective(&loaded.first), effective(&net.first));
    let baked = net.clone().materialize();
    assert_eq!(base(&baked.first), effective(&net.first));
    assert!(masks(&baked).unwrap().is_empty());
}

#[test]
fn a_model_moves_between_devices_with_its_mask() {
    let net = apply_masks(Net::new(6, &device()), &two_masks(), Gradient::Masked, Base::Zeroed).unwrap();
    let moved = net.clone().valid().to_device(&regrow_device::current());
    assert_eq!(masks(&moved).unwrap(), two_masks());
    assert_eq!(effective(&moved.first), effective(&net.first));
    assert_eq!(masks(&moved.train().fork(&device())).unwrap(), two_masks());
}

#[test]
fn new_masks_replace_old_ones() {
    let net = apply_masks(Net::new(7, &device()), &two_masks(), Gradient::Masked, Base::Kept).unwrap();
    let fewer = MaskSet::from_iter([("first.weight".to_string(), Mask::from_fn([10, 12], |i| i < 6))]);
    let net = apply_masks(net, &fewer, Gradient::Masked, Base::Kept).unwrap();
    let now = masks(&net).unwrap();
    assert_eq!(now.get("first.weight"), fewer.get("first.weight"));
    assert_eq!(now.get("second.weight"), two_masks().get("second.weight"));
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let says = |path: &str, mask| {
        let masks = MaskSet::from_iter([(path.to_string(), mask)]);
        apply_masks(Net::new(8, &device()), &masks, Gradient::Masked, Base::Zeroed).unwrap_err().to_string()
    };
    assert!(says("third.weight", Mask::dense([10, 12])).contains("third.weight: there is a mask for it"));
    assert!(says("first.weight", Mask::dense([12, 10])).contains("has shape [12, 10], the weight [10, 12]"));
}

#[test]
fn what_may_be_pruned() {
    let net = Net::new(9, &device());
    let paths = |select: Select| weights(&net, &select).unwrap().into_iter().map(|w| w.path).collect::<Vec<_>>();
    assert_eq!(paths(Select::default()), ["first.weight"]);
    assert_eq!(paths(Select::default().with_head()), ["first.weight", "second.weight"]);
    assert_eq!(paths(Select::default().only(ParamGroup::from_predicate("second"))), ["second.weight"]);
    assert_eq!(paths(Select::default().with_head().except(ParamGroup::from_predicate("first"))), ["second.weight"]);
    assert!(weights(&net, &Select::default().only(ParamGroup::from_predicate("bias"))).is_err());
    assert_eq!(weights(&net, &Select::default()).unwrap()[0].shape, [10, 12]);
}

#[test]
fn nan_weights_are_named() {
    let mut net = Net::new(10, &device());
    net.first.weight = net.first.weight.map(|w| w * f32::NAN);
    assert!(weights(&net, &Select::default()).unwrap_err().to_string().starts_with("first.weight: holds NaN"));
}

/// Puts on the same masks at step 2 and halves what they prune at step 4; looks at gradients.
struct Scripted {
    under: PrunedWeightUpdate,
    gradient: Gradient,
    seen: std::sync::mpsc::Sender<Vec<Vec<f32>>>,
}

impl Pruner for Scripted {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        Ok(match step {
            2 => Change::Masks(two_masks()),
            3 => {
                let _ = self.seen.send(view.gradients()?);
                Change::None
            }
            4 => Change::Scale(two_masks(), 0.5),
            _ => Change::None,
        })
    }

    fn needs_gradients(&self, step: usize) -> bool {
        step == 3
    }

    fn select(&self) -> Select {
        Select::default().with_head()
    }

    fn gradient(&self) -> Gradient {
        self.gradient
    }

    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        self.under
    }
}

/// The stored weights of the first layer after each of six steps, and the gradients of step 3.
fn scripted(under: PrunedWeightUpdate, gradient: Gradient) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let (seen, gradients) = std::sync::mpsc::channel();
    let mut net = Net::new(9, &device());
    let mut optimizer = PruningOptimizer::new(Scripted { under, gradient, seen }, sgd(), &net).unwrap();
    let mut stored = Vec::new();
    for i in 0..6 {
        let x = Tensor::<2>::ones([4, 12], &device()) * (i + 1) as f32;
        let grads = GradientsParams::from_grads(net.loss(x).backward(), &net);
        net = optimizer.step(0.01, net, grads).unwrap();
        stored.push(transposed(&base(&net.first), 12, 10));
    }
    (stored, gradients.recv().unwrap())
}

fn pruned_of(values: &[f32]) -> Vec<f32> {
    let masks = two_masks();
    let mask = masks.get("first.weight").unwrap();
    values.iter().enumerate().filter(|(i, _)| !mask.keeps(*i)).map(|(_, v)| *v).collect()
}

#[test]
fn frozen_weights_stay_and_learning_ones_move() {
    let (zero, gradients) = scripted(PrunedWeightUpdate::Zero, Gradient::Masked);
    assert!(pruned_of(&zero[5]).iter().all(|w| *w == 0.0));
    assert!(pruned_of(&gradients[0]).iter().all(|g| *g == 0.0));
    let (frozen, gradients) = scripted(PrunedWeightUpdate::Frozen, Gradient::Dense);
    assert!(pruned_of(&gradients[0]).iter().any(|g| *g != 0.0), "dense gradients are seen");
    let before = pruned_of(&frozen[2]);
    assert!(before.iter().all(|w| *w != 0.0));
    assert_eq!(pruned_of(&frozen[3]), before);
    assert_eq!(pruned_of(&frozen[4]), before.iter().map(|w| w * 0.5).collect::<Vec<_>>());
    assert_eq!(pruned_of(&frozen[5]), pruned_of(&frozen[4]));
    assert_ne!(frozen[5], frozen[4], "kept ones learn");
    let (learning, _) = scripted(PrunedWeightUpdate::Learning, Gradient::Dense);
    assert_eq!(learning[2], frozen[2]);
    assert_ne!(pruned_of(&learning[3]), before);
}

#[test]
fn a_gradient_that_is_not_finite_is_refused_where_one_is_needed() {
    let (seen, _gradients) = std::sync::mpsc::channel();
    let net = Net::new(9, &device());
    let pruner = Scripted { under: PrunedWeightUpdate::Zero, gradient: Gradient::Dense, seen };
    let mut optimizer = PruningOptimizer::new(pruner, sgd(), &net).unwrap();
    let step = |net: Net, optimizer: &mut PruningOptimizer<Net>, scale: f32| {
        let x = Tensor::<2>::ones([4, 12], &device()) * scale;
        let grads = GradientsParams::from_grads(net.loss(x).backward(), &net);
        optimizer.step(0.0, net, grads)
    };
    let net = (0..3).fold(net, |net, _| step(net, &mut optimizer, 1.0).unwrap());
    let said = step(net, &mut optimizer, 1e30).unwrap_err().to_string();
    assert!(said.starts_with("first.weight: its gradient holds"), "{said}");
}
