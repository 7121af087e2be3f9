//! The table of DST-CL (Yıldırım et al., arXiv 2308.14831): initialization by growth by sparsity.

use regrow_continual::stream::Scenario;
use regrow_continual::{DstConfig, Growth, MaskInitialization};
use regrow_sparse_core::Result;

use super::{Args, Comparison, Method, Setting};
use crate::claim::Claim;

const CLAIMS: [Claim; 6] = [
    Claim {
        text: "at 80 % ERK beats uniform, random",
        better: "ERK, random, 80 %, task",
        than: "uniform, random, 80 %, task",
    },
    Claim {
        text: "at 80 % ERK beats uniform, gradient",
        better: "ERK, gradient, 80 %, task",
        than: "uniform, gradient, 80 %, task",
    },
    Claim {
        text: "at 80 % ERK beats uniform, momentum",
        better: "ERK, momentum, 80 %, task",
        than: "uniform, momentum, 80 %, task",
    },
    Claim {
        text: "at 95 % uniform beats ERK, random",
        better: "uniform, random, 95 %, task",
        than: "ERK, random, 95 %, task",
    },
    Claim {
        text: "at 95 % uniform beats ERK, gradient",
        better: "uniform, gradient, 95 %, task",
        than: "ERK, gradient, 95 %, task",
    },
    Claim {
        text: "at 95 % uniform beats ERK, momentum",
        better: "uniform, momentum, 95 %, task",
        than: "ERK, momentum, 95 %, task",
    },
];

/// Steps between two moves of the masks.
const EVERY: usize = 20;

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
                let make = move |_: &Setting<'_>| config.init();
                methods.push(Method::new(&format!("{init}, {grown}, {percent} %"), make));
            }
        }
    }
    let comparison = Comparison {
        table: "dst-cl",
        paper: include_str!("../../../../papers/dst-cl/paper.toml"),
        methods,
        scenarios: &[Scenario::Task],
        base: "ERK, random, 80 %",
        claims: &CLAIMS,
        drawn: &[],
        columns: &[("weights used, %", "weights used")],
    };
    comparison.run(args)
}
