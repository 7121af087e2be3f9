//! The methods of the pruning table: what each does with one training's worth of steps.
//!
//! A new one is a function of a [`Job`] and a line in [`all`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use regrow_pruners::{BipConfig, GranetConfig, IsspConfig, RiglConfig, SetConfig};
use regrow_pruners::{Gmp, Grasp, Imp, Magnitude, OneShot, Probe, Random, Scheduled, Snip, StraightThrough, SynFlow};
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{KeepMasks, Pruner};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Budget, MaskSet, Result, Schedule};
use regrow_train::classifier::{Classifier, Examples};
use regrow_train::lr::LrSchedule;
use regrow_zoo::{Arch, Net, data::Images};

use super::{Plan, narrow};
use crate::harness::trainer::{Fit, Trainer};

/// A method of the table.
#[derive(Clone)]
pub struct Method {
    /// As in the table and after `--method`.
    pub name: String,
    run: Arc<Run>,
}

/// What a method does with a job.
type Run = dyn Fn(&Job<'_>) -> Result<Net> + Send + Sync;

impl Method {
    /// A method that turns a job into a trained network at the job's sparsity.
    pub fn new(name: &str, run: impl Fn(&Job<'_>) -> Result<Net> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), run: Arc::new(run) }
    }

    /// A custom score: during training, along a cubic schedule, the weights with the lowest scores are pruned.
    pub fn gradual(name: &str, score: impl Score + Clone + 'static) -> Self {
        Self::new(name, move |job| {
            let pruner = Scheduled::new(score.clone(), job.gradual(0.0)?).with_recipe(job.recipe());
            job.whole(job.fresh(), pruner)
        })
    }

    /// Runs it.
    ///
    /// # Errors
    /// Whatever the method runs into.
    pub fn run(&self, job: &Job<'_>) -> Result<Net> {
        (self.run)(job)
    }
}

/// Every built-in method, in the order of the table: before, after and during training.
pub fn all() -> Vec<Method> {
    let mut all = vec![
        Method::new("static random ERK", |job| job.whole(sparse(job, job.sparsity)?, KeepMasks)),
        Method::new("SNIP", |job| before(job, Snip, 1.0)),
        Method::new("GraSP", |job| before(job, Grasp, 200.0)),
        Method::new("SynFlow", synflow_then_train),
        Method::new("one-shot", |job| imp(job, 1)),
        Method::new("IMP", |job| imp(job, 3)),
        Method::new("BiP", bip),
        Method::new("GMP", |job| job.whole(job.fresh(), Gmp::on(job.gradual(0.0)?).with_recipe(job.recipe()))),
        Method::new("STE", |job| straight_through(job, StraightThrough::ste)),
        Method::new("DPF", |job| straight_through(job, StraightThrough::dpf)),
        Method::new("SET", |job| {
            let set = SetConfig::new(job.three_quarters())
                .with_every(job.every())
                .with_seed(job.seed)
                .init()?
                .with_select(select());
            job.whole(sparse(job, job.sparsity)?, set)
        }),
        Method::new("RigL", |job| {
            let rigl = RiglConfig::new(job.three_quarters()).with_every(job.every()).init()?.with_select(select());
            job.whole(sparse(job, job.sparsity)?, rigl)
        }),
        Method::new("GraNet", |job| granet(job, 0.0)),
        Method::new("GraNet sparse-to-sparse", |job| granet(job, 0.5)),
        Method::new("ISS-P", |job| {
            let issp = IsspConfig::new(job.sparsity, job.steps() / 2).init()?;
            job.whole(job.fresh(), issp.with_recipe(job.recipe().with_budget(Budget::Uniform)))
        }),
    ];
    let shares = all.iter().position(|m| m.name == "SynFlow").map_or(0, |i| i + 1);
    all.splice(shares..shares, narrow::all());
    all
}

/// One cell of the table: a network to train and prune.
pub struct Job<'a> {
    /// The table's plan.
    pub plan: &'a Plan,
    /// Where it is trained.
    pub trainer: Trainer<'a>,
    /// The images that its accuracy is measured on.
    pub test: &'a Images,
    /// The network.
    pub arch: Arch,
    /// Classes to tell apart.
    pub classes: usize,
    /// The sparsity to end at.
    pub sparsity: f64,
    /// The random seed.
    pub seed: u64,
    /// What a method measures beside the accuracy, by name; it goes to the record.
    pub findings: RefCell<BTreeMap<String, f64>>,
}

/// Everything prunable, the head included, as the papers' own comparisons have it.
pub fn select() -> Select {
    Select::default().with_head()
}

impl Job<'_> {
    /// Keeps a measurement.
    pub fn note(&self, name: &str, value: f64) {
        self.findings.borrow_mut().insert(name.into(), value);
    }

    /// A fresh network, the same for every method of this seed.
    pub fn fresh(&self) -> Net {
        self.arch.init(self.classes, self.seed, &self.device())
    }

    /// Where networks are made to be trained.
    pub fn device(&self) -> Device {
        self.trainer.device.clone().autodiff()
    }

    /// All layers together, unstructured, the head included.
    pub fn recipe(&self) -> Recipe {
        Recipe::default().with_select(select())
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> usize {
        self.plan.epochs * self.trainer.steps_per_epoch()
    }

    /// Steps between two mask updates: a fortieth of the training.
    pub fn every(&self) -> usize {
        (self.steps() / 40).max(1)
    }

    fn three_quarters(&self) -> usize {
        self.steps() * 3 / 4
    }

    /// From `initial` sparsity along the cubic curve, from the start to three quarters of the
    /// training.
    ///
    /// # Errors
    /// If the job's sparsity lies below `initial`.
    pub fn gradual(&self, initial: f64) -> Result<Schedule> {
        let updates = self.three_quarters() / self.every();
        Schedule::new(Curve::Cubic, initial, self.sparsity, 0, self.every(), updates)
    }

    /// The whole training, beside `pruner`.
    ///
    /// # Errors
    /// If the training fails.
    pub fn whole(&self, net: Net, pruner: impl Pruner) -> Result<Net> {
        self.part(net, pruner, self.plan.epochs, 0)
    }

    /// `epochs` of it, on a learning rate of their own; `phase` sets the order of the examples.
    ///
    /// # Errors
    /// If the training fails.
    pub fn part(&self, net: Net, pruner: impl Pruner, epochs: usize, phase: u64) -> Result<Net> {
        let lr = LrSchedule::cosine(self.plan.learning_rate);
        self.trainer.fit(net, pruner, &Fit { epochs, lr, decay: self.plan.weight_decay, seed: mix(self.seed, phase) })
    }

    /// The part of the whole training from `first` to `last`, fractions of its epochs, on the learning
    /// rates that the whole has there.
    ///
    /// # Errors
    /// If the training fails.
    pub fn window(&self, net: Net, pruner: impl Pruner, first: f64, last: f64) -> Result<Net> {
        let epochs = ((last - first) * self.plan.epochs as f64).round() as usize;
        let lr = LrSchedule::cosine(self.plan.learning_rate).between(first, last);
        let seed = mix(self.seed, (first * 1000.0) as u64);
        self.trainer.fit(net, pruner, &Fit { epochs, lr, decay: self.plan.weight_decay, seed })
    }

    /// Ten training images of each class, and their labels.
    fn scoring_examples(&self) -> (Tensor<4>, Tensor<1, Int>) {
        let all: Vec<usize> = (0..self.trainer.train.len()).collect();
        let labels = self.trainer.train.labels(&all);
        let of_class = |class: usize| all.iter().copied().filter(|i| labels[*i] == class).take(10).collect::<Vec<_>>();
        let chosen: Vec<usize> = (0..self.classes).flat_map(of_class).collect();
        let labels: Vec<i64> = chosen.iter().map(|i| labels[*i] as i64).collect();
        let device = self.device();
        (self.trainer.train.images(&chosen, &device), Tensor::from_data(labels.as_slice(), &device))
    }

    /// The mean loss of the scoring examples, logits divided by `temperature`.
    pub fn scoring_loss(&self, temperature: f64) -> impl Fn(&Net) -> Tensor<1> + Send + use<> {
        let (images, labels) = self.scoring_examples();
        let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(&self.device());
        move |net| loss.forward(net.logits(images.clone()) / temperature, labels.clone())
    }
}

/// A fresh network with random masks, its densities by ERK.
pub fn sparse(job: &Job<'_>, sparsity: f64) -> Result<Net> {
    let recipe = job.recipe().with_budget(Budget::Erk);
    Ok(recipe.prune(job.fresh(), &Random { seed: job.seed }, sparsity)?.0)
}

/// Prunes at initialization by a score that needs the loss, logits divided by `temperature`, then trains.
fn before(job: &Job<'_>, score: impl Score, temperature: f64) -> Result<Net> {
    let probe = Probe::new().with_loss(job.scoring_loss(temperature)).with_fixed_statistics();
    let (net, _) = OneShot::new(score, job.sparsity)?.with_recipe(job.recipe()).prune_with(job.fresh(), &probe)?;
    job.whole(net, KeepMasks)
}

/// SynFlow's masks of `net`.
///
/// # Errors
/// As [`OneShot::masks`].
pub fn synflow_masks(job: &Job<'_>, net: &Net) -> Result<MaskSet> {
    let [channels, height, width] = job.arch.input();
    let example = [1, channels, height, width];
    let probe = Probe::new().with_response(example, |net: &Net, ones| net.logits(ones));
    let rounds = OneShot::new(SynFlow, job.sparsity)?.with_rounds(regrow_pruners::synflow::ROUNDS)?;
    rounds.with_recipe(job.recipe()).masks(net, &probe)
}

fn synflow_then_train(job: &Job<'_>) -> Result<Net> {
    let net = job.fresh();
    let masks = synflow_masks(job, &net)?;
    job.whole(apply_masks(net, &masks, Gradient::Masked, Base::Zeroed)?, KeepMasks)
}

/// Half of the training dense, the other half in equal parts after each of `phases` prunings.
fn imp(job: &Job<'_>, phases: usize) -> Result<Net> {
    let dense = job.plan.epochs / 2;
    let net = job.part(job.fresh(), KeepMasks, dense, 0)?;
    let imp = Imp::new(Magnitude, job.sparsity, phases)?.with_recipe(job.recipe());
    let left = job.plan.epochs - dense;
    let epochs = |phase: usize| left * phase / phases - left * (phase - 1) / phases;
    imp.run(net, None, |net, phase| job.part(net, KeepMasks, epochs(phase), phase as u64))
}

/// Half of the training dense, the other half for weights and scores in turns.
fn bip(job: &Job<'_>) -> Result<Net> {
    let dense = job.plan.epochs / 2;
    let net = job.part(job.fresh(), KeepMasks, dense, 0)?;
    let left = job.plan.epochs - dense;
    let bip = BipConfig::new(job.sparsity, left * job.trainer.steps_per_epoch()).init()?;
    job.part(net, bip.with_recipe(job.recipe()), left, 1)
}

fn straight_through(job: &Job<'_>, make: fn(Schedule) -> StraightThrough) -> Result<Net> {
    job.whole(job.fresh(), make(job.gradual(0.0)?).with_recipe(job.recipe()))
}

/// From no zeros or from `initial` sparsity, whichever the job's own allows.
fn granet(job: &Job<'_>, initial: f64) -> Result<Net> {
    let initial = initial.min(job.sparsity);
    let net = if initial > 0.0 { sparse(job, initial)? } else { job.fresh() };
    // The authors prune until epoch 110 of 160.
    let updates = job.steps() * 110 / 160 / job.every();
    let granet = GranetConfig::new(job.sparsity, job.steps())
        .with_initial(initial)
        .with_every(job.every())
        .with_updates(Some(updates))
        .init()?;
    job.whole(net, granet.with_recipe(job.recipe())?)
}
