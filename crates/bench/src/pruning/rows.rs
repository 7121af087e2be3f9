//! Runs the pruning table, cell by cell: a cell is one seed, method and sparsity.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_device::pool::Crew;
use regrow_sparse_core::model::masked::masks;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_sparse_core::{Error, Mask, Result};
use regrow_zoo::data::{Augmentation, DataSet};
use regrow_zoo::{Arch, Net, TensorSpec};

use super::{Job, Method, Plan};
use crate::cells::Cells;
use crate::lab::Lab;
use crate::record::Record;

/// The network that is not pruned.
pub const DENSE: &str = "dense";

/// What it takes to fill the table.
pub struct Table<'a> {
    /// Its name, of the file that keeps its cells.
    pub name: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// The methods.
    pub methods: &'a [Method],
    /// The network.
    pub arch: Arch,
    /// The data.
    pub data: &'a DataSet,
    /// Whether a method must end at the sparsity it was given.
    pub exact: bool,
    /// Who trains networks side by side.
    pub crew: Crew<'a>,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
}

/// A cell that is still open; no method stands for the dense network.
#[derive(Clone, Copy)]
struct Open<'a> {
    method: Option<&'a Method>,
    sparsity: f64,
}

impl Open<'_> {
    fn name(&self) -> &str {
        self.method.map_or(DENSE, |m| &m.name)
    }
}

impl Table<'_> {
    /// All rows. Finished cells are kept in `out` until the table is complete, and taken from
    /// there with `resume`.
    ///
    /// # Errors
    /// If a run fails, naming the method, or the rows cannot be kept.
    pub fn fill(&self, out: &Path, resume: bool) -> Result<Vec<Record>> {
        let mut cells = Cells::open(out, self.name, self.plan, resume)?;
        let (first, count) = self.plan.seeds;
        let of_seed = |seed: u64| self.open(seed, &cells.rows).into_iter().map(move |open| (seed, open));
        let open: Vec<(u64, Open<'_>)> = (first..first + count).flat_map(of_seed).collect();
        cells.fill(self.plan, &self.crew, open.len(), |device, i| {
            let (seed, open) = open[i];
            self.bar.set_message(format!("(seed {seed}: {})", open.name()));
            Ok(vec![self.cell(open, seed, device)?])
        })?;
        cells.finish()
    }

    fn open(&self, seed: u64, rows: &[Record]) -> Vec<Open<'_>> {
        let pruned = self
            .methods
            .iter()
            .flat_map(|method| self.plan.sparsities.iter().map(move |s| Open { method: Some(method), sparsity: *s }));
        let all = std::iter::once(Open { method: None, sparsity: 0.0 }).chain(pruned);
        let done =
            |o: &Open<'_>| rows.iter().any(|r| (r.seed, r.sparsity, r.method.as_str()) == (seed, o.sparsity, o.name()));
        all.filter(|o| !done(o)).collect()
    }

    fn cell(&self, open: Open<'_>, seed: u64, device: &Device) -> Result<Record> {
        let plan = self.plan;
        let train = match plan.augment {
            true => self.data.train.clone().with_augmentation(Augmentation::CropFlip { pad: 4 }),
            false => self.data.train.clone(),
        };
        let lab = Lab {
            train: &train,
            device,
            bar: self.bar,
            batch: plan.batch,
            momentum: plan.momentum,
            recalibration: plan.recalibration,
        };
        let classes = self.data.train.classes;
        let job = Job {
            plan,
            lab,
            test: &self.data.test,
            arch: self.arch,
            classes,
            sparsity: open.sparsity,
            seed,
            findings: RefCell::default(),
        };
        let started = Instant::now();
        let trained = match open.method {
            Some(method) => {
                let check = |net: &Net| if self.exact { exact(self.arch, classes, net, open.sparsity) } else { Ok(()) };
                method.run(&job).and_then(|net| check(&net).map(|()| net))
            }
            None => job.whole(job.fresh(), KeepMasks),
        };
        let net = trained.map_err(|e| Error::Argument(format!("{}: {e}", open.name())))?;
        let seconds = started.elapsed().as_secs_f64();
        // Statistics of a mask that moved to the last are those of other masks.
        let net = lab.recalibrated(net);
        let value = lab.accuracy(&net, &self.data.test);
        Ok(Record {
            flops: Some(flops(self.arch, classes, &net)?),
            densities: densities(self.arch, classes, &net)?,
            findings: job.findings.into_inner(),
            ..Record::new(open.name(), open.sparsity, seed, value, seconds)
        })
    }
}

/// Refuses a network that is not as sparse as asked for. Uniform budgets round in each layer, patterns
/// to whole groups; a narrower network may have fewer weights, not more.
fn exact(arch: Arch, classes: usize, net: &Net, sparsity: f64) -> Result<()> {
    let masks = masks(net)?;
    if masks.is_empty() {
        let layout = arch.layout(classes);
        let left: usize = counts(arch, classes, net)?.iter().map(|(_, kept)| kept).sum();
        let all = layout.weights(&layout.widths());
        return match left as f64 <= (1.0 - sparsity) * all as f64 + 0.5 {
            true => Ok(()),
            false => Err(Error::Argument(format!("kept {left} of {all} weights at sparsity {sparsity}"))),
        };
    }
    let wanted = sparsity * masks.weights() as f64;
    let slack: usize = masks.iter().map(|(_, mask)| grain(mask)).sum();
    match (masks.pruned() as f64 - wanted).abs() <= slack as f64 {
        true => Ok(()),
        false => Err(Error::Argument(format!("ended at sparsity {:.4}, not {sparsity}", masks.sparsity()))),
    }
}

/// How many weights go together: one, or a whole output where all outputs are kept or pruned whole.
fn grain(mask: &Mask) -> usize {
    let cols = mask.shape()[1..].iter().product::<usize>().max(1);
    let whole = |row: usize| (1..cols).all(|i| mask.keeps(row * cols + i) == mask.keeps(row * cols));
    if (0..mask.len() / cols).all(whole) { cols } else { 1 }
}

/// Weights left in each layer of `arch`, in its order; of one that is not there, none.
fn counts(arch: Arch, classes: usize, net: &Net) -> Result<Vec<(TensorSpec, usize)>> {
    let weights = weights(net, &Select::default().with_head())?;
    // A path begins with the variant of `Net`.
    let of = |name: &str| weights.iter().find(|w| w.path.split_once('.').is_some_and(|(_, path)| path == name));
    let layers = arch.tensors(classes).into_iter().filter(|spec| spec.role.is_weight());
    Ok(layers
        .map(|spec| {
            let kept = of(&spec.name).map_or(0, |w| w.mask_or_dense().kept());
            (spec, kept)
        })
        .collect())
}

/// Multiplications and additions of one example with the weights of `net` that are left.
fn flops(arch: Arch, classes: usize, net: &Net) -> Result<u64> {
    Ok(counts(arch, classes, net)?.iter().map(|(spec, kept)| 2 * (kept * spec.positions) as u64).sum())
}

/// The fraction of weights left in each layer of a network that is masked or narrower than `arch`.
///
/// # Errors
/// If the network's weights cannot be read.
pub fn densities(arch: Arch, classes: usize, net: &Net) -> Result<Vec<(String, f64)>> {
    let density = |(spec, kept): (TensorSpec, usize)| {
        let full: usize = spec.shape.iter().product();
        (spec.name, kept as f64 / full as f64)
    };
    let all: Vec<_> = counts(arch, classes, net)?.into_iter().map(density).collect();
    Ok(if all.iter().all(|(_, density)| *density == 1.0) { Vec::new() } else { all })
}
