//! The options that tables share: scale, data, seeds, where results go.

use std::path::PathBuf;

use burn::tensor::Device;
use regrow_device as device;

/// Options of every table.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// How much to run: `quick` (minutes, embedded data) or `full` (the paper's epochs)
    #[arg(long, value_enum, default_value_t = Scale::Quick)]
    pub scale: Scale,
    /// The folder of the data sets; digits need none
    #[arg(long, env = "REGROW_DATA")]
    pub data: Option<PathBuf>,
    /// How many seeds, from --first-seed
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// Where the JSON and the picture go
    #[arg(long, default_value = "tables")]
    pub out: PathBuf,
    /// Go on where an interrupted run with the same settings stopped
    #[arg(long)]
    pub resume: bool,
    /// Print a Slurm array script, a task for each seed, in place of making the table; with --resume the
    /// same command gathers what the tasks have made
    #[arg(long)]
    pub slurm: bool,
    /// Networks trained side by side on a device; by default one per core on the processor, one on any other. 1 for
    /// times that nothing else shares
    #[arg(long)]
    pub parallel: Option<usize>,
}

/// How much to run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Minutes on two cores.
    Quick,
    /// The paper's numbers of epochs and phases, as far as the network allows.
    Full,
}

/// Where a table ran: the devices of this process, `device` among them.
pub fn devices(device: &Device) -> String {
    match device::all() {
        all if all.contains(device) => all.iter().map(device::title).collect::<Vec<_>>().join(", "),
        _ => device::title(device),
    }
}

/// The command line that started this process, the program by its own name, absolute paths cut to
/// their last part and credentials left out: results are read on other machines, by others.
pub fn command() -> String {
    let cut = |word: String| match std::path::Path::new(&word) {
        path if path.is_absolute() => path.file_name().map_or("/".into(), |n| n.to_string_lossy().into_owned()),
        _ => device::without_secret(&word),
    };
    std::iter::once("bench".to_string()).chain(std::env::args().skip(1).map(cut)).collect::<Vec<_>>().join(" ")
}

/// A path as results name it: by its last part. Other machines have other folders.
///
/// # Errors
/// As the serializer.
pub fn file_name<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let name = path.as_deref().and_then(|path| path.file_name());
    serde::Serialize::serialize(&name.map(|name| name.to_string_lossy()), serializer)
}
