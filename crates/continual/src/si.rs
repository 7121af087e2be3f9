//! Synaptic intelligence (Zenke et al., arXiv 1703.04200): how much each weight contributed to lowering the loss along
//! its path determines how strongly it is kept.
//!
//! ```text
//! at each step    omega_i += g_i (theta_i before - theta_i after)             g: of the task's loss alone
//! after a task    Omega_i += omega_i / ((theta_i - theta*_i)^2 + xi);  theta* <- theta;  omega <- 0
//! L = L_task + c sum_i Omega_i (theta_i - theta*_i)^2
//! ```

use burn::config::Config;
use burn::optim::GradientsParams;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::params::ParameterVector;
use crate::registry::ANY_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "si",
    summary: "weights that lowered the loss along their path are held",
    paper: "arXiv 1703.04200",
    needs: ANY_SCENARIO,
    params: &[
        Param { name: "c", meaning: "strength", default: "0.1", range: Range::NON_NEGATIVE },
        Param { name: "xi", meaning: "damping", default: "0.001", range: Range::POSITIVE },
        Param {
            name: "clip",
            meaning: "limit of each number of the gradient (mammoth: 1); 0 for none",
            default: "0",
            range: Range::NON_NEGATIVE,
        },
        Param {
            name: "clamp",
            meaning: "whether paths that raised the loss count as zero",
            default: "false",
            range: Range::Flag,
        },
    ],
};

/// Settings of [`Si`].
#[derive(Config, Debug, PartialEq)]
pub struct SiConfig {
    /// Strength.
    #[config(default = 0.1)]
    pub c: f64,
    /// Damping.
    #[config(default = 1e-3)]
    pub xi: f64,
    /// Limit to which every number of the gradient that the optimizer gets is clipped. The library mammoth takes 1.
    pub clip: Option<f64>,
    /// Whether paths that raised the loss count as zero.
    #[config(default = false)]
    pub clamp: bool,
}

impl SiConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If `c` is negative, `xi` or the limit not above zero.
    pub fn init(&self) -> Result<Si> {
        INFO.check("c", self.c)?;
        INFO.check("xi", self.xi)?;
        match self.clip {
            Some(limit) if limit.is_nan() || limit <= 0.0 => Err(Error::InvalidParameter {
                method: INFO.name.into(),
                parameter: "clip".into(),
                value: limit.to_string(),
                range: Range::POSITIVE.to_string(),
            }),
            _ => Ok(Si { config: self.clone(), path: None, step: None }),
        }
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let clip = Some(params.real("clip")?).filter(|limit| *limit > 0.0);
        let config = Self::new().with_c(params.real("c")?).with_xi(params.real("xi")?);
        Ok(config.with_clip(clip).with_clamp(params.flag("clamp")?))
    }
}

/// Synaptic intelligence; made by [`SiConfig::init`].
#[derive(Clone, Debug)]
pub struct Si {
    config: SiConfig,
    /// `theta*`, `Omega` and `omega`.
    path: Option<[ParameterVector; 3]>,
    /// Weights and gradient of the current step.
    step: Option<[ParameterVector; 2]>,
}

impl<M: Headed> Strategy<M> for Si {
    fn begin_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        if self.path.is_none() {
            let weights = ParameterVector::of(&model);
            self.path = Some([weights.clone(), weights.zeros(), weights.zeros()]);
        }
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &TaskContext<'_>) -> Result<GradientsParams> {
        let (weights, mut g) = (ParameterVector::of(model), ParameterVector::gradients(model, &gradients));
        self.step = Some([weights.clone(), g.clone()]);
        if let Some([anchor, strength, _]) = self.path.as_ref().filter(|_| at.task > 0) {
            g = g.plus(2.0 * self.config.c, &strength.times(&weights.minus(anchor)));
        }
        if let Some(limit) = self.config.clip {
            g = g.map(|t| t.clamp(-limit, limit));
        }
        Ok(g.into_gradients(model, &gradients))
    }

    fn after_step(&mut self, model: M, _batch: &[Example], _at: &TaskContext<'_>) -> Result<M> {
        if let (Some([_, _, omega]), Some([before, g])) = (&mut self.path, self.step.take()) {
            *omega = omega.plus(1.0, &g.times(&before.minus(&ParameterVector::of(&model))));
        }
        Ok(model)
    }

    fn end_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        let weights = ParameterVector::of(&model);
        if let Some([anchor, strength, omega]) = self.path.take() {
            let omega = if self.config.clamp { omega.map(|t| t.clamp_min(0.0)) } else { omega };
            let moved = weights.minus(&anchor);
            let gained = omega.zip(&moved, |omega, moved| omega / (moved.powi_scalar(2) + self.config.xi));
            self.path = Some([weights.clone(), strength.plus(1.0, &gained), weights.zeros()]);
        }
        Ok(model)
    }

    fn added(&self) -> usize {
        self.path.iter().flatten().map(ParameterVector::len).sum()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        for (name, part) in PATH.into_iter().zip(self.path.iter().flatten()) {
            state.set_nested(name, part.to_state());
        }
        state
    }

    fn restore(&mut self, mut state: State, model: &M, _at: &TaskContext<'_>) -> Result<()> {
        let mut read = |name: &str| ParameterVector::from_state(state.take_nested(name), model);
        let [anchor, strength, contribution] = PATH;
        self.path = Some([read(anchor)?, read(strength)?, read(contribution)?]);
        Ok(())
    }
}

/// The names of what is kept, in the order of the field.
const PATH: [&str; 3] = ["anchor", "strength", "contribution"];

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::{ModuleOptimizer, SgdConfig};

    use super::*;
    use crate::stream::{LogitScope, Scenario};
    use crate::testing::{Toy, context, net};

    /// With small steps of full gradient descent the path integral equals the decrease of the loss.
    #[test]
    fn the_path_sums_up_to_the_loss_that_was_lost() {
        let (data, device) = (Toy::new(12, 2), regrow_device::current().autodiff());
        let stream = data.split(Scenario::Class, 1);
        let at = TaskContext { total_steps: 1, step_seed: 5, ..context(&stream, LogitScope::All, 12, &device) };
        let (mut si, batch) = (SiConfig::new().with_c(1.0).with_xi(0.1).init().unwrap(), stream.train(0));
        let mut model = si.begin_task(net(9, 5, 2, 3).train(), &at).unwrap();
        let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
        let mut losses = Vec::new();
        for _ in 0..200 {
            let loss = si.losses(&model, &batch, &at).unwrap().mean();
            losses.push(f64::from(loss.clone().into_scalar::<f32>()));
            let g = GradientsParams::from_grads(loss.backward(), &model);
            let g = si.gradients(&model, g, &at).unwrap();
            model = si.after_step(optimizer.step(0.01, model, g), &batch, &at).unwrap();
        }
        losses.push(f64::from(si.losses(&model, &batch, &at).unwrap().mean().into_scalar::<f32>()));
        let omega: f64 = si.path.as_ref().unwrap()[2].to_host().iter().flatten().map(|o| f64::from(*o)).sum();
        let lost = losses[0] - losses[200];
        assert!(lost > 0.05 && (omega / lost - 1.0).abs() < 0.02, "{omega} {lost}");
    }
}
