//! Fills the SMS table, cell by cell: a cell is one seed, sparsity and m, with all its methods.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_device::pool::DevicePool;
use regrow_merging::{SmsConfig, Soup as Merge, average, equal_weights};
use regrow_pruners::{Imp, Magnitude};
use regrow_sparse_core::Result;
use regrow_sparse_core::model::deep_copy::{clone_to_device, deep_clone};
use regrow_train::classifier::{Examples, correct, probabilities};
use regrow_zoo::data::{Augmentation, DataSet};
use regrow_zoo::{Arch, Net};

use super::Plan;
use super::soup_trainer::{Seed, Soup};
use crate::harness::record::Record;
use crate::harness::row_store::RowStore;
use crate::harness::trainer::Trainer;

/// The network before pruning.
pub const DENSE: &str = "dense";
/// Iterative magnitude pruning: the mean of m runs.
pub const IMP_MEAN: &str = "IMP, mean of m runs";
/// The run that is best on the held-out images.
pub const IMP_BEST: &str = "IMP, best of m runs";
/// One run with m times the epochs in each phase.
pub const IMP_LONGER: &str = "IMP, m times the retraining";
/// The average of the m runs, pruned again.
pub const REPRUNE: &str = "IMP-RePrune";
/// One run in which only the last phase is a soup.
pub const ONE_PHASE: &str = "one phase averaged";
/// The mean of the candidates of SMS's last phase.
pub const MEAN: &str = "SMS candidates, mean";
/// The one of them that is best on the held-out images.
pub const BEST: &str = "SMS candidates, best";
/// Sparse Model Soups, all candidates averaged.
pub const UNIFORM: &str = "SMS, uniform";
/// Sparse Model Soups, greedy.
pub const GREEDY: &str = "SMS, greedy";
/// The mean of the candidates' predictions: m networks, the upper reference.
pub const ENSEMBLE: &str = "ensemble of the candidates";

/// The methods, in the order of the printed table.
pub const METHODS: [&str; 11] =
    [DENSE, IMP_MEAN, IMP_BEST, IMP_LONGER, REPRUNE, ONE_PHASE, MEAN, BEST, UNIFORM, GREEDY, ENSEMBLE];

/// Epochs that the whole table trains.
pub fn epochs(plan: &Plan) -> usize {
    let cell = |m: &usize| m * plan.phase_epochs * (4 * plan.phases + 1);
    let per_sparsity: usize = plan.candidates.iter().map(cell).sum();
    plan.seeds.1 as usize * (plan.pretrain_epochs + plan.sparsities.len() * per_sparsity)
}

/// Everything needed to fill the table.
pub struct Table<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The network.
    pub arch: Arch,
    /// The data.
    pub data: &'a DataSet,
    /// Where tensors live.
    pub device: &'a Device,
    /// The device pool.
    pub pool: DevicePool<'a>,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
}

impl Table<'_> {
    /// All rows. Finished cells are stored in `out` until the table is complete, and reused with `resume`.
    pub fn fill(&self, out: &Path, resume: bool) -> Result<Vec<Record>> {
        let mut store = RowStore::open(out, "sms", self.plan, resume)?;
        let (first, count) = self.plan.seeds;
        for seed in first..first + count {
            self.fill_seed(seed, &mut store)?;
        }
        store.finish()
    }

    fn fill_seed(&self, seed: u64, store: &mut RowStore) -> Result<()> {
        let done = |rows: &[Record], s: f64, m: usize| rows.iter().any(|r| (r.seed, r.sparsity, r.m) == (seed, s, m));
        let wanted = self.plan.sparsities.iter().flat_map(|s| self.plan.candidates.iter().map(move |m| (*s, *m)));
        let open: Vec<(f64, usize)> = wanted.filter(|(s, m)| !done(&store.rows, *s, *m)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let (train, validation) = self.data.train.split(self.plan.validation, seed);
        let train = if self.plan.augment { train.with_augmentation(Augmentation::CropFlip { pad: 4 }) } else { train };
        let plan = self.plan;
        let trainer = Trainer {
            train: &train,
            device: self.device,
            bar: self.bar,
            batch: plan.batch,
            momentum: plan.momentum,
            recalibration: plan.recalibration,
        };
        let seed = Seed { plan, trainer, validation: &validation, seed };
        let started = Instant::now();
        let dense =
            seed.pretrain(self.arch.init(self.data.train.classes, seed.seed, &self.device.clone().autodiff()))?;
        if !done(&store.rows, 0.0, 1) {
            let seconds = started.elapsed().as_secs_f64();
            store.add(plan, [Cell { table: self, seed: &seed, sparsity: 0.0, m: 1 }.record(DENSE, &dense, seconds)])?;
        }
        for (sparsity, m) in open {
            self.bar.set_message(format!("(seed {}, sparsity {sparsity}, m {m})", seed.seed));
            store.add(plan, Cell { table: self, seed: &seed, sparsity, m }.fill(&dense)?)?;
        }
        Ok(())
    }
}

/// One seed, sparsity and m.
struct Cell<'a> {
    table: &'a Table<'a>,
    seed: &'a Seed<'a>,
    sparsity: f64,
    m: usize,
}

impl Cell<'_> {
    fn fill(&self, dense: &Net) -> Result<Vec<Record>> {
        let imp = self.seed.imp(self.sparsity)?;
        let mut rows = self.imp_rows(&imp, dense)?;
        rows.extend(self.soup_rows(&imp, dense)?);
        Ok(rows)
    }

    /// m independent runs of IMP, one with m times the retraining, and two ways of averaging.
    fn imp_rows(&self, imp: &Imp<Magnitude>, dense: &Net) -> Result<Vec<Record>> {
        let plan = self.table.plan;
        let started = Instant::now();
        let runs = self.table.pool.run(self.m, |device, i| {
            let seed = self.seed.on(device);
            let retrain = |net, phase| seed.retrain(net, plan.phase_epochs, phase, i, self.m);
            Ok::<_, regrow_sparse_core::Error>(clone_to_device(
                &imp.run(clone_to_device(dense, device), None, retrain)?,
                self.table.device,
            ))
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let mut rows = vec![
            self.mean_record(IMP_MEAN, &runs, seconds / self.m as f64),
            self.best_record(IMP_BEST, &runs, seconds),
        ];
        let started = Instant::now();
        let longer = imp.run(deep_clone(dense), None, |net, phase| {
            self.seed.retrain(net, plan.phase_epochs * self.m, phase, 0, 1)
        })?;
        rows.push(self.record(IMP_LONGER, &longer, started.elapsed().as_secs_f64()));
        let started = Instant::now();
        let repruned = self.repruned(imp, &runs)?;
        rows.push(self.record(REPRUNE, &repruned, seconds + started.elapsed().as_secs_f64()));
        let started = Instant::now();
        let averaged = self.one_phase(imp, dense)?;
        rows.push(self.record(ONE_PHASE, &averaged, started.elapsed().as_secs_f64()));
        Ok(rows)
    }

    /// The average of independently pruned networks, pruned again to the sparsity it has lost.
    fn repruned(&self, imp: &Imp<Magnitude>, runs: &[Net]) -> Result<Net> {
        let bare: Vec<Net> = runs.iter().map(|net| net.clone().materialize()).collect();
        let (net, _) = imp.prune(average(&bare, &equal_weights(bare.len()))?, self.table.plan.phases)?;
        Ok(self.seed.trainer.recalibrated(net))
    }

    /// IMP with one candidate up to the last phase, whose m candidates are averaged.
    fn one_phase(&self, imp: &Imp<Magnitude>, dense: &Net) -> Result<Net> {
        let plan = self.table.plan;
        let mut net = deep_clone(dense);
        for phase in 1..plan.phases {
            net = self.seed.retrain(imp.prune(net, phase)?.0, plan.phase_epochs, phase, 0, 1)?;
        }
        let sms = SmsConfig::new().with_phases(1).with_candidates(self.m).init()?;
        Ok(sms.phase(net, plan.phases, &self.soup_trainer(imp))?.soup)
    }

    fn soup_trainer<'b>(&'b self, imp: &'b Imp<Magnitude>) -> Soup<'b> {
        Soup { seed: self.seed, imp, m: self.m, pool: &self.table.pool }
    }

    fn soup_rows(&self, imp: &Imp<Magnitude>, dense: &Net) -> Result<Vec<Record>> {
        let (soup_trainer, sms) = (self.soup_trainer(imp), SmsConfig::new().with_phases(self.table.plan.phases));
        let sms = sms.with_candidates(self.m);
        let started = Instant::now();
        let mut candidates = Vec::new();
        let uniform =
            sms.init()?.run(deep_clone(dense), &soup_trainer, &mut |phase| candidates.clone_from(&phase.candidates))?;
        let seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let greedy = sms.with_soup(Merge::Greedy).init()?.run(deep_clone(dense), &soup_trainer, &mut |_| {})?;
        let greedy_seconds = started.elapsed().as_secs_f64();
        Ok(vec![
            self.mean_record(MEAN, &candidates, seconds),
            self.best_record(BEST, &candidates, seconds),
            self.record(UNIFORM, &uniform, seconds),
            self.record(GREEDY, &greedy, greedy_seconds),
            self.ensemble(&candidates, seconds),
        ])
    }

    fn record(&self, method: &str, net: &Net, seconds: f64) -> Record {
        self.entry(method, self.seed.trainer.accuracy(net, &self.table.data.test), seconds)
    }

    fn mean_record(&self, method: &str, nets: &[Net], seconds: f64) -> Record {
        let sum: f64 = nets.iter().map(|net| self.seed.trainer.accuracy(net, &self.table.data.test)).sum();
        self.entry(method, sum / nets.len() as f64, seconds)
    }

    /// The test accuracy of the network that is best on the held-out images (the first of equals).
    fn best_record(&self, method: &str, nets: &[Net], seconds: f64) -> Record {
        let scores: Vec<f64> = nets.iter().map(|net| self.seed.trainer.accuracy(net, self.seed.validation)).collect();
        let best = (0..nets.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        self.record(method, &nets[best], seconds)
    }

    /// The mean of the candidates' class probabilities.
    fn ensemble(&self, nets: &[Net], seconds: f64) -> Record {
        let test = &self.table.data.test;
        let all = nets.iter().map(|net| probabilities(net, test, 256, self.table.device));
        let sum = all.reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect()).unwrap_or_default();
        self.entry(ENSEMBLE, 100.0 * correct(&sum, test) as f64 / test.len().max(1) as f64, seconds)
    }

    fn entry(&self, method: &str, value: f64, seconds: f64) -> Record {
        Record { m: self.m, ..Record::new(method, self.sparsity, self.seed.seed, value, seconds) }
    }
}
