//! RD's solver over the number of layers, at a fixed number of units.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use regrow_pruners::rd::{Distortion, allocate, grid};

const UNITS: usize = 4000;

fn solver(criterion: &mut Criterion) {
    let amounts = grid(100, 1.0);
    let mut group = criterion.benchmark_group("RD's solver, 4000 units, 101 amounts");
    group.sample_size(10);
    for layers in [20usize, 200, 2000] {
        let curve = |l: usize| {
            let scale = 1.0 + (l * 7 % 13) as f64;
            let values = amounts.iter().map(|a| scale * a * a / (1.01 - a)).collect();
            Distortion { name: format!("layer{l:04}"), weights: 1000 + (l * 31 % 97) * 500, values }
        };
        let curves: Vec<Distortion> = (0..layers).map(curve).collect();
        group.bench_with_input(BenchmarkId::from_parameter(layers), &curves, |bencher, curves| {
            bencher.iter(|| black_box(allocate(curves, &amounts, 0.9, UNITS).is_ok()));
        });
    }
    group.finish();
}

criterion_group!(benches, solver);
criterion_main!(benches);
