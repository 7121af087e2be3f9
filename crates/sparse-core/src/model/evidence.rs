//! What a score or a budget uses besides the weights: gradients, curvature, synaptic flow, inputs, outputs.
//!
//! A method declares what it [needs](Needs); the caller provides exactly that as [`Evidence`], from a training step or
//! from a [`Probe`](crate::model::probe::Probe) of the user's model.

use std::ops::Deref;

use std::fmt;

use crate::model::weight::Weight;
use crate::{Error, Result};

/// One layer as a score sees it.
#[derive(Clone, Copy, Debug)]
pub struct LayerView<'a> {
    /// Its weight.
    pub weight: &'a Weight,
    /// Its place among the layers that are scored together, from 0.
    pub index: usize,
}

impl Deref for LayerView<'_> {
    type Target = Weight;

    fn deref(&self) -> &Weight {
        self.weight
    }
}

/// The kinds of evidence that a method asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// `dL/dw`, the gradients of the loss.
    pub gradients: bool,
    /// `H g`: the Hessian of the loss times its gradient.
    pub hessian_gradient: bool,
    /// `dR/d|w|` of the linearised network: every parameter replaced by its absolute value, an input of ones.
    pub synaptic_flow: bool,
    /// `||x_j||`: for each layer the root mean square of each of its inputs.
    pub input_norms: bool,
    /// `X^T X / rows`: for each layer the second moment of its inputs.
    pub input_moments: bool,
    /// For each layer the share of its block's weights whose `|w| ||x||` is more than this many times the mean.
    pub outliers: Option<f64>,
    /// For each layer the effect of pruning it alone on the outputs, at each of these fractions of its weights.
    pub distortions: Option<Vec<f64>>,
}

impl Needs {
    /// Nothing but the weights.
    pub const NONE: Self = Self {
        gradients: false,
        hessian_gradient: false,
        synaptic_flow: false,
        input_norms: false,
        input_moments: false,
        outliers: None,
        distortions: None,
    };
    /// The gradients of the loss.
    pub const GRADIENTS: Self = Self { gradients: true, ..Self::NONE };
    /// The Hessian times the gradient.
    pub const HESSIAN_GRADIENT: Self = Self { hessian_gradient: true, ..Self::NONE };
    /// Synaptic flow.
    pub const SYNAPTIC_FLOW: Self = Self { synaptic_flow: true, ..Self::NONE };
    /// The norms of each layer's inputs.
    pub const INPUT_NORMS: Self = Self { input_norms: true, ..Self::NONE };
    /// The second moments of each layer's inputs.
    pub const INPUT_MOMENTS: Self = Self { input_moments: true, ..Self::NONE };

    /// The shares of outliers, more than `times` the mean.
    pub fn outliers(times: f64) -> Self {
        Self { outliers: Some(times), ..Self::NONE }
    }

    /// Output distortions at these fractions of a layer's weights.
    pub fn distortions(amounts: Vec<f64>) -> Self {
        Self { distortions: Some(amounts), ..Self::NONE }
    }

    /// Whether nothing is needed.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The union of both; if both define outliers or lists of amounts, these take precedence.
    pub fn and(self, others: Self) -> Self {
        Self {
            gradients: self.gradients || others.gradients,
            hessian_gradient: self.hessian_gradient || others.hessian_gradient,
            synaptic_flow: self.synaptic_flow || others.synaptic_flow,
            input_norms: self.input_norms || others.input_norms,
            input_moments: self.input_moments || others.input_moments,
            outliers: self.outliers.or(others.outliers),
            distortions: self.distortions.or(others.distortions),
        }
    }

    /// These without the gradients of the loss, which a training step provides.
    pub fn without_gradients(self) -> Self {
        Self { gradients: false, ..self }
    }

    /// What `offered` lacks; for outliers and distortions it only matters whether they are available at all.
    pub fn lacking(&self, offered: &Self) -> Self {
        Self {
            gradients: self.gradients && !offered.gradients,
            hessian_gradient: self.hessian_gradient && !offered.hessian_gradient,
            synaptic_flow: self.synaptic_flow && !offered.synaptic_flow,
            input_norms: self.input_norms && !offered.input_norms,
            input_moments: self.input_moments && !offered.input_moments,
            outliers: self.outliers.filter(|_| offered.outliers.is_none()),
            distortions: self.distortions.clone().filter(|_| offered.distortions.is_none()),
        }
    }

    /// Checks that `offered` has everything; `who` is the method that needs it.
    ///
    /// # Errors
    /// If anything is missing; the message says what and how to provide it.
    pub fn check(&self, offered: &Self, who: &str) -> Result<()> {
        let lacking = self.lacking(offered);
        match lacking.is_none() {
            true => Ok(()),
            false => Err(Error::Argument(format!("{who} needs {lacking}: give a probe that brings it"))),
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.gradients, "gradients of the loss (`Probe::with_loss`)"),
            (self.hessian_gradient, "Hessian-gradient products (`Probe::with_loss`)"),
            (self.synaptic_flow, "synaptic flow (`Probe::with_response`)"),
            (self.input_norms, "input norms (`Probe::with_inputs`)"),
            (self.input_moments, "second moments of inputs (`Probe::with_inputs`)"),
            (self.outliers.is_some(), "shares of outliers (`Probe::with_inputs`)"),
            (self.distortions.is_some(), "output distortions (`Probe::with_outputs`)"),
        ];
        let named: Vec<&str> = kinds.iter().filter(|(needed, _)| *needed).map(|(_, name)| *name).collect();
        match named.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&named.join(" and ")),
        }
    }
}

/// Evidence about the layers of a model, one entry for each, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    gradients: Option<Vec<Vec<f32>>>,
    hessian_gradient: Option<Vec<Vec<f32>>>,
    synaptic_flow: Option<Vec<Vec<f32>>>,
    input_norms: Option<Vec<Vec<f32>>>,
    input_moments: Option<Vec<Vec<f32>>>,
    outliers: Option<Vec<f64>>,
    distortions: Option<Vec<Vec<f64>>>,
}

impl Evidence {
    /// None at all.
    pub const NONE: Self = Self {
        gradients: None,
        hessian_gradient: None,
        synaptic_flow: None,
        input_norms: None,
        input_moments: None,
        outliers: None,
        distortions: None,
    };

    /// With gradients of the loss, one number for each weight.
    pub fn with_gradients(mut self, values: Vec<Vec<f32>>) -> Self {
        self.gradients = Some(values);
        self
    }

    /// With products of Hessian and gradient, one number for each weight.
    pub fn with_hessian_gradient(mut self, values: Vec<Vec<f32>>) -> Self {
        self.hessian_gradient = Some(values);
        self
    }

    /// With synaptic flow, one number for each weight.
    pub fn with_synaptic_flow(mut self, values: Vec<Vec<f32>>) -> Self {
        self.synaptic_flow = Some(values);
        self
    }

    /// With the norm of each input of each layer.
    pub fn with_input_norms(mut self, values: Vec<Vec<f32>>) -> Self {
        self.input_norms = Some(values);
        self
    }

    /// With the second moment of each layer's inputs, row-major.
    pub fn with_input_moments(mut self, values: Vec<Vec<f32>>) -> Self {
        self.input_moments = Some(values);
        self
    }

    /// With each layer's share of outliers.
    pub fn with_outliers(mut self, values: Vec<f64>) -> Self {
        self.outliers = Some(values);
        self
    }

    /// With each layer's distortions, one for each amount.
    pub fn with_distortions(mut self, values: Vec<Vec<f64>>) -> Self {
        self.distortions = Some(values);
        self
    }

    /// `dL/dw` of a layer.
    ///
    /// # Errors
    /// If it is missing, or not one number for each weight. The same holds for the methods below.
    pub fn gradients(&self, layer: &LayerView<'_>) -> Result<&[f32]> {
        of(&self.gradients, layer, layer.values.len(), "gradients of the loss")
    }

    /// `H g` of a layer.
    ///
    /// # Errors
    /// As [`Evidence::gradients`].
    pub fn hessian_gradient(&self, layer: &LayerView<'_>) -> Result<&[f32]> {
        of(&self.hessian_gradient, layer, layer.values.len(), "Hessian-gradient products")
    }

    /// `dR/d|w|` of a layer.
    ///
    /// # Errors
    /// As [`Evidence::gradients`].
    pub fn synaptic_flow(&self, layer: &LayerView<'_>) -> Result<&[f32]> {
        of(&self.synaptic_flow, layer, layer.values.len(), "synaptic flow")
    }

    /// `||x_j||` of each input of a layer.
    ///
    /// # Errors
    /// As [`Evidence::gradients`].
    pub fn input_norms(&self, layer: &LayerView<'_>) -> Result<&[f32]> {
        of(&self.input_norms, layer, layer.dims().1, "input norms")
    }

    /// `X^T X / rows` of a layer's inputs, row-major.
    ///
    /// # Errors
    /// As [`Evidence::gradients`].
    pub fn input_moments(&self, layer: &LayerView<'_>) -> Result<&[f32]> {
        of(&self.input_moments, layer, layer.dims().1.pow(2), "second moments of inputs")
    }

    /// The share of outliers of each of `layers` layers.
    ///
    /// # Errors
    /// If they are missing, or not one for each layer.
    pub fn outliers(&self, layers: usize) -> Result<&[f64]> {
        let found = self.outliers.as_deref().filter(|shares| shares.len() == layers);
        found.ok_or_else(|| Error::Argument("shares of outliers are needed, one for each layer".into()))
    }

    /// The distortions of each of `layers` layers.
    ///
    /// # Errors
    /// If they are missing, or not one list for each layer.
    pub fn distortions(&self, layers: usize) -> Result<&[Vec<f64>]> {
        let found = self.distortions.as_deref().filter(|curves| curves.len() == layers);
        found.ok_or_else(|| Error::Argument("output distortions are needed, one list for each layer".into()))
    }
}

fn of<'a>(all: &'a Option<Vec<Vec<f32>>>, layer: &LayerView<'_>, len: usize, what: &str) -> Result<&'a [f32]> {
    let found = all.as_ref().and_then(|all| all.get(layer.index));
    let found =
        found.ok_or_else(|| Error::tensor(&layer.path, format!("its score needs {what}, which nobody brought")))?;
    match found.len() == len {
        true => Ok(found),
        false => Err(Error::tensor(&layer.path, format!("has {} {what}, {len} are needed", found.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_the_way_to_bring_it() {
        let needs = Needs::GRADIENTS.and(Needs::distortions(vec![0.5]));
        assert!(needs.check(&needs, "x").is_ok() && Needs::NONE.check(&Needs::NONE, "x").is_ok());
        let says = needs.check(&Needs::GRADIENTS, "rd").unwrap_err().to_string();
        assert_eq!(says, "rd needs output distortions (`Probe::with_outputs`): give a probe that brings it");
        assert_eq!(Needs::NONE.to_string(), "nothing");
        assert_eq!(needs.without_gradients(), Needs::distortions(vec![0.5]));
    }
}
