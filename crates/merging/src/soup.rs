//! Model soups (Wortsman et al., arXiv 2203.05482): uniform, and greedy on a validation set.

use burn::module::Module;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::average::{average, equal_weights};

/// Which candidates are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Soup {
    /// All of them, weights `1/m`.
    #[default]
    Uniform,
    /// In descending order of validation score, each that does not lower the score of the average.
    Greedy,
}

impl Soup {
    /// The soup of `models`, and how many it contains. `finish` is applied to every average before it is used
    /// (batch-norm recalibration), `score` evaluates a model (larger is better; needed only by the greedy soup).
    ///
    /// # Errors
    /// No models, models that cannot be averaged, or errors of `finish` and `score`.
    pub fn cook<M: Module, E: From<Error>>(
        self,
        models: &[M],
        finish: &mut dyn FnMut(M) -> Result<M, E>,
        score: &mut dyn FnMut(&M) -> Result<f64, E>,
    ) -> Result<(M, usize), E> {
        match self {
            Self::Uniform => Ok((finish(average(models, &equal_weights(models.len().max(1)))?)?, models.len())),
            Self::Greedy => greedy(models, finish, score),
        }
    }
}

fn greedy<M: Module, E: From<Error>>(
    models: &[M],
    finish: &mut dyn FnMut(M) -> Result<M, E>,
    score: &mut dyn FnMut(&M) -> Result<f64, E>,
) -> Result<(M, usize), E> {
    let scores = models.iter().map(&mut *score).collect::<Result<Vec<f64>, E>>()?;
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let Some(&first) = order.first() else {
        return Err(Error::Argument("there are no models to average".into()).into());
    };
    let mut kept = vec![models[first].clone()];
    let (mut best, mut best_score) = (models[first].clone(), scores[first]);
    for &i in &order[1..] {
        kept.push(models[i].clone());
        let soup = finish(average(&kept, &equal_weights(kept.len()))?)?;
        let with = score(&soup)?;
        if with >= best_score {
            (best, best_score) = (soup, with);
        } else {
            kept.pop();
        }
    }
    Ok((best, kept.len()))
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::nn::Linear;
    use burn::tensor::Tensor;

    use super::*;

    fn constant(value: f32) -> Linear {
        let weight = Tensor::full([1, 1], value, &regrow_device::current());
        Linear { weight: Param::from_tensor(weight), bias: None }
    }

    fn value(model: &Linear) -> f64 {
        f64::from(model.weight.val().into_scalar::<f32>())
    }

    /// Models are numbers; the nearer to 1 the better.
    fn cook(soup: Soup, numbers: &[f32]) -> (f64, usize) {
        let models: Vec<Linear> = numbers.iter().map(|v| constant(*v)).collect();
        let score = &mut |m: &Linear| Ok::<_, Error>(-(value(m) - 1.0).abs());
        let (model, of) = soup.cook(&models, &mut Ok, score).unwrap();
        (value(&model), of)
    }

    #[test]
    fn uniform_takes_all_and_greedy_what_helps() {
        assert_eq!(cook(Soup::Uniform, &[0.5, 1.25, 4.25]), (2.0, 3));
        assert_eq!(cook(Soup::Greedy, &[0.75, 1.25, 4.0]), (1.0, 2));
        assert_eq!(cook(Soup::Greedy, &[1.0, 3.0, 5.0]), (1.0, 1));
    }

    #[test]
    fn greedy_never_ends_below_the_best_candidate() {
        for numbers in [[0.2, 0.9, 1.4], [3.0, -1.0, 1.1], [0.0, 0.0, 0.0]] {
            let best = numbers.iter().map(|v| -(f64::from(*v) - 1.0).abs()).fold(f64::NEG_INFINITY, f64::max);
            let (value, _) = cook(Soup::Greedy, &numbers);
            assert!(-(value - 1.0).abs() >= best - 1e-7, "{numbers:?}");
        }
    }

    #[test]
    fn nothing_makes_no_soup() {
        for soup in [Soup::Uniform, Soup::Greedy] {
            assert!(soup.cook::<Linear, Error>(&[], &mut Ok, &mut |_| Ok(0.0)).is_err());
        }
    }
}
