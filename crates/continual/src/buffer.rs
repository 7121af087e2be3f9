//! A memory of examples: which are kept, and how they are drawn.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which examples stay when the memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferPolicy {
    /// Each seen so far with the same probability (Vitter, 1985): of `n` seen before, example `n`
    /// replaces slot `r`, drawn from `0..=n`, where there is such a slot.
    #[default]
    Reservoir,
    /// As balanced between classes as possible: a new example replaces one of the largest class; one of a largest class
    /// enters a reservoir of its class (Chrysakis & Moens, ICML 2020, alg. 1).
    ClassBalanced,
}

/// An example in a [`ReplayBuffer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// The example.
    pub item: T,
    /// Its class.
    pub label: usize,
}

/// A memory of at most `capacity` examples of any type.
#[derive(Clone, Debug)]
pub struct ReplayBuffer<T> {
    capacity: usize,
    seen: usize,
    seen_by_class: Vec<usize>,
    kept: Vec<Stored<T>>,
}

impl BufferPolicy {
    /// The names that [`BufferPolicy::parse`] reads.
    pub const NAMES: [&'static str; 2] = ["reservoir", "class-balanced"];

    /// The policy with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "reservoir" => Ok(Self::Reservoir),
            "class-balanced" => Ok(Self::ClassBalanced),
            _ => Err(Error::UnknownMethod {
                kind: "buffer policy".into(),
                name: name.into(),
                hint: String::new(),
                known: Self::NAMES.join(", "),
            }),
        }
    }
}

impl<T: Clone> ReplayBuffer<T> {
    /// An empty memory.
    ///
    /// # Errors
    /// If its capacity is zero.
    pub fn new(capacity: usize) -> Result<Self> {
        match capacity {
            0 => Err(Error::Argument("a replay buffer needs room for at least one example".into())),
            _ => Ok(Self { capacity, seen: 0, seen_by_class: Vec::new(), kept: Vec::new() }),
        }
    }

    /// How many examples fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The stored examples.
    pub fn kept(&self) -> &[Stored<T>] {
        &self.kept
    }

    /// How many examples were offered so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// The space for each of `classes` classes.
    ///
    /// # Errors
    /// If there is none; the message contains both numbers.
    pub fn quota(&self, classes: usize) -> Result<usize> {
        match self.capacity / classes.max(1) {
            0 => {
                let says = format!("a replay buffer of {} is smaller than the {classes} classes", self.capacity);
                Err(Error::Argument(says))
            }
            quota => Ok(quota),
        }
    }

    /// Offers an example; `policy` decides whether it is kept.
    pub fn offer(&mut self, item: T, label: usize, policy: BufferPolicy, rng: &mut ChaCha8Rng) {
        let slot = match policy {
            _ if self.kept.len() < self.capacity => Some(self.kept.len()),
            BufferPolicy::Reservoir => Some(rng.random_range(0..=self.seen)).filter(|r| *r < self.capacity),
            BufferPolicy::ClassBalanced => self.balanced_slot(label, rng),
        };
        self.seen += 1;
        self.seen_by_class.resize(self.seen_by_class.len().max(label + 1), 0);
        self.seen_by_class[label] += 1;
        match slot {
            Some(slot) if slot < self.kept.len() => self.kept[slot] = Stored { item, label },
            Some(_) => self.kept.push(Stored { item, label }),
            None => {}
        }
    }

    /// The slot of a full memory that an example of `label` replaces.
    fn balanced_slot(&self, label: usize, rng: &mut ChaCha8Rng) -> Option<usize> {
        let counts = self.kept_by_class();
        let count = |class: usize| counts.get(class).copied().unwrap_or(0);
        let most = counts.iter().copied().max()?;
        let pick = |class: usize, rng: &mut ChaCha8Rng| {
            let nth = rng.random_range(0..count(class));
            (0..self.kept.len()).filter(|i| self.kept[*i].label == class).nth(nth)
        };
        if count(label) == most {
            let seen = self.seen_by_class.get(label).copied().unwrap_or(0);
            let stays = rng.random_range(0..=seen) < most;
            return if stays { pick(label, rng) } else { None };
        }
        let largest = self.kept.iter().map(|k| k.label).find(|class| count(*class) == most)?;
        pick(largest, rng)
    }

    /// How many are kept of each class, up to the last class that has any.
    fn kept_by_class(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for kept in &self.kept {
            counts.resize(counts.len().max(kept.label + 1), 0);
            counts[kept.label] += 1;
        }
        counts
    }

    /// Keeps the first `each` of every class, in the order in which they came.
    pub fn shrink(&mut self, each: usize) {
        let mut counts: Vec<usize> = Vec::new();
        self.kept.retain(|k| {
            counts.resize(counts.len().max(k.label + 1), 0);
            counts[k.label] += 1;
            counts[k.label] <= each
        });
    }

    /// Replaces the stored examples of class `label` by `items`.
    pub fn replace(&mut self, label: usize, items: impl IntoIterator<Item = T>) {
        self.kept.retain(|k| k.label != label);
        self.kept.extend(items.into_iter().map(|item| Stored { item, label }));
    }

    /// `count` different ones at random, or all if there are fewer.
    pub fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<&Stored<T>> {
        let count = count.min(self.kept.len());
        index::sample(rng, self.kept.len(), count).into_iter().map(|i| &self.kept[i]).collect()
    }

    /// The counters of offered examples, for [`ReplayBuffer::restored`].
    pub fn counters(&self) -> BufferCounters {
        BufferCounters { seen: self.seen as u64, seen_by_class: self.seen_by_class.iter().map(|n| *n as u64).collect() }
    }

    /// A memory of `capacity` with the stored examples and the [`ReplayBuffer::counters`] of another.
    ///
    /// # Errors
    /// If they exceed the capacity.
    pub fn restored(capacity: usize, kept: Vec<Stored<T>>, counters: &BufferCounters) -> Result<Self> {
        if kept.len() > capacity {
            let (got, expected) = (vec![kept.len()], vec![capacity]);
            return Err(Error::ShapeMismatch { tensor: "the saved replay buffer".into(), expected, got });
        }
        let seen_by_class = counters.seen_by_class.iter().map(|n| *n as usize).collect();
        Ok(Self { kept, seen: counters.seen as usize, seen_by_class, ..Self::new(capacity)? })
    }
}

/// How many examples a [`ReplayBuffer`] was offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BufferCounters {
    /// In all.
    pub seen: u64,
    /// Of each class.
    pub seen_by_class: Vec<u64>,
}

/// Herding (Welling, 2009; iCaRL, arXiv 1611.07725, alg. 4): among the rows of `features`, each of `dim` numbers, the
/// `count` rows whose running mean stays nearest to the mean of all:
///
/// ```text
/// p_k = argmin over unused i of || m - (z_i + sum_{j<k} z_pj) / k ||
/// ```
///
/// Ties go to the lower index. Sums in f64.
///
/// # Errors
/// If the rows do not divide, or a feature is not finite.
pub fn herding(features: &[f32], dim: usize, count: usize) -> Result<Vec<usize>> {
    if dim == 0 || !features.len().is_multiple_of(dim) {
        return Err(Error::Argument(format!("{} features are no rows of {dim}", features.len())));
    }
    if features.iter().any(|z| !z.is_finite()) {
        return Err(Error::Argument("a feature is not finite: no exemplars can be chosen by it".into()));
    }
    let rows: Vec<&[f32]> = features.chunks(dim).collect();
    let mut mean = vec![0.0f64; dim];
    for row in &rows {
        mean.iter_mut().zip(*row).for_each(|(m, z)| *m += f64::from(*z) / rows.len() as f64);
    }
    let (mut sum, mut unused) = (vec![0.0f64; dim], (0..rows.len()).collect::<Vec<_>>());
    let mut chosen = Vec::new();
    while chosen.len() < count.min(rows.len()) {
        let k = (chosen.len() + 1) as f64;
        let cost =
            |i: usize| -> f64 { (0..dim).map(|d| (mean[d] - (f64::from(rows[i][d]) + sum[d]) / k).powi(2)).sum() };
        let best = (0..unused.len()).min_by(|a, b| cost(unused[*a]).total_cmp(&cost(unused[*b]))).unwrap_or(0);
        let best = unused.remove(best);
        sum.iter_mut().zip(rows[best]).for_each(|(s, z)| *s += f64::from(*z));
        chosen.push(best);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// Chi-square with 99 degrees of freedom: below 149 with probability 0.999.
    #[test]
    fn a_reservoir_keeps_everything_equally_often() {
        let (items, room, rounds) = (100, 10, 2000);
        let mut counts = vec![0usize; items];
        for round in 0..rounds {
            let (mut buffer, mut rng) = (ReplayBuffer::new(room).unwrap(), rng(round));
            (0..items).for_each(|i| buffer.offer(i, 0, BufferPolicy::Reservoir, &mut rng));
            buffer.kept().iter().for_each(|k| counts[k.item] += 1);
        }
        let expected = rounds as f64 * room as f64 / items as f64;
        let chi: f64 = counts.iter().map(|c| (*c as f64 - expected).powi(2) / expected).sum();
        assert!(chi < 149.0, "{chi}");
    }

    #[test]
    fn a_balanced_memory_has_as_many_of_each_class_as_can_be() {
        let (mut buffer, mut rng) = (ReplayBuffer::new(12).unwrap(), rng(1));
        for (label, count) in [(0, 500), (1, 3), (2, 100)] {
            (0..count).for_each(|i| buffer.offer(i, label, BufferPolicy::ClassBalanced, &mut rng));
        }
        let count = |label| buffer.kept().iter().filter(|k| k.label == label).count();
        assert_eq!(count(1), 3);
        assert_eq!(count(0) + count(2), 9);
        assert!(count(0).abs_diff(count(2)) <= 1, "{} {}", count(0), count(2));
    }

    #[test]
    fn draws_are_different_examples() {
        let (mut buffer, mut rng) = (ReplayBuffer::new(9).unwrap(), rng(3));
        (0..9).for_each(|i| buffer.offer(i, 0, BufferPolicy::Reservoir, &mut rng));
        let mut drawn: Vec<i32> = buffer.draw(6, &mut rng).iter().map(|k| k.item).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 6);
        assert_eq!(buffer.draw(99, &mut rng).len(), 9);
        let again = ReplayBuffer::restored(9, buffer.kept().to_vec(), &buffer.counters()).unwrap();
        assert_eq!((again.kept(), again.seen()), (buffer.kept(), 9));
        buffer.replace(0, [7, 8]);
        buffer.replace(1, [1, 2, 3]);
        buffer.shrink(2);
        assert_eq!(buffer.kept().iter().map(|k| k.item).collect::<Vec<_>>(), [7, 8, 1, 2]);
    }

    #[test]
    fn herding_by_hand() {
        // Mean 2: 2 itself first, then 1 and 3 alternate around it (lower index on a tie).
        assert_eq!(herding(&[0.0, 1.0, 2.0, 3.0, 4.0], 1, 3).unwrap(), [2, 1, 3]);
        assert_eq!(herding(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.6], 2, 1).unwrap(), [2]);
        assert_eq!(herding(&[1.0], 1, 9).unwrap(), [0]);
        assert!(herding(&[1.0, f32::NAN], 1, 1).is_err() && herding(&[1.0; 3], 2, 1).is_err());
    }

    #[test]
    fn too_small_a_memory_is_named() {
        assert!(ReplayBuffer::<u8>::new(0).is_err());
        let buffer = ReplayBuffer::<u8>::new(7).unwrap();
        assert_eq!((buffer.quota(3).unwrap(), buffer.quota(7).unwrap()), (2, 1));
        assert!(buffer.quota(8).unwrap_err().to_string().contains("7 is smaller than the 8 classes"));
    }
}
