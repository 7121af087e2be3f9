//! What a step costs with each strategy of continual learning, beside plain fine-tuning: steps of the
//! second of two tasks, when springs are fastened and memories are full.
//!
//! `cargo bench -p regrow-bench --bench strategies`; `scripts/pytorch/strategies.py` measures the same
//! ratios in mammoth.

use std::time::{Duration, Instant};

use burn::optim::SgdConfig;
use criterion::{Criterion, criterion_group, criterion_main};
use regrow_bench::tables::continual::methods;
use regrow_continual::learn::Progress;
use regrow_continual::stream::{Scenario, TaskStream};
use regrow_continual::{Protocol, Strategy, learn, registry};
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{Params, find};
use regrow_train::lr::LrSchedule;
use regrow_zoo::Net;
use regrow_zoo::data::{Images, Normalization};

const BATCH: usize = 128;
/// Steps of a task, of which the first do not count.
const STEPS: usize = 24;
const WARM: usize = 4;

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
    let mut watch = |told: Progress| match (told.task, told.step) {
        (1, WARM) => from = Some(Instant::now()),
        (1, step) if step == told.total => {
            steps = (from.map_or(Duration::ZERO, |from: Instant| from.elapsed()), (step - WARM) as u32);
        }
        _ => {}
    };
    learn(net, &SgdConfig::new().build(), strategy, &stream, &protocol, None, &mut watch)?;
    Ok(steps)
}

/// Every strategy: its row, a scenario that it fits, its name in the registry and its parameters.
const ALL: [(&str, Scenario, &str, &str); 13] = [
    (methods::FINE_TUNE, Scenario::Class, "finetune", ""),
    ("EWC", Scenario::Class, "ewc", "lambda=100,samples=50"),
    ("online EWC", Scenario::Class, "ewc-online", "lambda=100,samples=50"),
    ("SI", Scenario::Class, "si", "c=1,xi=0.1"),
    ("LwF", Scenario::Class, "lwf", ""),
    ("ER", Scenario::Class, "er", "memory=1000"),
    ("DER++", Scenario::Class, "der++", "memory=1000"),
    ("GEM", Scenario::Class, "gem", "memory=1000"),
    ("A-GEM", Scenario::Class, "agem", "memory=1000"),
    ("iCaRL", Scenario::Class, "icarl", "memory=1000"),
    ("WA", Scenario::Class, "wa", "memory=1000"),
    ("PackNet", Scenario::Task, "packnet", ""),
    ("DST-CL", Scenario::Task, "dst-cl", ""),
];

fn strategies(criterion: &mut Criterion) {
    let images = images();
    let entries = registry::entries::<Net>();
    for (name, scenario, entry, list) in ALL {
        let params = Params::new(0).with(list).expect("a list of parameters");
        let make = || find(&entries, entry)?.build(&params);
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
