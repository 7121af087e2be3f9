//! A model soup: four networks trained from one start on other draws of the data, their average, and the greedy soup.
//!
//! `cargo run --release -p regrow-merging --example greedy_soup`

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Int, Tensor};
use regrow_merging::prelude::*;

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self { hidden: LinearConfig::new(2, 32).init(device), output: LinearConfig::new(32, 2).init(device) }
    }

    fn forward(&self, points: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(points)))
    }

    /// The share of points that are classified right.
    fn accuracy(&self, (points, labels): &(Tensor<2>, Tensor<1, Int>)) -> f64 {
        let found = self.forward(points.clone()).argmax(1).flatten::<1>(0, 1);
        let right: f32 = found.equal(labels.clone()).float().mean().into_scalar();
        f64::from(right)
    }
}

/// Noisy points of the plane; the class says whether they lie within the unit circle.
fn points(count: usize, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let clean = Tensor::<2>::random([count, 2], Distribution::Uniform(-1.3, 1.3), device);
    let inside = clean.clone().powf_scalar(2.0).sum_dim(1).flatten::<1>(0, 1).lower_elem(1.0).int();
    (clean.clone() + clean.random_like(Distribution::Normal(0.0, 0.15)), inside)
}

fn trained(mut net: Net, steps: usize, device: &Device) -> Net {
    let loss = CrossEntropyLossConfig::new().init(device);
    let (mut optimizer, (points, labels)) = (SgdConfig::new().init(), points(200, device));
    for _ in 0..steps {
        let value = loss.forward(net.forward(points.clone()), labels.clone());
        let grads = GradientsParams::from_grads(value.backward(), &net);
        net = optimizer.step(0.3, net, grads);
    }
    net
}

fn main() -> Result<()> {
    let device = Device::default().autodiff();
    device.seed(1);
    let start = trained(Net::new(&device), 300, &device);
    let models: Vec<Net> = (0..4).map(|_| trained(start.clone(), 500, &device)).collect();
    let (validation, test) = (points(1000, &device), points(4000, &device));
    for model in &models {
        println!("{:.2} %  alone", 100.0 * model.accuracy(&test));
    }
    let average = average(&models, &equal_weights(models.len()))?;
    println!("{:.2} %  their average", 100.0 * average.accuracy(&test));
    let score = &mut |model: &Net| Ok::<_, Error>(model.accuracy(&validation));
    let (greedy, ingredients) = Soup::Greedy.cook(&models, &mut Ok, score)?;
    println!("{:.2} %  greedy soup of {ingredients}", 100.0 * greedy.accuracy(&test));
    Ok(())
}
