//! Pruning in a training loop of one's own: two lines, marked below.
//!
//! `cargo run --release -p regrow-examples --example own_loop`

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use regrow_examples::{Batch, Model};
use regrow_pruners::{Magnitude, Scheduled};
use regrow_sparse_core::Schedule;
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::masked;
use regrow_sparse_core::model::sparsify::PruningOptimizer;
use regrow_train::classifier::Examples;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let digits = regrow_zoo::data::open("digits", None)?;
    let device = Device::default().autodiff();
    device.seed(0);
    let mut model = Model::new(&device);

    // From step 100, every 20 steps, 20 times, along Zhu and Gupta's cubic curve to 90 % zeros.
    let schedule = Schedule::new(Curve::Cubic, 0.0, 0.9, 100, 20, 20)?;
    let pruner = Scheduled::new(Magnitude, schedule); // line one
    let mut optimizer = PruningOptimizer::new(pruner, AdamConfig::new().build(), &model)?; // line two

    for epoch in 0..40 {
        for start in (0..digits.train.len()).step_by(64) {
            let indices: Vec<usize> = (start..digits.train.len().min(start + 64)).collect();
            let loss = model.loss(&Batch::of(&digits.train, &indices, &device));
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(2e-3, model, grads)?;
        }
        if epoch % 5 == 4 {
            let sparsity = masked::masks(&model)?.sparsity();
            let accuracy = model.valid().accuracy(&digits.test, &Device::default());
            println!("epoch {:2}: sparsity {sparsity:.3}, test accuracy {accuracy:.3}", epoch + 1);
        }
    }
    Ok(())
}
