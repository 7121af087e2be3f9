//! Synaptic intelligence (Zenke et al., arXiv 1703.04200): how much each weight did for the loss, along
//! its path, decides how firmly it is held.
//!
//! ```text
//! at each step    omega_i += g_i (theta_i before - theta_i after)             g: of the task's loss alone
//! after a task    Omega_i += omega_i / ((theta_i - theta*_i)^2 + xi);  theta* <- theta;  omega <- 0
//! L = L_task + c sum_i Omega_i (theta_i - theta*_i)^2
//! ```

use burn::optim::GradientsParams;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::distill::factor;
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// Synaptic intelligence.
#[derive(Clone, Debug)]
pub struct Si {
    c: f64,
    xi: f64,
    clip: Option<f64>,
    clamp: bool,
    /// `theta*`, `Omega` and `omega`.
    path: Option<[Vector; 3]>,
    /// Weights and gradient of the step under way.
    step: Option<[Vector; 2]>,
}

impl Si {
    /// With strength `c` and damping `xi`; the paper has 0.1 and 1e-3.
    ///
    /// # Errors
    /// If `c` is negative or `xi` not above zero.
    pub fn new(c: f64, xi: f64) -> Result<Self> {
        let c = factor(c, "strength (c)")?;
        match xi > 0.0 && xi.is_finite() {
            true => Ok(Self { c, xi, clip: None, clamp: false, path: None, step: None }),
            false => Err(Error::Argument(format!("{xi} is no damping (xi): use a number above 0"))),
        }
    }

    /// With every number of the gradient that the optimizer gets clipped to `[-limit, limit]`, as the
    /// library mammoth does with 1.
    ///
    /// # Errors
    /// If the limit is not above zero.
    pub fn with_clipping(mut self, limit: f64) -> Result<Self> {
        match limit > 0.0 {
            true => {
                self.clip = Some(limit);
                Ok(self)
            }
            false => Err(Error::Argument(format!("{limit} is no limit of a gradient: use a number above 0"))),
        }
    }

    /// With paths that raised the loss counted as zero.
    pub fn clamped(mut self) -> Self {
        self.clamp = true;
        self
    }
}

impl<M: Headed> Strategy<M> for Si {
    fn begin(&mut self, model: M, _at: &Stage<'_>) -> Result<M> {
        if self.path.is_none() {
            let weights = Vector::of(&model);
            self.path = Some([weights.clone(), weights.zeros(), weights.zeros()]);
        }
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &Stage<'_>) -> Result<GradientsParams> {
        let (weights, mut g) = (Vector::of(model), Vector::gradients(model, &gradients));
        self.step = Some([weights.clone(), g.clone()]);
        if let Some([anchor, strength, _]) = self.path.as_ref().filter(|_| at.task > 0) {
            g = g.plus(2.0 * self.c, &strength.times(&weights.minus(anchor)));
        }
        if let Some(limit) = self.clip {
            g = g.map(|t| t.clamp(-limit, limit));
        }
        Ok(g.into_gradients(model, &gradients))
    }

    fn stepped(&mut self, model: M, _batch: &[Example], _at: &Stage<'_>) -> Result<M> {
        if let (Some([_, _, omega]), Some([before, g])) = (&mut self.path, self.step.take()) {
            *omega = omega.plus(1.0, &g.times(&before.minus(&Vector::of(&model))));
        }
        Ok(model)
    }

    fn end(&mut self, model: M, _at: &Stage<'_>) -> Result<M> {
        let weights = Vector::of(&model);
        if let Some([anchor, strength, omega]) = self.path.take() {
            let omega = if self.clamp { omega.map(|t| t.clamp_min(0.0)) } else { omega };
            let moved = weights.minus(&anchor);
            let gained = omega.zip(&moved, |omega, moved| omega / (moved.powi_scalar(2) + self.xi));
            self.path = Some([weights.clone(), strength.plus(1.0, &gained), weights.zeros()]);
        }
        Ok(model)
    }

    fn added(&self) -> usize {
        self.path.iter().flatten().map(Vector::len).sum()
    }

    fn state(&self) -> Vec<Vec<f32>> {
        self.path.iter().flatten().flat_map(Vector::to_host).collect()
    }

    fn restore(&mut self, mut state: Vec<Vec<f32>>, model: &M, _at: &Stage<'_>) -> Result<()> {
        let third = state.len() / 3;
        let omega = state.split_off(2 * third);
        let strength = state.split_off(third);
        let read = |numbers| Vector::from_host(numbers, model);
        self.path = Some([read(state)?, read(strength)?, read(omega)?]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::{ModuleOptimizer, SgdConfig};
    use regrow_train::Moment;

    use super::*;
    use crate::stream::{LogitScope, Scenario};
    use crate::testing::{Toy, net};

    /// With small steps of full gradient descent the path integral is what the loss lost.
    #[test]
    fn the_path_sums_up_to_the_loss_that_was_lost() {
        let (data, device) = (Toy::new(12, 2), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 1);
        let moment = Moment { seed: 5, step: 0, total: 1 };
        let at = Stage { stream: &stream, task: 0, scope: LogitScope::All, batch: 12, moment, device: &device };
        let (mut si, batch) = (Si::new(1.0, 0.1).unwrap(), stream.train(0));
        let mut model = si.begin(net(9, 5, 2, 3).train(), &at).unwrap();
        let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
        let mut losses = Vec::new();
        for _ in 0..200 {
            let loss = si.losses(&model, &batch, &at).unwrap().mean();
            losses.push(f64::from(loss.clone().into_scalar::<f32>()));
            let g = GradientsParams::from_grads(loss.backward(), &model);
            let g = si.gradients(&model, g, &at).unwrap();
            model = si.stepped(optimizer.step(0.01, model, g), &batch, &at).unwrap();
        }
        losses.push(f64::from(si.losses(&model, &batch, &at).unwrap().mean().into_scalar::<f32>()));
        let omega: f64 = si.path.as_ref().unwrap()[2].to_host().iter().flatten().map(|o| f64::from(*o)).sum();
        let lost = losses[0] - losses[200];
        assert!(lost > 0.05 && (omega / lost - 1.0).abs() < 0.02, "{omega} {lost}");
    }
}
