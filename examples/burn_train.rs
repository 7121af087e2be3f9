//! Pruning inside burn-train: wrap the model, launch `SupervisedTraining` as usual.
//!
//! `cargo run --release -p regrow-examples --example burn_train --features train`
//!
//! With `--device cuda:0,cuda:1`, or peers by their tickets (feature `remote`), every device has a batch of its own in
//! each step, so that an epoch has fewer steps: Burn's own data-parallel training, the optimizer and the pruner on the
//! first.

use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim, SupervisedTraining, TrainOutput,
    TrainStep,
};
use clap::Parser;
use regrow_device as device;
use regrow_examples::{Batch, Model};
use regrow_pruners::{Magnitude, Scheduled};
use regrow_sparse_core::Schedule;
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::masked;
use regrow_train::burn_train::Pruned;
use regrow_train::classifier::Examples;
use regrow_zoo::data::Images;

/// Images of a device in a step.
const BATCH: usize = 64;
/// Passes over the training images.
const EPOCHS: usize = 40;

/// The user's model with burn-train's steps; nothing in it knows of pruning.
#[derive(Module, Debug)]
struct Net {
    model: Model,
}

impl Net {
    fn output(&self, batch: Batch) -> ClassificationOutput {
        let loss = self.model.loss(&batch);
        ClassificationOutput::new(loss, self.model.forward(batch.images), batch.labels)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.output(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.output(batch)
    }
}

/// Picks images by index.
#[derive(Clone)]
struct Pick(Arc<Images>);

impl Batcher<usize, Batch> for Pick {
    fn batch(&self, indices: Vec<usize>, device: &Device) -> Batch {
        Batch::of(&self.0, &indices, device)
    }
}

fn loader(images: Images, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let all = InMemDataset::new((0..images.len()).collect());
    DataLoaderBuilder::new(Pick(Arc::new(images))).batch_size(BATCH).shuffle(0).set_device(device.clone()).build(all)
}

/// Prune a small network while burn-train trains it
#[derive(Parser)]
struct Args {
    /// What computes, with commas between
    #[arg(long, value_delimiter = ',', env = device::VARIABLE, hide_env_values = true)]
    device: Vec<String>,
}

/// One device, or several with a batch each in every step.
fn strategy(devices: &[Device]) -> ExecutionStrategy {
    let devices: Vec<Device> = devices.iter().map(|device| device.clone().autodiff()).collect();
    match &devices[..] {
        [only] => ExecutionStrategy::SingleDevice(only.clone()),
        _ => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let devices = device::select_all(&args.device.iter().map(String::as_str).collect::<Vec<_>>())?;
    let digits = regrow_zoo::data::open("digits", None)?;
    let device = device::current().autodiff();
    device.seed(0);
    let net = Net { model: Model::new(&device) };

    // From the first tenth of the training to the middle.
    let steps = EPOCHS * digits.train.len().div_ceil(BATCH * devices.len());
    let schedule = Schedule::new(Curve::Cubic, 0.0, 0.9, steps / 10, (steps / 50).max(1), 20)?;
    let pruner = Scheduled::new(Magnitude, schedule);
    let (net, optimizer) = Pruned::new(pruner, AdamConfig::new().build(), net)?; // the one new line

    let logs = tempfile::tempdir()?;
    let (train, valid) = (loader(digits.train, &device), loader(digits.test.clone(), &device::current()));
    let result = SupervisedTraining::new(logs.path(), train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(EPOCHS)
        .with_training_strategy(strategy(devices).into())
        .launch(Learner::new(net, optimizer, 2e-3));

    let net = result.model.finish()?;
    let sparsity = masked::masks(&net)?.sparsity();
    let accuracy = net.model.accuracy(&digits.test, &device::current());
    println!("sparsity {sparsity:.3}, test accuracy {accuracy:.3}");
    Ok(())
}
