//! Several tasks of one data set, and models fine-tuned on them from one parent: used to measure merging.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::{Device, Tensor};
use regrow_merging::{Operand, Operands, TensorMerge};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::{DataSet, Images};
use regrow_zoo::names::{map_values, visit_values};
use regrow_zoo::{Arch, Net};
use serde::{Deserialize, Serialize};

use crate::harness::images::turned;
use crate::harness::trainer::{Fit, Trainer};

/// Share of a task's training images that are held out for choosing settings.
const HELD: f64 = 0.1;

/// How one data set is split into several tasks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    #[default]
    /// The eight orientations of a square image: four rotations, each also mirrored; all classes in each.
    Turns,
    /// Two classes each, classified among all.
    Pairs,
}

/// One task.
pub struct Task {
    /// Such as `turned by 90` or `classes 0, 1`.
    pub name: String,
    /// Training images.
    pub train: Images,
    /// Held-out images for choosing settings.
    pub held: Images,
    /// Test images.
    pub test: Images,
}

impl Split {
    /// The first `count` tasks of `sets`, alternating; which images are held out depends on `seed`.
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

/// A parent and what is needed to fine-tune it.
pub struct Family<'a> {
    /// Where they are trained; its images are the parent's.
    pub trainer: Trainer<'a>,
    /// The parent.
    pub parent: Net,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The names of the tensors that differ between the models, in order.
    pub names: Vec<String>,
    /// Their shapes.
    pub shapes: Vec<Vec<usize>>,
    /// Their values in the parent.
    pub base: Vec<Vec<f32>>,
}

impl<'a> Family<'a> {
    /// Trains the parent on the images of `trainer`. Fine-tuned models differ from it in its weight matrices, with
    /// `biases` in all parameters.
    ///
    /// # Errors
    /// If training fails.
    pub fn new(
        trainer: Trainer<'a>,
        arch: Arch,
        tasks: Vec<Task>,
        epochs: usize,
        seed: u64,
        biases: bool,
    ) -> Result<Self> {
        let device: Device = trainer.device.clone().autodiff();
        let fit = Fit { epochs, lr: LrSchedule::cosine(0.1), decay: 1e-4, seed };
        let parent = trainer.fit(arch.init(trainer.train.classes, seed, &device), KeepMasks, &fit)?;
        let (mut names, mut shapes, mut base) = (Vec::new(), Vec::new(), Vec::new());
        visit_values(&parent, &mut |name, shape, values| {
            if biases || shape.len() == 2 {
                names.push(name);
                shapes.push(shape);
                base.push(values);
            }
        });
        Ok(Self { trainer, parent, tasks, names, shapes, base })
    }

    /// The parent, prepared for training: only its weight matrices unless biases differ too.
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
        let trainer = Trainer { train: &self.tasks[task].train, ..self.trainer };
        trainer.fit(net, KeepMasks, &fit)
    }

    /// The difference of `net` to the parent.
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

    /// The mean accuracy of one model on some of the tasks, in percent.
    pub fn accuracy_on(&self, tasks: &[usize], differences: &[Vec<f32>], images: impl Fn(&Task) -> &Images) -> f64 {
        let net = self.with(differences);
        let of = |task: &usize| self.trainer.accuracy(&net, images(&self.tasks[*task]));
        tasks.iter().map(of).sum::<f64>() / tasks.len() as f64
    }

    /// The differences of some models merged by `method`, as a difference to the parent.
    ///
    /// # Errors
    /// Errors of the method.
    pub fn merged(&self, models: &[&Vec<Vec<f32>>], method: &dyn TensorMerge) -> Result<Vec<Vec<f32>>> {
        let names: Vec<String> = (0..models.len()).map(|model| format!("model {model}")).collect();
        let one = |l: usize| {
            let of = models.iter().zip(&names).map(|(model, name)| Operand::new(name, &model[l]));
            let (operands, base) = (of.collect::<Vec<_>>(), vec![0.0; self.base[l].len()]);
            method.merge(&Operands::new(&self.names[l], &self.shapes[l], Some(&base), &operands)?)
        };
        (0..self.shapes.len()).map(one).collect()
    }

    /// The result of `merged` with the factor that is best on held-out images of these tasks.
    ///
    /// # Errors
    /// Errors of `merged`.
    pub fn best_factor(
        &self,
        tasks: &[usize],
        factors: &[f64],
        merged: impl Fn(f64) -> Result<Vec<Vec<f32>>>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut best = (f64::NEG_INFINITY, Vec::new());
        for factor in factors {
            let merged = merged(*factor)?;
            let net = self.with(&merged);
            let held: f64 = tasks.iter().map(|task| self.trainer.accuracy(&net, &self.tasks[*task].held)).sum();
            if held > best.0 {
                best = (held, merged);
            }
        }
        Ok(best.1)
    }

    /// The mean over all tasks of the accuracy of one model for all, in percent.
    pub fn together(&self, differences: &[Vec<f32>], images: impl Fn(&Task) -> &Images) -> f64 {
        let net = self.with(differences);
        let sum: f64 = self.tasks.iter().map(|task| self.trainer.accuracy(&net, images(task))).sum();
        sum / self.tasks.len() as f64
    }

    /// The mean accuracy of a model for each task on its own.
    pub fn apart(&self, differences: &[Vec<Vec<f32>>]) -> f64 {
        let one = |(task, d): (&Task, &Vec<Vec<f32>>)| self.trainer.accuracy(&self.with(d), &task.test);
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
    use regrow_zoo::data;

    use super::*;

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
