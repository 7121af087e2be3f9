//! Training and pruning for the SMS table: one dense network, and its pruned and retrained networks.

use burn::tensor::Device;
use regrow_device::pool::DevicePool;
use regrow_merging::sms::SoupTrainer;
use regrow_pruners::{Imp, Magnitude, Retrain};
use regrow_sparse_core::model::deep_copy::clone_to_device;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, MaskSet, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::Net;
use regrow_zoo::data::Images;

use super::{Plan, Vary};
use crate::harness::trainer::{Fit, Trainer};

/// Everything that one seed's networks share.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where they are trained.
    pub trainer: Trainer<'a>,
    /// Held-out images.
    pub validation: &'a Images,
    /// The seed.
    pub seed: u64,
}

impl Seed<'_> {
    /// The same on another device.
    pub fn on<'b>(&'b self, device: &'b Device) -> Seed<'b> {
        Seed { trainer: Trainer { device, ..self.trainer }, ..*self }
    }

    /// Trains the dense network.
    pub fn pretrain(&self, net: Net) -> Result<Net> {
        let plan = self.plan;
        self.fit(
            net,
            plan.pretrain_epochs,
            LrSchedule::linear(plan.learning_rate),
            plan.weight_decay,
            mix(self.seed, 0),
        )
    }

    /// Iterative pruning to `sparsity`, all prunable weights together, including the head, as in the paper.
    pub fn imp(&self, sparsity: f64) -> Result<Imp<Magnitude>> {
        Ok(Imp::new(Magnitude, sparsity, self.plan.phases)?
            .with_recipe(Recipe::default().with_select(Select::default().with_head())))
    }

    /// Retrains for `epochs` epochs in phase `phase` as candidate `candidate` of `of`.
    pub fn retrain(&self, net: Net, epochs: usize, phase: usize, candidate: usize, of: usize) -> Result<Net> {
        let plan = self.plan;
        // From 2^-(m-1)/2 to 2^(m-1)/2, the middle candidate at 1.
        let step = candidate as f64 - (of - 1) as f64 / 2.0;
        let (order, decay, rate) = match plan.vary {
            Vary::Seed => (candidate, 1.0, 1.0),
            Vary::WeightDecay => (0, 2f64.powf(step), 1.0),
            Vary::LearningRate => (0, 1.0, 1.25f64.powf(step)),
        };
        let original = LrSchedule::linear(plan.learning_rate * rate);
        let lr = Retrain::Linear.schedule(&original, plan.pretrain_epochs, epochs, self.trainer.steps_per_epoch())?;
        let seed = mix(self.seed, (phase * 1000 + order + 1) as u64);
        self.fit(net, epochs, lr, plan.weight_decay * decay as f32, seed)
    }

    fn fit(&self, net: Net, epochs: usize, lr: LrSchedule, decay: f32, seed: u64) -> Result<Net> {
        self.trainer.fit(net, KeepMasks, &Fit { epochs, lr, decay, seed })
    }
}

/// A seed's networks for SMS, at one sparsity.
pub struct Soup<'a> {
    /// What the seed's networks share.
    pub seed: &'a Seed<'a>,
    /// How they are pruned.
    pub imp: &'a Imp<Magnitude>,
    /// Candidates per phase.
    pub m: usize,
    /// The device pool.
    pub pool: &'a DevicePool<'a>,
}

impl SoupTrainer<Net, Error> for Soup<'_> {
    fn prune(&self, net: Net, phase: usize) -> Result<(Net, MaskSet)> {
        self.imp.prune(net, phase)
    }

    fn retrain(&self, net: Net, phase: usize, candidate: usize) -> Result<Net> {
        self.seed.retrain(net, self.seed.plan.phase_epochs, phase, candidate, self.m)
    }

    fn retrain_all(&self, model: &Net, phase: usize, candidates: usize, _parallel: usize) -> Result<Vec<Net>> {
        let home = self.seed.trainer.device;
        self.pool.run(candidates, |device, candidate| {
            let net = clone_to_device(model, device);
            let net = self.seed.on(device).retrain(net, self.seed.plan.phase_epochs, phase, candidate, self.m)?;
            Ok(clone_to_device(&net, home))
        })
    }

    fn recalibrate(&self, net: Net) -> Result<Net> {
        Ok(self.seed.trainer.recalibrated(net))
    }

    fn validate(&self, net: &Net) -> Result<f64> {
        Ok(self.seed.trainer.accuracy(net, self.seed.validation))
    }
}
