//! A replay buffer of training examples, shared by replay strategies.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};

use crate::buffer::{BufferCounters, BufferPolicy, ReplayBuffer, Stored};
use crate::strategy::TaskContext;
use crate::stream::Example;

/// Examples, each with its own numbers (logits at insertion; empty if none are stored).
pub(crate) type Memory = ReplayBuffer<(Example, Vec<f32>)>;

/// Offers `batch` with `numbers` for each.
pub(crate) fn offer(
    memory: &mut Memory,
    batch: &[Example],
    numbers: impl Fn(usize) -> Vec<f32>,
    policy: BufferPolicy,
    at: &TaskContext<'_>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(at.seed(2));
    for (i, (example, label)) in batch.iter().zip(at.stream.labels(batch)).enumerate() {
        memory.offer((*example, numbers(i)), label, policy, &mut rng);
    }
}

/// Offers the examples of the task that has ended, in random order.
pub(crate) fn offer_task(memory: &mut Memory, policy: BufferPolicy, at: &TaskContext<'_>) {
    let mut task = at.stream.train(at.task);
    task.shuffle(&mut ChaCha8Rng::seed_from_u64(at.seed(5)));
    offer(memory, &task, |_| Vec::new(), policy, at);
}

/// As many examples as a step has, or all if there are fewer; a different draw for each `purpose`.
pub(crate) fn draw(memory: &Memory, purpose: u64, at: &TaskContext<'_>) -> (Vec<Example>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(at.seed(purpose));
    let drawn = memory.draw(at.batch, &mut rng);
    let numbers = drawn.iter().flat_map(|k| k.item.1.iter().copied()).collect();
    (drawn.iter().map(|k| k.item.0).collect(), numbers)
}

/// To resume a run: counters; task, index and class of each example; their numbers.
pub(crate) fn state(memory: &Memory) -> State {
    let BufferCounters { seen, seen_by_class } = memory.counters();
    let places = memory.kept().iter().flat_map(|k| [k.item.0.task, k.item.0.index, k.label]);
    let numbers = memory.kept().iter().flat_map(|k| k.item.1.iter().copied());
    let mut state = State::default();
    state.set_integer("seen", seen);
    state.set_integers("seen_by_class", seen_by_class);
    state.set_integers("examples", places.map(|n| n as u64).collect());
    state.set_reals("numbers", numbers.collect());
    state
}

/// Restored from [`state`].
///
/// # Errors
/// If it is not a state of a memory, or exceeds `capacity`.
pub(crate) fn restored(capacity: usize, mut state: State) -> Result<Memory> {
    let counters =
        BufferCounters { seen: state.integer("seen")?, seen_by_class: state.take_integers("seen_by_class")? };
    let (places, numbers) = (state.take_integers("examples")?, state.take_reals("numbers")?);
    let (places, rest) = places.as_chunks::<3>();
    if !rest.is_empty() || !numbers.len().is_multiple_of(places.len().max(1)) {
        return Err(Error::tensor("numbers", "the saved replay buffer has another number of them than of examples"));
    }
    let each = numbers.len() / places.len().max(1);
    let kept = places.iter().enumerate().map(|(i, [task, index, label])| {
        let example = Example { task: *task as usize, index: *index as usize };
        Stored { item: (example, numbers[i * each..(i + 1) * each].to_vec()), label: *label as usize }
    });
    Memory::restored(capacity, kept.collect(), &counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An f32 holds no odd number above 2^24: a counter kept as one was off from here on.
    #[test]
    fn counters_are_exact_beyond_16_million() {
        let (mut memory, mut rng) = (Memory::new(1).unwrap(), ChaCha8Rng::seed_from_u64(1));
        let count = (1 << 24) + 1;
        for index in 0..count {
            memory.offer((Example { task: 0, index }, Vec::new()), 0, BufferPolicy::Reservoir, &mut rng);
        }
        let state = State::from_bytes(&state(&memory).to_bytes().unwrap()).unwrap();
        let back = restored(1, state).unwrap();
        assert_eq!((back.seen(), back.counters()), (count, memory.counters()));
        assert_eq!(back.kept(), memory.kept());
    }
}
