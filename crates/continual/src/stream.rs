//! Tasks that come one after the other, and what is known of them: the scenario.

use std::f64::consts::PI;
use std::fmt;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Examples;
use serde::{Deserialize, Serialize};

/// What is known at test time (van de Ven & Tolias, arXiv 1904.07734).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The task is known: the answer is one of its classes. Every class has its logit.
    Task,
    /// Nothing is known: the answer is one of the classes seen so far. Every class has its logit.
    Class,
    /// Every task has the same labels, from other inputs: one set of logits for all tasks.
    Domain,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Task, Self::Class, Self::Domain];

    /// The scenario of that name: `task`, `class` or `domain`.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|s| s.to_string() == name);
        found.ok_or_else(|| Error::Argument(format!("unknown scenario `{name}`: use task, class or domain")))
    }

    /// The logits that a loss sees if nothing else is asked for.
    pub fn default_scope(self) -> LogitScope {
        match self {
            Self::Task => LogitScope::Task,
            Self::Class => LogitScope::Seen,
            Self::Domain => LogitScope::All,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Class => "class",
            Self::Domain => "domain",
        })
    }
}

/// Which logits the loss of an example sees; the others do not compete with its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogitScope {
    /// Those of the example's own task.
    Task,
    /// Those of all classes seen so far.
    Seen,
    /// All, also of classes to come.
    All,
}

impl fmt::Display for LogitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "the example's task",
            Self::Seen => "classes seen so far",
            Self::All => "all classes",
        })
    }
}

/// A training example: the task it belongs to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Example {
    /// The task, from 0.
    pub task: usize,
    /// The example, from 0.
    pub index: usize,
}

/// What a task does to its images.
#[derive(Clone, Debug)]
enum Transform {
    None,
    /// Output pixel `i` is input pixel `order[i]`.
    Permute(Vec<i64>),
    /// Output pixel `i` is the sum of four input pixels, weighted.
    Sample([(Vec<i64>, Vec<f32>); 4]),
}

impl Transform {
    fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        let dims = images.dims();
        let device = images.device();
        let picked = |pixels: &Tensor<2>, order: &Vec<i64>| {
            let order = Tensor::<1, Int>::from_data(TensorData::new(order.clone(), [order.len()]), &device);
            pixels.clone().select(1, order)
        };
        match self {
            Self::None => images,
            Self::Permute(order) => picked(&images.flatten::<2>(1, 3), order).reshape(dims),
            Self::Sample(corners) => {
                let pixels = images.flatten::<2>(1, 3);
                let one = |(order, weights): &(Vec<i64>, Vec<f32>)| {
                    let weights = TensorData::new(weights.clone(), [1, weights.len()]);
                    picked(&pixels, order) * Tensor::<2>::from_data(weights, &device)
                };
                let [a, b, c, d] = corners;
                (one(a) + one(b) + one(c) + one(d)).reshape(dims)
            }
        }
    }
}

/// One part of a task: which examples of a data set, and their labels within the task.
#[derive(Clone)]
struct Part<'a> {
    data: &'a dyn Examples,
    indices: Vec<usize>,
    labels: Vec<usize>,
}

impl<'a> Part<'a> {
    /// All of `data`, its labels as they are.
    fn whole(data: &'a dyn Examples) -> Self {
        let indices: Vec<usize> = (0..data.len()).collect();
        Self { labels: data.labels(&indices), indices, data }
    }

    /// What `data` has of `classes`, labelled by their place in that list.
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
    train: Part<'a>,
    test: Part<'a>,
    classes: usize,
    transform: Transform,
    /// Tasks of one source share data set and transform.
    source: usize,
}

/// Tasks in a row.
///
/// Classes are numbered in the order in which they come: in the task- and class-incremental scenario
/// task `t` has the classes [`TaskStream::classes_of`]`(t)`, in the domain-incremental one all tasks
/// have the same.
#[derive(Clone)]
pub struct TaskStream<'a> {
    scenario: Scenario,
    tasks: Vec<Task<'a>>,
    /// Where the classes of each task begin, and where the last end.
    starts: Vec<usize>,
}

/// A data set of a stream: training examples, test examples, and how many classes.
pub type DataSet<'a> = (&'a dyn Examples, &'a dyn Examples, usize);

impl<'a> TaskStream<'a> {
    /// A task for each of `groups`, with the data set's classes named there.
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
            train: Part::of(train, classes),
            test: Part::of(test, classes),
            classes: classes.len(),
            transform: Transform::None,
            source: 0,
        };
        Self::new(scenario, groups.iter().map(task).collect())
    }

    /// `tasks` tasks of as many classes each, in the data set's order or, with `order`, in one drawn
    /// from that seed.
    ///
    /// # Errors
    /// As [`TaskStream::split`]; also if the classes do not divide into so many tasks.
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

    /// The whole data set `tasks` times, its pixels in an order of each task's own, drawn from `seed`;
    /// with `first_as_is` the first task's stay.
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

    /// The whole data set once for each angle, turned counter-clockwise by so many degrees (bilinear;
    /// what would come from outside is the nearest pixel of the edge).
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
            train: Part::whole(*train),
            test: Part::whole(*test),
            classes: *classes,
            transform: Transform::None,
            source,
        };
        Self::new(scenario, sets.iter().enumerate().map(task).collect())
    }

    fn transformed(scenario: Scenario, (train, test, classes): DataSet<'a>, all: Vec<Transform>) -> Result<Self> {
        let task = |(source, transform)| Task {
            train: Part::whole(train),
            test: Part::whole(test),
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

    /// Training images `[examples, channels, height, width]`, as their tasks show them.
    pub fn images(&self, examples: &[Example], device: &Device) -> Tensor<4> {
        self.gathered(examples, device, |data, indices| data.images(indices, device))
    }

    /// The same, augmented where the data set is.
    pub fn augmented(&self, examples: &[Example], seed: u64, device: &Device) -> Tensor<4> {
        self.gathered(examples, device, |data, indices| data.augmented(indices, seed, device))
    }

    /// Images source by source, then in the order asked for.
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

    /// The logits among which an answer to a test example of `task` is sought after training task
    /// `after`; for a task yet to come in the class-incremental scenario, up to its own classes.
    pub fn candidates(&self, task: usize, after: usize) -> Range<usize> {
        match self.scenario {
            Scenario::Task => self.classes_of(task),
            Scenario::Class => self.seen(task.max(after)),
            Scenario::Domain => 0..self.classes(),
        }
    }

    /// The logits that the loss of an example of task `own` sees while task `now` is trained.
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

/// For each output pixel four input pixels and their weights.
fn rotation(degrees: f64, [c, h, w]: [usize; 3]) -> [(Vec<i64>, Vec<f32>); 4] {
    let (sin, cos) = (degrees * PI / 180.0).sin_cos();
    let (middle_y, middle_x) = ((h as f64 - 1.0) / 2.0, (w as f64 - 1.0) / 2.0);
    let mut corners: [(Vec<i64>, Vec<f32>); 4] = Default::default();
    for i in 0..c * h * w {
        let (plane, y, x) = (i / (h * w), (i / w % h) as f64 - middle_y, (i % w) as f64 - middle_x);
        // Rows grow downward: where the pixel comes from, turned back.
        let (from_y, from_x) = (middle_y + cos * y + sin * x, middle_x - sin * y + cos * x);
        // Multiples of a quarter turn hit pixels exactly.
        let snapped = |v: f64| if (v - v.round()).abs() < 1e-9 { v.round() } else { v };
        let (from_y, from_x) = (snapped(from_y), snapped(from_x));
        let (part_y, part_x) = (from_y - from_y.floor(), from_x - from_x.floor());
        for (k, corner) in corners.iter_mut().enumerate() {
            let (down, right) = (k / 2, k % 2);
            let at = |v: f64, more: usize, len: usize| (v.floor() + more as f64).clamp(0.0, len as f64 - 1.0) as usize;
            let share = |part: f64, more: usize| if more == 1 { part } else { 1.0 - part };
            corner.0.push((plane * h * w + at(from_y, down, h) * w + at(from_x, right, w)) as i64);
            corner.1.push((share(part_y, down) * share(part_x, right)) as f32);
        }
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Toy;

    fn values(images: Tensor<4>) -> Vec<f32> {
        images.into_data().iter::<f32>().collect()
    }

    #[test]
    fn classes_are_numbered_as_they_come_and_every_example_has_its_task() {
        let data = Toy::new(60, 6);
        let set: DataSet<'_> = (&data, &data, 6);
        for (scenario, classes, third) in
            [(Scenario::Task, 6, 4..6), (Scenario::Class, 6, 4..6), (Scenario::Domain, 2, 0..2)]
        {
            let stream = TaskStream::split_evenly(scenario, set, 3, Some(5)).unwrap();
            assert_eq!((stream.tasks(), stream.classes(), stream.classes_of(2)), (3, classes, third));
            let all: Vec<Example> = (0..3).flat_map(|t| stream.train(t)).collect();
            assert_eq!(all.len(), 60);
            assert!(all.iter().zip(stream.labels(&all)).all(|(e, l)| stream.classes_of(e.task).contains(&l)));
        }
        let order = |seed| {
            let stream = TaskStream::split_evenly(Scenario::Class, set, 3, seed).unwrap();
            values(stream.images(&stream.train(0), &regrow_device::current()))
        };
        assert_eq!(order(Some(5)), order(Some(5)));
        assert!((0..5).any(|seed| order(Some(seed)) != order(None)));
    }

    #[test]
    fn scopes_and_candidates_by_hand() {
        let data = Toy::new(60, 6);
        let class = TaskStream::split_evenly(Scenario::Class, (&data, &data, 6), 3, None).unwrap();
        assert_eq!((class.candidates(0, 1), class.candidates(2, 1)), (0..4, 0..6));
        assert_eq!(class.in_scope(LogitScope::Task, 0, 1), 0..2);
        assert_eq!(class.in_scope(LogitScope::Seen, 0, 1), 0..4);
        assert_eq!(class.in_scope(LogitScope::All, 0, 1), 0..6);
        let task = TaskStream::split_evenly(Scenario::Task, (&data, &data, 6), 3, None).unwrap();
        assert_eq!(task.candidates(1, 2), 2..4);
        let domain = TaskStream::split_evenly(Scenario::Domain, (&data, &data, 6), 3, None).unwrap();
        assert_eq!((domain.candidates(1, 2), domain.in_scope(LogitScope::Seen, 0, 2)), (0..2, 0..2));
    }

    #[test]
    fn transforms_keep_or_move_pixels_by_rule() {
        let data = Toy::new(6, 2);
        let set: DataSet<'_> = (&data, &data, 2);
        let device = regrow_device::current();
        let plain = data.images(&[0], &device);
        let stream = TaskStream::permuted(Scenario::Domain, set, 3, 1, true).unwrap();
        let show = |task| values(stream.images(&[Example { task, index: 0 }], &device));
        assert_eq!(show(0), values(plain.clone()));
        let mut sorted = [show(1), values(plain.clone())];
        assert_ne!(sorted[0], sorted[1]);
        sorted.iter_mut().for_each(|v| v.sort_by(f32::total_cmp));
        assert_eq!(sorted[0], sorted[1]);
        assert_ne!(show(1), show(2));
        // A quarter turn: the last column, top to bottom, becomes the first row.
        let turned = TaskStream::rotated(Scenario::Domain, set, &[0.0, 90.0]).unwrap();
        let show = |task| values(turned.images(&[Example { task, index: 0 }], &device));
        let before = values(plain);
        assert_eq!(show(0), before);
        let side = before.len().isqrt();
        let want: Vec<f32> = (0..side * side).map(|i| before[(i % side) * side + side - 1 - i / side]).collect();
        assert_eq!(show(1), want);
    }

    #[test]
    fn images_of_several_tasks_keep_their_order() {
        let data = Toy::new(12, 2);
        let stream = TaskStream::permuted(Scenario::Domain, (&data, &data, 2), 2, 1, false).unwrap();
        let device = regrow_device::current();
        let mixed: Vec<Example> = [(1, 3), (0, 3), (1, 0), (0, 7)].map(|(task, index)| Example { task, index }).into();
        let one_by_one: Vec<f32> = mixed.iter().flat_map(|e| values(stream.images(&[*e], &device))).collect();
        assert_eq!(values(stream.images(&mixed, &device)), one_by_one);
    }

    #[test]
    fn what_makes_no_stream_is_named() {
        let data = Toy::new(60, 6);
        let set: DataSet<'_> = (&data, &data, 6);
        let says = |stream: Result<TaskStream<'_>>| stream.err().expect("an error").to_string();
        let groups = [vec![0, 1], vec![1, 2]];
        assert!(says(TaskStream::split(Scenario::Class, set, &groups)).contains("class 1 is in two tasks"));
        assert!(TaskStream::split(Scenario::Domain, set, &groups).is_ok());
        assert!(says(TaskStream::split(Scenario::Task, set, &[vec![0], vec![9]])).contains("task 1 has no training"));
        assert!(says(TaskStream::split_evenly(Scenario::Task, set, 4, None)).contains("do not divide into 4 tasks"));
        assert!(says(TaskStream::split(Scenario::Task, set, &[])).contains("at least one task"));
        assert!(says(TaskStream::split(Scenario::Domain, set, &[vec![0], vec![1, 2]])).contains("same labels"));
        assert!(says(TaskStream::rotated(Scenario::Task, set, &[f64::NAN])).contains("no angle"));
        let empty = Toy::new(0, 6);
        assert!(says(TaskStream::permuted(Scenario::Domain, (&empty, &empty, 6), 2, 0, true)).contains("no examples"));
        let other = Toy::new(6, 2).with_side(5);
        assert!(says(TaskStream::sets(Scenario::Task, &[set, (&other, &other, 2)])).contains("one size"));
        assert!(says(Scenario::parse("life").map(|_| unreachable!())).contains("use task, class or domain"));
    }
}
