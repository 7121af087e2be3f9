//! Runs the continual table, cell by cell: a cell is one seed, scenario and strategy.

use burn::optim::AdamConfig;
use regrow_continual::stream::Scenario;
use regrow_continual::{Protocol, learn};
use regrow_train::Checkpointing;

use super::{Compared, Method, Split};
use crate::harness::prelude::*;
use crate::harness::streams::{BWT, FORGETTING, STEP, accuracies, percent, ticks};

/// A finding: transfer relative to the untrained network.
pub const FWT: &str = "forward transfer";
/// The mean over time of the mean accuracy so far.
pub const INCREMENTAL: &str = "incremental accuracy";
/// Number of values stored besides the network.
pub const ADDED: &str = "numbers added";
/// Share of test answers that are a class of the last task.
pub const NEWEST: &str = "answers in the last task";

/// The row of a strategy in a scenario.
pub fn name(strategy: &str, scenario: Scenario) -> String {
    format!("{strategy}, {scenario}")
}

impl Compared<'_> {
    /// All cells of a seed: those whose strategy fits the scenario.
    pub(super) fn cells(&self) -> impl Iterator<Item = (Scenario, &Method)> {
        let all = self.plan.scenarios.iter().flat_map(|s| self.methods.iter().map(move |method| (*s, method)));
        all.filter(|(s, method)| method.make(self.plan, *s).is_ok_and(|strategy| strategy.fits(*s)))
    }

    pub(super) fn cell(&self, setting: &Setting, seed: u64, context: &Context<'_, Split>) -> Result<Record> {
        let (plan, Split { train, test }) = (self.plan, context.data);
        let (scenario, method) = self
            .cells()
            .find(|(s, m)| name(&m.name, *s) == setting.name())
            .ok_or_else(|| Error::Argument(format!("the table has no row {}", setting.name())))?;
        let stream = plan.stream(scenario, (train, test), seed)?;
        let pixels = train.size.iter().product();
        let [first, second] = plan.hidden;
        let device = context.device.clone().autodiff();
        let net = regrow_zoo::mlp([pixels, first, second, stream.classes()], seed, &device);
        let adam = AdamConfig::new().with_epsilon(1e-8).build();
        let protocol = Protocol {
            epochs: plan.epochs,
            batch: plan.batch,
            lr: LrSchedule::constant(plan.learning_rate),
            seed: mix(seed, 1),
            scope: scenario.default_scope(),
        };
        let dir = self.runs.join(format!("{seed}-{}-{scenario}", method.name));
        let save = self.every.map(|every| Checkpointing { dir, every });
        let mut strategy = method.make(plan, scenario)?;
        let mut told = ticks(context.bar, plan.epochs);
        let learned = learn(net, &adam, &mut *strategy, &stream, &protocol, save.as_ref(), &mut told)?;
        let matrix = &learned.matrix;
        let mut findings = accuracies(matrix);
        findings.extend([
            (BWT.into(), percent(matrix.backward_transfer())),
            (FORGETTING.into(), percent(matrix.forgetting())),
            (FWT.into(), percent(matrix.forward_transfer(&learned.before))),
            (INCREMENTAL.into(), percent(matrix.incremental_average())),
            (NEWEST.into(), 100.0 * learned.newest),
            (ADDED.into(), strategy.added() as f64),
            (STEP.into(), 1e3 * learned.seconds / learned.steps.max(1) as f64),
        ]);
        findings.extend(strategy.findings());
        let row = name(&method.name, scenario);
        Ok(Record { findings, ..Record::new(&row, 0.0, seed, percent(matrix.average()), learned.seconds) })
    }
}
