//! What a step costs with each strategy of continual learning, beside plain fine-tuning: steps of the
//! second of two tasks, when springs are fastened and memories are full.
//!
//! `cargo bench -p regrow-bench --bench strategies`; `scripts/pytorch/strategies.py` measures the same
//! ratios in mammoth.

use std::time::{Duration, Instant};

use burn::optim::SgdConfig;
use criterion::{Criterion, criterion_group, criterion_main};
use regrow_bench::continual::methods;
use regrow_continual::learn::Told;
use regrow_continual::stream::{Scenario, TaskStream};
use regrow_continual::{
    AGem, DerPp, Dst, Er, Ewc, FineTune, Gem, ICarl, Lwf, PackNet, Protocol, Si, Strategy, Wa, learn,
};
use regrow_sparse_core::{Budget, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::Net;
use regrow_zoo::data::{Images, Normalization};

const BATCH: usize = 128;
/// Steps of a task, of which the first do not count.
const STEPS: usize = 24;
const WARM: usize = 4;
/// Examples in memory.
const MEMORY: usize = 1000;

/// Images of noise, 784 pixels in ten classes.
fn images() -> Images {
    let count = 2 * STEPS * BATCH;
    let pixel = |i: usize| (regrow_sparse_core::seed::mix(1, i as u64) % 256) as u8;
    let labels = (0..count).map(|i| (i % 10) as u8).collect();
    let normalization = Normalization::bytes(&[0.13], &[0.31]);
    Images::new([1, 28, 28], 10, (0..count * 784).map(pixel).collect(), labels, normalization).expect("images")
}

/// The time of the second task's steps, and how many there were.
fn second_task(images: &Images, strategy: &mut dyn Strategy<Net>, scenario: Scenario) -> Result<(Duration, u32)> {
    let test = images.select(&(0..100).collect::<Vec<_>>());
    let stream = TaskStream::split_evenly(scenario, (images, &test, 10), 2, None)?;
    let net = regrow_zoo::mlp([784, 400, 400, stream.classes()], 0, &regrow_device::current().autodiff());
    let scope = scenario.default_scope();
    let protocol = Protocol { epochs: 1, batch: BATCH, lr: LrSchedule::constant(0.01), seed: 0, scope };
    let (mut from, mut steps) = (None, (Duration::ZERO, 0));
    let mut watch = |told: Told| match (told.task, told.step) {
        (1, WARM) => from = Some(Instant::now()),
        (1, step) if step == told.total => {
            steps = (from.map_or(Duration::ZERO, |from: Instant| from.elapsed()), (step - WARM) as u32);
        }
        _ => {}
    };
    learn(net, &SgdConfig::new().build(), strategy, &stream, &protocol, None, &mut watch)?;
    Ok(steps)
}

type Make = fn() -> Result<Box<dyn Strategy<Net>>>;

/// Every strategy, in a scenario that it fits.
fn all() -> Vec<(&'static str, Scenario, Make)> {
    use Scenario::{Class, Task};
    vec![
        (methods::FINE_TUNE, Class, || Ok(Box::new(FineTune))),
        ("EWC", Class, || Ok(Box::new(Ewc::new(100.0)?.with_samples(50)?))),
        ("online EWC", Class, || Ok(Box::new(Ewc::online(100.0, 1.0)?.with_samples(50)?))),
        ("SI", Class, || Ok(Box::new(Si::new(1.0, 0.1)?))),
        ("LwF", Class, || Ok(Box::new(Lwf::new(1.0, 2.0)?))),
        ("ER", Class, || Ok(Box::new(Er::new(MEMORY)?))),
        ("DER++", Class, || Ok(Box::new(DerPp::new(MEMORY, 0.5, 0.5)?))),
        ("GEM", Class, || Ok(Box::new(Gem::new(MEMORY, 0.5)?))),
        ("A-GEM", Class, || Ok(Box::new(AGem::new(MEMORY)?))),
        ("iCaRL", Class, || Ok(Box::new(ICarl::new(MEMORY)?))),
        ("WA", Class, || Ok(Box::new(Wa::new(MEMORY)?))),
        ("PackNet", Task, || Ok(Box::new(PackNet::new(0.75)?))),
        ("DST-CL", Task, || Ok(Box::new(Dst::new(0.8, Budget::Erk, regrow_continual::dst::Growth::Gradient, 20)?))),
    ]
}

fn strategies(criterion: &mut Criterion) {
    let images = images();
    for (name, scenario, make) in all() {
        criterion.bench_function(&format!("strategies/784-400-400-10, batch {BATCH}/{name}"), |b| {
            b.iter_custom(|iterations| {
                let mut strategy = make().expect("settings that are possible");
                let (time, steps) =
                    second_task(&images, &mut *strategy, scenario).expect("a stream that can be learned");
                time / steps.max(1) * iterations as u32
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(100));
    targets = strategies
}
criterion_main!(benches);
