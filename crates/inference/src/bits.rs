//! One bit per weight and the kept values one after the other; if every group keeps N of M, no offsets.

use rayon::prelude::*;

use crate::SimdLevel;
use crate::kernel::{self, Number, SLACK, Sums, WORD};
use crate::rows::{Part, Rows, Scratch};
use crate::{Error, Result};

/// A matrix `[rows, cols]`.
#[derive(Clone, Debug)]
pub(super) struct Bits<N> {
    pub(super) cols: usize,
    /// Each row in whole words, low bit first.
    words: Vec<u64>,
    /// Row after row, followed by [`SLACK`] zeros.
    values: Vec<N>,
    begins: Begins,
}

/// Where the values of a row start.
#[derive(Clone, Debug)]
enum Begins {
    Listed(Vec<u64>),
    /// The same number in each row.
    Every(usize),
}

impl<N: Number> Bits<N> {
    /// The nonzero values of `dense`.
    pub(super) fn new([rows, cols]: [usize; 2], dense: &[f32]) -> Self {
        let words = marked(rows, cols, dense, |row, words| {
            for (word, values) in words.iter_mut().zip(row.chunks(WORD)) {
                *word = nonzero(values);
            }
        });
        let width = cols.div_ceil(WORD);
        let mut begins = Vec::with_capacity(rows);
        let mut begin = 0;
        for row in 0..rows {
            begins.push(begin as u64);
            begin += words[row * width..][..width].iter().map(|w| w.count_ones() as usize).sum::<usize>();
        }
        let values = kept(&words, dense, cols, begin);
        Self { cols, words, values, begins: Begins::Listed(begins) }
    }

    /// `n` of every `m` along a row: the nonzero values, and zeros if there are fewer.
    ///
    /// # Errors
    /// A row that `m` does not divide, or that keeps more; the error is its number.
    pub(super) fn n_of_m([rows, cols]: [usize; 2], dense: &[f32], n: usize, m: usize) -> Result<Self> {
        check(cols, dense, n, m)?;
        let words = marked(rows, cols, dense, |row, words| {
            for (g, group) in row.chunks(m).enumerate() {
                let mut free = n - group.iter().filter(|v| **v != 0.0).count();
                for (i, value) in group.iter().enumerate() {
                    let fill = *value == 0.0 && free > 0;
                    free -= usize::from(fill);
                    let column = g * m + i;
                    words[column / WORD] |= u64::from(*value != 0.0 || fill) << (column % WORD);
                }
            }
        });
        let every = cols / m * n;
        let values = kept(&words, dense, cols, rows * every);
        Ok(Self { cols, words, values, begins: Begins::Every(every) })
    }

    fn words_of(&self, row: usize) -> &[u64] {
        let width = self.cols.div_ceil(WORD);
        &self.words[row * width..][..width]
    }

    /// From the row's first value to the end of all.
    fn values_of(&self, row: usize) -> &[N] {
        &self.values[self.begin(row)..]
    }

    fn words_at(&self, part: &Part) -> &[u64] {
        &self.words_of(part.row)[part.columns.start / WORD..part.columns.end.div_ceil(WORD)]
    }
}

impl<N: Number> Rows for Bits<N> {
    type Number = N;

    const PARTS: bool = true;

    fn bytes(&self) -> usize {
        let begins = if let Begins::Listed(begins) = &self.begins { 8 * begins.len() } else { 0 };
        8 * self.words.len() + size_of::<N>() * self.kept() + begins
    }

    fn kept(&self) -> usize {
        self.values.len() - SLACK
    }

    fn begin(&self, row: usize) -> usize {
        match &self.begins {
            Begins::Listed(begins) => begins[row] as usize,
            Begins::Every(count) => row * count,
        }
    }

    fn expand(&self, level: SimdLevel, part: &Part, out: &mut [f32]) -> usize {
        part.at + N::expand(level, self.words_at(part), &self.values[part.at..], out)
    }

    fn add(&self, level: SimdLevel, part: &Part, source: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> usize {
        let Scratch { columns, values, .. } = scratch;
        kernel::columns(level, self.words_at(part), columns);
        let values = N::widened(&self.values[part.at..][..columns.len()], values);
        kernel::spread(level, columns, values, source, out);
        part.at + columns.len()
    }

    fn beside(&self, level: SimdLevel, part: &Part, x: &[f32], ahead: usize, sums: &mut Sums) -> usize {
        part.at + N::beside(level, self.words_at(part), &self.values[part.at..], x, ahead, sums)
    }

    fn ask(&self, part: &Part) {
        let words = self.words_at(part);
        let share = part.columns.len() as f64 * self.kept() as f64 / (self.words.len() * WORD).max(1) as f64;
        kernel::ask(words, words.len());
        kernel::ask(&self.values[part.at..], share as usize);
    }

    fn sorts(&self, level: SimdLevel) -> bool {
        N::sorts(level)
    }

    fn dot<const B: usize>(&self, level: SimdLevel, row: usize, x: &[&[f32]; B]) -> [f32; B] {
        N::bits(level, self.words_of(row), self.values_of(row), x)
    }
}

/// Refuses rows of `cols` weights that are not `n` of every `m`.
pub(super) fn check(cols: usize, dense: &[f32], n: usize, m: usize) -> Result<()> {
    if m == 0 || n == 0 || n > m || !cols.is_multiple_of(m) {
        return Err(Error::Argument(format!("{n}:{m} does not divide rows of {cols} weights")));
    }
    let full = |group: &&[f32]| group.iter().filter(|v| **v != 0.0).count() > n;
    let Some(at) = dense.par_chunks(m).position_first(|group| full(&group)) else { return Ok(()) };
    let (row, col) = (at * m / cols.max(1), at * m % cols.max(1));
    let reason = format!("row {row} keeps more than {n} of the {m} weights from column {col} on: not {n}:{m}");
    Err(Error::Argument(reason))
}

/// Words of all rows, each filled by `mark` from the row's weights.
fn marked(rows: usize, cols: usize, dense: &[f32], mark: impl Fn(&[f32], &mut [u64]) + Sync) -> Vec<u64> {
    let width = cols.div_ceil(WORD);
    let mut words = vec![0; rows * width];
    if width > 0 {
        words.par_chunks_mut(width).zip(dense.par_chunks(cols)).for_each(|(words, row)| mark(row, words));
    }
    words
}

/// A bit for each value that is not zero.
fn nonzero(values: &[f32]) -> u64 {
    values.iter().enumerate().fold(0, |word, (i, v)| word | (u64::from(*v != 0.0) << i))
}

/// The `count` values whose bit is set, followed by zeros.
fn kept<N: Number>(words: &[u64], dense: &[f32], cols: usize, count: usize) -> Vec<N> {
    let mut values = Vec::with_capacity(count + SLACK);
    let width = cols.div_ceil(WORD).max(1);
    for (words, row) in words.chunks(width).zip(dense.chunks(cols.max(1))) {
        for (word, row) in words.iter().zip(row.chunks(WORD)) {
            let mut left = *word;
            while left != 0 {
                values.push(N::narrow(row[left.trailing_zeros() as usize]));
                left &= left - 1;
            }
        }
    }
    values.resize(count + SLACK, N::default());
    values
}
