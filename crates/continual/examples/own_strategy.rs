//! A strategy of one's own beside three others, on a small made-up stream.
//!
//! `cargo run --release -p regrow-continual --example own_strategy`

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_continual::prelude::*;
use regrow_continual::registry;

/// After every step all weights go back a little of the way to where the task found them:
/// `theta <- theta + pull (theta* - theta)`.
struct Tethered {
    pull: f64,
    start: Option<ParameterVector>,
}

impl<M: Headed> Strategy<M> for Tethered {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.start = (at.task > 0).then(|| ParameterVector::of(&model));
        Ok(model)
    }

    fn after_step(&mut self, model: M, _batch: &[Example], _at: &TaskContext<'_>) -> Result<M> {
        let Some(start) = &self.start else { return Ok(model) };
        let now = ParameterVector::of(&model);
        Ok(now.plus(self.pull, &start.minus(&now)).put(model))
    }
}

fn main() -> Result<()> {
    let data = (Blobs { seed: 1 }, Blobs { seed: 2 });
    let stream = TaskStream::split_evenly(Scenario::Task, (&data.0, &data.1, CLASSES), 3, None)?;
    let scope = Scenario::Task.default_scope();
    let protocol = Protocol { epochs: 10, batch: 16, lr: LrSchedule::constant(0.01), seed: 0, scope };
    let entries = registry::entries::<Network>();
    let built_in = |name: &str| find(&entries, name)?.build(&Params::new(0));
    let strategies: [(&str, Box<dyn Strategy<Network>>); 4] = [
        ("finetune", built_in("finetune")?),
        ("mine", Box::new(Tethered { pull: 0.01, start: None })),
        ("er", built_in("er")?),
        ("joint", built_in("joint")?),
    ];
    println!("strategy   accuracy, %   forgetting, %");
    for (name, mut strategy) in strategies {
        Device::default().seed(0);
        let network = Network::new(&Device::default());
        let adam = AdamConfig::new().build();
        let learned = learn(network, &adam, &mut *strategy, &stream, &protocol, None, &mut |_| {})?;
        let percent = |value: Option<f64>| 100.0 * value.unwrap_or(0.0);
        let (accuracy, forgetting) = (percent(learned.matrix.average()), percent(learned.matrix.forgetting()));
        println!("{name:<10} {accuracy:>11.1}   {forgetting:>13.1}");
    }
    Ok(())
}

const CLASSES: usize = 6;
const SIDE: usize = 4;

/// Images of noise around a pattern of each class.
struct Blobs {
    seed: u64,
}

impl Examples for Blobs {
    fn len(&self) -> usize {
        600
    }

    fn images(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        let pixels = SIDE * SIDE;
        let image = |i: &usize| {
            let mut pattern = ChaCha8Rng::seed_from_u64((i % CLASSES) as u64);
            let mut noise = ChaCha8Rng::seed_from_u64(self.seed << 32 | *i as u64);
            (0..pixels).map(|_| pattern.random::<f32>() - 0.5 + 1.5 * (noise.random::<f32>() - 0.5)).collect::<Vec<_>>()
        };
        let values: Vec<f32> = indices.iter().flat_map(image).collect();
        Tensor::from_data(TensorData::new(values, [indices.len(), 1, SIDE, SIDE]), device)
    }

    fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|i| i % CLASSES).collect()
    }
}

#[derive(Module, Debug)]
struct Network {
    hidden: Linear,
    head: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        let hidden = LinearConfig::new(SIDE * SIDE, 32).init(device);
        Self { hidden, head: LinearConfig::new(32, CLASSES).init(device) }
    }
}

impl Classifier for Network {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images))
    }
}

impl Headed for Network {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        relu(self.hidden.forward(images.flatten::<2>(1, 3)))
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Linear {
        &mut self.head
    }
}
