use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Tensor;
use regrow_sparse_core::registry::find;

use super::*;
use crate::prelude::*;
use crate::registry;
use crate::testing::{Net, Toy, net};

type Made = Box<dyn Strategy<Net>>;

/// All strategies of the registry, some also with other parameters, for a memory of 12.
fn all() -> Vec<(String, Box<dyn Fn() -> Made>)> {
    let more = [
        ("ewc", "lambda=20,samples=5"),
        ("ewc-online", "lambda=20,gamma=0.9"),
        ("lwf", "warm-up=0.3"),
        ("si", "c=1,xi=0.1"),
        ("packnet", "sparsity=0.5"),
        ("dst-cl", "sparsity=0.7,growth=momentum,interval=5"),
        ("wa", "clipped=true"),
        ("wa", "only-shrinking=true"),
    ];
    let plain = registry::entries::<Net>().into_iter().map(|entry| (entry.info.name, ""));
    let plain = plain.filter(|(name, _)| !["ewc", "ewc-online", "si", "packnet", "dst-cl"].contains(name));
    let one = |(name, list): (&'static str, &'static str)| -> (String, Box<dyn Fn() -> Made>) {
        (format!("{name} {list}"), Box::new(move || make(name, list)))
    };
    plain.chain(more).map(one).collect()
}

fn make(name: &str, list: &str) -> Made {
    let entries = registry::entries::<Net>();
    let entry = find(&entries, name).unwrap();
    let params = Params::new(0).with(list).unwrap();
    let has_memory = entry.info.params.iter().any(|p| p.name == "memory");
    entry.build(&if has_memory { params.set("memory", 12) } else { params }).unwrap()
}

fn protocol(scenario: Scenario, rate: f64) -> Protocol {
    let scope = scenario.default_scope();
    Protocol { epochs: 6, batch: 5, lr: LrSchedule::constant(rate), seed: 3, scope }
}

/// Three tasks of two classes, ten images of each class.
fn run(
    strategy: &mut dyn Strategy<Net>,
    scenario: Scenario,
    rate: f64,
    save: Option<&Checkpointing>,
) -> Result<Learned<Net>> {
    let data = Toy::new(60, 6);
    let stream = data.split(scenario, 3);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
    let model = net(9, 16, stream.classes(), 4);
    learn(model, &sgd, strategy, &stream, &protocol(scenario, rate), save, &mut |_| {})
}

/// Any strategy, killed in a step as by kill -9.
struct Mortal(Made, (usize, usize));

impl Strategy<Net> for Mortal {
    fn fits(&self, scenario: Scenario) -> bool {
        self.0.fits(scenario)
    }
    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        self.0.examples(at)
    }
    fn begin_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
        self.0.begin_task(model, at)
    }
    fn pruner(&self, at: &TaskContext<'_>) -> Result<Box<dyn regrow_sparse_core::model::sparsify::Pruner>> {
        self.0.pruner(at)
    }
    fn losses(&mut self, model: &Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        self.0.losses(model, batch, at)
    }
    fn gradients(&mut self, model: &Net, g: GradientsParams, at: &TaskContext<'_>) -> Result<GradientsParams> {
        self.0.gradients(model, g, at)
    }
    fn after_step(&mut self, model: Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Net> {
        match (at.task, at.step) == self.1 {
            true => Err(Error::Argument("killed".into())),
            false => self.0.after_step(model, batch, at),
        }
    }
    fn end_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
        self.0.end_task(model, at)
    }
    fn eval_model(&self, model: &Net, task: usize) -> Result<Net> {
        self.0.eval_model(model, task)
    }
    fn scores(&self, model: &Net, images: Tensor<4>) -> Tensor<2> {
        self.0.scores(model, images)
    }
    fn state(&self) -> State {
        self.0.state()
    }
    fn restore(&mut self, state: State, model: &Net, at: &TaskContext<'_>) -> Result<()> {
        self.0.restore(state, model, at)
    }
}

#[test]
fn killed_and_resumed_is_as_if_never_killed() {
    for (name, make) in all() {
        let scenario = Scenario::ALL.into_iter().find(|s| make().fits(*s)).unwrap();
        let whole = run(&mut *make(), scenario, 0.05, None).unwrap();
        for place in [(0, 3), (1, 17), (2, 1), (2, 21)] {
            let dir = tempfile::tempdir().unwrap();
            let save = Checkpointing { dir: dir.path().join("run"), every: 4 };
            let mut mortal = Mortal(make(), place);
            assert_eq!(run(&mut mortal, scenario, 0.05, Some(&save)).unwrap_err().to_string(), "killed");
            let resumed = run(&mut *make(), scenario, 0.05, Some(&save)).unwrap();
            assert_eq!(resumed.matrix, whole.matrix, "{name}, killed at {place:?}");
            assert_eq!(resumed.before, whole.before, "{name}");
            let numbers = |m: &Net| ParameterVector::of(m).to_host();
            assert_eq!(numbers(&resumed.model), numbers(&whole.model), "{name}, killed at {place:?}");
            assert!(!save.dir.exists());
        }
    }
}

#[test]
fn every_strategy_learns_in_every_scenario_it_fits() {
    for (name, make) in all() {
        for scenario in Scenario::ALL {
            if !make().fits(scenario) {
                let says = run(&mut *make(), scenario, 0.05, None).unwrap_err().to_string();
                assert!(says.contains("does not fit"), "{name}: {says}");
                continue;
            }
            let learned = run(&mut *make(), scenario, 0.05, None).unwrap();
            let rows = learned.matrix.rows();
            let fresh = (0..3).map(|t| rows[t][t]).sum::<f64>() / 3.0;
            assert!(fresh > 0.7, "{name}, {scenario}: {rows:?}");
        }
    }
}

#[test]
fn joint_training_forgets_less_than_fine_tuning() {
    let end = |strategy: &mut dyn Strategy<Net>| {
        run(strategy, Scenario::Class, 0.05, None).unwrap().matrix.average().unwrap()
    };
    let (bounds, replay) = ((end(&mut FineTune), end(&mut Joint)), end(&mut *make("er", "")));
    assert!(bounds.0 < 0.5 && bounds.1 > 0.85 && replay > bounds.0 + 0.2, "{bounds:?} {replay}");
}

#[test]
fn what_cannot_be_learned_is_named() {
    let says =
        |strategy: &mut dyn Strategy<Net>, rate| run(strategy, Scenario::Class, rate, None).unwrap_err().to_string();
    assert!(says(&mut FineTune, 1e30).contains("not finite") || says(&mut FineTune, 1e30).contains("no longer"));
    assert!(says(&mut ErConfig::new(5).init().unwrap(), 0.1).contains("5 is smaller than the 6 classes"));
    assert!(says(&mut ICarlConfig::new(5).init().unwrap(), 0.1).contains("smaller than"));
    let data = Toy::new(60, 6);
    let stream = data.split(Scenario::Class, 3);
    let sgd = SgdConfig::new().build();
    let protocol = protocol(Scenario::Class, 0.1);
    let wrong = learn(net(9, 4, 5, 1), &sgd, &mut FineTune, &stream, &protocol, None, &mut |_| {});
    assert!(wrong.unwrap_err().to_string().contains("has 5 logits, the stream has 6"));
    let refused = [
        EwcConfig::new(-1.0).init().err(),
        EwcConfig::new(1.0).with_gamma(Some(1.5)).init().err(),
        EwcConfig::new(1.0).with_samples(Some(0)).init().err(),
        SiConfig::new().with_xi(0.0).init().err(),
        SiConfig::new().with_clip(Some(0.0)).init().err(),
        LwfConfig::new().with_temperature(0.0).init::<Net>().err(),
        PackNetConfig::new().with_sparsity(0.0).init().err(),
        DerPpConfig::new(0).init().err(),
        DerPpConfig::new(9).with_alpha(f64::NAN).init().err(),
    ];
    for (i, error) in refused.into_iter().enumerate() {
        assert!(matches!(error, Some(Error::InvalidParameter { .. })), "{i}: {error:?}");
    }
}

#[test]
fn a_state_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let save = Checkpointing { dir: dir.path().join("run"), every: 4 };
    let mut mortal = Mortal(Box::new(FineTune), (1, 9));
    assert!(run(&mut mortal, Scenario::Class, 0.05, Some(&save)).is_err());
    let says = run(&mut FineTune, Scenario::Class, 0.06, Some(&save)).unwrap_err().to_string();
    assert!(says.contains("other settings"), "{says}");
}
