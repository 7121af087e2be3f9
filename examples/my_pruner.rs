//! A custom pruning score, compared with all the others in the table.
//!
//! `cargo run --release -p regrow-examples --example my_pruner -- --method "mine,GMP,RigL" --seeds 3`

use clap::Parser;
use regrow_bench::tables::pruning::{Args, Method, run};
use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::Evidence;
use regrow_sparse_core::model::score::{LayerView, Score};

/// `|w| / (mean |w| of its output)`: large among those that feed the same neuron.
#[derive(Clone)]
struct Relative;

impl Score for Relative {
    fn name(&self) -> &'static str {
        "relative"
    }

    fn score(&self, weight: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
        let (_, inputs) = weight.dims();
        let relative = weight.values.chunks(inputs).flat_map(|row| {
            let mean = row.iter().map(|w| w.abs()).sum::<f32>() / inputs as f32;
            row.iter().map(move |w| w.abs() / mean.max(f32::MIN_POSITIVE))
        });
        Ok(relative.collect())
    }
}

fn main() -> Result<()> {
    run(&Args::parse(), &[Method::gradual("mine", Relative)]) // the one line
}
