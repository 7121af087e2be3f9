//! Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796), and its online form (Schwarz et
//! al., arXiv 1805.06370): weights that mattered to earlier tasks are held by springs.
//!
//! ```text
//! L = L_task + lambda/2 sum_k sum_i F_k,i (theta_i - theta*_k,i)^2          EWC, over tasks k so far
//! L = L_task + lambda/2 sum_i F_i (theta_i - theta*_i)^2,  F <- gamma F + F_new        online
//! F_i = 1/N sum_x s(x) (d log p(y|x) / d theta_i)^2                    one gradient for each example
//! ```
//!
//! `s` is 1 with `y` the label (empirical) or drawn from the network (true Fisher); the library mammoth
//! takes the label and `s = p(y|x)`. Its `e_lambda` is half of `lambda`. EWC's sum over tasks needs two
//! numbers per weight, whatever the number of tasks: the gradient is
//! `lambda ((sum_k F_k) theta - sum_k F_k theta*_k)`.

use burn::optim::GradientsParams;
use burn::tensor::activation::softmax;
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::distill::factor;
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// Whose answer the Fisher information is about, and how it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fisher {
    /// The label's.
    #[default]
    Empirical,
    /// The label's, times the probability that the network gives it.
    Weighted,
    /// The network's: one answer drawn for each example.
    True,
}

/// Elastic weight consolidation.
#[derive(Clone, Debug)]
pub struct Ewc {
    lambda: f64,
    online: Option<f64>,
    fisher: Fisher,
    samples: Option<usize>,
    held: Option<Held>,
}

/// What holds the weights: the gradient is `lambda (strength * theta - pull)`.
#[derive(Clone, Debug)]
struct Held {
    strength: Vector,
    pull: Vector,
}

impl Ewc {
    /// With a spring for each task.
    ///
    /// # Errors
    /// If `lambda` is negative or not finite.
    pub fn new(lambda: f64) -> Result<Self> {
        let lambda = factor(lambda, "strength (lambda)")?;
        Ok(Self { lambda, online: None, fisher: Fisher::default(), samples: None, held: None })
    }

    /// Online: one spring to the last task's weights, its strength a decaying sum.
    ///
    /// # Errors
    /// If `lambda` is negative or not finite, `gamma` outside [0, 1].
    pub fn online(lambda: f64, gamma: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&gamma) {
            true => Ok(Self { online: Some(gamma), ..Self::new(lambda)? }),
            false => Err(Error::Argument(format!("{gamma} is no decay (gamma): use 0 to 1"))),
        }
    }

    /// With another Fisher information.
    pub fn with_fisher(mut self, fisher: Fisher) -> Self {
        self.fisher = fisher;
        self
    }

    /// From so many examples of each task, drawn at random, instead of all.
    ///
    /// # Errors
    /// If there are none.
    pub fn with_samples(mut self, samples: usize) -> Result<Self> {
        match samples {
            0 => Err(Error::Argument("the Fisher information needs at least one example".into())),
            _ => {
                self.samples = Some(samples);
                Ok(self)
            }
        }
    }

    /// The Fisher information of `model` (in training mode) on examples of the task at hand.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn information<M: Headed>(&self, model: &M, at: &Stage<'_>) -> Result<Vector> {
        let all = at.stream.train(at.task);
        let mut rng = ChaCha8Rng::seed_from_u64(at.seed(1));
        let count = self.samples.unwrap_or(all.len()).min(all.len());
        let chosen: Vec<Example> = index::sample(&mut rng, all.len(), count).into_iter().map(|i| all[i]).collect();
        let mut sum = Vector::of(model).zeros();
        for example in chosen {
            let logits = model.logits(at.stream.images(&[example], at.device));
            let answer = match self.fisher {
                Fisher::Empirical | Fisher::Weighted => at.cross_entropy(logits, &[example]),
                Fisher::True => at.drawn(logits, example, &mut rng),
            };
            let share = match self.fisher {
                Fisher::Weighted => (-f64::from(answer.clone().inner().into_scalar::<f32>())).exp(),
                Fisher::Empirical | Fisher::True => 1.0,
            };
            let gradients = GradientsParams::from_grads(answer.backward(), model);
            let g = Vector::gradients(model, &gradients);
            sum = sum.plus(share / count as f64, &g.times(&g));
        }
        match sum.is_finite() {
            true => Ok(sum),
            false => Err(Error::Argument(format!("the Fisher information of task {} is not finite", at.task))),
        }
    }

    /// Takes a task's information and weights into what holds.
    fn hold(&mut self, information: Vector, weights: &Vector) {
        let strength = match (&self.held, self.online) {
            (None, _) => information.clone(),
            (Some(held), None) => held.strength.plus(1.0, &information),
            (Some(held), Some(gamma)) => information.plus(gamma, &held.strength),
        };
        let pull = match (&self.held, self.online) {
            (Some(held), None) => held.pull.plus(1.0, &information.times(weights)),
            (None, None) => information.times(weights),
            (_, Some(_)) => strength.times(weights),
        };
        self.held = Some(Held { strength, pull });
    }
}

impl Stage<'_> {
    /// Minus the log-probability of an answer that the network itself gives, one that is in scope.
    fn drawn(
        &self,
        logits: burn::tensor::Tensor<2>,
        example: Example,
        rng: &mut ChaCha8Rng,
    ) -> burn::tensor::Tensor<1> {
        let range = self.stream.in_scope(self.scope, example.task, self.task);
        let part = logits.narrow(1, range.start, range.len());
        let p: Vec<f32> = softmax(part.clone().inner(), 1).into_data().iter().collect();
        let (mut at, mut answer) = (rng.random::<f32>(), p.len() - 1);
        for (i, p) in p.iter().enumerate() {
            at -= p;
            if at < 0.0 {
                answer = i;
                break;
            }
        }
        regrow_train::classifier::cross_entropy(part, &[answer], 0.0)
    }
}

impl<M: Headed> Strategy<M> for Ewc {
    fn gradients(&mut self, model: &M, gradients: GradientsParams, _at: &Stage<'_>) -> Result<GradientsParams> {
        let Some(held) = &self.held else { return Ok(gradients) };
        let spring = held.strength.times(&Vector::of(model)).minus(&held.pull);
        Ok(Vector::gradients(model, &gradients).plus(self.lambda, &spring).into_gradients(model, &gradients))
    }

    fn end(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        let model = model.train();
        let information = self.information(&model, at)?;
        self.hold(information, &Vector::of(&model));
        Ok(model)
    }

    fn added(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.strength.len() + held.pull.len())
    }

    fn state(&self) -> Vec<Vec<f32>> {
        self.held.iter().flat_map(|held| [held.strength.to_host(), held.pull.to_host()].concat()).collect()
    }

    fn restore(&mut self, mut state: Vec<Vec<f32>>, model: &M, _at: &Stage<'_>) -> Result<()> {
        let pull = state.split_off(state.len() / 2);
        let there = !state.is_empty();
        let held = there.then(|| {
            Ok::<_, Error>(Held { strength: Vector::from_host(state, model)?, pull: Vector::from_host(pull, model)? })
        });
        self.held = held.transpose()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;
    use regrow_train::Moment;

    use super::*;
    use crate::stream::{LogitScope, Scenario, TaskStream};
    use crate::testing::{Net, Toy, net};

    fn stage<'a>(stream: &'a TaskStream<'a>, device: &'a Device) -> Stage<'a> {
        let moment = Moment { seed: 5, step: 0, total: 1 };
        Stage { stream, task: 0, scope: LogitScope::Task, batch: 8, moment, device }
    }

    /// The gradient that springs add to zero gradients.
    fn spring(ewc: &mut Ewc, model: &Net, at: &Stage<'_>) -> Vector {
        let loss = at.cross_entropy(model.logits(at.images(&at.stream.train(0))), &at.stream.train(0)).sum() * 0.0;
        let none = GradientsParams::from_grads(loss.backward(), model);
        let held = ewc.gradients(model, none, at).unwrap();
        Vector::gradients(model, &held)
    }

    use regrow_train::Classifier;

    #[test]
    fn springs_pull_back_to_each_task_by_its_information() {
        let (data, device) = (Toy::new(24, 4), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 2);
        let at = stage(&stream, &device);
        let models: Vec<Net> = (1..4).map(|seed| net(9, 5, 4, seed).train()).collect();
        let mut ewc = Ewc::new(3.0).unwrap();
        let information: Vec<Vector> = models.iter().map(|m| ewc.information(m, &at).unwrap()).collect();
        ewc.end(models[0].valid(), &at).unwrap();
        assert_eq!(spring(&mut ewc, &models[0], &at).dot(&information[0]), 0.0, "none where the task ended");
        ewc.end(models[1].valid(), &at).unwrap();
        let away = |k: usize| information[k].times(&Vector::of(&models[2]).minus(&Vector::of(&models[k])));
        let want = away(0).plus(1.0, &away(1));
        let apart = spring(&mut ewc, &models[2], &at).plus(-3.0, &want);
        assert!(apart.dot(&apart) < 1e-10 * want.dot(&want), "{}", apart.dot(&apart));
        let mut online = Ewc::online(1.0, 0.0).unwrap();
        online.end(models[0].valid(), &at).unwrap();
        online.end(models[1].valid(), &at).unwrap();
        let apart = spring(&mut online, &models[2], &at).minus(&away(1));
        assert!(apart.dot(&apart) < 1e-10 * want.dot(&want), "gamma 0 keeps the last information only");
    }

    /// For a label drawn from the network, E[(d log p / d b_c)^2] = p_c (1 - p_c) for the last biases.
    #[test]
    fn the_true_information_is_that_of_the_softmax() {
        let (data, device) = (Toy::new(4000, 2), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 1);
        let at = stage(&stream, &device);
        let model = net(9, 5, 2, 1).train();
        let found = Ewc::new(1.0).unwrap().with_fisher(Fisher::True).information(&model, &at).unwrap();
        let all = stream.train(0);
        let p = softmax(model.valid().logits(stream.images(&all, &regrow_device::current())), 1);
        let want = p.into_data().iter::<f32>().step_by(2).map(|p| p * (1.0 - p)).sum::<f32>() / 4000.0;
        let bias = &found.to_host()[3];
        assert!(bias.iter().all(|f| (f / want - 1.0).abs() < 0.06), "{bias:?} {want}");
    }
}
