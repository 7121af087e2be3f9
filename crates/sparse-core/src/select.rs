//! Choosing the `keep` largest of many scores: exact count, ties by index, no sorting.
//!
//! Two passes over the scores. The first counts them by the upper 16 bits of an order-preserving
//! integer key; the second marks everything above the bucket that holds the threshold and collects
//! that bucket, some thousandth of the scores, which alone is ordered. Nothing depends on the
//! number of threads, so a result is the same on every machine.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::{Error, Result};

/// Scores per parallel piece; a multiple of 64, so that pieces own whole words of the mask.
const PIECE: usize = 1 << 16;

/// One bit per score, low bit first: set for the `keep` scores with the largest `key(score)`.
///
/// Of equal keys the lower index is kept. Cost: two reads of `scores`, one write of a bit each.
///
/// # Errors
/// If a key is NaN, or `keep` exceeds the number of scores.
pub fn top_k(scores: &[f32], keep: usize, key: impl Fn(f32) -> f32 + Sync) -> Result<Vec<u64>> {
    if keep > scores.len() {
        return Err(Error::Argument(format!("cannot keep {keep} of {} weights", scores.len())));
    }
    let histogram = histogram(scores, &key)?;
    if keep == 0 {
        return Ok(vec![0; scores.len().div_ceil(64)]);
    }
    let (bucket, above) = threshold_bucket(&histogram, keep);
    let (mut words, mut ties) = mark_above(scores, bucket, &key);
    // In the threshold's bucket: largest key first, then lowest index.
    let rest = keep - above;
    let order = |a: &(u32, usize), b: &(u32, usize)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
    if rest < ties.len() {
        ties.select_nth_unstable_by(rest, order);
    }
    for (_, index) in &ties[..rest] {
        words[index / 64] |= 1 << (index % 64);
    }
    Ok(words)
}

/// The `keep` largest of every row of `cols` values by `key(column, value)`, as [`top_k`] gives them.
///
/// Of equal keys the lower column is kept. Rows are worked on side by side, each in a cache's reach.
///
/// # Errors
/// If a key is NaN, `keep` exceeds `cols`, or `cols` does not divide the values.
pub fn top_k_rows(
    values: &[f32],
    cols: usize,
    keep: usize,
    key: impl Fn(usize, f32) -> f32 + Sync,
) -> Result<Vec<u64>> {
    if keep > cols || cols == 0 || !values.len().is_multiple_of(cols) {
        return Err(Error::Argument(format!(
            "cannot keep {keep} of {cols} weights in rows of {} values",
            values.len()
        )));
    }
    let mut words = vec![0u64; values.len().div_ceil(64)];
    // 64 rows fill `cols` whole words.
    let pieces = words.par_chunks_mut(cols).zip(values.par_chunks(64 * cols));
    let nan = pieces.map(|(words, values)| {
        let mut row = Row::new(cols);
        let mut nan = false;
        for (r, values) in values.chunks_exact(cols).enumerate() {
            nan |= row.fill(values, &key);
            row.mark(keep, words, r * cols);
        }
        nan
    });
    match nan.reduce(|| false, |a, b| a || b) {
        true => Err(Error::Argument("a score is NaN".into())),
        false => Ok(words),
    }
}

/// Upper bits of a key that are counted: sign, exponent and three bits of the fraction.
const ROW_BITS: u32 = 12;

/// One row's keys, counted by their upper bits.
struct Row {
    keys: Vec<u32>,
    counts: Vec<u32>,
    ties: Vec<u32>,
}

impl Row {
    fn new(cols: usize) -> Self {
        Self { keys: vec![0; cols], counts: vec![0; 1 << ROW_BITS], ties: Vec::with_capacity(cols) }
    }

    /// Takes in a row; whether a key was NaN.
    fn fill(&mut self, values: &[f32], key: &(impl Fn(usize, f32) -> f32 + Sync)) -> bool {
        let mut nan = false;
        for (col, (slot, value)) in self.keys.iter_mut().zip(values).enumerate() {
            let key = key(col, *value);
            nan |= key.is_nan();
            *slot = ordered(key);
        }
        self.counts.fill(0);
        self.keys.iter().for_each(|key| self.counts[(key >> (32 - ROW_BITS)) as usize] += 1);
        nan
    }

    /// Sets the bits of the `keep` largest keys, the first of them bit `start` of `words`.
    fn mark(&mut self, keep: usize, words: &mut [u64], start: usize) {
        if keep == 0 {
            return;
        }
        let (bucket, above) = threshold_bucket(&self.counts, keep);
        self.ties.clear();
        self.ties.extend(self.keys.iter().filter(|key| **key >> (32 - ROW_BITS) == bucket));
        let rest = keep - above;
        let at = self.ties.len() - rest;
        let (_, threshold, larger) = self.ties.select_nth_unstable(at);
        let threshold = *threshold;
        let mut equal = rest - larger.iter().filter(|key| **key > threshold).count();
        for (col, key) in self.keys.iter().enumerate() {
            let tie = *key == threshold && equal > 0;
            equal -= usize::from(tie);
            let bit = start + col;
            words[bit / 64] |= u64::from(*key > threshold || tie) << (bit % 64);
        }
    }
}

/// How many of each of `scores` are among the `keep` largest of all of them together.
///
/// Of equal scores those of the earlier slice, and in it the lower index, are kept. Nothing is
/// copied but the scores that share the threshold's upper 16 bits.
///
/// # Errors
/// If a score is NaN, or `keep` exceeds their number.
pub fn shares(scores: &[&[f32]], keep: usize) -> Result<Vec<usize>> {
    shares_of(scores.len(), keep, |slice| Ok::<_, Error>(Cow::Borrowed(scores[slice])))
}

/// [`shares`] of `slices` slices that are not in memory together: each is asked for twice.
///
/// # Errors
/// As [`shares`], or what `slice` runs into.
pub fn shares_of<'s, E: From<Error>>(
    slices: usize,
    keep: usize,
    mut slice: impl FnMut(usize) -> Result<Cow<'s, [f32]>, E>,
) -> Result<Vec<usize>, E> {
    let mut all = vec![0usize; 1 << 16];
    let mut total = 0;
    for index in 0..slices {
        let scores = slice(index)?;
        total += scores.len();
        all.iter_mut().zip(histogram(&scores, &|x| x)?).for_each(|(sum, count)| *sum += count as usize);
    }
    if keep > total {
        return Err(Error::Argument(format!("cannot keep {keep} of {total} weights")).into());
    }
    if keep == 0 {
        return Ok(vec![0; slices]);
    }
    let (bucket, above) = threshold_bucket(&all, keep);
    let mut kept = Vec::with_capacity(slices);
    let mut ties: Vec<(u32, usize)> = Vec::new();
    for index in 0..slices {
        let (higher, same) = split_at(&slice(index)?, bucket);
        kept.push(higher);
        ties.extend(same.into_iter().map(|key| (key, index)));
    }
    ties.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    ties[..keep - above].iter().for_each(|(_, index)| kept[*index] += 1);
    Ok(kept)
}

/// How many scores lie above `bucket`, and the keys of those inside it.
fn split_at(scores: &[f32], bucket: u32) -> (usize, Vec<u32>) {
    let piece = |scores: &[f32]| {
        let mut same = Vec::new();
        let mut higher = 0;
        for key in scores.iter().map(|s| ordered(*s)) {
            higher += usize::from(key >> 16 > bucket);
            if key >> 16 == bucket {
                same.push(key);
            }
        }
        (higher, same)
    };
    let parts: Vec<_> = scores.par_chunks(PIECE).map(piece).collect();
    parts.into_iter().fold((0, Vec::new()), |(n, mut all), (higher, same)| {
        all.extend(same);
        (n + higher, all)
    })
}

/// An integer that orders as the float does; -0 and +0 are one value.
fn ordered(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn histogram(scores: &[f32], key: &(impl Fn(f32) -> f32 + Sync)) -> Result<Vec<u32>> {
    let count = |piece: &[f32]| {
        let mut counts = vec![0u32; 1 << 16];
        let mut nan = false;
        for &score in piece {
            let key = key(score);
            nan |= key.is_nan();
            counts[(ordered(key) >> 16) as usize] += 1;
        }
        (counts, nan)
    };
    // One histogram per thread, not per piece: each has 65,536 counters.
    let size = scores.len().div_ceil(rayon::current_num_threads()).max(PIECE);
    let add = |(mut a, nan_a): (Vec<u32>, bool), (b, nan_b): (Vec<u32>, bool)| {
        a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
        (a, nan_a || nan_b)
    };
    let (counts, nan) = scores.par_chunks(size).map(count).reduce(|| (vec![0; 1 << 16], false), add);
    match nan {
        true => Err(Error::Argument("a score is NaN".into())),
        false => Ok(counts),
    }
}

/// The bucket in which the `keep`-th largest key lies, and how many keys lie above that bucket.
fn threshold_bucket<C: Copy + TryInto<usize>>(histogram: &[C], keep: usize) -> (u32, usize) {
    let mut above = 0;
    for (bucket, &count) in histogram.iter().enumerate().rev() {
        let count = count.try_into().unwrap_or(usize::MAX);
        if above + count >= keep {
            return (bucket as u32, above);
        }
        above += count;
    }
    (0, above)
}

/// Bits of the scores above `bucket`, and key and index of those inside it.
fn mark_above(scores: &[f32], bucket: u32, key: &(impl Fn(f32) -> f32 + Sync)) -> (Vec<u64>, Vec<(u32, usize)>) {
    let mut words = vec![0u64; scores.len().div_ceil(64)];
    let pieces = scores.par_chunks(PIECE).zip(words.par_chunks_mut(PIECE / 64)).enumerate();
    let ties = pieces.map(|(piece, (scores, words))| mark_piece(scores, words, piece * PIECE, bucket, key));
    let ties = ties.collect::<Vec<_>>().concat();
    (words, ties)
}

fn mark_piece(
    scores: &[f32],
    words: &mut [u64],
    start: usize,
    bucket: u32,
    key: &impl Fn(f32) -> f32,
) -> Vec<(u32, usize)> {
    let mut ties = Vec::new();
    for (w, (word, scores)) in words.iter_mut().zip(scores.chunks(64)).enumerate() {
        let (mut high, mut same) = (0u64, 0u64);
        for (b, &score) in scores.iter().enumerate() {
            let top = ordered(key(score)) >> 16;
            high |= u64::from(top > bucket) << b;
            same |= u64::from(top == bucket) << b;
        }
        *word = high;
        while same != 0 {
            let b = same.trailing_zeros() as usize;
            ties.push((ordered(key(scores[b])), start + w * 64 + b));
            same &= same - 1;
        }
    }
    ties
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(scores: &[f32], keep: usize) -> Vec<usize> {
        let words = top_k(scores, keep, |x| x).unwrap();
        (0..scores.len()).filter(|i| words[i / 64] >> (i % 64) & 1 == 1).collect()
    }

    #[test]
    fn of_equal_scores_the_lower_index_is_kept() {
        assert_eq!(kept(&[1.0, 2.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(kept(&[0.0, -0.0, 0.0], 2), [0, 1]);
        assert_eq!(kept(&[f32::NEG_INFINITY, -3.0, f32::INFINITY], 2), [1, 2]);
    }

    #[test]
    fn nan_and_too_many_are_refused() {
        assert!(top_k(&[1.0, f32::NAN], 1, |x| x).is_err());
        assert!(top_k(&[1.0], 2, |x| x).is_err());
        assert!(top_k_rows(&[1.0, f32::NAN], 2, 1, |_, x| x).is_err());
        assert!(top_k_rows(&[1.0, 2.0], 2, 3, |_, x| x).is_err() && top_k_rows(&[1.0], 2, 1, |_, x| x).is_err());
    }

    proptest! {
        #[test]
        fn equals_a_stable_sort(raw in prop::collection::vec(-4i32..4, 0..500), share in 0.0f64..=1.0) {
            let scores: Vec<f32> = raw.iter().map(|x| *x as f32 * 0.37).collect();
            let keep = (share * scores.len() as f64) as usize;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            let mut want = order[..keep].to_vec();
            want.sort_unstable();
            prop_assert_eq!(kept(&scores, keep), want);
        }

        #[test]
        fn rows_are_chosen_as_each_by_itself(raw in prop::collection::vec(-4i32..4, 1..900), cols in 1usize..40, share in 0.0f64..=1.0) {
            let rows = raw.len() / cols;
            let values: Vec<f32> = raw[..rows * cols].iter().map(|x| *x as f32 * 0.37).collect();
            let keep = (share * cols as f64) as usize;
            let scale = |col: usize| 1.0 + (col % 3) as f32;
            let words = top_k_rows(&values, cols, keep, |col, v| v * scale(col)).unwrap();
            for (r, row) in values.chunks(cols).enumerate() {
                let scaled: Vec<f32> = row.iter().enumerate().map(|(col, v)| v * scale(col)).collect();
                let ours: Vec<usize> = (0..cols).filter(|c| words[(r * cols + c) / 64] >> ((r * cols + c) % 64) & 1 == 1).collect();
                prop_assert_eq!(ours, kept(&scaled, keep));
            }
        }

        #[test]
        fn shares_are_those_of_all_together(raw in prop::collection::vec(prop::collection::vec(-4i32..4, 0..60), 1..6), share in 0.0f64..=1.0) {
            let scores: Vec<Vec<f32>> = raw.iter().map(|layer| layer.iter().map(|x| *x as f32 * 0.37).collect()).collect();
            let all = scores.concat();
            let keep = (share * all.len() as f64) as usize;
            let together = kept(&all, keep);
            let mut start = 0;
            let want: Vec<usize> = scores.iter().map(|layer| {
                let range = start..start + layer.len();
                start = range.end;
                together.iter().filter(|i| range.contains(i)).count()
            }).collect();
            let slices: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(shares(&slices, keep).unwrap(), want);
        }

        #[test]
        fn any_floats_keep_exactly_so_many(scores in prop::collection::vec(-1e30f32..1e30, 1..300), share in 0.0f64..=1.0) {
            let keep = (share * scores.len() as f64) as usize;
            let kept = kept(&scores, keep);
            prop_assert_eq!(kept.len(), keep);
            let least = kept.iter().map(|i| scores[*i]).fold(f32::INFINITY, f32::min);
            let most = (0..scores.len()).filter(|i| !kept.contains(i)).map(|i| scores[i]).fold(f32::NEG_INFINITY, f32::max);
            prop_assert!(keep == 0 || most <= least);
        }
    }
}
