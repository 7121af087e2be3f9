//! The hot paths: a masked training step beside a dense one, choosing the mask of a large matrix.
//!
//! `cargo bench -p regrow-bench --bench speed`; `scripts/pytorch/speed.py` is the PyTorch side.

mod reading;
mod stepping;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Distribution, Tensor};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use regrow_pruners::{Magnitude, SparseGpt, Wanda};
use regrow_sparse_core::Pattern;
use regrow_sparse_core::layerwise::{LayerSolver, LayerTarget};
use regrow_sparse_core::mask::top_k::top_k;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::weight::Weight;
use regrow_zoo::Arch;

use reading::sum;
use stepping::stepper;

fn steps(criterion: &mut Criterion) {
    for (arch, masked) in [(Arch::Mlp, false), (Arch::Mlp, true), (Arch::ResNet20, false), (Arch::ResNet20, true)] {
        let mut step = stepper(arch, masked).expect("a network of the zoo can be masked");
        criterion
            .bench_function(&format!("step/{arch}/{}", if masked { "masked" } else { "dense" }), |b| b.iter(&mut step));
    }
}

/// Half of a 4096x11008 matrix by magnitude: the selection alone, the method with its copy of the
/// scores, all of it from a layer to that layer under its mask, and one pass of reading.
fn masks(criterion: &mut Criterion) {
    let shape = [4096, 11008];
    let tensor = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &regrow_device::current());
    let values = tensor.into_data().try_to_vec::<f32>().expect("f32 values");
    let keep = values.len() / 2;
    criterion.bench_function("mask/4096x11008/one pass", |b| b.iter(|| sum(&values)));
    criterion.bench_function("mask/4096x11008/selection", |b| b.iter(|| top_k(&values, keep, f32::abs)));
    let weight =
        Weight { path: "w".into(), id: burn::module::ParamId::new(), shape: shape.to_vec(), values, mask: None };
    let mut wanda = Wanda::default().observe(shape[1], &regrow_device::current());
    wanda.add(Tensor::random([256, shape[1]], Distribution::Normal(0.0, 1.0), &regrow_device::current()));
    let half = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    criterion.bench_function("mask/4096x11008/wanda", |b| b.iter(|| wanda.solve(&weight, &half)));
    let weight = [weight];
    let method: &dyn Score = &Magnitude;
    criterion.bench_function("mask/4096x11008/magnitude", |b| {
        b.iter_batched(|| (), |()| Recipe::default().masks(&weight, method, 0.5), BatchSize::PerIteration);
    });
    let linear = LinearConfig::new(shape[1], shape[0]).with_bias(false).init(&regrow_device::current());
    criterion.bench_function("mask/4096x11008/a layer of a model", |b| {
        let prune = |linear: Linear| Recipe::default().prune(linear, method, 0.5);
        b.iter_batched(|| linear.clone(), prune, BatchSize::PerIteration);
    });
}

/// Half of a 2048x2048 layer by SparseGPT, from 16 sequences of 1024 tokens: all of it, and the part that
/// layers with the same input share.
fn solvers(criterion: &mut Criterion) {
    let (width, device) = (2048, regrow_device::current());
    let normal = |rows: usize| Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device);
    let values = normal(width).into_data().try_to_vec::<f32>().expect("f32 values");
    let weight =
        Weight { path: "w".into(), id: burn::module::ParamId::new(), shape: vec![width; 2], values, mask: None };
    let sequences: Vec<Tensor<2>> = (0..16).map(|_| normal(1024)).collect();
    let half = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    let watched = || {
        let mut watching = SparseGpt::default().observe(width, &device);
        sequences.iter().for_each(|sequence| watching.add(sequence.clone()));
        watching
    };
    criterion.bench_function("sparsegpt/2048x2048/16384 tokens", |b| b.iter(|| watched().solve(&weight, &half)));
    let watching = watched();
    let _ = watching.solve(&weight, &half);
    criterion.bench_function("sparsegpt/2048x2048/factor at hand", |b| b.iter(|| watching.solve(&weight, &half)));
}

criterion_group! {
    name = speed;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(5));
    targets = steps, masks, solvers
}
criterion_main!(speed);
