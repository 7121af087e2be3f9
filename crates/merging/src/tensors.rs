//! Methods that merge tensor by tensor: one tensor of every model in, one tensor out.

use regrow_sparse_core::{Error, Result};

/// A method that merges several tensors into one. Its settings are fixed and checked on construction.
pub trait TensorMerge: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether NaN or infinity in any input always appears in the result. Inputs are then not checked for such values
    /// before merging, only the result is.
    fn propagates_nan(&self) -> bool {
        false
    }

    /// The merged tensor, row-major over the same shape.
    ///
    /// # Errors
    /// Another number of models than it was built for, no base if it needs one, or values that it cannot merge.
    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>>;
}

/// One tensor of one model.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The model's name; random draws depend on it, not on the order of the models.
    pub model: &'a str,
    /// The tensor's values, row-major.
    pub values: &'a [f32],
    /// A statistic of the tensor, for methods that need one: its Fisher information (of its shape), or the second
    /// moment of its layer's inputs (`[in, in]`).
    pub statistic: Option<&'a [f32]>,
}

impl<'a> Operand<'a> {
    /// A tensor without a statistic.
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
    transposed: bool,
}

impl<'a> Operands<'a> {
    /// The tensor `name` of this shape, `[out, in, ...]`, from every model and optionally their base.
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
        Ok(Self { name, shape, base, models, transposed: false })
    }

    /// With the matrix stored `[in, out]`, as in GPT-2, or not.
    pub fn with_transposed(mut self, transposed: bool) -> Self {
        self.transposed = transposed;
        self
    }

    /// Whether the matrix is stored `[in, out]`.
    pub fn transposed(&self) -> bool {
        self.transposed
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

    /// The tensors of the models; there must be `count`.
    ///
    /// # Errors
    /// If there are more or fewer.
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

#[cfg(test)]
mod tests {
    use super::*;

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
