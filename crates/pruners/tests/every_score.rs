//! Every score in every pruner that takes one, every budget on a Burn model.
#![allow(clippy::unwrap_used)]

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use regrow_pruners::registry::{BUDGETS, Params, SCORES, find};
use regrow_pruners::{
    GmpConfig, GranetConfig, Imp, IsspConfig, Magnitude, Needs, OneShot, Probe, Pruner, PruningOptimizer, Recipe,
    Result, Schedule, Scheduled, Score, Snip, StraightThrough, SynFlow, Wanda, masks,
};
use regrow_sparse_core::model::executor::{DenseExecutor, LayerExecutor};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::seed::mix;

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
    head: Linear,
}

impl Net {
    fn new() -> Self {
        let device = regrow_device::current().autodiff();
        let layer = |stream: u64, d_in: usize, d_out: usize| {
            let mut layer = LinearConfig::new(d_in, d_out).with_bias(false).init(&device);
            let values: Vec<f32> =
                (0..(d_in * d_out) as u64).map(|i| (mix(stream, i) % 1009) as f32 / 504.0 - 1.0).collect();
            layer.weight =
                burn::module::Param::from_tensor(Tensor::from_data(TensorData::new(values, [d_in, d_out]), &device));
            layer
        };
        Self { first: layer(1, 6, 10), second: layer(2, 10, 8), head: layer(3, 8, 2) }
    }

    fn run(&self, x: Tensor<2>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
        let x = relu(layers.linear("first", &self.first, x));
        let x = relu(layers.linear("second", &self.second, x));
        layers.linear("head", &self.head, x)
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.run(x, &mut DenseExecutor)
    }

    fn loss(&self) -> Tensor<1> {
        self.forward(inputs(self)).sub_scalar(1.0).powf_scalar(2.0).mean()
    }
}

fn inputs(net: &Net) -> Tensor<2> {
    let values: Vec<f32> = (0..72).map(|i| (i as f32 * 1.7).sin()).collect();
    Tensor::from_data(TensorData::new(values, [12, 6]), &net.first.weight.val().device())
}

fn probe() -> Probe<Net> {
    Probe::new()
        .with_loss(Net::loss)
        .with_response([1, 6], |net: &Net, ones| net.forward(ones))
        .with_inputs(|net, layers| drop(net.run(inputs(net), layers)))
        .with_outputs(|net| net.forward(inputs(net)))
}

/// The weights that may be pruned; the head is not one.
const WEIGHTS: usize = 60 + 80;

fn pruned(net: &Net) -> usize {
    masks(net).unwrap().pruned()
}

fn trained(pruner: Box<dyn Pruner>) -> Result<Net> {
    let mut net = Net::new();
    let mut optimizer = PruningOptimizer::with_probe(pruner, probe(), SgdConfig::new().build(), &net)?;
    for _ in 0..20 {
        let grads = GradientsParams::from_grads(net.loss().backward(), &net);
        net = optimizer.step(0.01, net, grads)?;
    }
    Ok(net)
}

#[test]
fn every_score_works_while_training() {
    let schedule = || Schedule::one_shot(0.5, 3).unwrap();
    for entry in SCORES {
        let score = || entry.build(&Params::new(7)).unwrap();
        let granet = GranetConfig::new(0.5, 20).with_every(4).with_updates(Some(3));
        let pruners: [(&str, Box<dyn Pruner>); 6] = [
            ("gmp", GmpConfig::new(0.5).with_every(2).with_updates(4).init_with(score()).unwrap().into()),
            ("straight-through", StraightThrough::ste(schedule()).with_score(score()).into()),
            ("granet", granet.init_with(score()).unwrap().into()),
            ("scheduled", Scheduled::new(score(), schedule()).into()),
            ("issp", IsspConfig::new(0.5, 5).init_with(score()).unwrap().into()),
            (
                "for good",
                GmpConfig::new(0.5)
                    .with_every(2)
                    .with_updates(4)
                    .with_permanent(true)
                    .init_with(score())
                    .unwrap()
                    .into(),
            ),
        ];
        for (name, pruner) in pruners {
            let net = trained(pruner).unwrap_or_else(|e| panic!("{} in {name}: {e}", entry.info.name));
            assert_eq!(pruned(&net), WEIGHTS / 2, "{} in {name}", entry.info.name);
        }
    }
}

#[test]
fn every_score_works_without_training() {
    for entry in SCORES {
        let score = || entry.build(&Params::new(7)).unwrap();
        for rounds in [1, 3] {
            let one_shot = OneShot::new(score(), 0.5).unwrap().with_rounds(rounds).unwrap();
            let (net, _) = one_shot.prune_with(Net::new(), &probe()).unwrap();
            assert_eq!(pruned(&net), WEIGHTS / 2, "{} in {rounds} rounds", entry.info.name);
        }
        let imp = Imp::new(score(), 0.5, 2).unwrap();
        // As training leaves it: on a device without gradients.
        let net =
            imp.run_with(Net::new(), &probe(), None, |net, _| Ok::<_, regrow_sparse_core::Error>(net.valid())).unwrap();
        assert_eq!(pruned(&net), WEIGHTS / 2, "{} in IMP", entry.info.name);
    }
}

#[test]
fn every_budget_works_on_a_burn_model() {
    for entry in BUDGETS {
        let params = Params::new(0);
        let (params, sparsity, zeros) = match entry.info.name {
            "explicit" => (params.set("layers", "first.weight:0.5"), 0.5, 30),
            // The first layer stays dense, and at most 64 of the second's 80 weights go.
            "uniform-plus" => (params, 0.4, 56),
            _ => (params, 0.5, WEIGHTS / 2),
        };
        for score in [&Magnitude as &dyn Score, &Snip, &SynFlow, &Wanda::default()] {
            let recipe = Recipe::default().with_budget(entry.build(&params).unwrap());
            let one_shot = OneShot::new(score, sparsity).unwrap().with_recipe(recipe);
            let (_, masks) = one_shot.prune_with(Net::new(), &probe()).unwrap();
            assert_eq!(masks.pruned(), zeros, "{} by {}", entry.info.name, score.name());
        }
    }
}

#[test]
fn evidence_that_nobody_brings_is_refused_at_the_start() {
    let start = |pruner: Box<dyn Pruner>| PruningOptimizer::new(pruner, SgdConfig::new().build(), &Net::new()).err();
    let schedule = || Schedule::one_shot(0.5, 3).unwrap();
    let says = start(Scheduled::new(SynFlow, schedule()).into()).unwrap().to_string();
    assert!(says.contains("needs synaptic flow (`Probe::with_response`)"), "{says}");
    let owl = Recipe::default().with_budget(find(BUDGETS, "owl").unwrap().build(&Params::new(0)).unwrap());
    let says = start(Scheduled::new(Magnitude, schedule()).with_recipe(owl).into()).unwrap().to_string();
    assert!(says.contains("needs shares of outliers"), "{says}");
    // The gradients of the step serve.
    assert!(start(Scheduled::new(Snip, schedule()).into()).is_none());
}

#[test]
fn in_a_loop_the_steps_gradients_are_the_evidence() {
    let mut net = Net::new();
    let pruner = Scheduled::new(Snip, Schedule::one_shot(0.5, 0).unwrap());
    let mut optimizer = PruningOptimizer::new(pruner, SgdConfig::new().build(), &net).unwrap();
    let grads = GradientsParams::from_grads(net.loss().backward(), &net);
    // At a rate of zero the weights are those that the gradients are of.
    net = optimizer.step(0.0, net, grads).unwrap();
    let at_once = OneShot::new(Snip, 0.5).unwrap().masks(&Net::new(), &probe()).unwrap();
    assert_eq!(masks(&net).unwrap().difference(&at_once), None);
}

#[test]
fn a_probe_brings_what_it_offers_about_every_weight() {
    let needs = Needs::GRADIENTS.and(Needs::HESSIAN_GRADIENT).and(Needs::SYNAPTIC_FLOW).and(Needs::INPUT_MOMENTS);
    let all = Select::default().with_head();
    let evidence = probe().evidence(&Net::new(), &all, &needs).unwrap();
    let weights = regrow_sparse_core::model::weight::weights(&Net::new(), &all).unwrap();
    for (index, weight) in weights.iter().enumerate() {
        let layer = regrow_pruners::LayerView { weight, index };
        assert!(evidence.gradients(&layer).is_ok() && evidence.hessian_gradient(&layer).is_ok());
        assert!(evidence.synaptic_flow(&layer).is_ok() && evidence.input_moments(&layer).is_ok());
        assert!(evidence.input_norms(&layer).unwrap_err().to_string().contains("nobody brought"));
    }
}
