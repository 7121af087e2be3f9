//! A score of one's own, while training (`Gmp`) and with retraining between prunings (`Imp`).
//!
//! `cargo run --release -p regrow-pruners --example own_score`

use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use regrow_pruners::prelude::*;

/// `|w| / (mean |w| of its output)`: large among those that feed the same neuron.
#[derive(Clone)]
struct Relative;

impl Score for Relative {
    fn name(&self) -> &'static str {
        "relative"
    }

    fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>, Error> {
        let (_, inputs) = layer.dims();
        let relative = layer.values.chunks(inputs).flat_map(|row| {
            let mean = row.iter().map(|w| w.abs()).sum::<f32>() / inputs as f32;
            row.iter().map(move |w| w.abs() / mean.max(f32::MIN_POSITIVE))
        });
        Ok(relative.collect())
    }
}

/// A hundred steps towards the sum of the inputs; the loss at the end.
fn train(mut model: Linear, pruner: impl Into<Box<dyn Pruner>>) -> Result<(Linear, f32), Error> {
    let device = Device::default().autodiff();
    let mut optimizer = PruningOptimizer::new(pruner, AdamConfig::new().build(), &model)?;
    let mut last = 0.0;
    for _ in 0..100 {
        let x = Tensor::<2>::random([64, 16], Distribution::Default, &device);
        let loss = (model.forward(x.clone()) - x.sum_dim(1)).powf_scalar(2.0).mean();
        last = loss.clone().into_scalar();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.05, model, grads)?;
    }
    Ok((model, last))
}

fn main() -> Result<(), Error> {
    let device = Device::default().autodiff();
    device.seed(0);
    let fresh = || LinearConfig::new(16, 4).init(&device);

    let gmp = GmpConfig::new(0.5).with_every(5).with_updates(10).init_with(Relative)?;
    let (model, loss) = train(fresh(), gmp)?;
    println!("Gmp: sparsity {:.3}, loss {loss:.4}", masks(&model)?.sparsity());

    let (dense, _) = train(fresh(), KeepMasks)?;
    let model = Imp::new(Relative, 0.5, 3)?.run(dense, None, |model, phase| {
        let (model, loss) = train(model, KeepMasks)?;
        println!("Imp, phase {phase}: sparsity {:.3}, loss {loss:.4}", masks(&model)?.sparsity());
        Ok::<_, Error>(model)
    })?;
    assert_eq!(masks(&model)?.pruned(), 32);
    Ok(())
}
