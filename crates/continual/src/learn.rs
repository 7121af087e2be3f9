//! A stream of tasks, learned one after the other with a strategy, tested after each.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, Optimizer};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use regrow_checkpoint::atomic;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use regrow_train::lr::LrSchedule;
use regrow_train::{Checkpointing, Course, Moment, Training, read_vectors, take, write_vectors};
use serde::{Deserialize, Serialize};

use crate::metrics::AccuracyMatrix;
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::{Example, LogitScope, TaskStream};

/// How every task is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Passes over each task's examples.
    pub epochs: usize,
    /// Examples of the task per step.
    pub batch: usize,
    /// The learning rate within each task.
    pub lr: LrSchedule,
    /// The source of all randomness.
    pub seed: u64,
    /// Which logits losses see.
    pub scope: LogitScope,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Learned<M> {
    /// The network after the last task, in validation mode.
    pub model: M,
    /// Accuracies after each task.
    pub matrix: AccuracyMatrix,
    /// Accuracies before the first.
    pub before: Vec<f64>,
    /// Share of all test answers, after the last task, that name a class of the last task.
    pub newest: f64,
    /// Seconds of training, tests apart, in this process.
    pub seconds: f64,
    /// Training steps in this process.
    pub steps: usize,
}

/// What is told of a stream under way.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The task at hand.
    pub task: usize,
    /// Steps done in it.
    pub step: usize,
    /// Steps of it in all.
    pub total: usize,
}

/// Learns the tasks of `stream` one after the other; each has a fresh optimizer.
///
/// With `save`, the run goes on from the newest state in its folder, if there is one: it loses at most
/// `every` steps, and ends with the matrix of a run that was never stopped.
///
/// # Errors
/// A strategy that does not fit the scenario, a network without a logit for each class, a loss or weight
/// that is not finite, a state that cannot be written or belongs to another run; what the strategy runs
/// into.
pub fn learn<M: Headed, O: Optimizer>(
    model: M,
    optimizer: &O,
    strategy: &mut dyn Strategy<M>,
    stream: &TaskStream<'_>,
    protocol: &Protocol,
    save: Option<&Checkpointing>,
    watch: &mut dyn FnMut(Told),
) -> Result<Learned<M>> {
    if !strategy.fits(stream.scenario()) {
        return Err(Error::Argument(format!("the strategy does not fit the {} scenario", stream.scenario())));
    }
    let (device, plain) = devices(&model);
    check_head(&model, stream)?;
    let run = Run { stream, protocol, device: &device, plain: &plain };
    let (before, newest) = run.row(&model.valid(), strategy, 0)?;
    let mut at = Learned { model, matrix: AccuracyMatrix::default(), before, newest, seconds: 0.0, steps: 0 };
    if let Some(saved) = save.map(|s| Boundary::newest(&s.dir, protocol)).transpose()?.flatten() {
        (at.model, at.matrix, at.before) = saved.load(at.model, strategy, &run)?;
        at.newest = run.row(&at.model, strategy, at.matrix.tasks().saturating_sub(1))?.1;
    }
    for task in at.matrix.tasks()..stream.tasks() {
        let started = Instant::now();
        let steps_of = save.map(|s| Checkpointing { dir: s.dir.join(STEPS), every: s.every });
        let mut told = |step, total| watch(Told { task, step, total });
        (at.model, at.steps) = {
            let (model, steps) = run.task(at.model, optimizer, strategy, task, steps_of.as_ref(), &mut told)?;
            (model, at.steps + steps)
        };
        at.seconds += started.elapsed().as_secs_f64();
        let (row, newest) = run.row(&at.model, strategy, task)?;
        at.newest = newest;
        at.matrix.push(row)?;
        if let Some(save) = save {
            Boundary::write(&save.dir, protocol, &at, strategy)?;
        }
    }
    save.map(|s| remove(&s.dir)).transpose()?;
    Ok(at)
}

/// Where a model is trained and where it is tested.
fn devices<M: Module>(model: &M) -> (Device, Device) {
    let device = model.devices().into_iter().next().unwrap_or_default();
    (device.clone().autodiff(), device.inner())
}

fn check_head<M: Headed>(model: &M, stream: &TaskStream<'_>) -> Result<()> {
    let [_, have] = model.head().weight.lazy_shape().dims::<2>();
    match have == stream.classes() {
        true => Ok(()),
        false => {
            let want = stream.classes();
            Err(Error::Argument(format!("the network has {have} logits, the stream has {want} classes")))
        }
    }
}

/// What stays the same over a stream.
struct Run<'a> {
    stream: &'a TaskStream<'a>,
    protocol: &'a Protocol,
    device: &'a Device,
    plain: &'a Device,
}

/// Images per batch of a test.
const TEST_BATCH: usize = 512;

impl Run<'_> {
    fn stage(&self, task: usize, step: usize, total: usize) -> Stage<'_> {
        let moment = Moment { seed: mix(self.seed(task), u64::MAX - step as u64), step, total };
        let Protocol { batch, scope, .. } = *self.protocol;
        Stage { stream: self.stream, task, scope, batch, moment, device: self.device }
    }

    fn seed(&self, task: usize) -> u64 {
        mix(self.protocol.seed, task as u64)
    }

    /// Trains one task; the model in validation mode, and how many steps were done.
    fn task<M: Headed, O: Optimizer>(
        &self,
        model: M,
        optimizer: &O,
        strategy: &mut dyn Strategy<M>,
        task: usize,
        save: Option<&Checkpointing>,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<(M, usize)> {
        let Protocol { epochs, batch, lr, .. } = self.protocol;
        let settings = Training { epochs: *epochs, batch: *batch, lr: lr.clone(), seed: self.seed(task) };
        let examples = strategy.examples(&self.stage(task, 0, 0));
        let total = settings.steps_per_epoch(examples.len()) * epochs;
        let stage = self.stage(task, 0, total);
        let start = model.train();
        let model = strategy.begin(start.clone(), &stage)?;
        let pruner = strategy.pruner(&stage)?;
        let mut done = 0;
        let mut count = |p: regrow_train::Progress<'_>| {
            done += 1;
            watch(p.step, p.total);
        };
        let mut course = Lesson { strategy: &mut *strategy, examples, stage, start };
        let model = take(model, optimizer.clone(), pruner, &mut course, &settings, save, &mut count)?;
        if !Vector::of(&model).is_finite() {
            let says = format!("weights are no longer finite after task {task}: lower the learning rate");
            return Err(Error::Argument(says));
        }
        let end = self.stage(task, total, total);
        Ok((strategy.end(model, &end)?.valid(), done))
    }

    /// The accuracy on each task after task `after`, and the share of all answers that name a class of
    /// that task.
    fn row<M: Headed>(&self, model: &M, strategy: &dyn Strategy<M>, after: usize) -> Result<(Vec<f64>, f64)> {
        let (mut row, mut newest, mut all) = (Vec::new(), 0, 0);
        for task in 0..self.stream.tasks() {
            let (right, of_newest, len) = self.answers(model, strategy, task, after)?;
            row.push(right as f64 / len as f64);
            (newest, all) = (newest + of_newest, all + len);
        }
        Ok((row, newest as f64 / all as f64))
    }

    /// Of the test examples of `task` after task `after`: how many are answered rightly, how many with a
    /// class of task `after`, and how many there are.
    fn answers<M: Headed>(
        &self,
        model: &M,
        strategy: &dyn Strategy<M>,
        task: usize,
        after: usize,
    ) -> Result<(usize, usize, usize)> {
        let shown = strategy.shown(model, task)?.valid();
        let (len, among) = (self.stream.test_len(task), self.stream.candidates(task, after));
        let (mut right, mut newest, last) = (0, 0, self.stream.classes_of(after));
        for first in (0..len).step_by(TEST_BATCH) {
            let (images, labels) = self.stream.test(task, first..(first + TEST_BATCH).min(len), self.plain);
            let scores = strategy.scores(&shown, images).narrow(1, among.start, among.len());
            let answers = scores.argmax(1).into_data().convert::<i64>();
            for (answer, label) in answers.iter::<i64>().zip(labels) {
                let answer = among.start + answer as usize;
                right += usize::from(answer == label);
                newest += usize::from(last.contains(&answer));
            }
        }
        Ok((right, newest, len))
    }
}

/// One task as the training loop sees it.
struct Lesson<'a, M> {
    strategy: &'a mut dyn Strategy<M>,
    examples: Vec<Example>,
    stage: Stage<'a>,
    /// The model that the task started from.
    start: M,
}

/// Steps between two looks at the loss: each waits for the device.
const LOOKS: usize = 16;

impl<M: Headed> Lesson<'_, M> {
    fn batch(&self, batch: &[usize]) -> Vec<Example> {
        batch.iter().map(|i| self.examples[*i]).collect()
    }
}

impl<M: Headed> Course<M> for Lesson<'_, M> {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn losses(&mut self, model: &M, batch: &[usize], moment: Moment, device: &Device) -> Result<Tensor<1>> {
        let stage = Stage { moment, device, ..self.stage };
        let losses = self.strategy.losses(model, &self.batch(batch), &stage)?;
        let looks = moment.step.is_multiple_of(LOOKS) || moment.step + 1 == moment.total;
        if looks && !losses.clone().inner().sum().into_scalar::<f32>().is_finite() {
            let says = format!("task {}, step {}: the loss is not finite", stage.task, moment.step);
            return Err(Error::Argument(says));
        }
        Ok(losses)
    }

    fn gradients(&mut self, model: &M, g: GradientsParams, moment: Moment, device: &Device) -> Result<GradientsParams> {
        self.strategy.gradients(model, g, &Stage { moment, device, ..self.stage })
    }

    fn stepped(&mut self, model: M, batch: &[usize], moment: Moment) -> Result<M> {
        self.strategy.stepped(model, &self.batch(batch), &Stage { moment, ..self.stage })
    }

    fn state(&self) -> Vec<Vec<f32>> {
        self.strategy.state()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) -> Result<()> {
        self.strategy.restore(state, &self.start, &self.stage)
    }
}

/// A state between two tasks: a folder `task-N`, complete where it has that name.
struct Boundary(PathBuf);

const STEPS: &str = "steps";
const MODEL: &str = "model.bpk";
const STRATEGY: &str = "strategy.safetensors";
const RUN: &str = "run.json";

#[derive(Serialize, Deserialize)]
struct Written {
    protocol: Protocol,
    matrix: AccuracyMatrix,
    before: Vec<f64>,
}

impl Boundary {
    /// The state after most tasks in `dir`.
    fn newest(dir: &Path, protocol: &Protocol) -> Result<Option<Self>> {
        let Some((_, path)) = Self::all(dir)?.into_iter().max() else { return Ok(None) };
        match Self(path.clone()).written()?.protocol == *protocol {
            true => Ok(Some(Self(path))),
            false => Err(Error::format(&path, "belongs to a run with other settings; remove the folder to start anew")),
        }
    }

    fn all(dir: &Path) -> Result<Vec<(usize, PathBuf)>> {
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
            let entry = entry.map_err(|e| Error::io(dir, e))?;
            let number = entry.file_name().to_str().and_then(|n| n.strip_prefix("task-")?.parse().ok());
            found.extend(number.map(|n| (n, entry.path())));
        }
        Ok(found)
    }

    fn written(&self) -> Result<Written> {
        let path = self.0.join(RUN);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))
    }

    fn load<M: Headed>(
        &self,
        fresh: M,
        strategy: &mut dyn Strategy<M>,
        run: &Run<'_>,
    ) -> Result<(M, AccuracyMatrix, Vec<f64>)> {
        let Written { matrix, before, .. } = self.written()?;
        let path = self.0.join(MODEL);
        let record = ModuleRecord::load(&path).map_err(|e| Error::format(&path, e.to_string()))?;
        let model = fresh.valid().try_load_record(record).map_err(|e| Error::format(&path, e.to_string()))?;
        let path = self.0.join(STRATEGY);
        let state = if path.exists() { read_vectors(&path)? } else { Vec::new() };
        strategy.restore(state, &model, &run.stage(matrix.tasks().saturating_sub(1), 0, 0))?;
        Ok((model, matrix, before))
    }

    fn write<M: Headed>(dir: &Path, protocol: &Protocol, at: &Learned<M>, strategy: &dyn Strategy<M>) -> Result<()> {
        let task = at.matrix.tasks();
        let before = Self::all(dir)?;
        let beside = dir.join(format!("partial-task-{task}"));
        let io = |e| Error::io(&beside, e);
        if beside.exists() {
            std::fs::remove_dir_all(&beside).map_err(io)?;
        }
        std::fs::create_dir_all(&beside).map_err(io)?;
        let path = beside.join(MODEL);
        at.model.valid().into_record().save(&path).map_err(|e| Error::format(&path, e.to_string()))?;
        let state = strategy.state();
        if !state.is_empty() {
            write_vectors(&beside.join(STRATEGY), &state)?;
        }
        let written = Written { protocol: protocol.clone(), matrix: at.matrix.clone(), before: at.before.clone() };
        let text = serde_json::to_string(&written).map_err(|e| Error::format(&beside, e.to_string()))?;
        atomic::write_atomic(beside.join(RUN), |out| out.write_all(text.as_bytes()))?;
        std::fs::rename(&beside, dir.join(format!("task-{task}"))).map_err(io)?;
        for (_, old) in before {
            let gone = old.with_file_name("partial-old");
            std::fs::rename(&old, &gone).map_err(|e| Error::io(&old, e))?;
            std::fs::remove_dir_all(&gone).map_err(|e| Error::io(&gone, e))?;
        }
        Ok(())
    }
}

fn remove(dir: &Path) -> Result<()> {
    match dir.exists() {
        true => std::fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::SgdConfig;
    use burn::optim::momentum::MomentumConfig;

    use regrow_sparse_core::Budget;

    use super::*;
    use crate::dst::Growth;
    use crate::stream::Scenario;
    use crate::testing::{Net, Toy, net};
    use crate::{AGem, DerPp, Dst, Er, Ewc, FineTune, Gem, ICarl, Joint, Lwf, PackNet, Separate, Si, Wa};

    type Made = Box<dyn Strategy<Net>>;
    type Named = (&'static str, fn() -> Made);

    /// All strategies, for a memory of 12.
    fn all() -> Vec<Named> {
        vec![
            ("fine-tune", || Box::new(FineTune)),
            ("joint", || Box::new(Joint)),
            ("EWC", || Box::new(Ewc::new(20.0).unwrap().with_samples(5).unwrap())),
            ("online EWC", || Box::new(Ewc::online(20.0, 0.9).unwrap())),
            ("SI", || Box::new(Si::new(1.0, 0.1).unwrap())),
            ("LwF", || Box::new(Lwf::new(1.0, 2.0).unwrap())),
            ("LwF, warmed up", || Box::new(Lwf::new(1.0, 2.0).unwrap().with_warm_up(0.3).unwrap())),
            ("ER", || Box::new(Er::new(12).unwrap())),
            ("DER++", || Box::new(DerPp::new(12, 0.5, 0.5).unwrap())),
            ("GEM", || Box::new(Gem::new(12, 0.5).unwrap())),
            ("A-GEM", || Box::new(AGem::new(12).unwrap())),
            ("iCaRL", || Box::new(ICarl::new(12).unwrap())),
            ("PackNet", || Box::new(PackNet::new(0.5).unwrap())),
            ("separate", || Box::new(Separate::default())),
            ("DST-CL", || Box::new(Dst::new(0.7, Budget::Erk, Growth::Momentum, 5).unwrap())),
            ("WA", || Box::new(Wa::new(12).unwrap())),
            ("WA, clipped", || Box::new(Wa::new(12).unwrap().clipped())),
            ("WA, shrinking", || Box::new(Wa::new(12).unwrap().only_shrinking())),
        ]
    }

    fn protocol(scenario: Scenario, rate: f64) -> Protocol {
        let scope = scenario.default_scope();
        Protocol { epochs: 6, batch: 5, lr: LrSchedule::constant(rate), seed: 3, scope }
    }

    /// Three tasks of two classes, ten images of each class.
    fn run(
        strategy: &mut dyn Strategy<Net>,
        scenario: Scenario,
        rate: f64,
        save: Option<&Checkpointing>,
    ) -> Result<Learned<Net>> {
        let data = Toy::new(60, 6);
        let stream = data.split(scenario, 3);
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
        let model = net(9, 16, stream.classes(), 4);
        learn(model, &sgd, strategy, &stream, &protocol(scenario, rate), save, &mut |_| {})
    }

    /// Any strategy, stopped in a step as by kill -9.
    struct Mortal(Made, (usize, usize));

    impl Strategy<Net> for Mortal {
        fn fits(&self, scenario: Scenario) -> bool {
            self.0.fits(scenario)
        }
        fn examples(&self, at: &Stage<'_>) -> Vec<Example> {
            self.0.examples(at)
        }
        fn begin(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            self.0.begin(model, at)
        }
        fn pruner(&self, at: &Stage<'_>) -> Result<Box<dyn regrow_sparse_core::model::sparsify::Pruner>> {
            self.0.pruner(at)
        }
        fn losses(&mut self, model: &Net, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
            self.0.losses(model, batch, at)
        }
        fn gradients(&mut self, model: &Net, g: GradientsParams, at: &Stage<'_>) -> Result<GradientsParams> {
            self.0.gradients(model, g, at)
        }
        fn stepped(&mut self, model: Net, batch: &[Example], at: &Stage<'_>) -> Result<Net> {
            match (at.task, at.moment.step) == self.1 {
                true => Err(Error::Argument("killed".into())),
                false => self.0.stepped(model, batch, at),
            }
        }
        fn end(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            self.0.end(model, at)
        }
        fn shown(&self, model: &Net, task: usize) -> Result<Net> {
            self.0.shown(model, task)
        }
        fn scores(&self, model: &Net, images: Tensor<4>) -> Tensor<2> {
            self.0.scores(model, images)
        }
        fn state(&self) -> Vec<Vec<f32>> {
            self.0.state()
        }
        fn restore(&mut self, state: Vec<Vec<f32>>, model: &Net, at: &Stage<'_>) -> Result<()> {
            self.0.restore(state, model, at)
        }
    }

    #[test]
    fn killed_and_resumed_is_as_if_never_killed() {
        for (name, make) in all() {
            let scenario = Scenario::ALL.into_iter().find(|s| make().fits(*s)).unwrap();
            let whole = run(&mut *make(), scenario, 0.05, None).unwrap();
            for place in [(0, 3), (1, 17), (2, 1), (2, 21)] {
                let dir = tempfile::tempdir().unwrap();
                let save = Checkpointing { dir: dir.path().join("run"), every: 4 };
                let mut mortal = Mortal(make(), place);
                assert_eq!(run(&mut mortal, scenario, 0.05, Some(&save)).unwrap_err().to_string(), "killed");
                let resumed = run(&mut *make(), scenario, 0.05, Some(&save)).unwrap();
                assert_eq!(resumed.matrix, whole.matrix, "{name}, killed at {place:?}");
                assert_eq!(resumed.before, whole.before, "{name}");
                let numbers = |m: &Net| Vector::of(m).to_host();
                assert_eq!(numbers(&resumed.model), numbers(&whole.model), "{name}, killed at {place:?}");
                assert!(!save.dir.exists());
            }
        }
    }

    #[test]
    fn every_strategy_learns_in_every_scenario_it_fits() {
        for (name, make) in all() {
            for scenario in Scenario::ALL {
                if !make().fits(scenario) {
                    let says = run(&mut *make(), scenario, 0.05, None).unwrap_err().to_string();
                    assert!(says.contains("does not fit"), "{name}: {says}");
                    continue;
                }
                let learned = run(&mut *make(), scenario, 0.05, None).unwrap();
                let rows = learned.matrix.rows();
                let fresh = (0..3).map(|t| rows[t][t]).sum::<f64>() / 3.0;
                assert!(fresh > 0.7, "{name}, {scenario}: {rows:?}");
            }
        }
    }

    #[test]
    fn joint_training_forgets_less_than_fine_tuning() {
        let end = |strategy: &mut dyn Strategy<Net>| {
            run(strategy, Scenario::Class, 0.05, None).unwrap().matrix.average().unwrap()
        };
        let (bounds, replay) = ((end(&mut FineTune), end(&mut Joint)), end(&mut Er::new(12).unwrap()));
        assert!(bounds.0 < 0.5 && bounds.1 > 0.85 && replay > bounds.0 + 0.2, "{bounds:?} {replay}");
    }

    #[test]
    fn what_cannot_be_learned_is_named() {
        let says = |strategy: &mut dyn Strategy<Net>, rate| {
            run(strategy, Scenario::Class, rate, None).unwrap_err().to_string()
        };
        assert!(says(&mut FineTune, 1e30).contains("not finite") || says(&mut FineTune, 1e30).contains("no longer"));
        assert!(says(&mut Er::new(5).unwrap(), 0.1).contains("5 is smaller than the 6 classes"));
        assert!(says(&mut ICarl::new(5).unwrap(), 0.1).contains("smaller than"));
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Class, 3);
        let sgd = SgdConfig::new().build();
        let protocol = protocol(Scenario::Class, 0.1);
        let wrong = learn(net(9, 4, 5, 1), &sgd, &mut FineTune, &stream, &protocol, None, &mut |_| {});
        assert!(wrong.unwrap_err().to_string().contains("has 5 logits, the stream has 6"));
        for bad in [Ewc::new(-1.0).err(), Ewc::online(1.0, 1.5).err(), Ewc::new(1.0).unwrap().with_samples(0).err()] {
            assert!(bad.is_some());
        }
        assert!(Si::new(1.0, 0.0).is_err() && Lwf::<Net>::new(1.0, 0.0).is_err() && PackNet::new(1.0).is_err());
        assert!(DerPp::new(0, 1.0, 1.0).is_err() && DerPp::new(9, f64::NAN, 1.0).is_err());
    }

    #[test]
    fn a_state_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let save = Checkpointing { dir: dir.path().join("run"), every: 4 };
        let mut mortal = Mortal(Box::new(FineTune), (1, 9));
        assert!(run(&mut mortal, Scenario::Class, 0.05, Some(&save)).is_err());
        let says = run(&mut FineTune, Scenario::Class, 0.06, Some(&save)).unwrap_err().to_string();
        assert!(says.contains("other settings"), "{says}");
    }
}
