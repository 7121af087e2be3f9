//! Several tasks of one data set, and models of one parent that learn them: what merging is measured on.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::{DataSet, Images};
use regrow_zoo::names::{map_values, visit_values};
use regrow_zoo::{Arch, Net};
use serde::{Deserialize, Serialize};

use crate::lab::{Fit, Lab};

/// Share of a task's training images that are held out to choose by.
const HELD: f64 = 0.1;

/// How one data set becomes several tasks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The eight ways to lay a square image down: four turns, each also mirrored; all classes in each.
    Turns,
    /// Two classes each, told apart among all.
    Pairs,
}

/// One task.
pub struct Task {
    /// As `turned by 90` or `classes 0, 1`.
    pub name: String,
    /// Images to learn from.
    pub train: Images,
    /// Images to choose by.
    pub held: Images,
    /// Images to count on.
    pub test: Images,
}

impl Split {
    /// The first `count` tasks of `sets`, which take turns; which images are held out depends on `seed`.
    ///
    /// # Errors
    /// More tasks than there are, fewer than two, images that are not square.
    pub fn tasks(self, sets: &[DataSet], count: usize, seed: u64) -> Result<Vec<Task>> {
        let of = |data: &DataSet| if self == Self::Turns { 8 } else { data.train.classes / 2 };
        let most = sets.iter().map(of).min().unwrap_or(0) * sets.len();
        let names = || sets.iter().map(|data| data.name.as_str()).collect::<Vec<_>>().join(" and ");
        if !(2..=most).contains(&count) {
            return Err(Error::Argument(format!("{count} tasks of {}: use 2 to {most}", names())));
        }
        if let Some(data) = sets.iter().find(|data| data.train.size[1] != data.train.size[2])
            && self == Self::Turns
        {
            return Err(Error::Argument(format!("images of {} are not square and cannot be turned", data.name)));
        }
        let one = |task: usize| {
            let (data, part) = (&sets[task % sets.len()], task / sets.len());
            let (train, held) = self.part(&data.train, part).split(HELD, mix(seed, task as u64));
            let name = if sets.len() > 1 { format!("{} {}", data.name, self.name(part)) } else { self.name(part) };
            Task { name, train, held, test: self.part(&data.test, part) }
        };
        Ok((0..count).map(one).collect())
    }

    fn name(self, task: usize) -> String {
        match self {
            Self::Turns if task < 4 => format!("turned by {}", 90 * task),
            Self::Turns => format!("mirrored, turned by {}", 90 * (task - 4)),
            Self::Pairs => format!("classes {}, {}", 2 * task, 2 * task + 1),
        }
    }

    fn part(self, images: &Images, task: usize) -> Images {
        match self {
            Self::Turns => turned(images, task),
            Self::Pairs => {
                let own = |i: &usize| usize::from(images.labels[*i]) / 2 == task;
                images.select(&(0..images.labels.len()).filter(own).collect::<Vec<_>>())
            }
        }
    }
}

/// The images turned `way % 4` times by 90 degrees, mirrored before that from 4 on.
pub(crate) fn turned(images: &Images, way: usize) -> Images {
    let side = images.size[2];
    let source = |row: usize, column: usize| {
        let (mut row, mut column) = (row, column);
        for _ in 0..way % 4 {
            (row, column) = (side - 1 - column, row);
        }
        if way >= 4 { (row, side - 1 - column) } else { (row, column) }
    };
    let mut turned = images.clone();
    for (from, to) in images.pixels.chunks(side * side).zip(turned.pixels.chunks_mut(side * side)) {
        for (place, pixel) in to.iter_mut().enumerate() {
            let (row, column) = source(place / side, place % side);
            *pixel = from[row * side + column];
        }
    }
    turned
}

/// A parent and what is needed to train its children.
pub struct Family<'a> {
    /// Where they are trained; its images are the parent's.
    pub lab: Lab<'a>,
    /// The parent.
    pub parent: Net,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The names of the tensors that differ from child to child, in order.
    pub names: Vec<String>,
    /// Their shapes.
    pub shapes: Vec<Vec<usize>>,
    /// Their values in the parent.
    pub base: Vec<Vec<f32>>,
}

impl<'a> Family<'a> {
    /// Trains the parent on the images of `lab`. Children differ from it in its weight matrices, with
    /// `biases` in everything.
    ///
    /// # Errors
    /// If training fails.
    pub fn new(lab: Lab<'a>, arch: Arch, tasks: Vec<Task>, epochs: usize, seed: u64, biases: bool) -> Result<Self> {
        let device: Device = lab.device.clone().autodiff();
        let fit = Fit { epochs, lr: LrSchedule::cosine(0.1), decay: 1e-4, seed };
        let parent = lab.fit(arch.init(lab.train.classes, seed, &device), KeepMasks, &fit)?;
        let (mut names, mut shapes, mut base) = (Vec::new(), Vec::new(), Vec::new());
        visit_values(&parent, &mut |name, shape, values| {
            if biases || shape.len() == 2 {
                names.push(name);
                shapes.push(shape);
                base.push(values);
            }
        });
        Ok(Self { lab, parent, tasks, names, shapes, base })
    }

    /// The parent, to be trained: its weight matrices alone unless biases differ too.
    pub fn trainable(&self) -> Net {
        let mut found = Matrices::default();
        self.parent.visit(&mut found);
        let all = self.shapes.iter().any(|shape| shape.len() != 2);
        let net = self.parent.clone();
        if all {
            return net;
        }
        net.set_require_grad(false).set_require_grad_group(ParamGroup::from_ids(found.0), true)
    }

    /// Trains `net` on a task.
    ///
    /// # Errors
    /// If training fails.
    pub fn learn(&self, net: Net, task: usize, epochs: usize, rate: f64, seed: u64) -> Result<Net> {
        let fit = Fit { epochs, lr: LrSchedule::cosine(rate), decay: 0.0, seed: mix(seed, task as u64) };
        let lab = Lab { train: &self.tasks[task].train, ..self.lab };
        lab.fit(net, KeepMasks, &fit)
    }

    /// What `net` differs by from the parent.
    pub fn differences(&self, net: &Net) -> Vec<Vec<f32>> {
        let mut values = Vec::new();
        visit_values(net, &mut |name, _, found| {
            if self.names.contains(&name) {
                values.push(found);
            }
        });
        values.iter_mut().zip(&self.base).for_each(|(v, b)| v.iter_mut().zip(b).for_each(|(v, b)| *v -= b));
        values
    }

    /// The parent plus differences.
    pub fn with(&self, differences: &[Vec<f32>]) -> Net {
        let sum = |place: usize| self.base[place].iter().zip(&differences[place]).map(|(b, d)| b + d).collect();
        map_values(self.parent.clone(), &mut |name, _| self.names.iter().position(|n| n == name).map(sum))
    }

    /// The mean over all tasks of the accuracy of one model for all, in percent.
    pub fn together(&self, differences: &[Vec<f32>], images: impl Fn(&Task) -> &Images) -> f64 {
        let net = self.with(differences);
        let sum: f64 = self.tasks.iter().map(|task| self.lab.accuracy(&net, images(task))).sum();
        sum / self.tasks.len() as f64
    }

    /// The mean accuracy of a model for each task on its own.
    pub fn apart(&self, differences: &[Vec<Vec<f32>>]) -> f64 {
        let one = |(task, d): (&Task, &Vec<Vec<f32>>)| self.lab.accuracy(&self.with(d), &task.test);
        self.tasks.iter().zip(differences).map(one).sum::<f64>() / self.tasks.len() as f64
    }
}

/// The matrices of a network.
#[derive(Default)]
struct Matrices(Vec<ParamId>);

impl ModuleVisitor for Matrices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 {
            self.0.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use regrow_zoo::data::{self, Normalization};

    use super::*;

    #[test]
    fn images_are_turned_and_mirrored_by_hand() {
        let pixels = vec![1, 2, 3, 4];
        let images = Images::new([1, 2, 2], 1, pixels, vec![0], Normalization::bytes(&[0.0], &[1.0])).unwrap();
        let all: Vec<Vec<u8>> = (0..8).map(|way| turned(&images, way).pixels).collect();
        assert_eq!(all[0], [1, 2, 3, 4]);
        assert_eq!(all[1], [3, 1, 4, 2]);
        assert_eq!(all[2], [4, 3, 2, 1]);
        assert_eq!(all[4], [2, 1, 4, 3]);
        let mut different = all.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 8);
    }

    #[test]
    fn tasks_share_no_class_or_all_of_them() {
        let digits = [data::open("digits", None).unwrap()];
        let pairs = Split::Pairs.tasks(&digits, 5, 0).unwrap();
        for (i, task) in pairs.iter().enumerate() {
            assert!(task.train.labels.iter().chain(&task.test.labels).all(|l| usize::from(*l) / 2 == i), "{i}");
        }
        let turns = Split::Turns.tasks(&digits, 8, 0).unwrap();
        assert!(turns.iter().all(|t| t.test.labels == digits[0].test.labels));
        assert_eq!(turns[0].train.labels.len() + turns[0].held.labels.len(), digits[0].train.labels.len());
        assert!(Split::Pairs.tasks(&digits, 6, 0).err().unwrap().to_string().contains("use 2 to 5"));
        assert!(Split::Turns.tasks(&digits, 1, 0).is_err());
    }
}
