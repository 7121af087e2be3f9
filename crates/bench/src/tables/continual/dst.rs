//! The table of DST-CL (Yıldırım et al., arXiv 2308.14831): initialization by growth by sparsity.

use regrow_continual::stream::Scenario;
use regrow_continual::{DstConfig, Growth, MaskInitialization};
use regrow_sparse_core::Result;

use super::{Args, At, Comparison, Method};
use crate::harness::info::Info;
use crate::harness::record::Measure;

/// Steps between two updates of the masks.
const EVERY: usize = 20;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "dst-cl",
    summary: "DST-CL (arXiv 2308.14831): sparse masks of tasks, initialization by growth by sparsity",
    example: "bench dst-cl --epochs 20 --seeds 3",
    paper: include_str!("../../../published/dst-cl.toml"),
    measure: Measure::Accuracy,
};

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let mut methods = Vec::new();
    for percent in [80u32, 90, 95] {
        for (init, initialization) in [("ERK", MaskInitialization::Erk), ("uniform", MaskInitialization::Uniform)] {
            for (grown, growth) in
                [("random", Growth::Random), ("gradient", Growth::Gradient), ("momentum", Growth::Momentum)]
            {
                let config = DstConfig::new().with_sparsity(f64::from(percent) / 100.0).with_growth(growth);
                let config = config.with_initialization(initialization).with_interval(EVERY);
                let make = move |_: &At<'_>| config.init();
                methods.push(Method::new(&format!("{init}, {grown}, {percent} %"), make));
            }
        }
    }
    let comparison = Comparison {
        info: &INFO,
        methods,
        scenarios: &[Scenario::Task],
        base: "ERK, random, 80 %",
        drawn: &[],
        columns: &[("weights used, %", "weights used")],
    };
    comparison.run(args)
}
