//! What a method that merges tensors is: one tensor of every model in, one tensor out.

use std::collections::BTreeMap;

use regrow_sparse_core::{Error, Result};

/// A rule that makes one tensor of several. Everything it is told besides the values is fixed when it is
/// made, and checked then.
pub trait TensorMerge: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether a value of any input that is no finite number always makes one of the result: inputs then need not be
    /// looked through before they are merged.
    fn passes_on(&self) -> bool {
        false
    }

    /// The merged tensor, row-major over the same shape.
    ///
    /// # Errors
    /// Another number of models than it was made for, no base where it needs one, or values that it has no
    /// answer for.
    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>>;
}

/// One tensor of one model.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The model's name; draws at random depend on it, not on the order of the models.
    pub model: &'a str,
    /// The tensor's values, row-major.
    pub values: &'a [f32],
    /// What is known of the tensor besides, for methods that ask: its Fisher information (of its shape),
    /// or the second moment of its layer's inputs (`[in, in]`).
    pub statistic: Option<&'a [f32]>,
}

impl<'a> Operand<'a> {
    /// A tensor of which nothing is known but its values.
    pub fn new(model: &'a str, values: &'a [f32]) -> Self {
        Self { model, values, statistic: None }
    }
}

/// One tensor of every model, and of their common parent.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    name: &'a str,
    shape: &'a [usize],
    base: Option<&'a [f32]>,
    models: &'a [Operand<'a>],
    turned: bool,
}

impl<'a> Operands<'a> {
    /// The tensor `name` of this shape, `[out, in, ...]`, from every model and perhaps their base.
    ///
    /// # Errors
    /// No models, or values that do not fill the shape.
    pub fn new(name: &'a str, shape: &'a [usize], base: Option<&'a [f32]>, models: &'a [Operand<'a>]) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::Argument("there are no models to merge".into()));
        }
        let elements = shape.iter().product::<usize>();
        let all = models.iter().map(|m| (m.model, m.values)).chain(base.map(|values| ("the base", values)));
        for (model, values) in all {
            if values.len() != elements {
                let reason = format!("{} values of {model} for the shape {shape:?}", values.len());
                return Err(Error::tensor(name, reason));
            }
        }
        Ok(Self { name, shape, base, models, turned: false })
    }

    /// With the matrix stored `[in, out]`, as GPT-2 has it, or not.
    pub fn with_turned(mut self, turned: bool) -> Self {
        self.turned = turned;
        self
    }

    /// Whether the matrix is stored `[in, out]`.
    pub fn turned(&self) -> bool {
        self.turned
    }

    /// The tensor's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its sizes, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.models[0].values.len()
    }

    /// Rows and columns of the tensor as a matrix `[out, rest]`; a vector is one row.
    pub fn matrix(&self) -> (usize, usize) {
        match self.shape {
            [] | [_] => (1, self.elements()),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        }
    }

    /// The tensors of the models, of which there must be `count`.
    ///
    /// # Errors
    /// If there are not.
    pub fn models(&self, count: usize) -> Result<&'a [Operand<'a>]> {
        match self.models.len() == count {
            true => Ok(self.models),
            false => Err(self.error(format!("{} models, the method was made for {count}", self.models.len()))),
        }
    }

    /// The tensors of the models, however many.
    pub fn all(&self) -> &'a [Operand<'a>] {
        self.models
    }

    /// The base's values.
    ///
    /// # Errors
    /// If there is no base.
    pub fn base(&self) -> Result<&'a [f32]> {
        self.base.ok_or_else(|| self.error("this method needs a base, the models' common parent"))
    }

    /// An error about this tensor.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::tensor(self.name, reason)
    }
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A word.
    Text(String),
}

/// A method's parameters for one tensor, by name, from which it is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// For all models together, as `lambda`; those of a model stand here too if they are the same for all.
    pub shared: BTreeMap<String, Value>,
    /// For each model, as `weight`.
    pub models: Vec<BTreeMap<String, Value>>,
}

impl Parameters {
    /// No parameter set, for `count` models.
    pub fn defaults(count: usize) -> Self {
        Self { shared: BTreeMap::new(), models: vec![BTreeMap::new(); count] }
    }

    /// With a parameter for all models.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.shared.insert(name.into(), value);
        self
    }

    /// With a number for each model; models beyond the last number have none.
    pub fn with_each(mut self, name: &str, numbers: &[f64]) -> Self {
        for (model, number) in self.models.iter_mut().zip(numbers) {
            model.insert(name.into(), Value::Number(*number));
        }
        self
    }

    /// A number.
    ///
    /// # Errors
    /// It is something else, or not finite.
    pub fn number(&self, name: &str, default: f64) -> Result<f64> {
        self.shared.get(name).map_or(Ok(default), |value| as_number(name, value))
    }

    /// A number without a default.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn required(&self, name: &str) -> Result<f64> {
        let missing = || Error::Argument(format!("the parameter `{name}` is missing"));
        self.shared.get(name).ok_or_else(missing).and_then(|value| as_number(name, value))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.shared.get(name) {
            None => Ok(default),
            Some(Value::Flag(flag)) => Ok(*flag),
            Some(_) => Err(Error::Argument(format!("the parameter `{name}` must be true or false"))),
        }
    }

    /// One of several words.
    ///
    /// # Errors
    /// It is none of them.
    pub fn word<T: Copy>(&self, name: &str, default: T, words: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.shared.get(name) else { return Ok(default) };
        let found = words.iter().find(|(word, _)| matches!(value, Value::Text(text) if text == word));
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| Error::Argument(format!("`{name}` must be one of {}", known())))
    }

    /// A number for each model: the model's own, else the one for all, else the default.
    ///
    /// # Errors
    /// One of them is something else.
    pub fn each(&self, name: &str, default: f64) -> Result<Vec<f64>> {
        let of = |model: &BTreeMap<String, Value>| match model.get(name) {
            Some(value) => as_number(name, value),
            None => self.number(name, default),
        };
        self.models.iter().map(of).collect()
    }
}

fn as_number(name: &str, value: &Value) -> Result<f64> {
    match value {
        Value::Number(number) if number.is_finite() => Ok(*number),
        _ => Err(Error::Argument(format!("the parameter `{name}` must be a number"))),
    }
}

/// Refuses fractions outside `[0, 1]`.
pub(crate) fn check_fractions(name: &str, fractions: &[f64]) -> Result<()> {
    match fractions.iter().find(|f| !(0.0..=1.0).contains(*f)) {
        None => Ok(()),
        Some(wrong) => Err(Error::Argument(format!("`{name}` is a fraction in [0, 1], not {wrong}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_own_parameter_comes_before_that_of_all() {
        let parameters = Parameters::defaults(3).with("weight", Value::Number(0.5)).with_each("weight", &[2.0]);
        assert_eq!(parameters.each("weight", 1.0).unwrap(), [2.0, 0.5, 0.5]);
        assert_eq!(parameters.each("density", 1.0).unwrap(), [1.0; 3]);
    }

    #[test]
    fn parameters_of_another_kind_are_refused() {
        let parameters = Parameters::defaults(1).with("a", Value::Text("x".into())).with("b", Value::Number(f64::NAN));
        assert!(parameters.number("a", 1.0).is_err() && parameters.number("b", 1.0).is_err());
        assert!(parameters.flag("a", true).is_err() && parameters.required("c").is_err());
        let says = parameters.word("a", 1, &[("y", 2), ("z", 3)]).unwrap_err().to_string();
        assert_eq!(says, "`a` must be one of y, z");
        assert_eq!(parameters.word("a", 1, &[("x", 2)]).unwrap(), 2);
    }

    #[test]
    fn operands_must_fill_the_shape() {
        let models = [Operand::new("a", &[1.0, 2.0])];
        assert!(Operands::new("w", &[3], None, &models).unwrap_err().to_string().contains("2 values of a"));
        assert!(Operands::new("w", &[2], Some(&[1.0]), &models).is_err());
        assert!(Operands::new("w", &[2], None, &[]).is_err());
        let tensor = Operands::new("w", &[2], None, &models).unwrap();
        assert!(tensor.base().is_err() && tensor.models(2).is_err() && tensor.models(1).is_ok());
        assert_eq!(tensor.matrix(), (1, 2));
    }
}
