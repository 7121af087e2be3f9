//! A training step to be timed, which several benches do.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Distribution, Int, Tensor};
use regrow_pruners::Magnitude;
use regrow_sparse_core::Error;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::{KeepMasks, PruningOptimizer};
use regrow_sparse_core::model::weight::{Select, weights};
use regrow_train::Classifier;
use regrow_zoo::{Arch, Net};

const BATCH: usize = 128;

/// One SGD step of `arch` on 128 images, dense or with 90 % of its weights masked, done when the device is.
pub fn stepper(arch: Arch, masked: bool) -> Result<impl FnMut(), Error> {
    let device = regrow_device::current().autodiff();
    let mut net: Net = arch.init(10, 0, &device);
    if masked {
        let masks = Recipe::default().masks(&weights(&net, &Select::default())?, &Magnitude, 0.9)?;
        net = apply_masks(net, &masks, Gradient::Masked, Base::Zeroed)?;
    }
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
    let mut optimizer = PruningOptimizer::new(KeepMasks, sgd, &net)?;
    let [channels, height, width] = arch.input();
    let images = Tensor::<4>::random([BATCH, channels, height, width], Distribution::Default, &device);
    let labels = Tensor::<1, Int>::arange(0..BATCH as i64, &device).remainder_scalar(10);
    let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(&device);
    let mut net = Some(net);
    Ok(move || {
        let Some(now) = net.take() else { return };
        let loss = loss.forward(now.logits(images.clone()), labels.clone());
        let grads = GradientsParams::from_grads(loss.backward(), &now);
        // So small a rate that every step does the same work: no loss of zero, no denormals.
        net = optimizer.step(1e-6, now, grads).ok();
        device.sync().expect("a device that computes");
    })
}
