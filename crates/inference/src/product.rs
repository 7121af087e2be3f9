//! A sparse matrix times a batch of inputs.
//!
//! Up to [`FEW`] inputs are multiplied with the matrix together, each along its columns. For more inputs the columns
//! are stored next to each other, `[cols, lanes]`, so that every kept weight is one vector multiplication; zeros then
//! cost nothing. If few weights are zero, finding the nonzero ones takes longer than multiplying all: rows are expanded
//! with their zeros, in a register for one [`panel`](crate::panel) of inputs, else some rows at a time in the nearest
//! cache.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::SimdLevel;
use crate::aligned::Aligned;
use crate::kernel::{BLOCK, LANES, TILE, WORD, tile, turn};
use crate::panel::panel;
use crate::rows::{Part, Rows, Scratch};

/// The maximum number of inputs that are multiplied along the columns.
const FEW: usize = 8;
/// Products below which a second thread costs more than it saves.
const SMALL: usize = 1 << 16;
/// The shares of kept weights above which rows are expanded with their zeros, for one vector of inputs and for more.
const MANY: [f64; 2] = [0.4, 0.6];
/// How many rows ahead memory is prefetched.
const AHEAD: usize = 8;
/// Rows whose sums are transposed together.
const TOGETHER: usize = 16;

/// `matrix`, `[rows, cols]`, times each row of `x`, `[batch, cols]`, into `out`, `[batch, rows]`.
pub(super) fn multiply<R: Rows>(matrix: &R, [rows, cols]: [usize; 2], level: SimdLevel, x: &[f32], out: &mut [f32]) {
    if rows == 0 || cols == 0 {
        return out.fill(0.0);
    }
    let batch = out.len() / rows;
    let shape = [rows, cols];
    if batch > FEW {
        return many(matrix, shape, level, x, out);
    }
    let (mut rest, mut rest_out) = (x, out);
    while !rest.is_empty() {
        let count = match rest.len() / cols {
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (x, others) = rest.split_at(count * cols);
        let (out, others_out) = std::mem::take(&mut rest_out).split_at_mut(count * rows);
        (rest, rest_out) = (others, others_out);
        match count {
            8 => few::<_, 8>(matrix, shape, level, x, out),
            4 => few::<_, 4>(matrix, shape, level, x, out),
            2 => few::<_, 2>(matrix, shape, level, x, out),
            _ => few::<_, 1>(matrix, shape, level, x, out),
        }
    }
}

/// Calls `work(first, part)` for parts of `out` that hold whole rows of `width`, on several threads if there are enough
/// `products`.
pub(super) fn by_rows(
    out: &mut [f32],
    width: usize,
    products: usize,
    multiple: usize,
    work: impl Fn(usize, &mut [f32]) + Sync,
) {
    let (rows, threads) = (out.len() / width.max(1), rayon::current_num_threads());
    let parts = (products / SMALL).clamp(1, 8 * threads);
    if parts == 1 {
        return work(0, out);
    }
    let each = rows.div_ceil(parts).next_multiple_of(multiple);
    let parts = Mutex::new(out.chunks_mut(each * width).enumerate());
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some((i, part)) = next() {
            work(i * each, part);
        }
    };
    // This thread works too: waking one costs as much as a small product.
    rayon::in_place_scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| run()));
        run();
    });
}

/// `B` inputs, each along the columns.
fn few<R: Rows, const B: usize>(matrix: &R, [rows, cols]: [usize; 2], level: SimdLevel, x: &[f32], out: &mut [f32]) {
    let padded: [Aligned; B] = std::array::from_fn(|b| padded(&x[b * cols..][..cols], matrix.sorts(level)));
    let x: [&[f32]; B] = std::array::from_fn(|b| &*padded[b]);
    let products = matrix.kept() * B;
    if B == 1 {
        return by_rows(out, 1, products, 1, |first, out| {
            out.iter_mut().enumerate().for_each(|(i, out)| *out = matrix.dot(level, first + i, &[x[0]])[0]);
        });
    }
    let mut sums = vec![0.0; rows * B];
    by_rows(&mut sums, B, products, 1, |first, sums| {
        for (i, sums) in sums.as_chunks_mut::<B>().0.iter_mut().enumerate() {
            *sums = matrix.dot(level, first + i, &x);
        }
    });
    for (row, sums) in sums.as_chunks::<B>().0.iter().enumerate() {
        sums.iter().enumerate().for_each(|(b, sum)| out[b * rows + row] = *sum);
    }
}

/// An input padded with zeros to whole words; if `sorted`, the even numbers of every 32 come first.
fn padded(x: &[f32], sorted: bool) -> Aligned {
    let mut padded = Aligned::zeros(x.len().next_multiple_of(WORD));
    padded[..x.len()].copy_from_slice(x);
    if sorted {
        for thirty_two in padded.as_chunks_mut::<32>().0 {
            let plain = *thirty_two;
            (0..16).for_each(|i| (thirty_two[i], thirty_two[16 + i]) = (plain[2 * i], plain[2 * i + 1]));
        }
    }
    padded
}

/// Inputs next to each other, in as many panels as needed.
fn many<R: Rows>(matrix: &R, [rows, cols]: [usize; 2], level: SimdLevel, x: &[f32], out: &mut [f32]) {
    let batch = out.len() / rows;
    let lanes = (LANES * batch.div_ceil(LANES).next_power_of_two()).min(4 * LANES);
    let share = MANY[usize::from(lanes > LANES)];
    let full = R::PARTS && matrix.kept() as f64 > share * (rows * cols) as f64;
    if full && lanes == LANES && level.is_avx512() {
        return panel(matrix, [rows, cols], level, x, out);
    }
    let block = match (full, R::PARTS) {
        (true, _) => BLOCK * LANES / lanes,
        (false, true) => 4 * BLOCK * LANES / lanes,
        (false, false) => cols,
    };
    let work = Panels { matrix, level, cols, lanes, full, block };
    let products = matrix.kept() * batch;
    let inputs = x.chunks(lanes * cols).zip(out.chunks_mut(lanes * rows));
    if inputs.len() < 2 * rayon::current_num_threads() {
        return inputs.for_each(|(x, out)| work.by_row(products, x, out));
    }
    by_rows(out, rows, products, lanes, |first, out| {
        let mut source = Aligned::zeros(cols * lanes);
        let inputs = x[first * cols..].chunks(lanes * cols);
        inputs.zip(out.chunks_mut(lanes * rows)).for_each(|(x, out)| work.whole(&mut source, x, out));
    });
}

/// A matrix and the layout of the inputs.
struct Panels<'a, R> {
    matrix: &'a R,
    level: SimdLevel,
    cols: usize,
    lanes: usize,
    /// Whether rows are expanded with their zeros.
    full: bool,
    /// Columns at a time.
    block: usize,
}

impl<R: Rows> Panels<'_, R> {
    /// One panel, its rows distributed over threads.
    fn by_row(&self, products: usize, x: &[f32], out: &mut [f32]) {
        let rows = out.len() / (x.len() / self.cols);
        let (mut source, mut sums) = (Aligned::zeros(self.cols * self.lanes), Aligned::zeros(rows * self.lanes));
        self.beside(x, &mut source);
        by_rows(&mut sums, self.lanes, products, TILE, |first, sums| {
            self.rows(&source, first, &mut Scratch::default(), sums);
        });
        turn(self.level, &sums, [rows, out.len() / rows], self.lanes, out, rows);
    }

    /// One panel on one thread.
    fn whole(&self, source: &mut [f32], x: &[f32], out: &mut [f32]) {
        let rows = out.len() / (x.len() / self.cols);
        self.beside(x, source);
        let (mut scratch, mut sums) = (Scratch::default(), Aligned::zeros(TOGETHER * self.lanes));
        for first in (0..rows).step_by(TOGETHER) {
            let sums = &mut sums[..TOGETHER.min(rows - first) * self.lanes];
            self.rows(source, first, &mut scratch, sums);
            let shape = [sums.len() / self.lanes, out.len() / rows];
            turn(self.level, sums, shape, self.lanes, &mut out[first..], rows);
        }
    }

    /// `x`, `[inputs, cols]`, as `[cols, lanes]`; lanes without an input stay unchanged.
    fn beside(&self, x: &[f32], source: &mut [f32]) {
        turn(self.level, x, [x.len() / self.cols, self.cols], self.cols, source, self.lanes);
    }

    /// The sums `[.., lanes]` of rows from `first` on: a group of columns at a time, so that their inputs stay in the
    /// nearest cache while all rows are processed.
    fn rows(&self, source: &[f32], first: usize, scratch: &mut Scratch, sums: &mut [f32]) {
        sums.fill(0.0);
        scratch.at.clear();
        scratch.at.extend((0..sums.len() / self.lanes).map(|row| self.matrix.begin(first + row)));
        for from in (0..self.cols).step_by(self.block) {
            let columns = from..(from + self.block).min(self.cols);
            let source = &source[columns.start * self.lanes..columns.end * self.lanes];
            match self.full {
                true => self.full_rows(source, first, columns, scratch, sums),
                false => self.kept_rows(source, first, columns, scratch, sums),
            }
        }
    }

    /// Some columns of rows, kept value by kept value.
    fn kept_rows(&self, source: &[f32], first: usize, columns: Range<usize>, scratch: &mut Scratch, sums: &mut [f32]) {
        for (i, sums) in sums.chunks_mut(self.lanes).enumerate() {
            self.ask(first, i + AHEAD, &columns, scratch);
            let part = Part { row: first + i, columns: columns.clone(), at: scratch.at[i] };
            scratch.at[i] = self.matrix.add(self.level, &part, source, scratch, sums);
        }
    }

    /// Some columns of rows with their zeros.
    fn full_rows(&self, source: &[f32], first: usize, columns: Range<usize>, scratch: &mut Scratch, sums: &mut [f32]) {
        let (width, padded) = (BLOCK * LANES / self.lanes, columns.len().next_multiple_of(WORD));
        scratch.rows.resize(TILE * width, 0.0);
        for (i, sums) in sums.chunks_mut(TILE * self.lanes).enumerate() {
            for r in 0..sums.len() / self.lanes {
                let i = i * TILE + r;
                self.ask(first, i + TILE, &columns, scratch);
                let part = Part { row: first + i, columns: columns.clone(), at: scratch.at[i] };
                scratch.at[i] = self.matrix.expand(self.level, &part, &mut scratch.rows[r * width..][..padded]);
            }
            tile(self.level, &scratch.rows, source, self.lanes, sums);
        }
    }

    /// Prefetches columns of the `i`th row from `first` on, if there is one: rows are far apart in memory.
    fn ask(&self, first: usize, i: usize, columns: &Range<usize>, scratch: &Scratch) {
        if let Some(at) = scratch.at.get(i).filter(|_| self.block < self.cols) {
            self.matrix.ask(&Part { row: first + i, columns: columns.clone(), at: *at });
        }
    }
}
