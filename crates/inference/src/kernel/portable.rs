//! For any processor.

use super::{BLOCK, LANES, Number, Place, Sums, WORD};

pub(super) fn bits<N: Number, const B: usize>(words: &[u64], values: &[N], x: &[&[f32]; B]) -> [f32; B] {
    let (mut sums, mut next) = ([0.0; B], values.iter());
    for (first, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            let column = first * WORD + left.trailing_zeros() as usize;
            let value = next.next().map_or(0.0, |v| v.wide());
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += value * x[column]);
            left &= left - 1;
        }
    }
    sums
}

pub(super) fn beside<N: Number>(words: &[u64], values: &[N], x: &[f32], _ahead: usize, sums: &mut Sums) -> usize {
    let mut values = values.iter();
    let count = values.len();
    for (first, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            let column = first * WORD + left.trailing_zeros() as usize;
            let value = values.next().map_or(0.0, |v| v.wide());
            for (b, sums) in sums.iter_mut().enumerate() {
                sums[column % LANES] += value * x[(column / LANES * LANES + b) * LANES + column % LANES];
            }
            left &= left - 1;
        }
    }
    count - values.len()
}

pub(super) fn listed<N: Number, const B: usize>(
    columns: impl Iterator<Item = usize>,
    values: &[N],
    x: &[&[f32]; B],
) -> [f32; B] {
    let mut sums = [0.0; B];
    for (column, value) in columns.zip(values) {
        let value = value.wide();
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += value * x[column]);
    }
    sums
}

pub(super) fn spread<P: Place, const T: usize>(places: &[P], values: &[f32], source: &[f32], out: &mut [f32]) {
    let mut sums = [[0.0f32; LANES]; T];
    sums.as_flattened_mut().copy_from_slice(out);
    for (place, value) in places.iter().zip(values) {
        let lanes = source[place.offset(T)..][..T * LANES].as_chunks::<LANES>().0;
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            sums.iter_mut().zip(lanes).for_each(|(sum, lane)| *sum += value * lane);
        }
    }
    out.copy_from_slice(sums.as_flattened());
}

/// The columns whose bit is set.
pub(super) fn columns(words: &[u64], out: &mut Vec<u16>) {
    out.clear();
    for (first, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            out.push((first * WORD + left.trailing_zeros() as usize) as u16);
            left &= left - 1;
        }
    }
}

pub(super) fn expand<N: Number>(words: &[u64], values: &[N], out: &mut [f32]) -> usize {
    let mut values = values.iter();
    for (word, out) in words.iter().zip(out.chunks_mut(WORD)) {
        out.fill(0.0);
        let mut left = *word;
        while left != 0 {
            out[left.trailing_zeros() as usize] = values.next().map_or(0.0, |v| v.wide());
            left &= left - 1;
        }
    }
    words.iter().map(|word| word.count_ones() as usize).sum()
}

pub(super) fn tile<const R: usize, const T: usize>(weights: &[f32], source: &[f32], out: &mut [f32]) {
    for (weights, out) in weights.chunks(BLOCK / T).zip(out.chunks_mut(T * LANES)).take(R) {
        let mut sums = [[0.0f32; LANES]; T];
        sums.as_flattened_mut().copy_from_slice(out);
        for (weight, lanes) in weights.iter().zip(source.chunks(T * LANES)) {
            for (sums, lanes) in sums.iter_mut().zip(lanes.as_chunks::<LANES>().0) {
                sums.iter_mut().zip(lanes).for_each(|(sum, lane)| *sum += weight * lane);
            }
        }
        out.copy_from_slice(sums.as_flattened());
    }
}
