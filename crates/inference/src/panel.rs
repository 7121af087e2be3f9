//! Up to sixteen inputs times rows that keep many weights.
//!
//! Sixteen weights of a row at a time are expanded with their zeros in a register, which is multiplied with sixteen
//! numbers of every input: `sums[b] += w * x[b]`, a vector each; a vector's numbers are added only when the row is
//! done. The inputs of some columns stay in the nearest cache while several rows are processed.

use crate::SimdLevel;
use crate::aligned::Aligned;
use crate::kernel::{LANES, Sums, WORD, turn};
use crate::product::by_rows;
use crate::rows::{Part, Rows};

/// Columns whose inputs stay in the nearest cache.
const COLUMNS: usize = 512;
/// Rows processed together, and how many rows ahead memory is prefetched.
const TOGETHER: usize = 16;

/// `matrix`, `[rows, cols]`, times each row of `x`, `[batch, cols]`, into `out`, `[batch, rows]`; `batch` is at most
/// [`LANES`].
pub(super) fn panel<R: Rows>(matrix: &R, [rows, cols]: [usize; 2], level: SimdLevel, x: &[f32], out: &mut [f32]) {
    let source = beside(x, cols);
    let mut sums = Aligned::zeros(rows * LANES);
    by_rows(&mut sums, LANES, matrix.kept() * LANES, TOGETHER, |first, sums| {
        for (i, sums) in sums.chunks_mut(TOGETHER * LANES).enumerate() {
            some_rows(matrix, [rows, cols], level, first + i * TOGETHER, &source, sums);
        }
    });
    turn(level, &sums, [rows, out.len() / rows], LANES, out, rows);
}

/// `x`, `[batch, cols]`, as `[columns / 16, LANES, 16]`, padded with zeros to whole words.
fn beside(x: &[f32], cols: usize) -> Aligned {
    let mut source = Aligned::zeros(cols.next_multiple_of(WORD) * LANES);
    for (b, input) in x.chunks(cols).enumerate() {
        for (columns, to) in input.chunks(16).zip(source.chunks_mut(16 * LANES)) {
            to[16 * b..][..columns.len()].copy_from_slice(columns);
        }
    }
    source
}

/// The products, `[.., LANES]`, of up to [`TOGETHER`] rows from `first` on.
fn some_rows<R: Rows>(
    matrix: &R,
    [rows, cols]: [usize; 2],
    level: SimdLevel,
    first: usize,
    source: &[f32],
    out: &mut [f32],
) {
    let count = out.len() / LANES;
    let mut sums: [Sums; TOGETHER] = [[[0.0; 16]; LANES]; TOGETHER];
    let begins: [usize; TOGETHER] = std::array::from_fn(|i| matrix.begin((first + i).min(rows - 1)));
    let ahead = |i: usize| matrix.begin((first + i + TOGETHER).min(rows - 1)) - begins[i];
    let mut at = begins;
    for from in (0..cols).step_by(COLUMNS) {
        let columns = from..(from + COLUMNS).min(cols);
        let source = &source[from * LANES..columns.end.next_multiple_of(WORD) * LANES];
        for i in 0..count {
            let part = Part { row: first + i, columns: columns.clone(), at: at[i] };
            at[i] = matrix.beside(level, &part, source, ahead(i), &mut sums[i]);
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_mut(LANES)) {
        sums.iter().zip(out).for_each(|(sums, out)| *out = folded(sums));
    }
}

/// The sum of a vector's numbers.
fn folded(sums: &[f32; 16]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
