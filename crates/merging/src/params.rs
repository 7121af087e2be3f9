//! Parameters of a merge: for all models together, and of each model.

use std::fmt;
use std::str::FromStr;

use regrow_sparse_core::registry::Params;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A number for all models, or one for each.
///
/// ```
/// use regrow_merging::PerModel;
///
/// assert_eq!(PerModel::from(0.5).of(3, "weight")?, [0.5, 0.5, 0.5]);
/// assert_eq!(PerModel::from([1.0, 2.0]).of(2, "weight")?, [1.0, 2.0]);
/// assert!(PerModel::from([1.0, 2.0]).of(3, "weight").is_err());
/// # Ok::<(), regrow_sparse_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerModel {
    /// The same for all.
    All(f64),
    /// One for each, in the order of the models.
    Each(Vec<f64>),
}

impl From<f64> for PerModel {
    fn from(number: f64) -> Self {
        Self::All(number)
    }
}

impl From<Vec<f64>> for PerModel {
    fn from(numbers: Vec<f64>) -> Self {
        Self::Each(numbers)
    }
}

impl From<&[f64]> for PerModel {
    fn from(numbers: &[f64]) -> Self {
        Self::Each(numbers.to_vec())
    }
}

impl<const N: usize> From<[f64; N]> for PerModel {
    fn from(numbers: [f64; N]) -> Self {
        Self::Each(numbers.to_vec())
    }
}

impl PerModel {
    /// The numbers of `models` models; `name` is the parameter's name in messages.
    ///
    /// # Errors
    /// Another count of numbers than of models, numbers that are not finite.
    pub fn of(&self, models: usize, name: &str) -> Result<Vec<f64>> {
        let numbers = match self {
            Self::All(number) => vec![*number; models],
            Self::Each(numbers) if numbers.len() == models => numbers.clone(),
            Self::Each(numbers) => {
                return Err(Error::Argument(format!("`{name}` has {} numbers for {models} models", numbers.len())));
            }
        };
        match numbers.iter().find(|n| !n.is_finite()) {
            None => Ok(numbers),
            Some(wrong) => Err(Error::Argument(format!("`{name}` must be a finite number, not {wrong}"))),
        }
    }

    /// The same; every number must lie in `[0, 1]`.
    ///
    /// # Errors
    /// As [`PerModel::of`], and a number outside `[0, 1]`.
    pub fn fractions(&self, models: usize, name: &str) -> Result<Vec<f64>> {
        let numbers = self.of(models, name)?;
        check_fractions(name, &numbers)?;
        Ok(numbers)
    }
}

/// The parameters of a merge by name, from which a method of the registry is built.
///
/// ```
/// use regrow_merging::{MergeParams, find};
///
/// // Two models, a weight for each, one density for both.
/// let params = MergeParams::new(2).with_each("weight", &[0.5, 1.5]).with("density", 0.3);
/// let ties = find("ties")?.tensor(&params)?;
/// assert_eq!(ties.name(), "ties");
/// assert!(find("ties")?.tensor(&MergeParams::new(2).with("density", 1.3)).is_err());
/// # Ok::<(), regrow_sparse_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeParams {
    /// For all models together, such as `lambda`. A model's parameter may be here if it is the same for all.
    pub shared: Params,
    /// Each model's own, such as `weight`.
    pub models: Vec<Params>,
}

impl MergeParams {
    /// Every parameter at its default, for `models` models.
    pub fn new(models: usize) -> Self {
        Self { shared: Params::new(0), models: vec![Params::new(0); models] }
    }

    /// With a parameter for all models.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.shared = self.shared.set(name, value);
        self
    }

    /// With a number for each model; models past the last number stay unchanged.
    pub fn with_each(mut self, name: &str, numbers: &[f64]) -> Self {
        for (model, number) in self.models.iter_mut().zip(numbers) {
            *model = std::mem::take(model).set(name, number);
        }
        self
    }

    /// A number.
    ///
    /// # Errors
    /// It is missing, or no number.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.shared.real(name)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is missing, or neither.
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.shared.flag(name)
    }

    /// An optional number: `none` means no value.
    ///
    /// # Errors
    /// It is not a number.
    pub fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.shared.text(name)?.as_str() {
            "none" => Ok(None),
            _ => self.shared.get(name),
        }
    }

    /// One of the words of `choices`.
    ///
    /// # Errors
    /// It is missing, or none of them.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        choice(name, &self.shared.text(name)?, choices)
    }

    /// A number for each model: its own, else the one for all.
    ///
    /// # Errors
    /// Neither exists, or one is not a number.
    pub fn each(&self, name: &str) -> Result<PerModel> {
        let of = |model: &Params| match model.get(name)? {
            Some(number) => Ok(number),
            None => self.number(name),
        };
        self.models.iter().map(of).collect::<Result<Vec<f64>>>().map(PerModel::Each)
    }
}

/// The meaning of `word`.
pub(crate) fn choice<T: Copy>(name: &str, word: &str, choices: &[(&str, T)]) -> Result<T> {
    let known = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    let unknown = || Error::Argument(format!("unknown {name} `{word}`: use {}", known()));
    choices.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning).ok_or_else(unknown)
}

/// Rejects fractions outside `[0, 1]`.
pub(crate) fn check_fractions(name: &str, fractions: &[f64]) -> Result<()> {
    match fractions.iter().find(|f| !(0.0..=1.0).contains(*f)) {
        None => Ok(()),
        Some(wrong) => Err(Error::Argument(format!("`{name}` is a fraction in [0, 1], not {wrong}"))),
    }
}

/// Rejects numbers that are not above zero.
pub(crate) fn check_positive(name: &str, numbers: &[f64]) -> Result<()> {
    match numbers.iter().find(|n| n.is_nan() || **n <= 0.0) {
        None => Ok(()),
        Some(wrong) => Err(Error::Argument(format!("`{name}` must be positive, not {wrong}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_own_parameter_comes_before_that_of_all() {
        let params = MergeParams::new(3).with("weight", 0.5).with_each("weight", &[2.0]);
        assert_eq!(params.each("weight").unwrap(), PerModel::Each(vec![2.0, 0.5, 0.5]));
        assert!(params.each("density").is_err());
    }

    #[test]
    fn parameters_of_another_kind_are_refused() {
        let params = MergeParams::new(1).with("a", "x").with("b", "none");
        assert!(params.number("a").is_err() && params.flag("a").is_err() && params.number("c").is_err());
        let says = params.choice("a", &[("y", 2), ("z", 3)]).unwrap_err().to_string();
        assert_eq!(says, "unknown a `x`: use y, z");
        assert_eq!(params.choice("a", &[("x", 2)]).unwrap(), 2);
        assert_eq!(params.optional::<usize>("b").unwrap(), None);
        assert!(params.optional::<usize>("a").is_err());
    }

    #[test]
    fn counts_and_values_are_checked() {
        assert!(PerModel::All(f64::NAN).of(2, "weight").unwrap_err().to_string().contains("finite"));
        assert!(PerModel::All(1.5).fractions(2, "density").unwrap_err().to_string().contains("[0, 1]"));
        assert!(PerModel::Each(vec![]).of(1, "weight").is_err());
    }

    #[test]
    fn numbers_come_back_from_text_to_the_last_bit() {
        for number in [0.1f64, 1.0 / 3.0, 1e-300, -7.25, 1e17] {
            assert_eq!(MergeParams::new(0).with("x", number).number("x").unwrap().to_bits(), number.to_bits());
        }
    }
}
