//! Which data source each example of a batch comes from.

use regrow_sparse_core::{Error, Result};

/// A source's mean loss by two models on the same batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairedLoss {
    /// By the model that also follows the validation set.
    pub guided: f64,
    /// By the model that does not.
    pub plain: f64,
}

/// The source of each example of a batch.
#[derive(Clone, Debug)]
pub struct BatchSources<'a> {
    of: &'a [usize],
    counts: Vec<usize>,
}

impl<'a> BatchSources<'a> {
    /// Of examples that belong to `of`, each below `sources`.
    ///
    /// # Errors
    /// If one is not.
    pub fn new(of: &'a [usize], sources: usize) -> Result<Self> {
        let mut counts = vec![0; sources];
        for source in of {
            let known = counts.get_mut(*source);
            *known.ok_or_else(|| Error::Argument(format!("source {source} is not one of {sources}")))? += 1;
        }
        Ok(Self { of, counts })
    }

    /// The factors of the batch's losses with which their **mean** is
    /// `sum_i p_i (mean loss of source i)`; sources that the batch lacks contribute nothing.
    ///
    /// # Errors
    /// If there is not one weight for each source.
    pub fn factors(&self, weights: &[f64]) -> Result<Vec<f32>> {
        if weights.len() != self.counts.len() {
            return Err(Error::Argument(format!("{} weights do not fit {} sources", weights.len(), self.counts.len())));
        }
        let all = self.of.len() as f64;
        Ok(self.of.iter().map(|s| (all * weights[*s] / self.counts[*s] as f64) as f32).collect())
    }

    /// The mean losses of each source, from the losses of each example; `None` for sources that the batch lacks.
    ///
    /// # Errors
    /// If there is not one loss of each model for each example.
    pub fn mean_losses(&self, guided: &[f64], plain: &[f64]) -> Result<Vec<Option<PairedLoss>>> {
        if guided.len() != self.of.len() || plain.len() != self.of.len() {
            let (guided, plain, of) = (guided.len(), plain.len(), self.of.len());
            return Err(Error::Argument(format!("{guided} and {plain} losses do not fit {of} examples")));
        }
        let mut sums = vec![PairedLoss::default(); self.counts.len()];
        for ((source, guided), plain) in self.of.iter().zip(guided).zip(plain) {
            sums[*source].guided += guided;
            sums[*source].plain += plain;
        }
        let mean = |(sum, n): (PairedLoss, &usize)| {
            let n = (*n > 0).then_some(*n as f64)?;
            Some(PairedLoss { guided: sum.guided / n, plain: sum.plain / n })
        };
        Ok(sums.into_iter().zip(&self.counts).map(mean).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_each_source_by_its_mean() {
        let sources = BatchSources::new(&[0, 2, 0, 2, 2], 3).unwrap();
        let losses = [1.0, 2.0, 3.0, 4.0, 6.0];
        let factors = sources.factors(&[0.5, 0.3, 0.2]).unwrap();
        let mean: f64 = losses.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 5.0;
        assert!((mean - (0.5 * 2.0 + 0.2 * 4.0)).abs() < 1e-6);
        let pair = |guided| Some(PairedLoss { guided, plain: 0.0 });
        assert_eq!(sources.mean_losses(&losses, &[0.0; 5]).unwrap(), [pair(2.0), None, pair(4.0)]);
        assert!(sources.mean_losses(&losses, &[0.0; 4]).is_err() && sources.factors(&[1.0]).is_err());
        assert!(BatchSources::new(&[3], 3).is_err());
    }
}
