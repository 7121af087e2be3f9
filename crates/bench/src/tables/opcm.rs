//! OPCM (Tang et al., NeurIPS 2025, arXiv 2501.09522): models fine-tuned from one parent, one per task, merged as they
//! arrive in several orders, compared with merging all so far again by average, task arithmetic and TIES.

use regrow_merging::{OpcmConfig, TaskArithmeticConfig, TiesConfig, opcm::Difference};

use crate::harness::arrivals::{Arrivals, FIRST, KEPT, Merged, finding_after};
use crate::harness::finetuned::{Finetuned, FinetunedData};
use crate::harness::prelude::*;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "opcm",
    summary: "OPCM (arXiv 2501.09522): models merged as they arrive, against merging them all again",
    example: "bench opcm --orders 5 --seeds 3\nbench opcm --dataset mnist,fashion-mnist --count 8 --data DIR",
    paper: include_str!("../../published/opcm.toml"),
    measure: Measure::Accuracy,
};

/// Factors for sums of differences, to choose from.
const LAMBDAS: [f64; 8] = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0];

/// Options of the table.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct OpcmTable {
    #[command(flatten)]
    #[serde(flatten)]
    models: Finetuned,
    /// Number of arrival orders
    #[arg(long, default_value_t = 5)]
    orders: usize,
    /// The share of singular values that is protected
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    alpha: f64,
    /// First learning rate of fine-tuning; it falls along a cosine.
    #[arg(skip = 0.05)]
    rate: f64,
}

impl Table for OpcmTable {
    type Data = FinetunedData;

    fn check(&mut self, common: &Common) -> Result<()> {
        OpcmConfig::new().with_alpha(self.alpha).init()?;
        ensure(self.orders > 0, "the table needs at least one order (--orders)")?;
        self.models.check(common)
    }

    fn open(&self, folder: Option<&Path>) -> Result<FinetunedData> {
        FinetunedData::open(&self.models.plan, folder)
    }

    fn epochs(&self, _data: &FinetunedData) -> usize {
        self.models.plan.epochs + self.models.plan.count * self.models.plan.tune
    }

    fn rows(&self, _setting: &Setting, seed: u64, context: &Context<'_, FinetunedData>) -> Result<Vec<Record>> {
        let (plan, family) = (&self.models.plan, context.data.family(seed, true, context)?);
        let learn = |task| family.learn(family.trainable(), task, plan.tune, self.rate, mix(seed, 1));
        let own = (0..plan.count).map(|task| Ok(family.differences(&learn(task)?))).collect::<Result<Vec<Merged>>>()?;
        let none: Merged = family.base.iter().map(|b| vec![0.0; b.len()]).collect();
        let (parent, alone) = (family.together(&none, |task| &task.test), family.apart(&own));
        let mut rows = Vec::new();
        for order in 0..self.orders {
            let arrivals = Arrivals::new(&family, &own, seed, order);
            let (arithmetic, ties) = (TaskArithmeticConfig::new(), TiesConfig::new().with_density(0.2.into()));
            let sum = |on: &[usize], by| arrivals.merged(on, &arithmetic.clone().with_lambda(by).init(on.len())?);
            let ties = |on: &[usize], by| arrivals.merged(on, &ties.clone().with_lambda(by).init(on.len())?);
            let best = |on: &[usize], by: &dyn Fn(f64) -> Result<Merged>| family.best_factor(on, &LAMBDAS, by);
            rows.extend([
                arrivals.constant("parent", parent),
                arrivals.constant("own model", alone),
                arrivals.row("OPCM", 1, || self.one_by_one(&arrivals, true))?,
                arrivals.row("OPCM without projection", 1, || self.one_by_one(&arrivals, false))?,
                arrivals.remerged("average", 1, |on| sum(on, 1.0 / on.len() as f64))?,
                arrivals.remerged("task arithmetic, 0.3", 1, |on| sum(on, 0.3))?,
                arrivals.remerged("task arithmetic, chosen", 1, |on| best(on, &|by| sum(on, by)))?,
                arrivals.remerged("TIES, chosen", plan.count, |on| best(on, &|by| ties(on, by)))?,
            ]);
        }
        Ok(rows)
    }

    fn describe(&self, _data: &FinetunedData) -> String {
        format!("{}; {} orders; alpha {}", self.models.says(self.rate), self.orders, self.alpha)
    }

    fn view(&self, _data: &FinetunedData, rows: &[Record]) -> Result<View> {
        let (methods, count) = (view::methods(rows), self.models.plan.count);
        let columns = [
            Column::value("accuracy"),
            Column::spread_within_seeds("over orders"),
            Column::mean("first task", 2, view::finding(FIRST)),
            Column::mean("kept", 0, view::finding(KEPT)),
            Column::mean("ms per model", 1, |r| Some(1e3 * r.seconds / count as f64)),
        ];
        let along = |row: &Record| {
            (1..=count).filter_map(|t| Some((t as f64, *row.findings.get(&finding_after(t))?))).collect()
        };
        let shown = View::new(Measure::Accuracy, view::table(&methods, rows, &columns));
        Ok(shown.over("models merged", view::lines(&methods[2..], rows, along)))
    }
}

impl OpcmTable {
    /// The merged difference after each model.
    fn one_by_one(&self, arrivals: &Arrivals<'_>, matrices: bool) -> Result<Vec<Merged>> {
        let empty = |shape: &Vec<usize>| Difference {
            values: vec![0.0; shape.iter().product()],
            matrix: <[usize; 2]>::try_from(shape.clone()).ok().filter(|_| matrices),
        };
        let mut merged: Vec<Difference> = arrivals.family.shapes.iter().map(empty).collect();
        let (opcm, mut state, mut steps) = (OpcmConfig::new().with_alpha(self.alpha).init()?, None, Vec::new());
        for task in &arrivals.line {
            state = Some(opcm.add(state, &mut merged, &arrivals.models[*task])?);
            steps.push(merged.iter().map(|d| d.values.clone()).collect());
        }
        Ok(steps)
    }
}
