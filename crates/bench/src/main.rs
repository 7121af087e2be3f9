//! `bench`: runs the tables of papers and prints our results next to the published figures.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, CommandFactory, Parser};
use regrow_bench::harness::{report, run::parsed};
use regrow_bench::tables;
use regrow_device as device;
use regrow_sparse_core::Result;

/// mimalloc reuses large buffers; the system allocator returns them to the system each time.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Run a paper's table on your machine.
///
/// Beside the printed table, `<table>.json` (records in long form) and `<table>.svg` are written
/// to the output folder.
#[derive(Parser)]
#[command(name = "bench", version, after_help = "Example: bench sms --scale quick --seeds 5")]
#[command(subcommand_required = true, arg_required_else_help = true, subcommand_value_name = "TABLE")]
struct Cli {
    /// What computes: flex, wgpu, vulkan, cuda:N, libtorch, libtorch:cuda:N, remote:TICKET, as far as they were
    /// compiled in; several, with commas between, share the table's cells or seeds
    #[arg(long, global = true, env = device::VARIABLE, hide_env_values = true, value_delimiter = ',')]
    device: Vec<String>,
}

/// The command line: what can be listed and gathered, and every table of the registry.
fn command() -> Command {
    let list = Command::new("list").about("List what can be run").after_help("Example: bench list");
    let tables = tables::ALL.iter().map(|entry| entry.command());
    Cli::command().subcommand(list).subcommands(tables).subcommand(report::Args::augment_args(Command::new("report")))
}

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(mistake) => return usage(&mistake),
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what clap has to say: help and version as they are, a mistake as one line.
fn usage(mistake: &clap::Error) -> ExitCode {
    if !mistake.use_stderr() || mistake.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        mistake.exit()
    }
    // The mistake comes first, perhaps a tip; usage and a hint at --help follow.
    let message = mistake.to_string();
    let paragraphs = message.split("\n\n").take_while(|p| !p.starts_with("Usage:") && !p.starts_with("For more"));
    let lines = paragraphs.map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    eprintln!("{} (see --help)", lines.collect::<Vec<_>>().join("; "));
    ExitCode::from(2)
}

fn run(matches: &ArgMatches) -> Result<()> {
    let Cli { device } = parsed(matches)?;
    let named: Vec<&str> = device.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    device::select_all(&named)?;
    match matches.subcommand() {
        Some(("report", options)) => report::run(&parsed(options)?, tables::ALL),
        Some((name, options)) if name != "list" => tables::find(name).map_or(Ok(()), |table| table.run(options)),
        _ => {
            list();
            Ok(())
        }
    }
}

/// Names and summaries of all commands but this.
fn list() {
    let command = command();
    let mut all: Vec<&Command> = command.get_subcommands().filter(|c| c.get_name() != "list").collect();
    all.sort_by_key(|c| c.get_name());
    for table in all {
        println!("{:<12} {}", table.get_name(), table.get_about().unwrap_or_default());
    }
}
