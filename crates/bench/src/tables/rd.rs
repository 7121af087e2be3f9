//! RD (Xu et al., ICCV 2023, arXiv 2308.10438): budgets by measured output distortion. One network, pruned by `|w|` to
//! each sparsity with each budget: without retraining, and with a little.

use regrow_pruners::{Magnitude, rd::Distortion, rd::allocate, rd::distortions, rd::grid};
use regrow_sparse_core::model::{masked, recipe::Recipe, weight::Select};
use regrow_sparse_core::{Budget, mask::schedule::check_sparsity};
use regrow_train::Classifier;
use regrow_zoo::Net;

use crate::harness::dense::{DenseNetwork, Images};
use crate::harness::network::densities;
use crate::harness::numbers::{interpolated, squared_distance};
use crate::harness::prelude::*;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "rd",
    summary: "RD budgets (arXiv 2308.10438) against uniform, global, ERK and LAMP",
    example: "bench rd --checkpoint resnet20.safetensors --arch resnet20 --dataset cifar10 --data DIR --retrain 0",
    paper: include_str!("../../published/rd.toml"),
    measure: Measure::Accuracy,
};

const BUDGETS: [&str; 5] = ["uniform", "ERK", "global", "LAMP", "RD"];
/// Number of units in which RD's solver counts weights.
const UNITS: usize = 4000;

/// Options of the table.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct Rd {
    #[command(flatten)]
    #[serde(flatten)]
    dense: DenseNetwork,
    /// Sparsities to reach
    #[arg(long = "sparsity", value_delimiter = ',', default_values_t = [0.5, 0.7, 0.8, 0.9, 0.95])]
    sparsities: Vec<f64>,
    /// Steps of the grid of amounts at which each layer is measured (the authors' is about 100)
    #[arg(long, default_value_t = 100)]
    amounts: usize,
    /// The largest of these amounts; 1, as in the authors' code, lets a whole layer be removed
    #[arg(long, default_value_t = 0.99)]
    most: f64,
    /// Training images to measure distortions on
    #[arg(long, default_value_t = 256)]
    calibration: usize,
    /// Epochs of retraining after pruning; 0 for none
    #[arg(long, default_value_t = 3)]
    retrain: usize,
}

impl Table for Rd {
    type Data = Images;

    fn check(&mut self, _common: &Common) -> Result<()> {
        let most = self.most;
        ensure(most > 0.0 && most <= 1.0, format!("{most} is no fraction of a layer: --most lies above 0, at most 1"))?;
        let some = self.amounts > 0 && self.calibration > 0;
        ensure(some, "the table needs at least one amount and one calibration image")?;
        self.sparsities.iter().try_for_each(|s| check_sparsity(*s))?;
        self.dense.check()
    }

    fn open(&self, folder: Option<&Path>) -> Result<Images> {
        self.dense.open(folder)
    }

    fn epochs(&self, _data: &Images) -> usize {
        self.dense.epochs() + self.sparsities.len() * BUDGETS.len() * self.retrain
    }

    fn rows(&self, _setting: &Setting, seed: u64, context: &Context<'_, Images>) -> Result<Vec<Record>> {
        let Images { arch, set } = context.data;
        let trainer = context.trainer(&set.train, self.dense.batch);
        let dense = self.dense.of_seed(seed, context)?;
        let inputs = trainer.sample(self.calibration, mix(seed, 1));
        let outputs = |net: &Net| net.logits(inputs.clone());
        let numbers = |net: &Net| outputs(net).into_data().iter::<f32>().collect::<Vec<f32>>();
        let (select, amounts) = (Select::default().with_head(), grid(self.amounts, self.most));
        let mut watch = |layer: &str| context.say(format_args!("seed {seed}: distortion of {layer}"));
        let curves = distortions(&dense, &select, &amounts, outputs, &mut watch)?;
        let record = |method: &str, sparsity: f64, net: &Net, started: Instant| {
            let seconds = started.elapsed().as_secs_f64();
            Record::new(method, sparsity, seed, trainer.accuracy(net, &set.test), seconds)
        };
        let (mut rows, whole) = (vec![record("dense", 0.0, &dense, Instant::now())], numbers(&dense));
        for (sparsity, name) in self.sparsities.iter().flat_map(|s| BUDGETS.map(|name| (*s, name))) {
            let started = Instant::now();
            context.say(format_args!("seed {seed}: {name} at {sparsity}"));
            let budget = match name {
                "RD" => allocate(&curves, &amounts, sparsity, UNITS)?,
                other => Budget::parse(&other.to_lowercase())?,
            };
            let recipe = Recipe::default().with_select(select.clone()).with_budget(budget);
            let net = recipe.prune(dense.clone(), &Magnitude, sparsity)?.0;
            let row = record(name, sparsity, &net, started);
            let masks = masked::masks(&net)?;
            let of = |c: &Distortion| masks.get(&c.name).map(|m| interpolated(&amounts, &c.values, m.sparsity()));
            let sum: f64 = curves.iter().map(|curve| of(curve).unwrap_or(0.0)).sum();
            let lost = squared_distance(&whole, &numbers(&net)) / inputs.dims()[0] as f64;
            let findings = [("sum of distortions".into(), sum), ("distortion".into(), lost)].into();
            rows.push(Record { findings, densities: densities(*arch, set.train.classes, &net)?, ..row });
            if self.retrain > 0 {
                let lr = LrSchedule::cosine(0.01);
                let fit = Fit { epochs: self.retrain, lr, decay: 1e-4, seed: mix(seed, 2) };
                let net = trainer.fit(net, KeepMasks, &fit)?;
                rows.push(record(&format!("{name}, retrained"), sparsity, &net, started));
            }
        }
        Ok(rows)
    }

    fn describe(&self, _data: &Images) -> String {
        let Self { dense, amounts, most, calibration, retrain, .. } = self;
        format!(
            "{}; magnitude within each layer; distortions at {amounts} amounts up to {most} of each layer on {calibration} \
             training images; {retrain} epochs of retraining",
            dense.says()
        )
    }
}
