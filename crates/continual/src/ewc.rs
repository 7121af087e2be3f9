//! Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796), and its online form (Schwarz et al., arXiv
//! 1805.06370): a quadratic penalty keeps weights that mattered to earlier tasks near their values.
//!
//! ```text
//! L = L_task + lambda/2 sum_k sum_i F_k,i (theta_i - theta*_k,i)^2          EWC, over tasks k so far
//! L = L_task + lambda/2 sum_i F_i (theta_i - theta*_i)^2,  F <- gamma F + F_new        online
//! F_i = 1/N sum_x s(x) (d log p(y|x) / d theta_i)^2                    one gradient for each example
//! ```
//!
//! `s` is 1 with `y` the label (empirical) or sampled from the network (true Fisher information); the library mammoth
//! takes the label and `s = p(y|x)`. Its `e_lambda` is half of `lambda`. EWC's sum over tasks needs two numbers per
//! weight, for any number of tasks: the gradient is
//! `lambda ((sum_k F_k) theta - sum_k F_k theta*_k)`.

use burn::config::Config;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use serde::{Deserialize, Serialize};

use crate::params::ParameterVector;
use crate::registry::ANY_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

const LAMBDA: Param =
    Param { name: "lambda", meaning: "strength of the springs", default: "100", range: Range::NON_NEGATIVE };
const FISHER: Param = Param {
    name: "fisher",
    meaning: "whose answer the Fisher information is about: the label, the label weighted by its probability, the network's",
    default: "empirical",
    range: Range::Choice(&FisherEstimate::NAMES),
};
const SAMPLES: Param = Param {
    name: "samples",
    meaning: "examples of each task that the Fisher information is measured on; 0 for all",
    default: "0",
    range: Range::Integer { min: 0, max: u64::MAX },
};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "ewc",
    summary: "springs hold weights that mattered to earlier tasks, one spring for each task",
    paper: "arXiv 1612.00796",
    needs: ANY_SCENARIO,
    params: &[LAMBDA, FISHER, SAMPLES],
};

/// The registry's entry of the online form.
pub const ONLINE_INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "ewc-online",
    summary: "EWC with one spring, to the last task's weights",
    paper: "arXiv 1805.06370",
    needs: ANY_SCENARIO,
    params: &[
        LAMBDA,
        Param {
            name: "gamma",
            meaning: "what is left of a spring's strength after a task",
            default: "1",
            range: Range::FRACTION,
        },
        FISHER,
        SAMPLES,
    ],
};

/// Whose answer the Fisher information uses, and its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FisherEstimate {
    /// The label's.
    #[default]
    Empirical,
    /// The label's, times the network's probability of it.
    Weighted,
    /// The network's: one answer sampled for each example.
    True,
}

impl FisherEstimate {
    /// The names that [`FisherEstimate::parse`] reads.
    pub const NAMES: [&'static str; 3] = ["empirical", "weighted", "true"];

    /// The estimate with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "empirical" => Ok(Self::Empirical),
            "weighted" => Ok(Self::Weighted),
            "true" => Ok(Self::True),
            _ => Err(Error::UnknownMethod {
                kind: "Fisher estimate".into(),
                name: name.into(),
                hint: String::new(),
                known: Self::NAMES.join(", "),
            }),
        }
    }
}

/// Settings of [`Ewc`].
#[derive(Config, Debug, PartialEq)]
pub struct EwcConfig {
    /// Strength of the penalty.
    pub lambda: f64,
    /// If given, the online form: one penalty to the last task's weights, whose strength is a sum that decays by this
    /// factor with each task. Without it there is a penalty for each task.
    pub gamma: Option<f64>,
    /// Whose answer the Fisher information uses.
    #[config(default = "FisherEstimate::Empirical")]
    pub fisher: FisherEstimate,
    /// Number of examples of each task, drawn at random, that the information is measured on; by default all.
    pub samples: Option<usize>,
}

impl EwcConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If `lambda` is negative or not finite, `gamma` outside [0, 1], or there are no samples.
    pub fn init(&self) -> Result<Ewc> {
        INFO.check("lambda", self.lambda)?;
        self.gamma.map_or(Ok(()), |gamma| ONLINE_INFO.check("gamma", gamma))?;
        match self.samples {
            Some(0) => Err(Error::InvalidParameter {
                method: INFO.name.into(),
                parameter: "samples".into(),
                value: "0".into(),
                range: Range::COUNT.to_string(),
            }),
            _ => Ok(Ewc { config: self.clone(), held: None }),
        }
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let samples = Some(params.count("samples")?).filter(|samples| *samples > 0);
        let config = Self::new(params.real("lambda")?).with_gamma(params.get("gamma")?);
        Ok(config.with_fisher(FisherEstimate::parse(&params.text("fisher")?)?).with_samples(samples))
    }
}

/// Elastic weight consolidation; made by [`EwcConfig::init`].
#[derive(Clone, Debug)]
pub struct Ewc {
    config: EwcConfig,
    held: Option<Held>,
}

/// The penalty: its gradient is `lambda (strength * theta - pull)`.
#[derive(Clone, Debug)]
struct Held {
    strength: ParameterVector,
    pull: ParameterVector,
}

impl Ewc {
    /// The Fisher information of `model` (in training mode) on examples of the current task.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn information<M: Headed>(&self, model: &M, at: &TaskContext<'_>) -> Result<ParameterVector> {
        let all = at.stream.train(at.task);
        let mut rng = ChaCha8Rng::seed_from_u64(at.seed(1));
        let count = self.config.samples.unwrap_or(all.len()).min(all.len());
        let chosen: Vec<Example> = index::sample(&mut rng, all.len(), count).into_iter().map(|i| all[i]).collect();
        let mut sum = ParameterVector::of(model).zeros();
        for example in chosen {
            let logits = model.logits(at.stream.images(&[example], at.device));
            let answer = match self.config.fisher {
                FisherEstimate::Empirical | FisherEstimate::Weighted => at.cross_entropy(logits, &[example]),
                FisherEstimate::True => at.drawn_answer_loss(logits, example, &mut rng)?,
            };
            let share = match self.config.fisher {
                FisherEstimate::Weighted => (-f64::from(answer.clone().inner().into_scalar::<f32>())).exp(),
                FisherEstimate::Empirical | FisherEstimate::True => 1.0,
            };
            let gradients = GradientsParams::from_grads(answer.backward(), model);
            let g = ParameterVector::gradients(model, &gradients);
            sum = sum.plus(share / count as f64, &g.times(&g));
        }
        match sum.is_finite() {
            true => Ok(sum),
            false => Err(Error::Argument(format!("the Fisher information of task {} is not finite", at.task))),
        }
    }

    /// Adds a task's information and weights to the penalty.
    fn hold(&mut self, information: ParameterVector, weights: &ParameterVector) {
        let strength = match (&self.held, self.config.gamma) {
            (None, _) => information.clone(),
            (Some(held), None) => held.strength.plus(1.0, &information),
            (Some(held), Some(gamma)) => information.plus(gamma, &held.strength),
        };
        let pull = match (&self.held, self.config.gamma) {
            (Some(held), None) => held.pull.plus(1.0, &information.times(weights)),
            (None, None) => information.times(weights),
            (_, Some(_)) => strength.times(weights),
        };
        self.held = Some(Held { strength, pull });
    }
}

impl TaskContext<'_> {
    /// Minus the log-probability of an answer sampled from the network, among those in scope.
    fn drawn_answer_loss(&self, logits: Tensor<2>, example: Example, rng: &mut ChaCha8Rng) -> Result<Tensor<1>> {
        let range = self.stream.in_scope(self.scope, example.task, self.task);
        let part = logits.narrow(1, range.start, range.len());
        let p: Vec<f32> = softmax(part.clone().inner(), 1).into_data().iter().collect();
        let bad = |e| Error::Argument(format!("the network's probabilities cannot be drawn from: {e}"));
        let answer = WeightedIndex::new(&p).map_err(bad)?.sample(rng);
        Ok(regrow_train::classifier::cross_entropy(part, &[answer], 0.0))
    }
}

impl<M: Headed> Strategy<M> for Ewc {
    fn gradients(&mut self, model: &M, gradients: GradientsParams, _at: &TaskContext<'_>) -> Result<GradientsParams> {
        let Some(held) = &self.held else { return Ok(gradients) };
        let spring = held.strength.times(&ParameterVector::of(model)).minus(&held.pull);
        Ok(ParameterVector::gradients(model, &gradients)
            .plus(self.config.lambda, &spring)
            .into_gradients(model, &gradients))
    }

    fn end_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        let model = model.train();
        let information = self.information(&model, at)?;
        self.hold(information, &ParameterVector::of(&model));
        Ok(model)
    }

    fn added(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.strength.len() + held.pull.len())
    }

    fn state(&self) -> State {
        let mut state = State::default();
        if let Some(held) = &self.held {
            state.set_nested("strength", held.strength.to_state());
            state.set_nested("pull", held.pull.to_state());
        }
        state
    }

    fn restore(&mut self, mut state: State, model: &M, _at: &TaskContext<'_>) -> Result<()> {
        if state.is_empty() {
            return Ok(());
        }
        let mut read = |name: &str| ParameterVector::from_state(state.take_nested(name), model);
        self.held = Some(Held { strength: read("strength")?, pull: read("pull")? });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use regrow_testing::assert_close_relative;
    use regrow_train::Classifier;

    use super::*;
    use crate::stream::{LogitScope, Scenario};
    use crate::testing::{Net, Toy, context, net};

    /// The gradient that the penalty adds to zero gradients.
    fn spring(ewc: &mut Ewc, model: &Net, at: &TaskContext<'_>) -> ParameterVector {
        let loss = at.cross_entropy(model.logits(at.images(&at.stream.train(0))), &at.stream.train(0)).sum() * 0.0;
        let none = GradientsParams::from_grads(loss.backward(), model);
        let held = ewc.gradients(model, none, at).unwrap();
        ParameterVector::gradients(model, &held)
    }

    #[test]
    fn springs_pull_back_to_each_task_by_its_information() {
        let (data, device) = (Toy::new(24, 4), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 2);
        let at = context(&stream, LogitScope::Task, 8, &device);
        let models: Vec<Net> = (1..4).map(|seed| net(9, 5, 4, seed).train()).collect();
        let mut ewc = EwcConfig::new(3.0).init().unwrap();
        let information: Vec<ParameterVector> = models.iter().map(|m| ewc.information(m, &at).unwrap()).collect();
        ewc.end_task(models[0].valid(), &at).unwrap();
        assert_eq!(spring(&mut ewc, &models[0], &at).dot(&information[0]), 0.0, "none where the task ended");
        ewc.end_task(models[1].valid(), &at).unwrap();
        let away =
            |k: usize| information[k].times(&ParameterVector::of(&models[2]).minus(&ParameterVector::of(&models[k])));
        let want = away(0).plus(1.0, &away(1));
        let apart = spring(&mut ewc, &models[2], &at).plus(-3.0, &want);
        assert!(apart.dot(&apart) < 1e-10 * want.dot(&want), "{}", apart.dot(&apart));
        let mut online = EwcConfig::new(1.0).with_gamma(Some(0.0)).init().unwrap();
        online.end_task(models[0].valid(), &at).unwrap();
        online.end_task(models[1].valid(), &at).unwrap();
        let apart = spring(&mut online, &models[2], &at).minus(&away(1));
        assert!(apart.dot(&apart) < 1e-10 * want.dot(&want), "gamma 0 keeps the last information only");
    }

    /// For a label drawn from the network, E[(d log p / d b_c)^2] = p_c (1 - p_c) for the last biases.
    #[test]
    fn the_true_information_is_that_of_the_softmax() {
        let (data, device) = (Toy::new(4000, 2), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 1);
        let at = context(&stream, LogitScope::Task, 8, &device);
        let model = net(9, 5, 2, 1).train();
        let found =
            EwcConfig::new(1.0).with_fisher(FisherEstimate::True).init().unwrap().information(&model, &at).unwrap();
        let all = stream.train(0);
        let p = softmax(model.valid().logits(stream.images(&all, &regrow_device::current())), 1);
        let want = p.into_data().iter::<f32>().step_by(2).map(|p| p * (1.0 - p)).sum::<f32>() / 4000.0;
        let bias = &found.to_host()[3];
        assert_close_relative(bias, &[want; 2], 0.06);
    }
}
