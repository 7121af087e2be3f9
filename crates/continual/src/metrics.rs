//! Metrics of a stream of tasks: accuracies, and the numbers computed from them.
//!
//! With `A[i][j]` the accuracy on task `j` after training task `i`, of `T` tasks:
//!
//! ```text
//! ACC = 1/T sum_j A[T-1][j]
//! BWT = 1/(T-1) sum_{j<T-1} (A[T-1][j] - A[j][j])
//! FWT = 1/(T-1) sum_{j>0} (A[j-1][j] - b[j])        b: before any training
//! F   = 1/(T-1) sum_{j<T-1} (max_{i<T-1} A[i][j] - A[T-1][j])
//! ```
//!
//! ACC, BWT and FWT as in GEM (arXiv 1706.08840, eq. 2-4), F as in Chaudhry et al. (arXiv 1801.10112, eq. 3).
//! [`AccuracyMatrix::forgetting_from_best`] includes the last row in the maximum, like the library mammoth: it is never
//! negative.

use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Accuracies in [0, 1]: a row for each task trained, a column for each task tested.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    rows: Vec<Vec<f64>>,
}

impl AccuracyMatrix {
    /// From these rows. Row `i` has at least the tasks `0..=i`.
    ///
    /// # Errors
    /// As [`AccuracyMatrix::push`].
    pub fn new(rows: impl IntoIterator<Item = Vec<f64>>) -> Result<Self> {
        let mut matrix = Self::default();
        rows.into_iter().try_for_each(|row| matrix.push(row))?;
        Ok(matrix)
    }

    /// Adds the accuracies after one more task.
    ///
    /// # Errors
    /// If trained tasks are missing, or a number is not an accuracy.
    pub fn push(&mut self, row: Vec<f64>) -> Result<()> {
        let task = self.rows.len();
        if row.len() <= task {
            let says = format!("after task {task} there are accuracies of {} tasks only", row.len());
            return Err(Error::Argument(says));
        }
        if let Some(bad) = row.iter().find(|a| !(0.0..=1.0).contains(*a)) {
            return Err(Error::Argument(format!("{bad} is no accuracy: use 0 to 1")));
        }
        self.rows.push(row);
        Ok(())
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// How many tasks were trained.
    pub fn tasks(&self) -> usize {
        self.rows.len()
    }

    /// ACC: the mean over tasks at the end; `None` before the first.
    pub fn average(&self) -> Option<f64> {
        mean(self.rows.last()?.iter().take(self.tasks()).copied())
    }

    /// The mean over time of the mean over the tasks so far; for tasks of equal size, this is the average incremental
    /// accuracy of papers on class-incremental learning.
    pub fn incremental_average(&self) -> Option<f64> {
        let seen = |(i, row): (usize, &Vec<f64>)| row[..=i].iter().sum::<f64>() / (i + 1) as f64;
        mean(self.rows.iter().enumerate().map(seen))
    }

    /// BWT; `None` for fewer than two tasks.
    pub fn backward_transfer(&self) -> Option<f64> {
        let last = self.rows.last()?;
        mean((0..self.tasks() - 1).map(|j| last[j] - self.rows[j][j]))
    }

    /// F; `None` for fewer than two tasks.
    pub fn forgetting(&self) -> Option<f64> {
        self.forgotten(self.tasks().checked_sub(1)?)
    }

    /// F with the best accuracy of all rows, including the last.
    pub fn forgetting_from_best(&self) -> Option<f64> {
        self.forgotten(self.tasks())
    }

    /// The mean loss since the best of the first `rows` rows.
    fn forgotten(&self, rows: usize) -> Option<f64> {
        let last = self.rows.last()?;
        let best = |j: usize| self.rows[j..rows].iter().map(|row| row[j]).fold(f64::NEG_INFINITY, f64::max);
        mean((0..self.tasks() - 1).map(|j| best(j) - last[j]))
    }

    /// FWT relative to `before`, the accuracy on each task before any training; `None` for fewer than two tasks, or if
    /// rows lack the next task.
    pub fn forward_transfer(&self, before: &[f64]) -> Option<f64> {
        let one = |j: usize| Some(self.rows[j - 1].get(j)? - before.get(j)?);
        let all: Option<Vec<f64>> = (1..self.tasks()).map(one).collect();
        mean(all?.into_iter())
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let len = values.len();
    (len > 0).then(|| values.sum::<f64>() / len as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Option<f64>, b: f64) {
        assert!((a.expect("a number") - b).abs() < 1e-9, "{a:?} {b}");
    }

    #[test]
    fn by_hand() {
        let m = AccuracyMatrix::new([vec![0.9, 0.1], vec![0.6, 0.8]]).unwrap();
        close(m.average(), 0.7);
        close(m.backward_transfer(), -0.3);
        close(m.forgetting(), 0.3);
        close(m.forward_transfer(&[0.5, 0.1]), 0.0);
        close(m.incremental_average(), 0.8);
    }

    /// mammoth's `backward_transfer`, `forgetting` and `forward_transfer` (aimagelab/mammoth,
    /// utils/metrics.py) on this matrix; FWT against `before`, forgetting on rows cut below the diagonal.
    #[test]
    fn equal_to_mammoth() {
        let rows = [
            vec![0.97, 0.11, 0.08, 0.24],
            vec![0.71, 0.95, 0.17, 0.02],
            vec![0.78, 0.60, 0.93, 0.31],
            vec![0.80, 0.66, 0.41, 0.99],
        ];
        let before = [0.12, 0.09, 0.10, 0.13];
        let m = AccuracyMatrix::new(rows.clone()).unwrap();
        close(m.backward_transfer(), MAMMOTH[0]);
        close(m.forward_transfer(&before), MAMMOTH[1]);
        let lower = rows.iter().enumerate().map(|(i, row)| row[..=i].to_vec());
        let lower = AccuracyMatrix::new(lower).unwrap();
        close(lower.forgetting_from_best(), MAMMOTH[2]);
        assert_eq!((lower.backward_transfer(), lower.forward_transfer(&before)), (m.backward_transfer(), None));
        // A task that is best at the end: the original definition counts it as negative forgetting.
        let better = AccuracyMatrix::new([vec![0.5], vec![0.7, 0.9]]).unwrap();
        close(better.forgetting(), -0.2);
        close(better.forgetting_from_best(), MAMMOTH[3]);
    }

    const MAMMOTH: [f64; 4] = [-0.3266666666666666, 0.09000000000000001, 0.3266666666666666, 0.0];

    #[test]
    fn one_task_has_nothing_to_forget() {
        let m = AccuracyMatrix::new([vec![0.9]]).unwrap();
        close(m.average(), 0.9);
        assert_eq!((m.backward_transfer(), m.forgetting(), m.forward_transfer(&[0.1])), (None, None, None));
        assert_eq!(AccuracyMatrix::default().average(), None);
        assert_eq!(AccuracyMatrix::default().forgetting_from_best(), None);
    }

    #[test]
    fn what_is_no_accuracy_is_refused() {
        assert!(AccuracyMatrix::new([vec![f64::NAN]]).is_err());
        assert!(AccuracyMatrix::new([vec![93.0]]).is_err());
        assert!(AccuracyMatrix::new([vec![0.5], vec![0.5]]).unwrap_err().to_string().contains("after task 1"));
    }
}
