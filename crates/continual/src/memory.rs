//! A replay buffer of training examples, as strategies of replay share it.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::Result;

use crate::buffer::{Keeping, Kept, ReplayBuffer};
use crate::strategy::Stage;
use crate::stream::Example;

/// Examples, with numbers of each one's own (logits at insertion; empty where none are kept).
pub(crate) type Memory = ReplayBuffer<(Example, Vec<f32>)>;

/// Offers `batch` with `numbers` for each.
pub(crate) fn offer(
    memory: &mut Memory,
    batch: &[Example],
    numbers: impl Fn(usize) -> Vec<f32>,
    keeping: Keeping,
    at: &Stage<'_>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(at.seed(2));
    for (i, (example, label)) in batch.iter().zip(at.stream.labels(batch)).enumerate() {
        memory.offer((*example, numbers(i)), label, keeping, &mut rng);
    }
}

/// Offers the examples of the task that has ended, in random order.
pub(crate) fn offer_task(memory: &mut Memory, keeping: Keeping, at: &Stage<'_>) {
    let mut task = at.stream.train(at.task);
    task.shuffle(&mut ChaCha8Rng::seed_from_u64(at.seed(5)));
    offer(memory, &task, |_| Vec::new(), keeping, at);
}

/// As many examples as a step has, or all there are; another draw for each `purpose`.
pub(crate) fn draw(memory: &Memory, purpose: u64, at: &Stage<'_>) -> (Vec<Example>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(at.seed(purpose));
    let drawn = memory.draw(at.batch, &mut rng);
    let numbers = drawn.iter().flat_map(|k| k.item.1.iter().copied()).collect();
    (drawn.iter().map(|k| k.item.0).collect(), numbers)
}

/// For a run to be resumed: counts, then task, index and class of each example, then their numbers.
pub(crate) fn state(memory: &Memory) -> Vec<Vec<f32>> {
    let places = memory.kept().iter().flat_map(|k| [k.item.0.task, k.item.0.index, k.label]);
    let numbers = memory.kept().iter().flat_map(|k| k.item.1.iter().copied());
    vec![memory.counts(), places.map(|n| n as f32).collect(), numbers.collect()]
}

/// Back from [`state`]; nothing for an empty one.
pub(crate) fn restored(capacity: usize, state: &[Vec<f32>]) -> Result<Memory> {
    let [counts, places, numbers] = state else { return Memory::new(capacity) };
    let each = numbers.len() / (places.len() / 3).max(1);
    let kept = places.chunks(3).enumerate().map(|(i, place)| {
        let example = Example { task: place[0] as usize, index: place[1] as usize };
        Kept { item: (example, numbers[i * each..(i + 1) * each].to_vec()), label: place[2] as usize }
    });
    Memory::restored(capacity, kept.collect(), counts)
}
