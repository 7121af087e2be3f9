//! SparseGPT: pruning with the rest of each row corrected (Frantar & Alistarh, arXiv 2301.00774).
//!
//! With `H = 2/n sum x x^T` over the calibration inputs, damped, and `U` the upper triangular factor of its inverse
//! (`U^T U = H^-1`), columns are visited from left to right (algorithm 1): a pruned weight leaves the error `e = w /
//! U_jj`, which is distributed to the later columns of its row, `w_: -= e U_j:`. Masks are chosen a block of columns at
//! a time, by `w^2 / U_jj^2`, the smallest of the whole block (eq. 5), or of each group of N:M at its first column.

use std::cell::OnceCell;

use burn::config::Config;
use burn::tensor::{Device, Tensor};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Side, get_global_parallelism};
use rayon::prelude::*;
use regrow_sparse_core::layerwise::{InputObserver, LayerSolver, LayerTarget, PrunedLayer};
use regrow_sparse_core::mask::budget::rounded;
use regrow_sparse_core::mask::top_k::top_k;
use regrow_sparse_core::model::weight::{Weight, transposed};
use regrow_sparse_core::{Error, Mask, Pattern, Result};

/// Prunes layers column by column and corrects the remaining weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseGpt {
    block: usize,
    damping: f64,
}

impl Default for SparseGpt {
    /// The authors' blocks of 128 columns and damping of 0.01 times the mean of the diagonal.
    fn default() -> Self {
        Self { block: 128, damping: 0.01 }
    }
}

/// The settings of [`SparseGpt`].
#[derive(Config, Debug)]
pub struct SparseGptConfig {
    /// Columns in a block, whose masks are chosen together.
    #[config(default = 128)]
    pub block: usize,
    /// Damping of the second moment, as a fraction of the mean of its diagonal.
    #[config(default = 0.01)]
    pub damping: f64,
}

impl SparseGptConfig {
    /// The solver.
    ///
    /// # Errors
    /// A block of no column, or a damping that is negative or not finite.
    pub fn init(&self) -> Result<SparseGpt> {
        let Self { block, damping } = *self;
        if block == 0 || !damping.is_finite() || damping < 0.0 {
            return Err(Error::Argument(format!("blocks of {block} columns or a damping of {damping} are impossible")));
        }
        Ok(SparseGpt { block, damping })
    }
}

impl LayerSolver for SparseGpt {
    fn name(&self) -> &'static str {
        "sparsegpt"
    }

    fn observe(&self, d_in: usize, device: &Device) -> Box<dyn InputObserver> {
        let moment = Tensor::zeros([d_in, d_in], device);
        Box::new(Moments { settings: *self, moment, sequences: 0, factor: OnceCell::new() })
    }
}

/// The sum over sequences of `X^T X`; the factor `2/n` is applied on reading.
struct Moments {
    settings: SparseGpt,
    moment: Tensor<2>,
    sequences: usize,
    /// Computed at the first layer that reads this input, for all layers that do.
    factor: OnceCell<Option<Factor>>,
}

/// What the columns of a layer need from their inputs.
struct Factor {
    /// `U`, row-major.
    upper: Vec<f32>,
    /// Inputs that are always zero.
    dead: Vec<bool>,
}

impl Moments {
    /// `None` if the moment is not finite or has no factor.
    fn factor(&self) -> Option<&Factor> {
        let make = || {
            let [cols, _] = self.moment.dims();
            let scale = 2.0 / self.sequences.max(1) as f32;
            let mut moment = self.moment.to_data().try_into_vec_as::<f32>().ok()?;
            moment.par_iter_mut().for_each(|v| *v *= scale);
            let dead: Vec<bool> = (0..cols).map(|j| moment[j * cols + j] == 0.0).collect();
            let finite = moment.par_iter().all(|v| v.is_finite());
            let upper = finite.then(|| factor(&moment, &dead, self.settings.damping)).flatten()?;
            Some(Factor { upper, dead })
        };
        self.factor.get_or_init(make).as_ref()
    }
}

impl InputObserver for Moments {
    fn add(&mut self, sequence: Tensor<2>) {
        self.moment = self.moment.clone() + sequence.clone().transpose().matmul(sequence);
        self.sequences += 1;
        self.factor = OnceCell::new();
    }

    fn solve(&self, weight: &Weight, goal: &LayerTarget) -> Result<PrunedLayer> {
        let (rows, cols) = weight.dims();
        if self.moment.dims() != [cols, cols] || weight.values.iter().any(|v| !v.is_finite()) {
            return Err(Error::tensor(&weight.path, "its weights are not finite, or do not fit its inputs"));
        }
        let block = columns(goal.pattern, self.settings.block, cols).map_err(|e| Error::tensor(&weight.path, e))?;
        let none = || Error::tensor(&weight.path, "the second moment of its inputs has no Cholesky factor");
        let Factor { upper, dead } = self.factor().ok_or_else(none)?;
        let mut values = weight.values.clone();
        for row in values.chunks_mut(cols) {
            row.iter_mut().zip(dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.0);
        }
        let mut layer = Layer { values, rows, cols, upper, kept: vec![true; rows * cols] };
        for start in (0..cols).step_by(block) {
            layer.prune(start..(start + block).min(cols), goal)?;
        }
        let Layer { values, kept, .. } = layer;
        Ok(PrunedLayer { mask: Mask::from_fn(weight.shape.clone(), |i| kept[i]), values: Some(values) })
    }
}

/// Columns in a block: a whole number of groups if there are groups.
fn columns(pattern: Pattern, block: usize, cols: usize) -> std::result::Result<usize, String> {
    match pattern {
        Pattern::Unstructured => Ok(block),
        Pattern::NofM { n, m } if m > 0 && n <= m && cols.is_multiple_of(m) => Ok(block.next_multiple_of(m)),
        Pattern::NofM { n, m } => Err(format!("{n}:{m} does not divide rows of {cols} inputs")),
        other => Err(format!("SparseGPT prunes unstructured or N:M, not {other}")),
    }
}

/// `U` with `U^T U = H^-1`, row-major; the damping grows tenfold while `H` has no factor, up to its diagonal.
///
/// In reverse order: with `J` reversing the order, `J H J = L L^T` gives `H = (J L J) (J L J)^T`, and `J L J` is upper
/// triangular: `U = (J L J)^-1 = J L^-1 J`.
fn factor(moment: &[f32], dead: &[bool], damping: f64) -> Option<Vec<f32>> {
    let n = dead.len();
    let diagonal = |j: usize| if dead[j] { 1.0 } else { f64::from(moment[j * n + j]) };
    let mean = (0..n).map(diagonal).sum::<f64>() / n.max(1) as f64;
    let mut damping = damping;
    loop {
        let mut reversed = Mat::<f64>::zeros(n, n);
        reversed.as_mut().par_col_iter_mut().enumerate().for_each(|(j, column)| {
            // Symmetric, so that a column of it is read along a row of the moment.
            let row = moment[(n - 1 - j) * n..][..n].iter().rev();
            column.iter_mut().zip(row).for_each(|(value, moment)| *value = f64::from(*moment));
        });
        (0..n).for_each(|j| reversed[(j, j)] = diagonal(n - 1 - j) + damping * mean);
        if let Ok(llt) = reversed.llt(Side::Lower) {
            let inverse = &mut reversed;
            inverse.fill(0.0);
            invert_lower_triangular(inverse.as_mut(), llt.L(), get_global_parallelism());
            drop(llt);
            return Some(turned(inverse));
        }
        if damping >= 1.0 {
            return None;
        }
        damping = if damping > 0.0 { 10.0 * damping } else { 0.01 };
        tracing::warn!(damping, "the second moment has no Cholesky factor: damped more");
    }
}

/// `J X J`, row-major.
fn turned(matrix: &Mat<f64>) -> Vec<f32> {
    let n = matrix.nrows();
    let mut columns = vec![0.0; n * n];
    columns.par_chunks_mut(n.max(1)).enumerate().for_each(|(j, values)| {
        let column = matrix.col(n - 1 - j);
        values.iter_mut().rev().zip(column.iter()).for_each(|(value, x)| *value = *x as f32);
    });
    transposed(&columns, n, n)
}

/// A layer being pruned, row-major.
struct Layer<'a> {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
    upper: &'a [f32],
    kept: Vec<bool>,
}

impl Layer<'_> {
    /// Prunes a block of columns and distributes its errors to the columns after it.
    fn prune(&mut self, block: std::ops::Range<usize>, goal: &LayerTarget) -> Result<()> {
        let (width, cols) = (block.len(), self.cols);
        let pieces: Vec<f32> = self.values.chunks(cols).flat_map(|row| &row[block.clone()]).copied().collect();
        let diagonal: Vec<f32> = block.clone().map(|j| self.upper[j * cols + j]).collect();
        let chosen = match goal.pattern {
            Pattern::NofM { .. } => Vec::new(),
            _ => {
                let score = |(i, w): (usize, &f32)| (w / diagonal[i % width]).powi(2);
                let scores: Vec<f32> = pieces.iter().enumerate().map(score).collect();
                top_k(&scores, scores.len() - rounded(goal.sparsity, scores.len()), |x| x)?
            }
        };
        let mut errors = vec![0.0f32; self.rows * width];
        let rows = self.values.par_chunks_mut(cols).zip(self.kept.par_chunks_mut(cols));
        let (upper, start) = (self.upper, block.start);
        rows.zip(errors.par_chunks_mut(width)).enumerate().for_each(|(r, ((row, kept), errors))| {
            let (row, kept) = (&mut row[block.clone()], &mut kept[block.clone()]);
            for i in 0..width {
                match goal.pattern {
                    Pattern::NofM { n, m } if i % m == 0 => {
                        group(&row[i..i + m], &diagonal[i..i + m], n, &mut kept[i..i + m])
                    }
                    Pattern::NofM { .. } => {}
                    _ => kept[i] = chosen[(r * width + i) / 64] >> ((r * width + i) % 64) & 1 == 1,
                }
                if kept[i] {
                    continue;
                }
                let error = row[i] / diagonal[i];
                let factors = &upper[(start + i) * cols + start..][..width];
                row[i + 1..].iter_mut().zip(&factors[i + 1..]).for_each(|(w, u)| *w -= error * u);
                row[i] = 0.0;
                errors[i] = error;
            }
        });
        self.hand_on(&errors, block);
        Ok(())
    }

    /// `W[:, after] -= E U[block, after]`.
    fn hand_on(&mut self, errors: &[f32], block: std::ops::Range<usize>) {
        let (after, cols) = (self.cols - block.end, self.cols);
        if after == 0 {
            return;
        }
        let factors = MatRef::from_row_major_slice(self.upper, cols, cols);
        let factors = factors.submatrix(block.start, block.end, block.len(), after);
        let errors = MatRef::from_row_major_slice(errors, self.rows, block.len());
        let rest = MatMut::from_row_major_slice_mut(&mut self.values, self.rows, cols);
        let rest = rest.submatrix_mut(0, block.end, self.rows, after);
        matmul(rest, Accum::Add, errors, factors, -1.0, get_global_parallelism());
    }
}

/// In a group the `n` largest `(w / U_jj)^2` stay; among equal ones the first.
fn group(weights: &[f32], diagonal: &[f32], n: usize, kept: &mut [bool]) {
    let score = |i: usize| (weights[i] / diagonal[i]).powi(2);
    for (i, kept) in kept.iter_mut().enumerate() {
        let beats = |j: &usize| score(*j) > score(i) || (score(*j) == score(i) && *j < i);
        *kept = (0..weights.len()).filter(beats).count() < n;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use faer::Par;
    use faer::linalg::triangular_solve::solve_upper_triangular_in_place;
    use regrow_sparse_core::seed::mix;

    use super::*;
    use crate::Wanda;
    use crate::testing::{bits, weight};

    const GOAL: LayerTarget = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };

    fn solve(
        solver: &dyn LayerSolver,
        inputs: &[f32],
        cols: usize,
        weight: &Weight,
        goal: &LayerTarget,
    ) -> PrunedLayer {
        let device = regrow_device::current();
        let mut observer = solver.observe(cols, &device);
        observer.add(Tensor::from_data(TensorData::new(inputs.to_vec(), [inputs.len() / cols, cols]), &device));
        observer.solve(weight, goal).unwrap()
    }

    /// `tokens` inputs of `cols` correlated values.
    fn correlated(tokens: usize, cols: usize) -> Vec<f32> {
        // Independent noise per column, plus noise shared by all of a token's columns.
        let noise = |i: usize| (mix(1, i as u64) % 10_007) as f32 / 5_003.0 - 1.0;
        let value = |t: usize, c: usize| noise(t * cols + c) + 2.0 * noise(1_000_000 + t);
        (0..tokens * cols).map(|i| value(i / cols, i % cols)).collect()
    }

    #[test]
    fn independent_inputs_leave_the_rest_alone() {
        let layer = weight("a", &[2, 4], |i| [1.0, -2.0, 3.0, 4.0, 9.0, 8.0, -7.0, 0.5][i]);
        let identity: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        let solved = solve(&SparseGpt::default(), &identity, 4, &layer, &GOAL);
        assert_eq!(bits(&solved.mask), "00011110");
        assert_eq!(solved.values.unwrap(), [0.0, 0.0, 0.0, 4.0, 9.0, 8.0, -7.0, 0.0]);
        let two_of_four = LayerTarget { pattern: Pattern::NofM { n: 2, m: 4 }, ..GOAL };
        assert_eq!(bits(&solve(&SparseGpt::default(), &identity, 4, &layer, &two_of_four).mask), "00111100");
    }

    #[test]
    fn a_pruned_weight_is_made_good_by_the_later_columns() {
        // One row, its first weight pruned: the least-squares answer of the others.
        let inputs = correlated(40, 5);
        let layer = weight("a", &[1, 5], |i| [0.01, 1.0, -1.2, 0.9, 1.1][i]);
        let solver = SparseGptConfig::new().with_block(128).with_damping(0.0).init().unwrap();
        let solved = solve(&solver, &inputs, 5, &layer, &LayerTarget { sparsity: 0.2, ..GOAL });
        assert_eq!(bits(&solved.mask), "01111");
        let x = Mat::<f64>::from_fn(40, 5, |i, j| f64::from(inputs[i * 5 + j]));
        let inverse = (x.transpose() * &x).llt(Side::Lower).unwrap().L().to_owned();
        let upper = Mat::<f64>::from_fn(5, 5, |i, j| inverse[(j, i)]);
        // Columns of H^-1 by two triangular solves.
        let mut column = Mat::<f64>::from_fn(5, 1, |i, _| if i == 0 { 1.0 } else { 0.0 });
        faer::linalg::triangular_solve::solve_lower_triangular_in_place(inverse.as_ref(), column.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(upper.as_ref(), column.as_mut(), Par::Seq);
        for (j, value) in solved.values.unwrap().into_iter().enumerate() {
            let wanted = f64::from(layer.values[j]) - f64::from(layer.values[0]) * column[(j, 0)] / column[(0, 0)];
            assert!((f64::from(value) - wanted).abs() < 1e-4, "{j}: {value} {wanted}");
        }
    }

    #[test]
    fn outputs_change_less_than_by_wanda_and_counts_are_exact() {
        let (rows, cols) = (12, 40);
        let inputs = correlated(200, cols);
        let layer = weight("a", &[rows, cols], |i| ((i * 29) as f32 * 0.61).sin());
        let error = |solved: &PrunedLayer| -> f64 {
            let kept =
                |i: usize| if solved.mask.keeps(i) { solved.values.as_ref().unwrap_or(&layer.values)[i] } else { 0.0 };
            let one = |t: usize, r: usize| -> f64 {
                (0..cols)
                    .map(|c| f64::from((kept(r * cols + c) - layer.values[r * cols + c]) * inputs[t * cols + c]))
                    .sum()
            };
            (0..200 * rows).map(|i| one(i / rows, i % rows).powi(2)).sum()
        };
        for goal in [GOAL, LayerTarget { pattern: Pattern::NofM { n: 2, m: 4 }, ..GOAL }] {
            let ours = solve(
                &SparseGptConfig::new().with_block(16).with_damping(0.01).init().unwrap(),
                &inputs,
                cols,
                &layer,
                &goal,
            );
            let wanda = solve(&Wanda::default(), &inputs, cols, &layer, &goal);
            assert_eq!(ours.mask.pruned(), rows * cols / 2);
            assert!(error(&ours) < 0.8 * error(&wanda), "{} {}", error(&ours), error(&wanda));
        }
    }

    #[test]
    fn dead_inputs_are_zero_and_the_impossible_is_refused() {
        let mut inputs = correlated(40, 4);
        inputs.iter_mut().step_by(4).for_each(|x| *x = 0.0);
        let layer = weight("a", &[3, 4], |i| 1.0 + i as f32);
        let values =
            solve(&SparseGpt::default(), &inputs, 4, &layer, &LayerTarget { sparsity: 0.0, ..GOAL }).values.unwrap();
        assert!(values.iter().step_by(4).all(|w| *w == 0.0));
        let device = regrow_device::current();
        let says = |pattern| {
            let refused =
                SparseGpt::default().observe(4, &device).solve(&layer, &LayerTarget { sparsity: 0.5, pattern });
            refused.unwrap_err().to_string()
        };
        assert!(says(Pattern::NofM { n: 2, m: 3 }).contains("does not divide"));
        assert!(says(Pattern::Rows).contains("not rows"));
        assert!(SparseGptConfig::new().with_block(0).with_damping(0.1).init().is_err());
    }
}
