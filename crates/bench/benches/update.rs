//! What moving sparsity costs: dropping and growing in 25 million weights, and one dense training
//! step of a network of that size.
//!
//! `cargo bench -p regrow-bench --bench update`

use burn::module::{Module, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Distribution, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow, random_growth};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::magnitudes;
use regrow_sparse_core::model::weight::Weight;

const WIDTH: usize = 2500;
const LAYERS: usize = 4;

/// Layers of 2500x2500, 90 % pruned.
fn layers() -> Vec<Weight> {
    let layer = |l: usize| {
        let values = random_growth(WIDTH * WIDTH, l as u64).into_iter().map(|v| v - 0.5).collect();
        Weight { path: format!("layer{l}"), id: ParamId::new(), shape: vec![WIDTH, WIDTH], values, mask: None }
    };
    let dense: Vec<Weight> = (0..LAYERS).map(layer).collect();
    let scores = dense.iter().map(magnitudes).collect();
    let masks = Recipe::default().masks_of(&dense, scores, 0.9).expect("masks");
    let under = |w: Weight| w.clone().under(masks.get(&w.path).expect("a mask")).expect("the shape");
    dense.into_iter().map(under).collect()
}

fn update(criterion: &mut Criterion) {
    let layers = layers();
    let growth: Vec<Vec<f32>> = (0..LAYERS).map(|l| random_growth(WIDTH * WIDTH, 100 + l as u64)).collect();
    criterion.bench_function("update/25M weights/drop and grow 30 %", |b| {
        b.iter(|| {
            for (weight, growth) in layers.iter().zip(&growth) {
                let count = weight.mask_or_dense().kept() * 3 / 10;
                drop_and_grow(weight, count, growth, Candidates::Pruned).expect("a mask");
            }
        });
    });
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
}

fn step(criterion: &mut Criterion) {
    let device = regrow_device::current().autodiff();
    let layer = |_| LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(&device);
    let mut net = Some(Net { layers: (0..LAYERS).map(layer).collect() });
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut optimizer: ModuleOptimizer = SgdConfig::new().with_momentum(Some(momentum)).build().into();
    let x = Tensor::<2>::random([128, WIDTH], Distribution::Default, &device);
    criterion.bench_function("update/25M weights/dense training step, batch 128", |b| {
        b.iter(|| {
            let Some(now) = net.take() else { return };
            let y = now.layers.iter().fold(x.clone(), |x, layer| relu(layer.forward(x)));
            let grads = GradientsParams::from_grads(y.powf_scalar(2.0).mean().backward(), &now);
            net = Some(optimizer.step(1e-6, now, grads));
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(10));
    targets = update, step
}
criterion_main!(benches);
