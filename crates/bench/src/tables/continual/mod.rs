//! Strategies of continual learning at equal memory and epochs, in the three scenarios of van de Ven &
//! Tolias (arXiv 1904.07734).
//!
//! One cell is a seed, a scenario and a strategy: the same network, the same tasks, the same optimizer.
//! [`methods`] lists the strategies, `rows` runs them, `view` shows the table. [`dst`] and [`wa`] are tables of one method each, made of the same parts.

pub mod dst;
pub mod methods;
mod rows;
mod view;
pub mod wa;

use std::path::PathBuf;

use regrow_continual::stream::{DataSet, Scenario, TaskStream};
use regrow_zoo::data::{self, Images};

pub use methods::{At, Method};

use crate::harness::images::few;
use crate::harness::prelude::*;
use crate::harness::run;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "continual",
    summary: "Strategies of continual learning at equal memory and epochs, in three scenarios",
    example: "bench continual --stream split-mnist --data DIR --scenario class --seeds 3",
    paper: include_str!("../../../published/continual.toml"),
    measure: Measure::Accuracy,
};

/// Strategies of continual learning at equal memory and epochs, in three scenarios
#[derive(clap::Parser, Clone, Debug)]
#[command(after_help = "Example: bench continual --stream split-mnist --data DIR --scenario class --seeds 3")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// split-digits (embedded), split-mnist, split-fashion or permuted-mnist
    #[arg(long, default_value = "split-digits")]
    pub stream: String,
    /// Scenarios: task, class, domain; by default those of the table
    #[arg(long, value_delimiter = ',')]
    pub scenario: Option<Vec<String>>,
    /// Only these strategies, by name; by default all
    #[arg(long, value_delimiter = ',')]
    pub strategy: Option<Vec<String>>,
    /// Examples in memory, for strategies that have one
    #[arg(long)]
    pub memory: Option<usize>,
    /// Passes over each task's examples
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Strength of EWC (lambda) in every scenario
    #[arg(long)]
    pub ewc: Option<f64>,
    /// Strength of SI (c) in every scenario
    #[arg(long)]
    pub si: Option<f64>,
    /// Training images of the data set to use, evenly spaced; by default all
    #[arg(long)]
    pub train_images: Option<usize>,
    /// Test images of the data set to use, evenly spaced; by default all
    #[arg(long)]
    pub test_images: Option<usize>,
    /// Classes in an order drawn from each seed, instead of the data set's
    #[arg(long)]
    pub shuffle_classes: bool,
    /// Test on a fifth of the training images, held out: for choosing settings
    #[arg(long)]
    pub validate: bool,
    /// Save each cell after this many steps, and after every task, so that --resume continues within it
    #[arg(long)]
    pub checkpoint_every: Option<usize>,
}

/// Everything that determines the table's numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The stream's name.
    pub stream: String,
    /// Tasks.
    pub tasks: usize,
    /// Scenarios.
    pub scenarios: Vec<Scenario>,
    /// Strategies, by name.
    pub strategies: Vec<String>,
    /// Widths of the two hidden layers.
    pub hidden: [usize; 2],
    /// Passes over each task's examples.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Examples in memory.
    pub memory: usize,
    /// Strength of EWC (lambda) in the task-, class- and domain-incremental scenario.
    pub ewc: [f64; 3],
    /// Strength of SI (c) in each.
    pub si: [f64; 3],
    /// Examples of a task that its Fisher information is measured on.
    pub fisher: usize,
    /// Training images of the data set.
    pub train_images: Option<usize>,
    /// Test images of the data set.
    pub test_images: Option<usize>,
    /// Classes in an order drawn from the seed.
    pub shuffle_classes: bool,
    /// Tested on held-out training images.
    pub validate: bool,
}

/// The names of all streams.
const STREAMS: [&str; 4] = ["permuted-mnist", "split-digits", "split-fashion", "split-mnist"];

/// A table that compares strategies.
pub struct Comparison<'a> {
    /// Its registry entry.
    pub info: &'static Info,
    /// The strategies.
    pub methods: Vec<Method>,
    /// Scenarios, if the command line gives none.
    pub scenarios: &'a [Scenario],
    /// The one whose steps the others' are compared with.
    pub base: &'a str,
    /// The strategies that the picture shows first.
    pub drawn: &'a [&'a str],
    /// More columns: head, and name of the finding.
    pub columns: &'a [(&'a str, &'a str)],
}

/// Runs the table of all strategies, with `more` beside the built-in ones.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args, more: &[Method]) -> Result<()> {
    let comparison = Comparison {
        info: &INFO,
        methods: [methods::all(), more.to_vec()].concat(),
        scenarios: &Scenario::ALL,
        base: methods::FINE_TUNE,
        drawn: &view::DRAWN,
        columns: &[],
    };
    comparison.run(args)
}

impl Comparison<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// Impossible settings, data that is missing, an output folder that cannot be written.
    pub fn run(&self, args: &Args) -> Result<()> {
        let methods = self.chosen(args)?;
        let plan = args.plan(&methods, self.scenarios)?;
        // Errors of a strategy are reported before anything is written.
        for method in &methods {
            plan.scenarios.iter().try_for_each(|scenario| method.make(&plan, *scenario).map(drop))?;
        }
        let runs = args.common.out.join(format!("{}.runs", self.info.name));
        let removed = || match runs.exists() {
            true => std::fs::remove_dir_all(&runs).map_err(|e| Error::io(&runs, e)),
            false => Ok(()),
        };
        if !args.common.resume && !args.common.slurm {
            removed()?;
        }
        let (every, runs) = (args.checkpoint_every, runs.clone());
        run::run(self.info, &Compared { plan: &plan, comparison: self, methods, every, runs }, &args.common)?;
        removed()
    }

    /// The requested strategies.
    fn chosen(&self, args: &Args) -> Result<Vec<Method>> {
        let Some(wanted) = &args.strategy else { return Ok(self.methods.clone()) };
        let names = self.methods.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
        let find = |name: &String| {
            let found = self.methods.iter().find(|m| m.name.eq_ignore_ascii_case(name)).cloned();
            found.ok_or_else(|| Error::Argument(format!("unknown strategy `{name}`: use {names}")))
        };
        wanted.iter().map(find).collect()
    }
}

impl Plan {
    /// The stream of `seed` in `scenario`.
    ///
    /// # Errors
    /// As [`TaskStream`]'s constructors.
    pub fn stream<'a>(
        &self,
        scenario: Scenario,
        (train, test): (&'a Images, &'a Images),
        seed: u64,
    ) -> Result<TaskStream<'a>> {
        let set: DataSet<'a> = (train, test, train.classes);
        match self.stream.starts_with("permuted") {
            true => TaskStream::permuted(scenario, set, self.tasks, seed, false),
            false => TaskStream::split_evenly(scenario, set, self.tasks, self.shuffle_classes.then_some(seed)),
        }
    }
}

impl Args {
    fn plan(&self, methods: &[Method], usual: &[Scenario]) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        let scenarios = match &self.scenario {
            Some(names) => names.iter().map(|s| Scenario::parse(s)).collect::<Result<Vec<_>>>()?,
            None => usual.to_vec(),
        };
        // Tasks, hidden layers, epochs (quick, full), batch, memory. Of split-mnist as in the authors' code
        // for arXiv 1904.07734: 2000 steps of 128, 100 examples of each class.
        let (tasks, hidden, epochs, batch, memory) = match self.stream.as_str() {
            "split-digits" => (5, [100, 100], [20, 100], 32, 100),
            "split-mnist" | "split-fashion" => (5, [400, 400], [4, 21], 128, 1000),
            "permuted-mnist" => (10, [400, 400], [2, 10], 128, 1000),
            other => {
                let says = format!("unknown stream `{other}`: use {}", STREAMS.join(", "));
                return Err(Error::Argument(says));
            }
        };
        // Those of the same code (for permuted-mnist too); for split-digits chosen with --validate.
        let (ewc, si) = match self.stream.as_str() {
            "split-mnist" | "split-fashion" => ([1e5, 1e9, 1e10], [10.0, 5e3, 5e4]),
            "permuted-mnist" => ([100.0; 3], [10.0, 5.0, 10.0]),
            _ => ([1e4, 1e4, 1e5], [10.0, 100.0, 100.0]),
        };
        let epochs = self.epochs.unwrap_or(if full { epochs[1] } else { epochs[0] });
        if epochs == 0 || [self.train_images, self.test_images].contains(&Some(0)) || scenarios.is_empty() {
            return Err(Error::Argument("the table needs at least one epoch, image and scenario".into()));
        }
        Ok(Plan {
            stream: self.stream.clone(),
            tasks,
            scenarios,
            strategies: methods.iter().map(|m| m.name.clone()).collect(),
            hidden,
            epochs,
            batch,
            learning_rate: 1e-3,
            memory: self.memory.unwrap_or(memory),
            ewc: self.ewc.map_or(ewc, |lambda| [lambda; 3]),
            si: self.si.map_or(si, |c| [c; 3]),
            fisher: 200,
            train_images: self.train_images,
            test_images: self.test_images,
            shuffle_classes: self.shuffle_classes,
            validate: self.validate,
        })
    }
}

/// A comparison with its plan and the requested strategies.
#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip)]
    comparison: &'a Comparison<'a>,
    #[serde(skip)]
    methods: Vec<Method>,
    /// Steps between saves within a cell; `None` for no saves.
    #[serde(skip)]
    every: Option<usize>,
    /// Where running cells are saved.
    #[serde(skip)]
    runs: PathBuf,
}

/// Images to train and to test on.
struct Split {
    train: Images,
    test: Images,
}

impl Table for Compared<'_> {
    type Data = Split;

    fn open(&self, folder: Option<&Path>) -> Result<Split> {
        let name = match self.plan.stream.as_str() {
            "split-digits" => "digits",
            "split-fashion" => "fashion-mnist",
            _ => "mnist",
        };
        let set = data::open(name, folder)?;
        let (train, test) = (few(set.train, self.plan.train_images), few(set.test, self.plan.test_images));
        let (train, test) = if self.plan.validate { train.split(0.2, 0) } else { (train, test) };
        Ok(Split { train, test })
    }

    fn settings(&self) -> Vec<Setting> {
        self.cells().map(|(scenario, method)| Setting::method(&rows::name(&method.name, scenario))).collect()
    }

    fn epochs(&self, _data: &Split) -> usize {
        self.cells().count() * self.plan.tasks * self.plan.epochs
    }

    fn rows(&self, setting: &Setting, seed: u64, context: &Context<'_, Split>) -> Result<Vec<Record>> {
        let named = |e: Error| Error::Argument(format!("{}: {e}", setting.name()));
        Ok(vec![self.cell(setting, seed, context).map_err(named)?])
    }

    fn describe(&self, _data: &Split) -> String {
        view::describe(self.plan)
    }

    fn view(&self, _data: &Split, rows: &[Record]) -> Result<View> {
        self.shown(rows)
    }
}
