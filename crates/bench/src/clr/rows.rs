//! Runs the CLR table, cell by cell: a cell is one seed and method; a seed's methods share its anchor.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_continual::learn::Progress;
use regrow_continual::stream::Scenario;
use regrow_continual::{
    Clr, FineTune, PackNetConfig, Protocol, ReprogramConfig, Reprogrammed, Separate, Strategy, learn,
};
use regrow_device::pool::Crew;
use regrow_sparse_core::model::deep_copy::onto;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use regrow_train::lr::{Decay, LrSchedule};
use regrow_zoo::Net;

use super::Plan;
use super::ground::{CLASSES, Ground};
use crate::cells::Cells;
use crate::continual::rows::{BWT, FORGETTING, STEP, accuracies};
use crate::lab::{Fit, Lab};
use crate::record::Record;

/// One network, task after task.
pub const FINE_TUNE: &str = "fine-tune";
/// Weights shared out.
pub const PACKNET: &str = "PackNet";
/// Norms and head of each task.
pub const NORMS: &str = "norms only";
/// The paper's: kernels of 3x3, norms and head of each task.
pub const CLR: &str = "CLR";
/// A network for each task.
pub const SEPARATE: &str = "separate";

/// All methods, by what a task may change.
pub const METHODS: [&str; 5] = [FINE_TUNE, PACKNET, NORMS, CLR, SEPARATE];

/// A finding: numbers that a task adds, heads apart.
pub const PER_TASK: &str = "numbers added per task";
/// A finding: the same in percent of the network without its head.
pub const SHARE: &str = "added per task, percent";
/// A finding: the anchor's accuracy on its own classes.
pub const ANCHOR: &str = "anchor";

/// The methods that were asked for.
///
/// # Errors
/// A name that is none.
pub fn chosen(wanted: Option<&[String]>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(METHODS.map(String::from).into()) };
    let find = |name: &String| {
        let found = METHODS.iter().find(|m| m.eq_ignore_ascii_case(name));
        let says = || Error::Argument(format!("unknown method `{name}`: use {}", METHODS.join(", ")));
        found.map(ToString::to_string).ok_or_else(says)
    };
    wanted.iter().map(find).collect()
}

type Model = Reprogrammed<Net>;

/// What it takes to fill the table.
pub struct Table<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Anchor and tasks.
    pub ground: &'a Ground,
    /// Where tensors live.
    pub device: &'a Device,
    /// Who trains networks side by side.
    pub crew: Crew<'a>,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
}

impl Table<'_> {
    /// All rows. Finished cells are kept in `out` until the table is complete, and taken from there with
    /// `resume`.
    ///
    /// # Errors
    /// If a run fails, or the rows cannot be kept.
    pub fn fill(&self, out: &Path, resume: bool) -> Result<Vec<Record>> {
        let mut cells = Cells::open(out, "clr", self.plan, resume)?;
        let (first, count) = self.plan.seeds;
        for seed in first..first + count {
            let done = |m: &&String| !cells.rows.iter().any(|r| r.seed == seed && r.method == **m);
            let open: Vec<String> = self.plan.methods.iter().filter(done).cloned().collect();
            if open.is_empty() {
                continue;
            }
            self.bar.set_message(format!("(seed {seed}: the anchor)"));
            let (anchor, right) = self.anchor(seed)?;
            self.bar.set_message(format!("(seed {seed})"));
            cells.fill(self.plan, &self.crew, open.len(), |device, i| {
                Ok(vec![self.cell(&open[i], onto(&anchor, device), right, seed)?])
            })?;
        }
        let order = |row: &Record| (row.seed, self.plan.methods.iter().position(|m| *m == row.method));
        let mut rows = cells.finish()?;
        rows.sort_by_key(order);
        Ok(rows)
    }

    /// The trained anchor with a fresh head for all tasks, and its accuracy on its own classes.
    fn anchor(&self, seed: u64) -> Result<(Net, f64)> {
        let (plan, own) = (self.plan, &self.ground.anchor);
        let lab = Lab {
            train: &own.train,
            device: self.device,
            bar: self.bar,
            batch: plan.batch,
            momentum: 0.9,
            recalibration: 0.0,
        };
        let (channels, device) = (own.train.size[0], self.device.clone().autodiff());
        let net = |classes: usize, seed: u64| match plan.blocks {
            0 => regrow_zoo::convnet([channels, classes], seed, &device),
            blocks => regrow_zoo::resnet(blocks, [channels, classes], seed, &device),
        };
        let fit = Fit { epochs: plan.anchor_epochs, lr: LrSchedule::cosine(0.05), decay: 1e-4, seed: mix(seed, 1) };
        let mut anchor = lab.fit(net(CLASSES, seed), KeepMasks, &fit)?;
        let right = lab.accuracy(&anchor, &own.test);
        let fresh = net(CLASSES * self.ground.tasks.len(), mix(seed, 2)).valid();
        *anchor.head_mut() = fresh.head().clone();
        Ok((anchor, right))
    }

    fn cell(&self, method: &str, anchor: Net, right: f64, seed: u64) -> Result<Record> {
        let plan = self.plan;
        let stream = self.ground.stream()?;
        let [features, classes] = anchor.head().weight.lazy_shape().dims::<2>();
        let (heads, numbers) = (classes * (features + 1), anchor.num_params());
        let (model, mut strategy) = made(method, anchor, plan)?;
        let adam = AdamConfig::new().with_epsilon(1e-8).build();
        let decay = Decay::Step { milestones: vec![1.0 / 3.0, 2.0 / 3.0], factor: 0.1 };
        let lr = LrSchedule { decay, ..LrSchedule::constant(plan.learning_rate) };
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: plan.epochs, batch: plan.batch, lr, seed: mix(seed, 3), scope };
        let mut told = |t: Progress| {
            if t.step.is_multiple_of(t.total.div_ceil(plan.epochs).max(1)) {
                self.bar.inc(1);
            }
        };
        let learned = learn(model, &adam, &mut *strategy, &stream, &protocol, None, &mut told)?;
        let matrix = &learned.matrix;
        let percent = |value: Option<f64>| 100.0 * value.unwrap_or(0.0);
        let tasks = stream.tasks();
        let added = strategy.added().saturating_sub(tasks * heads) / tasks;
        let mut findings: BTreeMap<String, f64> = accuracies(matrix);
        findings.extend([
            (BWT.into(), percent(matrix.backward_transfer())),
            (FORGETTING.into(), percent(matrix.forgetting())),
            (PER_TASK.into(), added as f64),
            (SHARE.into(), 100.0 * added as f64 / (numbers - heads) as f64),
            (STEP.into(), 1e3 * learned.seconds / learned.steps.max(1) as f64),
            (ANCHOR.into(), right),
        ]);
        findings.extend(strategy.findings());
        Ok(Record { findings, ..Record::new(method, 0.0, seed, percent(matrix.average()), learned.seconds) })
    }
}

/// A method's model and strategy.
fn made(method: &str, anchor: Net, plan: &Plan) -> Result<(Model, Box<dyn Strategy<Model>>)> {
    Ok(match method {
        FINE_TUNE => (Reprogrammed::plain(anchor), Box::new(FineTune)),
        PACKNET => (
            Reprogrammed::plain(anchor),
            Box::new(PackNetConfig::new().with_sparsity(plan.packnet).with_norms(true).init()?),
        ),
        NORMS => (Reprogrammed::plain(anchor), Box::new(Clr::default())),
        CLR => (ReprogramConfig::new().init(anchor)?, Box::new(Clr::default())),
        _ => (Reprogrammed::plain(anchor), Box::new(Separate::default())),
    })
}
