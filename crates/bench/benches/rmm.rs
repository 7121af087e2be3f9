//! RMM of 8 adapters of rank 16, 4096 wide, 32 layers, by each granularity: basis models and coefficients of
//! all layers, 2 of 8.
//!
//! `cargo bench -p regrow-bench --bench rmm`; beside it `scripts/pytorch/rmm_dense.py`, the same by dense SVD
//! in NumPy.

use criterion::{Criterion, criterion_group, criterion_main};
use rayon::prelude::*;
use regrow_merging::rmm::{Align, Granularity, Rmm, RmmConfig};
use regrow_merging::{LowRank, low_rank};
use regrow_sparse_core::model::drop_and_grow::random_growth;

const WIDTH: usize = 4096;
const RANK: usize = 16;
const MODELS: usize = 8;
const LAYERS: usize = 32;

/// The models of one layer.
fn layer(number: usize) -> Vec<LowRank> {
    let values = |i: usize| random_growth(WIDTH * RANK, i as u64).into_iter().map(|v| v - 0.5).collect();
    let model = |i: usize| {
        let at = 2 * (number * MODELS + i);
        LowRank::new(values(at), values(at + 1), [WIDTH, RANK, WIDTH]).expect("factors")
    };
    (0..MODELS).map(model).collect()
}

fn merging(criterion: &mut Criterion) {
    let layers: Vec<Vec<LowRank>> = (0..LAYERS).map(layer).collect();
    let ways = [
        ("position", Rmm::new(Granularity::Position)),
        ("layer", Rmm::new(Granularity::Layer)),
        ("product", Rmm::new(Granularity::Product)),
        (
            "layer, aligned",
            RmmConfig::new()
                .with_granularity(Granularity::Layer)
                .with_align(Align::Procrustes)
                .init()
                .expect("settings"),
        ),
    ];
    for (name, rmm) in ways {
        criterion.bench_function(&format!("rmm/8 adapters, rank 16, 4096 wide, 32 layers/{name}"), |b| {
            b.iter(|| {
                let one = |models: &Vec<LowRank>| rmm.solve(models.clone()).expect("solved").space(2).expect("two");
                layers.par_iter().map(one).collect::<Vec<_>>()
            });
        });
    }
    let [dense] = [layers[0][0].dense()];
    criterion.bench_function("low rank/approximate 4096 x 4096 by rank 16", |b| {
        b.iter(|| low_rank::LowRank::approximate(&dense, [WIDTH, WIDTH], RANK).expect("found"));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(5));
    targets = merging
}
criterion_main!(benches);
