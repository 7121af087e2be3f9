//! Tests of a network on every task of a stream.

use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;

use super::Run;
use crate::strategy::Strategy;

/// Images per batch of a test.
const TEST_BATCH: usize = 512;

impl Run<'_> {
    /// The accuracy on each task after task `after`, and the share of all answers that are a class of that task.
    pub(super) fn row<M: Headed>(
        &self,
        model: &M,
        strategy: &dyn Strategy<M>,
        after: usize,
    ) -> Result<(Vec<f64>, f64)> {
        let (mut row, mut newest, mut all) = (Vec::new(), 0, 0);
        for task in 0..self.stream.tasks() {
            let (right, of_newest, len) = self.answers(model, strategy, task, after)?;
            row.push(right as f64 / len as f64);
            (newest, all) = (newest + of_newest, all + len);
        }
        Ok((row, newest as f64 / all as f64))
    }

    /// For the test examples of `task` after task `after`: how many are answered correctly, how many with a class of
    /// task `after`, and how many there are.
    fn answers<M: Headed>(
        &self,
        model: &M,
        strategy: &dyn Strategy<M>,
        task: usize,
        after: usize,
    ) -> Result<(usize, usize, usize)> {
        let evaluated = strategy.eval_model(model, task)?.valid();
        let (len, among) = (self.stream.test_len(task), self.stream.candidates(task, after));
        let (mut right, mut newest, last) = (0, 0, self.stream.classes_of(after));
        for first in (0..len).step_by(TEST_BATCH) {
            let (images, labels) = self.stream.test(task, first..(first + TEST_BATCH).min(len), self.plain);
            let scores = strategy.scores(&evaluated, images).narrow(1, among.start, among.len());
            let answers = scores.argmax(1).into_data().convert::<i64>();
            for (answer, label) in answers.iter::<i64>().zip(labels) {
                let answer = among.start + answer as usize;
                right += usize::from(answer == label);
                newest += usize::from(last.contains(&answer));
            }
        }
        Ok((right, newest, len))
    }
}
