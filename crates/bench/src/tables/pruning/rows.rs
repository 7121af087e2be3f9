//! Runs the pruning table, cell by cell: a cell is one seed, method and sparsity.

use std::cell::RefCell;

use regrow_zoo::Net;
use regrow_zoo::data::Augmentation;

use super::{Compared, Job};
use crate::harness::dense::Images;
use crate::harness::network::{densities, exact, flops};
use crate::harness::prelude::*;

/// The network that is not pruned.
pub const DENSE: &str = "dense";

impl Compared<'_> {
    /// One row: what a method makes of a fresh network, or the same training without pruning.
    pub(super) fn cell(&self, setting: &Setting, seed: u64, context: &Context<'_, Images>) -> Result<Record> {
        let (plan, name, sparsity) = (self.plan, setting.name(), setting.sparsity.unwrap_or(0.0));
        let Images { arch, set } = context.data;
        let train = match plan.augment {
            true => set.train.clone().with_augmentation(Augmentation::CropFlip { pad: 4 }),
            false => set.train.clone(),
        };
        let trainer = Trainer {
            momentum: plan.momentum,
            recalibration: plan.recalibration,
            ..context.trainer(&train, plan.batch)
        };
        let (arch, classes, test) = (*arch, set.train.classes, &set.test);
        let job = Job { plan, trainer, test, arch, classes, sparsity, seed, findings: RefCell::default() };
        let started = Instant::now();
        let trained = match self.methods.iter().find(|method| method.name == name) {
            Some(method) => {
                let check = |net: &Net| if self.exact { exact(arch, classes, net, sparsity) } else { Ok(()) };
                method.run(&job).and_then(|net| check(&net).map(|()| net))
            }
            None => job.whole(job.fresh(), KeepMasks),
        };
        let net = trained.map_err(|e| Error::Argument(format!("{name}: {e}")))?;
        let seconds = started.elapsed().as_secs_f64();
        // Statistics of a mask that moved to the last are those of other masks.
        let net = trainer.recalibrated(net);
        let value = trainer.accuracy(&net, test);
        Ok(Record {
            flops: Some(flops(arch, classes, &net)?),
            densities: densities(arch, classes, &net)?,
            findings: job.findings.into_inner(),
            ..Record::new(name, sparsity, seed, value, seconds)
        })
    }
}
