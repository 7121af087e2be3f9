//! Measures the RD table: curves, shares, accuracies with every budget, the solver's time.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use indicatif::ProgressBar;
use regrow_device::pool::Crew;
use regrow_pruners::Magnitude;
use regrow_pruners::rd::{Distortion, allocate, distortions, grid};
use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::model::score::Recipe;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Budget, Result};
use regrow_train::classifier::{Classifier, Examples};
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::{DataSet, Images};
use regrow_zoo::{Arch, Net, load};

use super::Plan;
use crate::cells::Cells;
use crate::lab::{Fit, Lab};
use crate::pruning::rows::densities;
use crate::record::{Record, mean_finding};

/// The network before pruning.
pub const DENSE: &str = "dense";
/// The budgets, as rows of the table.
pub const BUDGETS: [&str; 5] = ["uniform", "ERK", "global", "LAMP", "RD"];
/// What follows a budget's name where the network was retrained.
pub const RETRAINED: &str = ", retrained";
/// Units that weights are counted in.
const UNITS: usize = 4000;

/// What it takes to fill the table.
pub struct Table<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The network.
    pub arch: Arch,
    /// The data.
    pub data: &'a DataSet,
    /// The network's file; trained for each seed without one.
    pub checkpoint: Option<&'a Path>,
    /// Who works on the seeds.
    pub crew: Crew<'a>,
}

/// A seed's network, ready to be pruned.
struct Subject<'a> {
    net: Net,
    lab: Lab<'a>,
    test: &'a Images,
    seed: u64,
    curves: Vec<Distortion>,
    calibration: Tensor<4>,
}

fn select() -> Select {
    Select::default().with_head()
}

impl Table<'_> {
    /// All rows, and findings in words. Finished seeds are kept in `out` until the table is complete.
    pub fn fill(&self, out: &Path, resume: bool, bar: &ProgressBar) -> Result<(Vec<Record>, Vec<String>)> {
        let mut cells = Cells::open(out, "rd", self.plan, resume)?;
        let data = self.normalized();
        cells.fill_seeds(self.plan, &self.crew, self.plan.seeds, |device, seed| {
            bar.set_message(format!("(seed {seed}: the dense network)"));
            let lab =
                Lab { train: &data.train, device, bar, batch: self.plan.batch, momentum: 0.9, recalibration: 0.2 };
            self.rows_of(&self.subject(lab, &data, seed)?)
        })?;
        let rows = cells.finish()?;
        let notes = self.sums(&rows).into_iter().chain([solver_times()?]).collect();
        Ok((rows, notes))
    }

    fn normalized(&self) -> DataSet {
        let mut data = self.data.clone();
        if let Some(normalization) = self.arch.normalization() {
            data.train = data.train.with_normalization(normalization.clone());
            data.test = data.test.with_normalization(normalization);
        }
        data
    }

    fn subject<'a>(&self, lab: Lab<'a>, data: &'a DataSet, seed: u64) -> Result<Subject<'a>> {
        let autodiff = lab.device.clone().autodiff();
        let net = match self.checkpoint {
            Some(path) => load(self.arch, path, lab.device)?.0.valid(),
            None => {
                let fit = Fit { epochs: self.plan.epochs, lr: LrSchedule::cosine(0.1), decay: 1e-4, seed };
                lab.fit(self.arch.init(data.train.classes, seed, &autodiff), KeepMasks, &fit)?
            }
        };
        let share = self.plan.calibration as f64 / data.train.len() as f64;
        let (_, chosen) = data.train.split(share.min(1.0), mix(seed, 1));
        let calibration = chosen.images(&(0..chosen.len()).collect::<Vec<_>>(), lab.device);
        let outputs = |net: &Net| net.logits(calibration.clone());
        let mut watch = |layer: &str| lab.bar.set_message(format!("(seed {seed}: distortion of {layer})"));
        let curves = distortions(&net, &select(), &self.grid(), outputs, &mut watch)?;
        Ok(Subject { net, lab, test: &data.test, seed, curves, calibration })
    }

    fn grid(&self) -> Vec<f64> {
        grid(self.plan.amounts, self.plan.most)
    }

    fn budget(&self, name: &str, subject: &Subject<'_>, sparsity: f64) -> Result<Budget> {
        match name {
            "RD" => allocate(&subject.curves, &self.grid(), sparsity, UNITS),
            other => Budget::parse(&other.to_lowercase()),
        }
    }

    fn rows_of(&self, subject: &Subject<'_>) -> Result<Vec<Record>> {
        let mut rows = vec![subject.record(DENSE, 0.0, &subject.net, 0.0)];
        let whole = subject.outputs(&subject.net);
        for sparsity in &self.plan.sparsities {
            for name in BUDGETS {
                let started = Instant::now();
                subject.lab.bar.set_message(format!("(seed {}: {name} at {sparsity})", subject.seed));
                let net = self.pruned(name, subject, *sparsity)?;
                let seconds = started.elapsed().as_secs_f64();
                let distortion = distance(&whole, &subject.outputs(&net), &subject.calibration);
                let findings = [(SUM.into(), self.sum(subject, &net)?), (WHOLE.into(), distortion)].into();
                let densities = densities(self.arch, self.data.train.classes, &net)?;
                rows.push(Record { findings, densities, ..subject.record(name, *sparsity, &net, seconds) });
                if self.plan.retrain > 0 {
                    let seed = mix(subject.seed, 2);
                    let fit = Fit { epochs: self.plan.retrain, lr: LrSchedule::cosine(0.01), decay: 1e-4, seed };
                    let net = subject.lab.fit(net, KeepMasks, &fit)?;
                    let seconds = started.elapsed().as_secs_f64();
                    rows.push(subject.record(&format!("{name}{RETRAINED}"), *sparsity, &net, seconds));
                }
            }
        }
        Ok(rows)
    }

    fn pruned(&self, name: &str, subject: &Subject<'_>, sparsity: f64) -> Result<Net> {
        let recipe = Recipe::default().with_select(select()).with_budget(self.budget(name, subject, sparsity)?);
        Ok(recipe.prune(subject.net.clone(), &Magnitude, sparsity)?.0)
    }

    /// The sum of the distortions that pruning each layer of `net` alone would make.
    fn sum(&self, subject: &Subject<'_>, net: &Net) -> Result<f64> {
        let amounts = self.grid();
        let masks = masks(net)?;
        let of = |c: &Distortion| masks.get(&c.name).map_or(0.0, |mask| at(&amounts, &c.values, mask.sparsity()));
        Ok(subject.curves.iter().map(of).sum())
    }

    /// The additivity of the distortions in words, means over seeds.
    fn sums(&self, rows: &[Record]) -> Vec<String> {
        let one = |name: &str, s: f64| -> Option<String> {
            let (sum, whole) = (mean_finding(rows, name, s, SUM)?, mean_finding(rows, name, s, WHOLE)?);
            Some(format!("{name} {sum:.3} and {whole:.3}"))
        };
        let line = |s: &f64| {
            let all: Vec<String> = BUDGETS.iter().filter_map(|name| one(name, *s)).collect();
            format!("distortion at {s}, the sum of the layers and all together measured: {}", all.join(", "))
        };
        self.plan.sparsities.iter().map(line).collect()
    }
}

/// Findings: the sum of the layers' distortions, and the distortion of all together.
const SUM: &str = "sum of distortions";
const WHOLE: &str = "distortion";

/// The mean over inputs of the squared distance of outputs.
fn distance(a: &[f32], b: &[f32], inputs: &Tensor<4>) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    squares / inputs.dims()[0] as f64
}

impl Subject<'_> {
    fn outputs(&self, net: &Net) -> Vec<f32> {
        net.logits(self.calibration.clone()).into_data().iter::<f32>().collect()
    }

    fn record(&self, method: &str, sparsity: f64, net: &Net, seconds: f64) -> Record {
        Record::new(method, sparsity, self.seed, self.lab.accuracy(net, self.test), seconds)
    }
}

/// A curve between its points.
fn at(amounts: &[f64], values: &[f64], x: f64) -> f64 {
    let after = amounts.iter().position(|a| *a >= x).unwrap_or(amounts.len() - 1);
    let before = after.saturating_sub(1);
    let width = amounts[after] - amounts[before];
    let share = if width > 0.0 { (x - amounts[before]) / width } else { 0.0 };
    values[before] + (values[after] - values[before]) * share
}

/// The solver's time for 20, 200 and 2000 layers, at a fixed number of units.
fn solver_times() -> Result<String> {
    let amounts = grid(100, 1.0);
    let mut times = Vec::new();
    for layers in [20usize, 200, 2000] {
        let curve = |l: usize| {
            let scale = 1.0 + (l * 7 % 13) as f64;
            let values = amounts.iter().map(|a| scale * a * a / (1.01 - a)).collect();
            Distortion { name: format!("layer{l:04}"), weights: 1000 + (l * 31 % 97) * 500, values }
        };
        let curves: Vec<Distortion> = (0..layers).map(curve).collect();
        let started = Instant::now();
        allocate(&curves, &amounts, 0.9, UNITS)?;
        times.push(format!("{layers} layers {:.3} s", started.elapsed().as_secs_f64()));
    }
    Ok(format!("RD's solver, {UNITS} units, 101 amounts: {}", times.join(", ")))
}
