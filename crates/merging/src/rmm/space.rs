//! Basis models and coefficients of a layer, how they are stored, and how a model is rebuilt from them.

use regrow_sparse_core::model::weight::transposed;
use regrow_sparse_core::{Error, Result};

use crate::low_rank::LowRank;

/// The basis models of one layer and the coefficients of each task.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    pub(super) models: usize,
    pub(super) form: Bases,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bases {
    Factors { shape: [usize; 3], left: Basis, right: Basis },
    Products { mean: Option<LowRank>, basis: Vec<LowRank>, coefficients: Vec<f32> },
}

/// The basis of one factor: `basis [p, units * length]`, `coefficients [units, p, n]`; a mean is stored separately, not
/// among the `p`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Basis {
    pub units: usize,
    pub mean: Option<Vec<f32>>,
    pub basis: Vec<f32>,
    pub coefficients: Vec<f32>,
}

/// A tensor of a [`Space`] as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SpacePart {
    /// Such as `left.basis`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Space {
    /// How many models can be rebuilt.
    pub fn models(&self) -> usize {
        self.models
    }

    /// How many values it stores, including coefficients.
    pub fn numbers(&self) -> usize {
        self.parts().iter().map(|part| part.values.len()).sum()
    }

    /// Rebuilds model `task`, counted from 0.
    ///
    /// # Errors
    /// If there is none.
    pub fn revert(&self, task: usize) -> Result<LowRank> {
        if task >= self.models {
            return Err(Error::Argument(format!("there is no model {task} among {}", self.models)));
        }
        match &self.form {
            Bases::Factors { shape: [m, r, d], left, right } => {
                let left = left.revert(task, self.models, m * r);
                let right = transposed(&right.revert(task, self.models, d * r), *d, *r);
                LowRank::new(left, right, [*m, *r, *d])
            }
            Bases::Products { mean, basis, coefficients } => {
                let weight = |k: usize| f64::from(coefficients[k * self.models + task]);
                let fitted = basis.iter().enumerate().map(|(k, b)| (weight(k), b));
                LowRank::sum(&mean.iter().map(|m| (1.0, m)).chain(fitted).collect::<Vec<_>>())
            }
        }
    }

    /// The squared Frobenius norm of each model's error when it is rebuilt.
    ///
    /// # Errors
    /// Other models than those that were merged.
    pub fn squared_errors(&self, models: &[LowRank]) -> Result<Vec<f64>> {
        if models.len() != self.models {
            return Err(Error::Argument(format!("{} models, {} were merged", models.len(), self.models)));
        }
        models.iter().enumerate().map(|(task, model)| self.revert(task)?.squared_distance(model)).collect()
    }

    /// Its parts, for storage.
    pub fn parts(&self) -> Vec<SpacePart> {
        let part = |name: &str, shape: &[usize], values: &[f32]| SpacePart {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let n = self.models;
        match &self.form {
            Bases::Factors { shape: [m, r, d], left, right } => {
                let mut parts = Vec::new();
                for (side, rows, of) in [("left", *m, left), ("right", *d, right)] {
                    let fitted = of.basis.len() / (rows * r);
                    parts.extend(of.mean.as_ref().map(|mean| part(&format!("{side}.mean"), &[rows, *r], mean)));
                    if fitted > 0 {
                        parts.push(part(&format!("{side}.basis"), &[fitted, rows, *r], &of.basis));
                        parts.push(part(&format!("{side}.coefficients"), &[of.units, fitted, n], &of.coefficients));
                    }
                }
                parts
            }
            Bases::Products { mean, basis, coefficients } => {
                let named = mean.iter().map(|m| ("mean".to_string(), m));
                let named = named.chain(basis.iter().enumerate().map(|(k, b)| (format!("basis.{k}"), b)));
                let factors = |(name, m): (String, &LowRank)| {
                    let ([rows, cols], r) = (m.shape(), m.rank());
                    [
                        part(&format!("{name}.left"), &[rows, r], m.left()),
                        part(&format!("{name}.right"), &[r, cols], m.right()),
                    ]
                };
                let mut parts: Vec<SpacePart> = named.flat_map(factors).collect();
                if !basis.is_empty() {
                    parts.push(part("coefficients", &[basis.len(), n], coefficients));
                }
                parts
            }
        }
    }

    /// The space of `models` models from its [`Space::parts`], each looked up by name.
    ///
    /// # Errors
    /// Parts that are missing or do not fit together; errors of `find`.
    pub fn from_parts(models: usize, find: &mut dyn FnMut(&str) -> Result<Option<SpacePart>>) -> Result<Self> {
        let left = side(models, "left", find)?;
        let form = match (left, side(models, "right", find)?) {
            (Some((m, r, left)), Some((d, rank, right))) if r == rank => {
                Bases::Factors { shape: [m, r, d], left, right }
            }
            (None, None) => products_from(models, find)?,
            _ => return Err(unfit("left")),
        };
        Ok(Self { models, form })
    }
}

fn unfit(name: &str) -> Error {
    Error::tensor(name, "is missing or does not go with the others of its layer")
}

/// One side's basis with its rows and rank.
fn side(
    n: usize,
    name: &str,
    find: &mut dyn FnMut(&str) -> Result<Option<SpacePart>>,
) -> Result<Option<(usize, usize, Basis)>> {
    let mean = find(&format!("{name}.mean"))?;
    let basis = find(&format!("{name}.basis"))?;
    let coefficients = find(&format!("{name}.coefficients"))?;
    let (rows, r) = match (mean.as_ref().map(|p| &p.shape[..]), basis.as_ref().map(|p| &p.shape[..])) {
        (None, None) => return Ok(None),
        (Some(&[rows, r]), None) | (None, Some(&[_, rows, r])) => (rows, r),
        (Some(&[rows, r]), Some(&[_, a, b])) if (a, b) == (rows, r) => (rows, r),
        _ => return Err(unfit(name)),
    };
    let mean = mean.map(|p| p.values);
    let found = match (basis, coefficients) {
        (None, None) => Basis { units: 1, mean, ..Basis::default() },
        (Some(basis), Some(coefficients)) => {
            let fits = |c: &[usize]| matches!(c, [units, p, of] if *p == basis.shape[0] && *of == n && (*units == 1 || *units == rows));
            match fits(&coefficients.shape) {
                true => {
                    Basis { units: coefficients.shape[0], mean, basis: basis.values, coefficients: coefficients.values }
                }
                false => return Err(unfit(&format!("{name}.coefficients"))),
            }
        }
        _ => return Err(unfit(&format!("{name}.coefficients"))),
    };
    Ok(Some((rows, r, found)))
}

fn products_from(n: usize, find: &mut dyn FnMut(&str) -> Result<Option<SpacePart>>) -> Result<Bases> {
    let mut model = |name: &str| -> Result<Option<LowRank>> {
        match (find(&format!("{name}.left"))?, find(&format!("{name}.right"))?) {
            (None, None) => Ok(None),
            (Some(left), Some(right)) => match (&left.shape[..], &right.shape[..]) {
                (&[m, r], &[rank, d]) if r == rank => Ok(Some(LowRank::new(left.values, right.values, [m, r, d])?)),
                _ => Err(unfit(name)),
            },
            _ => Err(unfit(name)),
        }
    };
    let mean = model("mean")?;
    let mut basis = Vec::new();
    while let Some(next) = model(&format!("basis.{}", basis.len()))? {
        basis.push(next);
    }
    let shapes: Vec<_> = mean.iter().chain(&basis).map(LowRank::shape).collect();
    if shapes.is_empty() || shapes.iter().any(|s| *s != shapes[0]) {
        return Err(unfit("basis"));
    }
    let coefficients = find("coefficients")?;
    match (coefficients, basis.len()) {
        (None, 0) => Ok(Bases::Products { mean, basis, coefficients: Vec::new() }),
        (Some(c), p) if c.shape == [p, n] => Ok(Bases::Products { mean, basis, coefficients: c.values }),
        _ => Err(unfit("coefficients")),
    }
}

impl Basis {
    /// The factor of `task`, with `size` values.
    fn revert(&self, task: usize, n: usize, size: usize) -> Vec<f32> {
        let (fitted, length) = (self.basis.len() / size, size / self.units);
        let at = |place: usize| {
            let start = self.mean.as_ref().map_or(0.0, |mean| f64::from(mean[place]));
            let unit = &self.coefficients[place / length * fitted * n..];
            let along = |k: usize| f64::from(unit[k * n + task]) * f64::from(self.basis[k * size + place]);
            (start + (0..fitted).map(along).sum::<f64>()) as f32
        };
        (0..size).map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rmm::testing::{every, models};

    #[test]
    fn a_space_is_read_as_it_was_stored() {
        let models = models(3);
        for rmm in every() {
            for p in 1..=3 {
                let space = rmm.solve(models.clone()).unwrap().space(p).unwrap();
                let parts = space.parts();
                let mut find = |name: &str| Ok(parts.iter().find(|part| part.name == name).cloned());
                assert_eq!(Space::from_parts(3, &mut find).unwrap().parts(), parts, "{rmm:?}");
                if p > 1 {
                    assert!(Space::from_parts(4, &mut find).is_err(), "{rmm:?}");
                    let mut less = |name: &str| Ok(parts.iter().skip(1).find(|part| part.name == name).cloned());
                    assert!(rmm.centred || Space::from_parts(3, &mut less).is_err(), "{rmm:?}");
                }
            }
        }
        assert!(Space::from_parts(3, &mut |_| Ok(None)).is_err());
    }
}
