//! A checkpoint of a billion weights: how many each layer keeps, and which, over one read of it all.
//!
//! `cargo bench -p regrow-bench --bench checkpoint`; wants 5 GB of memory.

mod reading;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use regrow_sparse_core::mask::budget::{Allocate, Budget, Layer};
use regrow_sparse_core::mask::pattern::Pattern;
use regrow_sparse_core::model::evidence::Evidence;

use reading::sum;

/// Layers, and the shape of each: 1.08 billion weights.
const LAYERS: usize = 24;
const SHAPE: [usize; 2] = [4096, 11008];

/// The scores of a layer, some layers larger than others.
fn scores(layer: usize) -> Vec<f32> {
    let mut scores = vec![0.0; SHAPE[0] * SHAPE[1]];
    let scale = 1.0 + layer as f32 / LAYERS as f32;
    scores.par_chunks_mut(1 << 20).enumerate().for_each(|(part, scores)| {
        let mut rng = ChaCha8Rng::seed_from_u64((layer << 32 | part) as u64);
        scores.iter_mut().for_each(|score| *score = scale * rng.random::<f32>());
    });
    scores
}

fn checkpoint(criterion: &mut Criterion) {
    let all: Vec<Vec<f32>> = (0..LAYERS).map(scores).collect();
    let names: Vec<String> = (0..LAYERS).map(|layer| format!("layer {layer}")).collect();
    let layer = |(name, scores)| Layer::new(name, &SHAPE, scores);
    let layers: Vec<Layer<'_>> =
        names.iter().map(String::as_str).zip(all.iter().map(Vec::as_slice)).map(layer).collect();
    let mut group = criterion.benchmark_group("checkpoint");
    group.sample_size(10);
    group.bench_function("one read", |b| b.iter(|| all.iter().map(|scores| sum(scores)).sum::<f32>()));
    for budget in [Budget::Global, Budget::Erk] {
        group.bench_function(format!("budget/{budget:?}"), |b| {
            b.iter(|| budget.allocate(&layers, &Evidence::NONE, 0.5))
        });
    }
    let half = SHAPE[0] * SHAPE[1] / 2;
    for pattern in [Pattern::Unstructured, Pattern::NofM { n: 2, m: 4 }] {
        group.bench_function(format!("masks/{pattern:?}"), |b| {
            b.iter(|| all.iter().try_for_each(|scores| pattern.mask(&SHAPE, scores, half).map(drop)));
        });
    }
}

criterion_group!(benches, checkpoint);
criterion_main!(benches);
