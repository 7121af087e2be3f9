//! Continual learning with dynamic sparse training (Yıldırım et al., arXiv 2308.14831): every task gets its own sparse
//! mask, found by dropping and growing during training.
//!
//! ```text
//! m_t: uniform or ERK at the task's density;  W <- m_t W
//! each step    weights that earlier tasks own take part where m_t has them, but do not move
//! every K steps, per layer: drop ceil(r n) of the n weights by |w|, grow as many:
//!              random;  |dL/dw|;  |m / (sqrt(v) + 1e-8)| with Adam's moments of dL/dw
//! r(s) = r_end + (r_0 - r_end) (1 + cos(pi s / S)) / 2          r_0 = 0.5, r_end = 0.005
//! owned <- owned or m_t;  task j is tested with m_j
//! ```
//!
//! Differences to the authors' code: counts here are exact, owned weights are not dropped from a mask
//! ([`DstConfig::drop_owned`] allows it), and parameters without a mask (biases, norms, the head) are stored for each
//! task, so that earlier tasks answer bit for bit as before; the authors' code keeps training these. It also masks the
//! head, and keeps the mask of the epoch with the best training accuracy instead of the last.

use burn::config::Config;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow, random_growth};
use regrow_sparse_core::model::evidence::Evidence;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks, masks};
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::{LayerView, Score};
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, Weight, weights};
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Budget, Error, Mask, MaskSet, Result};
use regrow_train::classifier::Headed;
use serde::{Deserialize, Serialize};

use crate::isolation::{Frozen, Isolation, inverted, select, uniform, union};
use crate::params::{ParameterFlags, ParameterVector};
use crate::registry::TASK_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "dst-cl",
    summary: "every task gets a sparse mask of its own, found by dropping and growing while it trains",
    paper: "arXiv 2308.14831",
    needs: TASK_SCENARIO,
    params: &[
        Param {
            name: "sparsity",
            meaning: "fraction of weights that each task does without",
            default: "0.8",
            range: Range::SPARSITY,
        },
        Param {
            name: "initialization",
            meaning: "sparsity of each layer's first mask",
            default: "erk",
            range: Range::Choice(&["erk", "uniform"]),
        },
        Param {
            name: "growth",
            meaning: "which places grow",
            default: "gradient",
            range: Range::Choice(&["random", "gradient", "momentum"]),
        },
        Param { name: "interval", meaning: "steps between two moves of the masks", default: "20", range: Range::COUNT },
        Param {
            name: "drop-owned",
            meaning: "whether weights of earlier tasks may be dropped from a mask",
            default: "false",
            range: Range::Flag,
        },
    ],
};

/// How the first mask of a task distributes its sparsity over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskInitialization {
    /// The same sparsity in every layer.
    Uniform,
    /// Erdős–Rényi kernel: small layers are denser.
    #[default]
    Erk,
}

impl MaskInitialization {
    fn budget(self) -> Budget {
        match self {
            Self::Uniform => Budget::Uniform,
            Self::Erk => Budget::Erk,
        }
    }
}

/// Which positions grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// Random positions.
    #[default]
    Random,
    /// Where the gradient is largest.
    Gradient,
    /// Where the moments of the gradient, as in Adam, are largest.
    Momentum,
}

/// Settings of [`Dst`].
#[derive(Config, Debug, PartialEq)]
pub struct DstConfig {
    /// Fraction of weights that each task does not use.
    #[config(default = 0.8)]
    pub sparsity: f64,
    /// How the first mask distributes it over layers.
    #[config(default = "MaskInitialization::Erk")]
    pub initialization: MaskInitialization,
    /// Which positions grow.
    #[config(default = "Growth::Gradient")]
    pub growth: Growth,
    /// Steps between two updates of the masks.
    #[config(default = 20)]
    pub interval: usize,
    /// Whether weights of earlier tasks are dropped from a mask like any other.
    #[config(default = false)]
    pub drop_owned: bool,
}

impl DstConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the sparsity is outside [0, 1), or the interval is 0.
    pub fn init<M>(&self) -> Result<Dst<M>> {
        INFO.check("sparsity", self.sparsity)?;
        INFO.check("interval", self.interval)?;
        Ok(Dst { config: self.clone(), tasks: Isolation::default(), carrier: None, frozen: None })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let initialization = match params.text("initialization")?.as_str() {
            "uniform" => MaskInitialization::Uniform,
            _ => MaskInitialization::Erk,
        };
        let growth = match params.text("growth")?.as_str() {
            "random" => Growth::Random,
            "momentum" => Growth::Momentum,
            _ => Growth::Gradient,
        };
        let config = Self::new().with_sparsity(params.real("sparsity")?).with_initialization(initialization);
        let config = config.with_growth(growth).with_interval(params.count("interval")?);
        Ok(config.with_drop_owned(params.flag("drop-owned")?))
    }
}

/// First and last drop rate.
const RATES: (f64, f64) = (0.5, 0.005);

/// Sparse masks of tasks, found by dynamic sparse training; made by [`DstConfig::init`].
#[derive(Clone, Debug)]
pub struct Dst<M> {
    config: DstConfig,
    tasks: Isolation,
    /// The network without masks, at the start of the task.
    carrier: Option<M>,
    frozen: Option<Frozen>,
}

impl<M> Dst<M> {
    /// The fraction of weights that some task owns.
    ///
    /// # Errors
    /// If the masks of tasks do not fit each other.
    pub fn used(&self) -> Result<f64> {
        Ok(union(&self.tasks.masks)?.map_or(0.0, |owned| 1.0 - owned.sparsity()))
    }

    /// Weights that tasks before `task` own.
    fn owned(&self, task: usize) -> Result<Option<MaskSet>> {
        union(&self.tasks.masks[..task.min(self.tasks.masks.len())])
    }
}

/// Random scores, for random masks.
struct Drawn(u64);

impl Score for Drawn {
    fn name(&self) -> &'static str {
        "drawn"
    }

    fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(self.0, layer.index as u64));
        Ok((0..layer.values.len()).map(|_| rng.random()).collect())
    }
}

impl<M: Headed> Strategy<M> for Dst<M> {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.carrier = Some(model.valid());
        let recipe = Recipe::default().with_select(select()).with_budget(self.config.initialization.budget());
        let drawn = recipe.masks(&weights(&model, &select())?, &Drawn(at.seed(6)), self.config.sparsity)?;
        let owned = self.owned(at.task)?.map_or_else(|| uniform(&model, false), Ok)?;
        let free = ParameterFlags::kept(&model, &inverted(&owned), &|_| true)?;
        let frozen = Frozen { free, values: ParameterVector::of(&model) };
        let gradient = if self.config.growth == Growth::Random { Gradient::Masked } else { Gradient::Dense };
        let model = frozen.hold(apply_masks(model, &drawn, gradient, Base::Zeroed)?);
        self.frozen = Some(frozen);
        Ok(model)
    }

    fn pruner(&self, at: &TaskContext<'_>) -> Result<Box<dyn Pruner>> {
        Ok(Box::new(Topology {
            growth: self.config.growth,
            every: self.config.interval,
            total: at.total_steps,
            rates: RATES,
            spared: if self.config.drop_owned { None } else { self.owned(at.task)? },
            seed: at.seed(7),
            moments: Vec::new(),
        }))
    }

    fn after_step(&mut self, model: M, _batch: &[Example], at: &TaskContext<'_>) -> Result<M> {
        match self.frozen.as_ref().filter(|_| at.task > 0) {
            Some(frozen) => Ok(frozen.hold(model)),
            None => Ok(model),
        }
    }

    fn end_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        let found = masks(&model)?;
        let none = || Error::Argument("the task ends before it began".into());
        let carrier = self.carrier.take().ok_or_else(none)?;
        let owned = self.owned(at.task)?;
        let fresh = match &owned {
            Some(owned) => {
                let free = inverted(owned);
                let both = |(path, mask): (&str, &Mask)| {
                    let mask = free.get(path).map_or_else(|| Ok(mask.clone()), |free| mask.and(free))?;
                    Ok((path.to_string(), mask))
                };
                found.iter().map(both).collect::<Result<MaskSet>>()?
            }
            None => found.clone(),
        };
        let trained = ParameterFlags::kept(&carrier, &fresh, &|_| true)?;
        let model = ParameterVector::of(&model).or_else(&trained, &ParameterVector::of(&carrier)).put(carrier);
        self.tasks.masks.push(found);
        self.tasks.record_task(&model)?;
        Ok(model)
    }

    fn eval_model(&self, model: &M, task: usize) -> Result<M> {
        match (self.tasks.masks.get(task), self.tasks.own.get(task)) {
            (Some(mask), Some(own)) => self.tasks.task_model(model, mask, own),
            _ => Ok(model.clone()),
        }
    }

    fn added(&self) -> usize {
        self.tasks.added()
    }

    fn findings(&self) -> Vec<(String, f64)> {
        self.used().map(|used| ("weights used".into(), 100.0 * used)).into_iter().collect()
    }

    fn state(&self) -> State {
        self.tasks.state()
    }

    fn restore(&mut self, state: State, model: &M, _at: &TaskContext<'_>) -> Result<()> {
        self.tasks = Isolation::restored(state, model)?;
        Ok(())
    }
}

/// The pruner of one task.
struct Topology {
    growth: Growth,
    every: usize,
    total: usize,
    rates: (f64, f64),
    /// Weights that are not dropped.
    spared: Option<MaskSet>,
    seed: u64,
    /// First and second moments of the gradients, weight by weight.
    moments: Vec<Vec<f32>>,
}

/// How much of a mask is dropped at `step` of `total`.
fn rate((first, last): (f64, f64), step: usize, total: usize) -> f64 {
    let done = std::f64::consts::PI * step as f64 / total.max(1) as f64;
    last + 0.5 * (first - last) * (1.0 + done.cos())
}

impl Topology {
    fn due(&self, step: usize) -> bool {
        (step + 1).is_multiple_of(self.every) && step + 1 < self.total
    }

    fn remember(&mut self, gradients: &[Vec<f32>]) {
        if self.moments.is_empty() {
            self.moments = gradients.iter().flat_map(|g| [vec![0.0; g.len()], vec![0.0; g.len()]]).collect();
        }
        for (moments, g) in self.moments.chunks_mut(2).zip(gradients) {
            let [m, v] = moments else { continue };
            for ((m, v), g) in m.iter_mut().zip(v).zip(g) {
                (*m, *v) = (0.9 * *m + 0.1 * g, 0.999 * *v + 0.001 * g * g);
            }
        }
    }

    /// The growth value of each weight of layer `layer`.
    fn wishes(&self, layer: usize, len: usize, step: usize, gradients: &[Vec<f32>]) -> Vec<f32> {
        match self.growth {
            Growth::Random => random_growth(len, mix(mix(self.seed, step as u64), layer as u64)),
            Growth::Gradient => gradients[layer].iter().map(|g| g.abs()).collect(),
            Growth::Momentum => {
                let (m, v) = (&self.moments[2 * layer], &self.moments[2 * layer + 1]);
                m.iter().zip(v).map(|(m, v)| (m / (v.sqrt() + 1e-8)).abs()).collect()
            }
        }
    }

    /// `weight` with the protected weights as the largest, and how many are dropped.
    fn sparing(&self, mut weight: Weight, step: usize) -> (Weight, usize) {
        let mask = weight.mask_or_dense();
        let spared = self.spared.as_ref().and_then(|all| all.get(&weight.path));
        let mut open = mask.kept();
        for i in (0..weight.values.len()).filter(|i| mask.keeps(*i) && spared.is_some_and(|s| s.keeps(*i))) {
            weight.values[i] = f32::MAX;
            open -= 1;
        }
        let count = (rate(self.rates, step, self.total) * open as f64).ceil() as usize;
        (weight, count.min(open))
    }
}

impl Pruner for Topology {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        let gradients = if self.needs_gradients(step) { view.gradients()? } else { Vec::new() };
        if self.growth == Growth::Momentum {
            self.remember(&gradients);
        }
        if !self.due(step) {
            return Ok(Change::None);
        }
        let moved = view.weights()?.into_iter().enumerate().map(|(layer, weight)| {
            let wishes = self.wishes(layer, weight.values.len(), step, &gradients);
            let (weight, count) = self.sparing(weight, step);
            Ok((weight.path.clone(), drop_and_grow(&weight, count, &wishes, Candidates::Pruned)?))
        });
        Ok(Change::Masks(moved.collect::<Result<MaskSet>>()?))
    }

    fn needs_gradients(&self, step: usize) -> bool {
        match self.growth {
            Growth::Random => false,
            Growth::Gradient => self.due(step),
            Growth::Momentum => true,
        }
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_integer("moments", self.moments.len() as u64);
        for (i, moments) in self.moments.iter().enumerate() {
            state.set_reals(format!("moments.{i}"), moments.clone());
        }
        state
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        let count = state.integer("moments")?;
        self.moments = (0..count).map(|i| state.take_reals(&format!("moments.{i}"))).collect::<Result<_>>()?;
        Ok(())
    }

    fn select(&self) -> Select {
        select()
    }

    fn gradient(&self) -> Gradient {
        if self.growth == Growth::Random { Gradient::Masked } else { Gradient::Dense }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::SgdConfig;
    use burn::optim::momentum::MomentumConfig;
    use regrow_train::Classifier;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Net, Toy, net};

    #[test]
    fn the_drop_rate_falls_along_a_cosine() {
        let r = |step| rate((0.5, 0.005), step, 100);
        assert!((r(0) - 0.5).abs() < 1e-12 && (r(50) - 0.2525).abs() < 1e-12 && (r(100) - 0.005).abs() < 1e-12);
    }

    struct Watched(Dst<Net>, Vec<Vec<Vec<f32>>>);

    fn logits(dst: &Dst<Net>, model: &Net, task: usize, at: &TaskContext<'_>) -> Vec<f32> {
        let images = at.stream.images(&at.stream.train(task), &regrow_device::current());
        let classes = at.stream.classes_of(task);
        let shown = dst.eval_model(&model.valid(), task).unwrap();
        shown.logits(images).narrow(1, classes.start, classes.len()).into_data().iter().collect()
    }

    impl Strategy<Net> for Watched {
        fn begin_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            self.0.begin_task(model, at)
        }
        fn pruner(&self, at: &TaskContext<'_>) -> Result<Box<dyn Pruner>> {
            self.0.pruner(at)
        }
        fn after_step(&mut self, model: Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Net> {
            self.0.after_step(model, batch, at)
        }
        fn end_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            let trained = at.stream.images(&at.stream.train(at.task), &regrow_device::current());
            let said: Vec<f32> = model.logits(trained.clone()).into_data().iter().collect();
            let model = self.0.end_task(model, at)?;
            let shown: Vec<f32> = self.0.eval_model(&model, at.task)?.logits(trained).into_data().iter().collect();
            assert_eq!(said, shown, "what was trained is what is shown");
            self.1.push((0..=at.task).map(|task| logits(&self.0, &model, task, at)).collect());
            Ok(model)
        }
        fn eval_model(&self, model: &Net, task: usize) -> Result<Net> {
            self.0.eval_model(model, task)
        }
    }

    #[test]
    fn earlier_tasks_say_the_same_to_the_bit_and_masks_keep_their_size() {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let sgd = SgdConfig::new().with_momentum(Some(momentum)).build();
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 6, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        use MaskInitialization::{Erk, Uniform};
        for (initialization, growth) in
            [(Erk, Growth::Random), (Uniform, Growth::Gradient), (Uniform, Growth::Momentum)]
        {
            for spares in [true, false] {
                let config = DstConfig::new().with_sparsity(0.75).with_initialization(initialization);
                let config = config.with_growth(growth).with_interval(4).with_drop_owned(!spares);
                let mut watched = Watched(config.init().unwrap(), Vec::new());
                let learned = learn(net(9, 16, 6, 4), &sgd, &mut watched, &stream, &protocol, None, &mut |_| {});
                let learned = learned.unwrap();
                let Watched(dst, said) = watched;
                assert_eq!(said[1][0], said[0][0], "{growth:?}");
                assert_eq!((&said[2][0], &said[2][1]), (&said[0][0], &said[1][1]), "{growth:?}");
                assert!(dst.tasks.masks.iter().all(|m| m.weights() - m.pruned() == 36), "{growth:?}");
                assert!(dst.used().unwrap() > 0.3);
                assert!(learned.matrix.average().unwrap() > 0.8, "{growth:?}: {:?}", learned.matrix);
            }
        }
    }

    #[test]
    fn masks_move_and_bad_settings_are_refused() {
        for bad in [DstConfig::new().with_sparsity(1.0), DstConfig::new().with_interval(0)] {
            assert!(matches!(bad.init::<Net>(), Err(Error::InvalidParameter { .. })), "{bad}");
        }
        let weight = Weight {
            path: "w".into(),
            id: burn::module::ParamId::new(),
            shape: vec![6],
            values: vec![0.1, 5.0, 0.2, 0.0, 0.0, 0.0],
            mask: Some(Mask::from_fn([6], |i| i < 3)),
        };
        let spared: MaskSet = [("w".to_string(), Mask::from_fn([6], |i| i == 0))].into_iter().collect();
        let topology = Topology {
            growth: Growth::Random,
            every: 1,
            total: 10,
            rates: (0.5, 0.005),
            spared: Some(spared),
            seed: 1,
            moments: Vec::new(),
        };
        let (weight, count) = topology.sparing(weight, 0);
        assert_eq!(count, 1, "half of the two that may go");
        let after = drop_and_grow(&weight, count, &[0.0, 0.0, 0.0, 1.0, 2.0, 3.0], Candidates::Pruned).unwrap();
        assert_eq!(after.to_bools(), [true, true, false, false, false, true]);
    }
}
