//! Runs a table from its command line to its files.

use std::time::Instant;

use clap::{ArgMatches, Command};
use regrow_checkpoint::atomic;
use regrow_device as device;
use regrow_sparse_core::{Error, Result};
use serde::Serialize;

use crate::harness::info::Info;
use crate::harness::paper::Paper;
use crate::harness::record::Record;
use crate::harness::render::Outcome;
use crate::harness::row_store::RowStore;
use crate::harness::settings::Common;
use crate::harness::slurm;
use crate::harness::table::{Context, Setting, Shared, Table};
use crate::harness::trainer;
use crate::harness::view::View;

/// A table of the registry: its description, its options, and how to run it.
pub struct Entry {
    /// Its name, summary, example and published figures.
    pub info: &'static Info,
    options: fn(Command) -> Command,
    run: fn(&'static Info, &ArgMatches) -> Result<()>,
}

/// The options of every table and a table's own.
#[derive(clap::Args)]
struct Options<T: clap::Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    table: T,
}

impl Entry {
    /// A table whose fields are its options.
    pub const fn of<T: Table + clap::Args>(info: &'static Info) -> Self {
        Self {
            info,
            options: <Options<T> as clap::Args>::augment_args,
            run: |info, matches| {
                let Options { common, mut table } = parsed::<Options<T>>(matches)?;
                table.check(&common)?;
                run(info, &table, &common)
            },
        }
    }

    /// A table with custom options and a custom way to run.
    pub const fn with<A: clap::Args>(info: &'static Info, run: fn(&'static Info, &ArgMatches) -> Result<()>) -> Self {
        Self { info, options: A::augment_args, run }
    }

    /// Its command line.
    pub fn command(&self) -> Command {
        let label = if self.info.example.contains('\n') { "Examples:\n  " } else { "Example: " };
        let example = format!("{label}{}", self.info.example.replace('\n', "\n  "));
        (self.options)(Command::new(self.info.name)).about(self.info.summary).after_help(example)
    }

    /// Runs it.
    ///
    /// # Errors
    /// Impossible options, data that is missing, an output folder that cannot be written.
    pub fn run(&self, matches: &ArgMatches) -> Result<()> {
        (self.run)(self.info, matches)
    }

    /// A program that runs only this table: a custom table needs no other `main`.
    ///
    /// # Errors
    /// As [`Entry::run`].
    pub fn main(&self) -> Result<()> {
        self.run(&self.command().get_matches())
    }
}

/// Options parsed from the command line.
///
/// # Errors
/// If they are missing.
pub fn parsed<A: clap::FromArgMatches>(matches: &ArgMatches) -> Result<A> {
    A::from_arg_matches(matches).map_err(|e| Error::Argument(e.to_string()))
}

/// Everything that determines a table's numbers.
#[derive(Serialize)]
struct Plan<'a, T> {
    #[serde(flatten)]
    table: &'a T,
    seeds: (u64, u64),
}

/// Runs a table with checked options.
///
/// # Errors
/// Missing data, errors of the methods, an output folder that cannot be written.
pub fn run<T: Table>(info: &Info, table: &T, common: &Common) -> Result<()> {
    if slurm::scripted(common)? {
        return Ok(());
    }
    let paper = Paper::parse(info.paper)?;
    let data = table.open(common.data.as_deref())?;
    let started = Instant::now();
    let plan = Plan { table, seeds: (common.first_seed, common.seeds) };
    let rows = fill(info.name, &plan, &data, common)?;
    let view = table.view(&data, &rows)?.or_by_sparsity(info, &rows);
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", table.describe(&data));
    println!("{} seeds.\n", common.seeds);
    show(info, &plan, view, (&paper, &rows), common, started.elapsed().as_secs_f64())
}

/// All rows. Those of finished settings are stored on disk until the table is complete.
fn fill<T: Table>(name: &str, plan: &Plan<'_, T>, data: &T::Data, common: &Common) -> Result<Vec<Record>> {
    let (table, (first, count)) = (plan.table, plan.seeds);
    let (settings, epochs) = (table.settings(), table.epochs(data));
    let bar = trainer::progress(epochs * count as usize);
    let (home, tell, shared) = (device::current(), trainer::teller(&bar), Shared::default());
    let pool = trainer::pool(common.parallel, &tell);
    let mut store = RowStore::open(&common.out, name, plan, common.resume)?;
    let done = |seed: u64, setting: &Setting| store.rows.iter().any(|r| r.seed == seed && setting.holds(r));
    let all = (first..first + count).flat_map(|seed| settings.iter().map(move |setting| (seed, setting)));
    let open: Vec<(u64, &Setting)> = all.filter(|(seed, setting)| !done(*seed, setting)).collect();
    store.fill(plan, &pool, open.len(), |device, piece| {
        let (seed, setting) = open[piece];
        let context = Context { data, device, bar: &bar, home: &home, shared: &shared };
        context.say(format_args!("seed {seed} {}", setting.name()));
        table.rows(setting, seed, &context)
    })?;
    let place = |row: &Record| settings.iter().position(|setting| setting.holds(row)).unwrap_or(settings.len());
    let mut rows = store.finish()?;
    rows.sort_by_key(|row| (row.seed, place(row)));
    bar.finish_and_clear();
    Ok(rows)
}

/// Prints the table and writes its files.
fn show<T: Table>(
    info: &Info,
    plan: &Plan<'_, T>,
    view: View,
    (paper, rows): (&Paper, &[Record]),
    common: &Common,
    seconds: f64,
) -> Result<()> {
    view.sections.iter().for_each(|(caption, table)| println!("{caption}\n\n{table}\n"));
    paper.print_figures();
    let title = if view.title.is_empty() { info.summary } else { view.title.as_str() };
    let outcome = Outcome {
        table: info.name,
        measure: info.measure,
        plan,
        rows,
        claims: &plan.table.claims(paper),
        notes: &view.notes,
        device: &device::current(),
        seconds,
    };
    outcome.close_over(&common.out, title, (view.x, view.y.unwrap_or(info.measure.axis())), &view.lines)?;
    for (suffix, svg) in &view.pictures {
        let path = common.out.join(format!("{}-{suffix}.svg", info.name));
        atomic::write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
    }
    Ok(())
}
