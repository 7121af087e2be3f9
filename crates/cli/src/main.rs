//! The command line: inspect a checkpoint, prune it, merge it, evaluate it, generate text; crop a network.

mod bar;
mod compress;
mod convert;
mod crop;
mod devices;
mod error;
mod eval;
mod inspect;
mod lm;
mod merge;
mod methods;
mod opcm;
mod parent;
mod prune;
mod rmm;
mod serve;
mod source;
mod sparse;
mod statistics;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regrow_device as device;

use error::Result;

/// mimalloc reuses large buffers; the system allocator returns them to the system each time.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inspect, prune, merge and evaluate checkpoints; make networks narrower; generate text with language models.
#[derive(Parser)]
#[command(name = "regrow", version)]
struct Cli {
    /// The device to compute on: flex, wgpu, vulkan, cuda:N, libtorch, libtorch:cuda:N, if compiled in (see regrow
    /// devices); remote:TICKET or remote:@FILE, a peer's (see regrow serve)
    #[arg(long, global = true, env = device::VARIABLE, hide_env_values = true)]
    device: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Prune(Box<prune::Args>),
    Eval(eval::Args),
    Convert(convert::Args),
    Crop(crop::Args),
    Devices(devices::Args),
    Merge(merge::Args),
    Tune(merge::TuneArgs),
    Methods(methods::Args),
    Revert(rmm::Args),
    Compress(compress::Args),
    Statistics(statistics::Args),
    Generate(lm::GenerateArgs),
    Retrain(lm::RetrainArgs),
    Serve(serve::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return error::report_usage(&usage),
    };
    let mut out = io::stdout().lock();
    let named = cli.device.as_deref().filter(|name| !name.is_empty());
    match device::select(named)
        .map_err(Into::into)
        .and_then(|_| run(cli.command, &mut out))
        .and_then(|()| Ok(out.flush()?))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => error::report(&failure),
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::Inspect(args) => inspect::run(&args, out),
        Command::Prune(args) => prune::run(&args, out),
        Command::Eval(args) => eval::run(&args, out),
        Command::Convert(args) => convert::run(&args, out),
        Command::Crop(args) => crop::run(&args, out),
        Command::Devices(args) => devices::run(&args, out),
        Command::Merge(args) => merge::run(&args, out),
        Command::Tune(args) => merge::tune(&args, out),
        Command::Methods(args) => methods::run(&args, out),
        Command::Revert(args) => rmm::run(&args, out),
        Command::Compress(args) => compress::run(&args, out),
        Command::Statistics(args) => statistics::run(&args, out),
        Command::Generate(args) => lm::generate(&args, out),
        Command::Retrain(args) => lm::retrain(&args, out),
        Command::Serve(args) => serve::run(&args, out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_s_help_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        let commands: Vec<_> = cli.get_subcommands_mut().filter(|command| command.get_name() != "help").collect();
        assert!(commands.len() >= 15, "{}", commands.len());
        for command in commands {
            let (name, help) = (command.get_name().to_string(), command.render_long_help().to_string());
            let example = help.split_once("Example").map(|(_, after)| after).unwrap_or_default();
            assert!(example.contains("regrow ") && example.contains(&format!(" {name}")), "{help}");
        }
    }
}
