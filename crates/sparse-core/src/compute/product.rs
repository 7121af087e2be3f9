//! A sparse matrix times a batch of inputs.
//!
//! Up to [`FEW`] inputs go through the matrix together, each along its columns. Of more inputs the columns
//! are laid beside each other, `[cols, lanes]`, so that every kept weight is one multiplication of a vector;
//! zeros cost nothing then.

use rayon::prelude::*;

use super::Level;
use super::aligned::Aligned;
use super::kernel::{LANES, WORD, spread};
use super::rows::{Rows, Scratch};

/// The most inputs that go along the columns.
const FEW: usize = 8;
/// Products below which a second thread costs more than it brings.
const SMALL: usize = 1 << 16;
/// Rows that are decoded together for all lanes.
const TOGETHER: usize = 16;

/// `matrix`, `[rows, cols]`, times each row of `x`, `[batch, cols]`, into `out`, `[batch, rows]`.
pub(super) fn multiply<R: Rows>(matrix: &R, [rows, cols]: [usize; 2], level: Level, x: &[f32], out: &mut [f32]) {
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

/// Calls `work(first, part)` for parts of `out` that hold whole rows of `width`, on several threads where
/// there are `products` enough.
fn by_rows(out: &mut [f32], width: usize, products: usize, multiple: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = out.len() / width.max(1);
    let parts = (products / SMALL).clamp(1, 8 * rayon::current_num_threads());
    let each = rows.div_ceil(parts).next_multiple_of(multiple);
    match parts {
        1 => work(0, out),
        _ => out.par_chunks_mut(each * width).enumerate().for_each(|(i, part)| work(i * each, part)),
    }
}

/// `B` inputs, each along the columns.
fn few<R: Rows, const B: usize>(matrix: &R, [rows, cols]: [usize; 2], level: Level, x: &[f32], out: &mut [f32]) {
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

/// An input with zeros to whole words; `sorted`, the even numbers of every 32 come first.
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

/// Inputs side by side.
fn many<R: Rows>(matrix: &R, [rows, cols]: [usize; 2], level: Level, x: &[f32], out: &mut [f32]) {
    let batch = out.len() / rows;
    let lanes = (LANES * batch.div_ceil(LANES).next_power_of_two()).min(4 * LANES);
    let panels = batch.div_ceil(lanes);
    let source = beside(x, cols, lanes, panels);
    let table: Vec<u32> = (0..cols.next_multiple_of(WORD)).map(|c| (c * lanes) as u32).collect();
    let mut sums = Aligned::zeros(rows * panels * lanes);
    let width = panels * lanes;
    by_rows(&mut sums, width, matrix.kept() * width, 1, |first, sums| {
        let mut scratch: [Scratch; TOGETHER] = Default::default();
        for (i, sums) in sums.chunks_mut(TOGETHER * width).enumerate() {
            let first = first + i * TOGETHER;
            let mut decoded = Vec::with_capacity(TOGETHER);
            for (r, scratch) in scratch.iter_mut().take(sums.len() / width).enumerate() {
                decoded.push(matrix.decode(level, first + r, &table, scratch));
            }
            for (panel, source) in source.chunks(cols * lanes).enumerate() {
                for (row, sums) in decoded.iter().zip(sums.chunks_mut(width)) {
                    spread(level, row.offsets, row.values, source, &mut sums[panel * lanes..][..lanes]);
                }
            }
        }
    });
    turned(&sums, width, rows, out);
}

/// `x`, `[batch, cols]`, as `[panels, cols, lanes]`, zeros in lanes that no input has.
fn beside(x: &[f32], cols: usize, lanes: usize, panels: usize) -> Aligned {
    let mut source = Aligned::zeros(panels * cols * lanes);
    let fill = |panel: usize, source: &mut [f32]| {
        let inputs = x[panel * lanes * cols..].chunks(cols).take(lanes);
        for (lane, input) in inputs.enumerate() {
            source.chunks_mut(lanes).zip(input).for_each(|(slot, value)| slot[lane] = *value);
        }
    };
    match panels {
        1 => fill(0, &mut source),
        _ => source.par_chunks_mut(cols * lanes).enumerate().for_each(|(panel, source)| fill(panel, source)),
    }
    source
}

/// `sums`, `[rows, width]`, as `out`, `[batch, rows]`.
fn turned(sums: &[f32], width: usize, rows: usize, out: &mut [f32]) {
    let products = out.len();
    by_rows(out, rows, products, LANES, |first, out| {
        for (i, out) in out.chunks_mut(LANES * rows).enumerate() {
            for (row, sums) in sums.chunks(width).enumerate() {
                let sums = &sums[first + i * LANES..];
                out.chunks_mut(rows).zip(sums).for_each(|(out, sum)| out[row] = *sum);
            }
        }
    });
}
