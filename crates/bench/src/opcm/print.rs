//! Shows the OPCM table.

use std::path::Path;

use burn::tensor::Device;
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::{AFTER, ARITHMETIC, ARITHMETIC_CHOSEN, AVERAGE, FIRST, KEPT, OPCM, OWN, PARENT, SCALED, TIES_CHOSEN};
use crate::claim::Claim;
use crate::kin;
use crate::paper::Paper;
use crate::picture::Line;
use crate::record::{Measure, Record, mean_std, spread};
use crate::show::{self, Outcome};

const PAPER: &str = include_str!("../../../../papers/opcm/paper.toml");

/// The rows, in their order.
const METHODS: [&str; 8] = [PARENT, OWN, OPCM, SCALED, AVERAGE, ARITHMETIC, ARITHMETIC_CHOSEN, TIES_CHOSEN];

/// What the paper says of its method.
const CLAIMS: [Claim; 5] = [
    Claim { text: "OPCM beats the average", better: OPCM, than: AVERAGE },
    Claim { text: "OPCM beats task arithmetic (factor 0.3, as in its code)", better: OPCM, than: ARITHMETIC },
    Claim { text: "OPCM beats task arithmetic from all models, factor chosen", better: OPCM, than: ARITHMETIC_CHOSEN },
    Claim { text: "OPCM beats TIES from all models, factor chosen", better: OPCM, than: TIES_CHOSEN },
    Claim { text: "the projection helps", better: OPCM, than: SCALED },
];

/// Prints the table and writes `opcm.json` and `opcm.svg` to `out`.
pub fn show(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!(
        "Test accuracy in percent, mean over tasks, after all models; mean and standard deviation over {} seeds, each the\n\
         mean of {} orders. Over orders: the standard deviation over the orders of a seed. First task: points that it has\n\
         gained since it was merged alone. Kept: models' worth of numbers that wait for the next model.\n",
        plan.kin.seeds.1, plan.orders
    );
    let accuracy = |method: &str, _: usize| spread(&by_seed(rows, method, |of| mean_std(of).0));
    let over_orders = |method: &str| {
        let spreads: Vec<f64> = by_seed(rows, method, |of| mean_std(of).1).into_iter().map(|(_, s)| s).collect();
        format!("{:.2}", mean_std(&spreads).0)
    };
    let first = |method: &str| finding(rows, method, FIRST, 2);
    let kept = |method: &str| finding(rows, method, KEPT, 0);
    let time = |method: &str| {
        let times: Vec<f64> = rows.iter().filter(|r| r.method == method).map(|r| r.seconds).collect();
        format!("{:.1}", 1e3 * mean_std(&times).0 / plan.kin.count as f64)
    };
    let more: [show::Column<'_>; 4] =
        [("over orders", &over_orders), ("first task", &first), ("kept", &kept), ("ms per model", &time)];
    println!("{}\n", show::by_column(METHODS, vec!["accuracy".into()], &accuracy, &more));
    paper.print_figures();
    let title = format!("OPCM: accuracy on the tasks so far, {} on {}", plan.kin.arch, plan.kin.dataset);
    let (measure, claims, notes) = (Measure::Accuracy, &CLAIMS, &[]);
    let outcome = Outcome { table: "opcm", measure, plan, rows, claims, notes, device, seconds };
    outcome.close_over(out, &title, "models merged", &lines(rows, plan.kin.count))
}

/// Something of the values of each seed's orders.
fn by_seed(rows: &[Record], method: &str, of: impl Fn(&[f64]) -> f64) -> Vec<(u64, f64)> {
    let own = || rows.iter().filter(|r| r.method == method);
    let mut seeds: Vec<u64> = own().map(|r| r.seed).collect();
    seeds.dedup();
    let one = |seed: u64| (seed, of(&own().filter(|r| r.seed == seed).map(|r| r.value).collect::<Vec<_>>()));
    seeds.into_iter().map(one).collect()
}

fn finding(rows: &[Record], method: &str, name: &str, digits: usize) -> String {
    let found: Vec<f64> =
        rows.iter().filter(|r| r.method == method).filter_map(|r| r.findings.get(name).copied()).collect();
    if found.is_empty() { "-".into() } else { format!("{:.digits$}", mean_std(&found).0) }
}

fn lines(rows: &[Record], count: usize) -> Vec<Line> {
    let line = |method: &str| {
        let point = |t: usize| {
            let name = format!("{AFTER}{t:02}");
            let own = rows.iter().filter(|r| r.method == method);
            let found: Vec<f64> = own.filter_map(|r| r.findings.get(&name).copied()).collect();
            (!found.is_empty()).then(|| mean_std(&found)).map(|(mean, std)| (t as f64, mean, std))
        };
        Line { name: method.into(), points: (1..=count).filter_map(point).collect() }
    };
    METHODS.into_iter().skip(2).map(line).collect()
}

fn describe(plan: &Plan) -> String {
    let (Plan { orders, alpha, rate, .. }, kin::Plan { dataset, arch, epochs, tune, batch, .. }) = (plan, &plan.kin);
    let tasks = plan.kin.tasks_in_words();
    format!(
        "{arch} on {dataset}, {epochs} epochs; {tasks}, {tune} epochs each of all parameters; SGD with \
         momentum 0.9, batch {batch}, learning rate {rate} along a cosine; {orders} orders; alpha {alpha}"
    )
}
