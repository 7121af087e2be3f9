//! `bench`: runs the tables of papers and prints ours beside the published figures.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use regrow_bench::{
    bip, clr, continual, granet, llm, merge, opcm, polarization, pruning, rd, report, reweighting, rmm, sms,
};
use regrow_device as device;
use regrow_sparse_core::Result;

/// Tensors come and go by the megabyte: the system's allocator gives such memory back and asks for it anew each time.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Run a paper's table on your machine.
///
/// Beside the printed table, `<table>.json` (records in long form) and `<table>.svg` are written
/// to the output folder.
#[derive(Parser)]
#[command(name = "bench", version, after_help = "Example: bench sms --scale quick --seeds 5")]
struct Cli {
    /// What computes: flex, wgpu, vulkan, cuda:N, libtorch, libtorch:cuda:N, remote:TICKET, as far as they were
    /// compiled in; several, with commas between, share the table's cells or seeds
    #[arg(long, global = true, env = device::VARIABLE, hide_env_values = true, value_delimiter = ',')]
    device: Vec<String>,
    #[command(subcommand)]
    table: Table,
}

/// The tables there are, in the order of their names. A new one adds a line here and a file.
#[derive(Subcommand)]
enum Table {
    /// List what can be run
    List,
    /// BiP (arXiv 2210.04092): against iterative pruning with rewinding, accuracy and time
    #[command(after_help = "Example: bench bip --sparsity 0.9,0.95 --seeds 3")]
    Bip(Box<pruning::Args>),
    /// CLR (arXiv 2307.11386): a frozen network reprogrammed by small kernels for each task
    Clr(Box<clr::Args>),
    /// Strategies of continual learning at equal memory and epochs, in three scenarios
    Continual(Box<continual::Args>),
    /// DST-CL (arXiv 2308.14831): sparse masks of tasks, initialization by growth by sparsity
    DstCl(Box<continual::Args>),
    /// GraNet (arXiv 2106.10404): pruning plasticity, and GraNet against its relatives
    #[command(after_help = "Example: bench granet --sparsity 0.9,0.95 --seeds 3")]
    Granet(Box<pruning::Args>),
    /// Language models: magnitude, Wanda, SparseGPT at several sparsities, with OWL and PERP
    Llm(Box<llm::Args>),
    /// Merging methods on models of one and of different starting points
    Merge(Box<merge::Args>),
    /// OPCM (arXiv 2501.09522): models merged as they arrive, against merging them all again
    Opcm(Box<opcm::Args>),
    /// Polarization gates (arXiv 2302.10798): blocks and channels that training finds needless
    #[command(after_help = "Example: bench polarization --sparsity 0.5,0.75 --seeds 3")]
    Polarization(Box<pruning::Args>),
    /// Every pruning method at equal training cost, over sparsities
    Pruning(Box<pruning::Args>),
    /// RD budgets (arXiv 2308.10438) against uniform, global, ERK and LAMP
    Rd(Box<rd::Args>),
    /// Gather the results of tables into one HTML page
    Report(Box<report::Args>),
    /// Loss-based weights of examples, and ScaleBiO's of sources, on least squares
    Reweighting(Box<reweighting::Args>),
    /// RMM (arXiv 2510.14163): merging low-rank models reversibly, against merging them into one
    Rmm(Box<rmm::Args>),
    /// Sparse Model Soups (arXiv 2306.16788): soups of sparse models against what they are made of
    Sms(Box<sms::Args>),
    /// Weight aligning (arXiv 1911.07053): a head's new and old classes made equally long
    Wa(Box<continual::Args>),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mistake) => return usage(&mistake),
    };
    let named: Vec<&str> = cli.device.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    match device::select_all(&named).and_then(|_| run(cli.table)) {
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

fn run(table: Table) -> Result<()> {
    match table {
        Table::List => {
            for table in Cli::command().get_subcommands().filter(|t| t.get_name() != "list") {
                println!("{:<12} {}", table.get_name(), table.get_about().unwrap_or_default());
            }
            Ok(())
        }
        Table::Bip(args) => bip::run(&args),
        Table::Clr(args) => clr::run(&args),
        Table::Continual(args) => continual::run(&args, &[]),
        Table::DstCl(args) => continual::dst::run(&args),
        Table::Granet(args) => granet::run(&args),
        Table::Llm(args) => llm::run(&args),
        Table::Merge(args) => merge::run(&args),
        Table::Opcm(args) => opcm::run(&args),
        Table::Polarization(args) => polarization::run(&args),
        Table::Pruning(args) => pruning::run(&args, &[]),
        Table::Rd(args) => rd::run(&args),
        Table::Report(args) => report::run(&args),
        Table::Reweighting(args) => reweighting::run(&args),
        Table::Rmm(args) => rmm::run(&args),
        Table::Sms(args) => sms::run(&args),
        Table::Wa(args) => continual::wa::run(&args),
    }
}
