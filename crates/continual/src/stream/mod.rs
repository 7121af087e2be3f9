//! Streams of tasks.

mod scenario;
#[cfg(test)]
mod tests;
mod transform;

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Examples;

pub use scenario::{LogitScope, Scenario};
use transform::{Transform, rotation};

/// A training example: the task it belongs to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Example {
    /// The task, from 0.
    pub task: usize,
    /// The example, from 0.
    pub index: usize,
}

/// The training or the test examples of a task: which examples of a data set, and their labels within the task.
#[derive(Clone)]
struct Split<'a> {
    data: &'a dyn Examples,
    indices: Vec<usize>,
    labels: Vec<usize>,
}

impl<'a> Split<'a> {
    /// All of `data`, with its own labels.
    fn whole(data: &'a dyn Examples) -> Self {
        let indices: Vec<usize> = (0..data.len()).collect();
        Self { labels: data.labels(&indices), indices, data }
    }

    /// The examples of `classes` in `data`, labelled by their index in that list.
    fn of(data: &'a dyn Examples, classes: &[usize]) -> Self {
        let all: Vec<usize> = (0..data.len()).collect();
        let found = data.labels(&all).into_iter().enumerate();
        let (indices, labels) =
            found.filter_map(|(i, label)| Some((i, classes.iter().position(|c| *c == label)?))).unzip();
        Self { data, indices, labels }
    }
}

/// A task.
#[derive(Clone)]
struct Task<'a> {
    train: Split<'a>,
    test: Split<'a>,
    classes: usize,
    transform: Transform,
    /// Tasks from one source share data set and transform.
    source: usize,
}

/// A sequence of tasks.
///
/// Classes are numbered in the order in which they come: in the task- and class-incremental scenario
/// task `t` has the classes [`TaskStream::classes_of`]`(t)`, in the domain-incremental one all tasks
/// have the same.
#[derive(Clone)]
pub struct TaskStream<'a> {
    scenario: Scenario,
    tasks: Vec<Task<'a>>,
    /// Where the classes of each task start, and where the last end.
    starts: Vec<usize>,
}

/// A data set of a stream: training examples, test examples, and how many classes.
pub type DataSet<'a> = (&'a dyn Examples, &'a dyn Examples, usize);

impl<'a> TaskStream<'a> {
    /// A task for each of `groups`, with the classes listed there.
    ///
    /// # Errors
    /// No group, a task without training or test examples, a class in two tasks of a scenario in which
    /// every class has its own logit, groups of different sizes in the domain-incremental scenario.
    pub fn split(scenario: Scenario, (train, test, _): DataSet<'a>, groups: &[Vec<usize>]) -> Result<Self> {
        if scenario != Scenario::Domain {
            let all: Vec<usize> = groups.concat();
            if let Some(twice) = all.iter().enumerate().find(|(i, class)| all[..*i].contains(class)) {
                let says = format!("class {} is in two tasks, which only the domain scenario allows", twice.1);
                return Err(Error::Argument(says));
            }
        }
        let task = |classes: &Vec<usize>| Task {
            train: Split::of(train, classes),
            test: Split::of(test, classes),
            classes: classes.len(),
            transform: Transform::None,
            source: 0,
        };
        Self::new(scenario, groups.iter().map(task).collect())
    }

    /// `tasks` tasks with the same number of classes each, in the data set's order or, with `order`, in one drawn from
    /// that seed.
    ///
    /// # Errors
    /// As [`TaskStream::split`]; also if the classes cannot be divided evenly.
    pub fn split_evenly(scenario: Scenario, data: DataSet<'a>, tasks: usize, order: Option<u64>) -> Result<Self> {
        let classes = data.2;
        if tasks == 0 || !classes.is_multiple_of(tasks) {
            return Err(Error::Argument(format!("{classes} classes do not divide into {tasks} tasks")));
        }
        let mut all: Vec<usize> = (0..classes).collect();
        if let Some(seed) = order {
            all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let groups: Vec<Vec<usize>> = all.chunks(classes / tasks).map(<[usize]>::to_vec).collect();
        Self::split(scenario, data, &groups)
    }

    /// The whole data set `tasks` times, each with its own pixel permutation drawn from `seed`; with `first_as_is` the
    /// first task is not permuted.
    ///
    /// # Errors
    /// No task, no examples.
    pub fn permuted(scenario: Scenario, data: DataSet<'a>, tasks: usize, seed: u64, first_as_is: bool) -> Result<Self> {
        let [_, c, h, w] = size(data.0)?;
        let permutation = |task: usize| {
            let mut order: Vec<i64> = (0..(c * h * w) as i64).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed, task as u64)));
            if task == 0 && first_as_is { Transform::None } else { Transform::Permute(order) }
        };
        Self::transformed(scenario, data, (0..tasks).map(permutation).collect())
    }

    /// The whole data set once for each angle, rotated counter-clockwise by this many degrees (bilinear; pixels from
    /// outside are replaced by the nearest edge pixel).
    ///
    /// # Errors
    /// No angle, one that is not finite, no examples.
    pub fn rotated(scenario: Scenario, data: DataSet<'a>, degrees: &[f64]) -> Result<Self> {
        if let Some(bad) = degrees.iter().find(|d| !d.is_finite()) {
            return Err(Error::Argument(format!("{bad} is no angle")));
        }
        let [_, c, h, w] = size(data.0)?;
        let turn = |angle: &f64| Transform::Sample(rotation(*angle, [c, h, w]));
        Self::transformed(scenario, data, degrees.iter().map(turn).collect())
    }

    /// One task for each data set, in their order.
    ///
    /// # Errors
    /// No data set, images of different sizes, in the domain-incremental scenario different numbers of
    /// classes.
    pub fn sets(scenario: Scenario, sets: &[DataSet<'a>]) -> Result<Self> {
        let sizes = sets.iter().map(|(train, _, _)| size(*train)).collect::<Result<Vec<_>>>()?;
        if let Some(other) = sizes.iter().find(|s| **s != sizes[0]) {
            let says = format!("data sets of one stream need images of one size: {:?} and {other:?}", sizes[0]);
            return Err(Error::Argument(says));
        }
        let task = |(source, (train, test, classes)): (usize, &DataSet<'a>)| Task {
            train: Split::whole(*train),
            test: Split::whole(*test),
            classes: *classes,
            transform: Transform::None,
            source,
        };
        Self::new(scenario, sets.iter().enumerate().map(task).collect())
    }

    fn transformed(scenario: Scenario, (train, test, classes): DataSet<'a>, all: Vec<Transform>) -> Result<Self> {
        let task = |(source, transform)| Task {
            train: Split::whole(train),
            test: Split::whole(test),
            classes,
            transform,
            source,
        };
        Self::new(scenario, all.into_iter().enumerate().map(task).collect())
    }

    fn new(scenario: Scenario, tasks: Vec<Task<'a>>) -> Result<Self> {
        let bad = |says: String| Err(Error::Argument(says));
        if tasks.is_empty() {
            return bad("a stream needs at least one task".into());
        }
        for (t, task) in tasks.iter().enumerate() {
            for (part, name) in [(&task.train, "training"), (&task.test, "test")] {
                if part.indices.is_empty() {
                    return bad(format!("task {t} has no {name} examples"));
                }
                if let Some(label) = part.labels.iter().find(|l| **l >= task.classes) {
                    return bad(format!(
                        "task {t} has a {name} example of class {label}, but {} classes",
                        task.classes
                    ));
                }
            }
            if scenario == Scenario::Domain && task.classes != tasks[0].classes {
                let (have, want) = (task.classes, tasks[0].classes);
                return bad(format!(
                    "in the domain scenario all tasks have the same labels: task {t} has {have} classes, task 0 has {want}"
                ));
            }
        }
        let mut starts = vec![0];
        for task in &tasks {
            let start = starts[starts.len() - 1];
            starts.push(if scenario == Scenario::Domain { task.classes } else { start + task.classes });
        }
        Ok(Self { scenario, tasks, starts })
    }

    /// The scenario.
    pub fn scenario(&self) -> Scenario {
        self.scenario
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// How many logits a network needs.
    pub fn classes(&self) -> usize {
        self.starts[self.tasks.len()]
    }

    /// The logits of the classes of `task`.
    pub fn classes_of(&self, task: usize) -> Range<usize> {
        match self.scenario {
            Scenario::Domain => 0..self.classes(),
            _ => self.starts[task]..self.starts[task + 1],
        }
    }

    /// The logits of all classes up to and including those of `task`.
    pub fn seen(&self, task: usize) -> Range<usize> {
        0..self.starts[task + 1]
    }

    /// The training examples of `task`.
    pub fn train(&self, task: usize) -> Vec<Example> {
        (0..self.tasks[task].train.indices.len()).map(|index| Example { task, index }).collect()
    }

    /// How many test examples `task` has.
    pub fn test_len(&self, task: usize) -> usize {
        self.tasks[task].test.indices.len()
    }

    /// The class of each training example, as a logit.
    pub fn labels(&self, examples: &[Example]) -> Vec<usize> {
        examples.iter().map(|e| self.classes_of(e.task).start + self.tasks[e.task].train.labels[e.index]).collect()
    }

    /// Training images `[examples, channels, height, width]`, transformed by their tasks.
    pub fn images(&self, examples: &[Example], device: &Device) -> Tensor<4> {
        self.gathered(examples, device, |data, indices| data.images(indices, device))
    }

    /// The same, augmented if the data set is.
    pub fn augmented(&self, examples: &[Example], seed: u64, device: &Device) -> Tensor<4> {
        self.gathered(examples, device, |data, indices| data.augmented(indices, seed, device))
    }

    /// Images source by source, then in the requested order.
    fn gathered(
        &self,
        examples: &[Example],
        device: &Device,
        read: impl Fn(&dyn Examples, &[usize]) -> Tensor<4>,
    ) -> Tensor<4> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|i| self.tasks[examples[*i].task].source);
        let mut parts = Vec::new();
        for group in order.chunk_by(|a, b| self.source(&examples[*a]) == self.source(&examples[*b])) {
            let task = &self.tasks[examples[group[0]].task];
            let index = |i: &usize| self.tasks[examples[*i].task].train.indices[examples[*i].index];
            let indices: Vec<usize> = group.iter().map(index).collect();
            parts.push(task.transform.apply(read(task.train.data, &indices)));
        }
        let one = parts.len() == 1;
        let images = Tensor::cat(parts, 0);
        if one {
            return images;
        }
        let mut place = vec![0i64; order.len()];
        order.iter().enumerate().for_each(|(at, i)| place[*i] = at as i64);
        images.select(0, Tensor::from_data(TensorData::new(place, [order.len()]), device))
    }

    fn source(&self, example: &Example) -> usize {
        self.tasks[example.task].source
    }

    /// Test images `range` of `task` and their classes, as logits.
    pub fn test(&self, task: usize, range: Range<usize>, device: &Device) -> (Tensor<4>, Vec<usize>) {
        let of = &self.tasks[task];
        let images = of.test.data.images(&of.test.indices[range.clone()], device);
        let start = self.classes_of(task).start;
        (of.transform.apply(images), of.test.labels[range].iter().map(|l| start + l).collect())
    }

    /// The candidate logits for an answer to a test example of `task` after training task `after`; for a future task in
    /// the class-incremental scenario, up to its own classes.
    pub fn candidates(&self, task: usize, after: usize) -> Range<usize> {
        match self.scenario {
            Scenario::Task => self.classes_of(task),
            Scenario::Class => self.seen(task.max(after)),
            Scenario::Domain => 0..self.classes(),
        }
    }

    /// The logits that the loss of an example of task `own` uses while task `now` is trained.
    pub fn in_scope(&self, scope: LogitScope, own: usize, now: usize) -> Range<usize> {
        match scope {
            LogitScope::Task => self.classes_of(own),
            LogitScope::Seen => self.seen(now),
            LogitScope::All => 0..self.classes(),
        }
    }
}

/// The shape of one image.
fn size(data: &dyn Examples) -> Result<[usize; 4]> {
    match data.is_empty() {
        true => Err(Error::Argument("a data set of the stream has no examples".into())),
        false => Ok(data.images(&[0], &regrow_device::current()).dims()),
    }
}
