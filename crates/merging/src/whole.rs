//! Methods that merge whole models: all tensors of every model in, all tensors of one model out.

use regrow_sparse_core::{Error, Result};

/// A method that needs all tensors of all models together. Its settings are fixed and checked on construction.
pub trait ModelMerge: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The merged model: the values of every tensor, in the order of [`WholeModels::tensors`].
    ///
    /// # Errors
    /// No base if it needs one, or values that it cannot merge.
    fn merge(&self, models: &WholeModels<'_>) -> Result<Vec<Vec<f32>>>;
}

/// Models with the same tensors, in memory, and optionally their common parent.
#[derive(Clone, Copy, Debug)]
pub struct WholeModels<'a> {
    tensors: &'a [(String, Vec<usize>)],
    base: Option<&'a [Vec<f32>]>,
    models: &'a [Vec<Vec<f32>>],
}

impl<'a> WholeModels<'a> {
    /// Models of tensors with these names and shapes; values are row-major, a list for each tensor.
    ///
    /// # Errors
    /// No models, values that do not fill the shapes.
    pub fn new(
        tensors: &'a [(String, Vec<usize>)],
        base: Option<&'a [Vec<f32>]>,
        models: &'a [Vec<Vec<f32>>],
    ) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::Argument("there are no models to merge".into()));
        }
        for model in models.iter().map(Vec::as_slice).chain(base) {
            if model.len() != tensors.len() {
                return Err(Error::Argument(format!("a model has {} tensors, not {}", model.len(), tensors.len())));
            }
            for ((name, shape), values) in tensors.iter().zip(model) {
                if values.len() != shape.iter().product::<usize>() {
                    return Err(Error::tensor(name, format!("{} values for the shape {shape:?}", values.len())));
                }
            }
        }
        Ok(Self { tensors, base, models })
    }

    /// Names and shapes.
    pub fn tensors(&self) -> &'a [(String, Vec<usize>)] {
        self.tensors
    }

    /// The values of every model.
    pub fn all(&self) -> &'a [Vec<Vec<f32>>] {
        self.models
    }

    /// The base's values.
    ///
    /// # Errors
    /// If there is no base.
    pub fn base(&self) -> Result<&'a [Vec<f32>]> {
        self.base.ok_or_else(|| Error::Argument("this method needs a base, the models' common parent".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_must_have_the_tensors() {
        let tensors = [("w".to_string(), vec![2]), ("b".into(), vec![1])];
        let whole = vec![vec![1.0, 2.0], vec![3.0]];
        let models = [whole.clone()];
        let found = WholeModels::new(&tensors, None, &models).unwrap();
        assert!(found.base().is_err() && found.all().len() == 1 && found.tensors().len() == 2);
        assert!(WholeModels::new(&tensors, Some(&whole[..1]), &models).unwrap_err().to_string().contains("1 tensors"));
        let short = [vec![vec![1.0], vec![3.0]]];
        assert!(WholeModels::new(&tensors, None, &short).unwrap_err().to_string().starts_with("w: 1 values"));
        assert!(WholeModels::new(&tensors, None, &[]).is_err());
    }
}
