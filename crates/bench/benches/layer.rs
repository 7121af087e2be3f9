//! A layer of a large language model and a training step on whatever device: what magnitude, Wanda and
//! SparseGPT take from the layer on the device to the layer under its mask there.
//!
//! `REGROW_DEVICE=cuda:0 cargo bench -p regrow-bench --no-default-features --features cuda-cpp --bench layer`;
//! `scripts/pytorch/layer.py` is the PyTorch side. Prints the median and the range of some rounds in
//! milliseconds; `-- ROWS COLS` takes another layer than 4096x11008.

mod stepping;

use std::time::Instant;

use burn::nn::LinearConfig;
use burn::tensor::{Device, Distribution, Tensor};
use regrow_pruners::{Magnitude, SparseGpt, Wanda};
use regrow_sparse_core::Pattern;
use regrow_sparse_core::layerwise::prune_layer;
use regrow_sparse_core::layerwise::{LayerSolver, LayerTarget};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_zoo::Arch;

use stepping::stepper;

/// Calibration sequences, and tokens of each.
const SEQUENCES: usize = 8;
const TOKENS: usize = 2048;

/// Prints what `work` takes, in milliseconds: two rounds unseen, then `rounds`.
fn time(name: &str, rounds: usize, mut work: impl FnMut()) {
    let mut once = || {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64() * 1e3
    };
    once();
    once();
    let mut times: Vec<f64> = (0..rounds).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    println!("{name:40} {:9.2} ms ({:.2} to {:.2})", times[rounds / 2], times[0], times[rounds - 1]);
}

fn layer(rows: usize, cols: usize, device: &Device) {
    let linear = LinearConfig::new(cols, rows).with_bias(false).init(device);
    let sync = || device.sync().expect("a device that computes");
    let inputs = Tensor::<2>::random([TOKENS, cols], Distribution::Normal(0.0, 1.0), device);
    time("magnitude", 5, || {
        let _pruned = Recipe::default().prune(linear.clone(), &Magnitude, 0.5).expect("a layer");
        sync();
    });
    let half = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    for solver in [&Wanda::default() as &dyn LayerSolver, &SparseGpt::default()] {
        let name = solver.name();
        let watched = || {
            let mut watching = solver.observe(cols, device);
            (0..SEQUENCES).for_each(|_| watching.add(inputs.clone()));
            sync();
            watching
        };
        time(&format!("{name}: {SEQUENCES} sequences"), 3, || drop(watched()));
        time(&format!("{name}: sequences and layer"), 3, || {
            let _pruned = prune_layer(linear.clone(), "weight", watched().as_ref(), &half).expect("a layer");
            sync();
        });
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let [rows, cols] = numbers[..].try_into().unwrap_or([4096, 11008]);
    let device = regrow_device::current();
    println!("{} a layer of {rows}x{cols}, {TOKENS} tokens a sequence", regrow_device::title(&device));
    for (arch, masked) in [(Arch::Mlp, false), (Arch::Mlp, true), (Arch::ResNet20, false), (Arch::ResNet20, true)] {
        let step = stepper(arch, masked).expect("a network of the zoo can be masked");
        time(&format!("step/{arch}/{}", if masked { "masked" } else { "dense" }), 30, step);
    }
    layer(rows, cols, &device);
}
