//! The options that tables share: scale, data, seeds, output folder.

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
    /// Number of seeds, starting at --first-seed
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// The output folder for the JSON file and the picture
    #[arg(long, default_value = "tables")]
    pub out: PathBuf,
    /// Resume an interrupted run with the same settings
    #[arg(long)]
    pub resume: bool,
    /// Print a Slurm array script, with a task for each seed, instead of making the table; with --resume the same
    /// command gathers the tasks' results
    #[arg(long)]
    pub slurm: bool,
    /// Networks trained in parallel on a device; by default one per core on the CPU, one on any other. Use 1 to measure
    /// times without interference
    #[arg(long)]
    pub parallel: Option<usize>,
}

/// How much to run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Minutes on two cores.
    Quick,
    /// The paper's numbers of epochs and phases, if the network allows it.
    Full,
}

/// Where a table ran: the devices of this process, `device` among them.
pub fn devices(device: &Device) -> String {
    match device::all() {
        all if all.contains(device) => all.iter().map(device::title).collect::<Vec<_>>().join(", "),
        _ => device::title(device),
    }
}

/// The command line that started this process, with the program's name only, absolute paths reduced to their last part
/// and credentials left out: results are read by others on other machines.
pub fn command() -> String {
    let cut = |word: String| match std::path::Path::new(&word) {
        path if path.is_absolute() => path.file_name().map_or("/".into(), |n| n.to_string_lossy().into_owned()),
        _ => device::without_secret(&word),
    };
    std::iter::once("bench".to_string()).chain(std::env::args().skip(1).map(cut)).collect::<Vec<_>>().join(" ")
}

/// A path as shown in results: its last part. Other machines have other folders.
///
/// # Errors
/// As the serializer.
pub fn file_name<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let name = path.as_deref().and_then(|path| path.file_name());
    serde::Serialize::serialize(&name.map(|name| name.to_string_lossy()), serializer)
}
