//! Every training-time method: a run that is killed and resumed ends with the masks and weights of
//! one that was not.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use regrow_pruners::{BipConfig, GranetConfig, IsspConfig, RiglConfig, SetConfig};
use regrow_pruners::{Gmp, Needs, Random, Snip, StraightThrough};
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::masked::{Gradient, masks};
use regrow_sparse_core::model::optimizer::PrunedWeightUpdate;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Budget, Error, MaskSet, Result, Schedule};
use regrow_train::lr::LrSchedule;
use regrow_train::{Checkpointing, Problem, StepContext, Training, train};

const STEPS: usize = 40;

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    middle: Linear,
    output: Linear,
}

impl Net {
    fn new() -> Self {
        let device = regrow_device::current();
        let layer = |stream: u64, d_in: usize, d_out: usize| {
            let value = |i: u64| (mix(stream, i) % 10_007) as f32 / 10_007.0 - 0.5;
            let values: Vec<f32> = (0..(d_in * d_out) as u64).map(value).collect();
            let weight = Tensor::<2>::from_data(TensorData::new(values, [d_in, d_out]), &device);
            let layer = LinearConfig::new(d_in, d_out).with_bias(false).init(&device);
            Linear { weight: Param::from_tensor(weight), ..layer }
        };
        Self { hidden: layer(1, 6, 12), middle: layer(2, 12, 8), output: layer(3, 8, 1) }
    }
}

/// Fits the sum of the inputs.
struct Sum;

impl Problem<Net> for Sum {
    fn len(&self) -> usize {
        80
    }

    fn losses(&self, net: &Net, batch: &[usize], _moment: StepContext, device: &Device) -> Tensor<1> {
        let x: Vec<f32> =
            batch.iter().flat_map(|i| (0..6).map(move |d| ((i * 7 + d * 3) % 11) as f32 / 11.0)).collect();
        let y: Vec<f32> = x.chunks(6).map(|row| row.iter().sum()).collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [batch.len(), 6]), device);
        let y = Tensor::<2>::from_data(TensorData::new(y, [batch.len(), 1]), device);
        let out = net.output.forward(relu(net.middle.forward(relu(net.hidden.forward(x)))));
        (out - y).powf_scalar(2.0).mean_dim(1).squeeze_dim::<1>(1)
    }
}

/// Any pruner, stopped before a step as by kill -9: nothing of that step is saved.
struct Mortal {
    pruner: Box<dyn Pruner>,
    dies_at: Option<usize>,
}

impl Pruner for Mortal {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        match self.dies_at == Some(step) {
            true => Err(Error::Argument("killed".into())),
            false => self.pruner.update(step, view),
        }
    }

    fn needs(&self) -> Needs {
        self.pruner.needs()
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.pruner.needs_gradients(step)
    }

    fn replaces_optimizer_step(&self, step: usize) -> bool {
        self.pruner.replaces_optimizer_step(step)
    }

    fn state(&self) -> State {
        self.pruner.state()
    }

    fn restore(&mut self, state: State) -> Result<()> {
        self.pruner.restore(state)
    }

    fn select(&self) -> Select {
        self.pruner.select()
    }

    fn gradient(&self) -> Gradient {
        self.pruner.gradient()
    }

    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        self.pruner.pruned_weight_update()
    }
}

fn run(pruner: Box<dyn Pruner>, net: Net, dies_at: Option<usize>, dir: &Path) -> Result<(MaskSet, Vec<Vec<f32>>)> {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
    let settings = Training { epochs: 5, batch: 10, lr: LrSchedule::cosine(0.02), seed: 1 };
    let save = Checkpointing { dir: dir.to_path_buf(), every: 3 };
    let net = train(net, sgd, Mortal { pruner, dies_at }, &Sum, &settings, Some(&save), &mut |_| {})?;
    let values = weights(&net, &Select::default().with_head())?.into_iter().map(|w| w.values);
    Ok((masks(&net)?, values.collect()))
}

fn sparse() -> Net {
    let recipe = Recipe::default().with_budget(Budget::Erk);
    recipe.prune(Net::new(), &Random { seed: 2 }, 0.6).unwrap().0
}

/// A method, the network it starts from, and how many of its 168 weights it leaves at zero.
type Case = (&'static str, fn() -> Box<dyn Pruner>, fn() -> Net, usize);

fn cubic() -> Schedule {
    Schedule::new(Curve::Cubic, 0.0, 0.8, 0, 4, 7).unwrap()
}

fn granet(initial: f64) -> Box<dyn Pruner> {
    let config = GranetConfig::new(0.8, STEPS).with_initial(initial).with_every(4).with_updates(Some(7));
    Box::new(config.init().unwrap())
}

/// The net has 72 and 96 weights that may be pruned.
const TO_80: usize = 134;
const TO_60: usize = 101;
/// Of each layer: 58 and 77.
const UNIFORM: usize = 135;

#[test]
fn killed_and_resumed_is_as_if_never_killed() {
    let cases: [Case; 11] = [
        ("GMP", || Box::new(Gmp::on(cubic())), Net::new, TO_80),
        ("GMP for good", || Box::new(Gmp::on(cubic()).for_good()), Net::new, TO_80),
        ("GMP by SNIP", || Box::new(Gmp::on(cubic()).with_score(Snip)), Net::new, TO_80),
        ("STE", || Box::new(StraightThrough::ste(cubic())), Net::new, TO_80),
        ("DPF", || Box::new(StraightThrough::dpf(cubic()).with_every(5).unwrap()), Net::new, TO_80),
        ("SET", || Box::new(SetConfig::new(STEPS).with_every(4).with_seed(5).init().unwrap()), sparse, TO_60),
        ("RigL", || Box::new(RiglConfig::new(STEPS).with_every(4).init().unwrap()), sparse, TO_60),
        ("GraNet", || granet(0.0), Net::new, TO_80),
        ("GraNet, sparse", || granet(0.6), sparse, TO_80),
        ("BiP", || Box::new(BipConfig::new(0.8, STEPS).init().unwrap()), Net::new, TO_80),
        ("ISS-P", || Box::new(IsspConfig::new(0.8, 20).init().unwrap()), Net::new, UNIFORM),
    ];
    for (name, pruner, net, zeros) in cases {
        let dir = tempfile::tempdir().unwrap();
        let whole = run(pruner(), net(), None, &dir.path().join("whole")).unwrap();
        assert_eq!((whole.0.weights(), whole.0.pruned()), (168, zeros), "{name}");
        for step in [4, 13, 22, 37] {
            let states = dir.path().join(format!("killed-{step}"));
            assert_eq!(run(pruner(), net(), Some(step), &states).unwrap_err().to_string(), "killed");
            let resumed = run(pruner(), net(), None, &states).unwrap();
            assert_eq!(resumed, whole, "{name}, killed at {step}");
        }
    }
}

#[test]
fn the_state_of_another_method_is_refused() {
    let mut bip = BipConfig::new(0.8, STEPS).init().unwrap();
    assert!(bip.restore(State::default()).unwrap_err().to_string().contains("layers"));
}
