//! The training loop: reproducible, and resumed as if it had never stopped.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Tensor, TensorData};
use regrow_sparse_core::Result;
use regrow_sparse_core::mask::schedule::{Curve, Schedule};
use regrow_sparse_core::model::evidence::Evidence;
use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::{LayerView, Score};
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_train::lr::LrSchedule;
use regrow_train::{Checkpointing, Problem, StepContext, Training, train};

/// Fit y = sum of x on points made from their index and the step's seed.
struct Sum;

impl Problem<Linear> for Sum {
    fn len(&self) -> usize {
        60
    }

    fn losses(&self, model: &Linear, batch: &[usize], moment: StepContext, device: &Device) -> Tensor<1> {
        let noise = (moment.seed % 7) as f32 * 0.01;
        let x: Vec<f32> =
            batch.iter().flat_map(|i| (0..6).map(move |d| ((i * 7 + d * 3) % 11) as f32 / 11.0 + noise)).collect();
        let y: Vec<f32> = x.chunks(6).map(|row| row.iter().sum()).collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [batch.len(), 6]), device);
        let y = Tensor::<2>::from_data(TensorData::new(y, [batch.len(), 1]), device);
        (model.forward(x) - y).powf_scalar(2.0).mean_dim(1).squeeze_dim::<1>(1)
    }
}

struct Largest;

impl Score for Largest {
    fn name(&self) -> &'static str {
        "largest"
    }

    fn score(&self, weight: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
        Ok(weight.values.iter().map(|w| w.abs()).collect())
    }
}

/// Prunes to one half in three updates; may stop the run at a step, as kill -9 would.
struct Gradual {
    killed_at: Option<usize>,
}

impl Pruner for Gradual {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if self.killed_at == Some(step) {
            return Err(regrow_sparse_core::Error::Argument("killed".into()));
        }
        let schedule = Schedule::new(Curve::Cubic, 0.0, 0.5, 5, 5, 3)?;
        let masks = schedule.due(step).map(|s| Recipe::default().masks(&view.weights()?, &Largest, s));
        Ok(masks.transpose()?.into())
    }
}

/// The same model every time. The generator is the process's and parameters are drawn at their
/// first use: seed and draw under one lock, or tests side by side would share one sequence.
fn fresh(device: &Device) -> Linear {
    static DRAWING: Mutex<()> = Mutex::new(());
    let _guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(1);
    let model: Linear = LinearConfig::new(6, 1).init(device);
    let _ = model.forward(Tensor::<2>::zeros([1, 6], device));
    model
}

fn run(seed: u64, killed_at: Option<usize>, dir: Option<&Path>) -> Result<Linear> {
    let model = fresh(&regrow_device::current());
    let momentum = MomentumConfig::new().with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
    let settings = Training { epochs: 4, batch: 10, lr: LrSchedule::cosine(0.05), seed };
    let save = dir.map(|dir| Checkpointing { dir: dir.to_path_buf(), every: 4 });
    train(model, sgd, Gradual { killed_at }, &Sum, &settings, save.as_ref(), &mut |_| {})
}

fn bits(model: &Linear) -> Vec<u32> {
    let weight = model.weight.val().into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
    let bias = model.bias.as_ref().map(|b| b.val().into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>());
    [weight, bias.unwrap_or_default()].concat()
}

#[test]
fn one_seed_one_result_and_the_schedule_is_met() {
    let model = run(3, None, None).unwrap();
    assert_eq!(bits(&model), bits(&run(3, None, None).unwrap()));
    assert_ne!(bits(&model), bits(&run(4, None, None).unwrap()));
    assert_eq!(masks(&model).unwrap().pruned(), 3);
    assert!(!model.weight.base().is_require_grad());
}

#[test]
fn a_run_killed_anywhere_and_resumed_ends_with_the_same_bits() {
    let whole = bits(&run(3, None, None).unwrap());
    for step in [1, 5, 8, 13, 22] {
        let dir = tempfile::tempdir().unwrap();
        let states = dir.path().join("run");
        assert_eq!(run(3, Some(step), Some(&states)).unwrap_err().to_string(), "killed");
        assert_eq!(bits(&run(3, None, Some(&states)).unwrap()), whole, "killed at {step}");
        assert!(!states.exists(), "the states go when the run is done");
    }
}

#[test]
fn the_state_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(3, Some(9), Some(dir.path())).is_err());
    let says = run(4, None, Some(dir.path())).unwrap_err().to_string();
    assert!(says.contains("other settings"), "{says}");
}

#[test]
fn what_is_half_written_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(3, Some(9), Some(dir.path())).is_err());
    std::fs::create_dir(dir.path().join("partial-12")).unwrap();
    std::fs::write(dir.path().join("partial-12/model.bpk"), b"cut").unwrap();
    assert_eq!(bits(&run(3, None, Some(dir.path())).unwrap()), bits(&run(3, None, None).unwrap()));
}
