//! Choosing the `keep` largest of many scores: exact count, ties by index, no sorting.
//!
//! A sample of the scores, about n^(2/3) of them, gives two values between which the threshold almost certainly lies
//! (Floyd and Rivest, Algorithm 489). One pass over all scores then marks those above and collects those between (the
//! larger the slice, the smaller their share: about a hundredth of a large matrix). Only these are searched for the
//! threshold. If the sample was misleading, a second pass searches outside the bracket. The result equals that of a
//! stable sort, independent of the sample and of the number of threads.

mod marks;
pub(crate) mod on_device;

use std::borrow::Cow;

use rayon::prelude::*;

use crate::mask::simd::{SimdKernel, SimdLevel};
use crate::{Error, Result};

use marks::{Marks, marks};

pub use on_device::Scores;

/// Scores per parallel piece; a multiple of 64, so that pieces own whole words of the mask.
const PIECE: usize = 1 << 16;

/// One bit per score, low bit first: set for the `keep` scores with the largest `key(score)`.
///
/// Among equal keys the lower index is kept. Cost: one read of `scores`, one bit written per score.
///
/// # Errors
/// If a key is NaN, or `keep` exceeds the number of scores.
pub fn top_k(scores: &[f32], keep: usize, key: impl Fn(f32) -> f32 + Sync) -> Result<Vec<u64>> {
    if keep > scores.len() {
        return Err(Error::Argument(format!("cannot keep {keep} of {} weights", scores.len())));
    }
    let mut bracket = Bracket::around(keep, scores.len(), &mut sample(scores, stride(scores.len()), &key));
    loop {
        let mut words = vec![0u64; scores.len().div_ceil(64)];
        let pieces = scores.par_chunks(PIECE).zip(words.par_chunks_mut(PIECE / 64));
        let partitioned: Vec<Partitioned> =
            pieces.map(|(scores, words)| bracket.partition(scores, &key, |at, word| words[at] = word)).collect();
        if let Some(beyond) = bracket.missed(&partitioned, keep)? {
            bracket = beyond;
            continue;
        }
        let mut threshold = Threshold::of(&partitioned, keep);
        let shares: Vec<Threshold> = partitioned.iter().map(|partitioned| threshold.share(partitioned)).collect();
        let pieces = words.par_chunks_mut(PIECE / 64).zip(partitioned.par_iter().zip(shares));
        pieces.for_each(|(words, (partitioned, mut share))| share.mark(partitioned, words));
        return Ok(words);
    }
}

/// The `keep` largest of every row of `cols` values by their keys, as [`top_k`] gives them.
///
/// `keys` gets the values of a row and writes one key per value. Among equal keys the lower column is kept. Rows are
/// processed in parallel, each small enough for a cache.
///
/// # Errors
/// If a key is NaN, `keep` exceeds `cols`, or `cols` does not divide the values.
pub fn top_k_rows(
    values: &[f32],
    cols: usize,
    keep: usize,
    keys: impl Fn(&[f32], &mut [f32]) + Sync,
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
    pieces.try_for_each(|(words, values)| {
        let mut row = vec![0.0; cols];
        for (r, values) in values.chunks_exact(cols).enumerate() {
            keys(values, &mut row);
            put_at(&top_k_of_row(&row, keep)?, words, r * cols);
        }
        Ok::<(), Error>(())
    })?;
    Ok(words)
}

/// [`top_k`] of data that is already in a cache, on one thread.
fn top_k_of_row(keys: &[f32], keep: usize) -> Result<Vec<u64>> {
    let mut bracket = Bracket::around(keep, keys.len(), &mut sample(keys, stride(keys.len()), &|key| key));
    loop {
        let mut words = vec![0u64; keys.len().div_ceil(64)];
        let partitioned = [bracket.partition(keys, &|key| key, |at, word| words[at] = word)];
        match bracket.missed(&partitioned, keep)? {
            Some(beyond) => bracket = beyond,
            None => {
                Threshold::of(&partitioned, keep).mark(&partitioned[0], &mut words);
                return Ok(words);
            }
        }
    }
}

/// Sets those bits of `words`, from bit `start` on, that `row` has.
fn put_at(row: &[u64], words: &mut [u64], start: usize) {
    let (first, shift) = (start / 64, start % 64);
    for (at, bits) in row.iter().enumerate().filter(|(_, bits)| **bits != 0) {
        words[first + at] |= bits << shift;
        if let Some(over) = bits.checked_shr(64 - shift as u32).filter(|over| *over != 0) {
            words[first + at + 1] |= over;
        }
    }
}

/// How many of each of `scores` are among the `keep` largest of all of them together.
///
/// Among equal scores those of the earlier slice, and within it the lower index, are kept. Only a sample and the scores
/// near the threshold are copied.
///
/// # Errors
/// If a score is NaN, or `keep` exceeds their number.
pub fn shares(scores: &[&[f32]], keep: usize) -> Result<Vec<usize>> {
    shares_of(scores.len(), keep, |slice| Ok::<_, Error>(Cow::Borrowed(scores[slice])))
}

/// One score out of this many goes into the sample of all slices.
const STRIDE: usize = 512;

/// [`shares`] of `slices` slices that are not in memory together: each is read twice, and once more if the sample was
/// misleading.
///
/// # Errors
/// As [`shares`], or errors of `slice`.
pub fn shares_of<'s, E: From<Error>>(
    slices: usize,
    keep: usize,
    mut slice: impl FnMut(usize) -> Result<Cow<'s, [f32]>, E>,
) -> Result<Vec<usize>, E> {
    let mut drawn = Vec::new();
    let mut total = 0;
    for index in 0..slices {
        let scores = slice(index)?;
        total += scores.len();
        drawn.extend(sample(&scores, STRIDE, &|score| score));
    }
    if keep > total {
        return Err(Error::Argument(format!("cannot keep {keep} of {total} weights")).into());
    }
    let mut bracket = Bracket::around(keep, total, &mut drawn);
    loop {
        let mut partitioned = Vec::with_capacity(slices);
        for index in 0..slices {
            let scores = slice(index)?;
            let pieces = scores.par_chunks(PIECE).map(|scores| bracket.partition(scores, &|score| score, |_, _| ()));
            partitioned.push(pieces.collect::<Vec<_>>().into_iter().collect::<Partitioned>());
        }
        match bracket.missed(&partitioned, keep)? {
            Some(beyond) => bracket = beyond,
            None => {
                let mut threshold = Threshold::of(&partitioned, keep);
                let mut kept =
                    |s: &Partitioned| s.above + s.between.iter().filter(|(key, _)| threshold.takes(*key)).count();
                return Ok(partitioned.iter().map(&mut kept).collect());
            }
        }
    }
}

/// One score out of this many of `n` is sampled, so that the sample has n^(2/3).
fn stride(n: usize) -> usize {
    (n as f64).cbrt() as usize
}

/// A pseudorandom number for each block, so that it does not align with the structure of a matrix.
fn scattered(block: usize) -> usize {
    ((block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// The keys of one score of every `stride`, at a pseudorandom position among them: a fixed stride would see only one
/// column of a matrix, or one position of an N:M pattern.
fn sample(scores: &[f32], stride: usize, key: &(impl Fn(f32) -> f32 + Sync)) -> Vec<f32> {
    let draw = |(block, scores): (usize, &[f32])| key(scores[scattered(block) % scores.len()]);
    // Each read is a separate cache line: threads wait for memory in parallel.
    scores.par_chunks(stride.max(1)).enumerate().with_min_len(1 << 12).map(draw).collect()
}

/// Keys above `high` are kept, those below `low` are not; the threshold is between them or equal to one of them.
#[derive(Clone, Copy, Debug)]
struct Bracket {
    low: f32,
    high: f32,
}

impl Bracket {
    /// The sample's keys three standard deviations to either side of the wanted rank.
    fn around(keep: usize, total: usize, sample: &mut [f32]) -> Self {
        let share = keep as f64 / total.max(1) as f64;
        let drawn = sample.len() as f64;
        let (rank, slack) = (share * drawn, 3.0 * (drawn * share * (1.0 - share)).sqrt() + 2.0);
        let place = |rank: f64| (0.0..drawn).contains(&rank).then_some(rank as usize);
        let larger = |a: &f32, b: &f32| b.total_cmp(a);
        // The lower end is searched only among keys smaller than the upper end.
        let (mut high, mut rest, mut gone) = (f32::INFINITY, sample, 0);
        if let Some(first) = place(rank - slack) {
            let (_, found, smaller) = rest.select_nth_unstable_by(first, larger);
            (high, rest, gone) = (*found, smaller, first + 1);
        }
        let low = match place(rank + slack) {
            Some(last) => *rest.select_nth_unstable_by(last - gone, larger).1,
            None => f32::NEG_INFINITY,
        };
        // A NaN gives no bracket; the pass over all keys will find it.
        if high.is_nan() || low.is_nan() {
            Self { low: f32::NEG_INFINITY, high: f32::INFINITY }
        } else {
            Self { low, high }
        }
    }

    /// The bits of the keys above, word by word, and the keys between.
    fn partition<K: Fn(f32) -> f32, P: FnMut(usize, u64)>(&self, scores: &[f32], key: &K, put: P) -> Partitioned {
        SimdLevel::best().run(Sift { bracket: *self, scores, key, put })
    }

    /// Where to search instead if the threshold for `keep` is not in this bracket.
    fn missed(&self, partitioned: &[Partitioned], keep: usize) -> Result<Option<Self>> {
        if partitioned.iter().any(|partitioned| partitioned.nan) {
            return Err(Error::Argument("a score is NaN".into()));
        }
        let above: usize = partitioned.iter().map(|partitioned| partitioned.above).sum();
        let between: usize = partitioned.iter().map(|partitioned| partitioned.between.len()).sum();
        Ok(if keep < above {
            Some(Self { low: self.high.next_up(), high: f32::INFINITY })
        } else if keep > above + between {
            Some(Self { low: f32::NEG_INFINITY, high: self.low.next_down() })
        } else {
            None
        })
    }
}

/// The pass over all scores.
struct Sift<'a, K, P> {
    bracket: Bracket,
    scores: &'a [f32],
    key: &'a K,
    put: P,
}

impl<K: Fn(f32) -> f32, P: FnMut(usize, u64)> SimdKernel for Sift<'_, K, P> {
    type Output = Partitioned;

    #[inline(always)]
    fn done(mut self, level: SimdLevel) -> Partitioned {
        let mut partitioned = Partitioned::default();
        let (whole, rest) = self.scores.as_chunks::<64>();
        for (at, scores) in whole.iter().enumerate() {
            self.word(level, at, scores, u64::MAX, &mut partitioned);
        }
        if let Some(first) = rest.first() {
            // The last word is padded with an existing score; the padding's bits are cut off.
            let mut last = [*first; 64];
            last[..rest.len()].copy_from_slice(rest);
            self.word(level, whole.len(), &last, u64::MAX >> (64 - rest.len()), &mut partitioned);
        }
        partitioned
    }
}

impl<K: Fn(f32) -> f32, P: FnMut(usize, u64)> Sift<'_, K, P> {
    /// Word `at`, of which the bits `exist` are valid.
    #[inline(always)]
    fn word(&mut self, level: SimdLevel, at: usize, scores: &[f32; 64], exist: u64, partitioned: &mut Partitioned) {
        let mut keys = [0.0; 64];
        for (slot, score) in keys.iter_mut().zip(scores) {
            *slot = (self.key)(*score);
        }
        let Marks { above, least, nan } = marks(level, &keys, self.bracket.low, self.bracket.high);
        let above = above & exist;
        let mut between = least & exist & !above;
        (self.put)(at, above);
        partitioned.above += above.count_ones() as usize;
        partitioned.nan |= nan;
        while between != 0 {
            let i = between.trailing_zeros() as usize;
            partitioned.between.push((keys[i], (at * 64 + i) as u32));
            between &= between - 1;
        }
    }
}

/// The scores' relation to a bracket.
#[derive(Debug, Default)]
struct Partitioned {
    /// How many keys are above it.
    above: usize,
    /// The keys in it, each with its index relative to the start of its piece.
    between: Vec<(f32, u32)>,
    nan: bool,
}

impl FromIterator<Self> for Partitioned {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.above += part.above;
            all.between.extend(part.between);
            all.nan |= part.nan;
            all
        })
    }
}

/// The smallest key that is kept, and how many keys equal to it are kept.
struct Threshold {
    key: f32,
    equal: usize,
}

impl Threshold {
    /// The threshold that keeps `keep` in total, including those above the bracket.
    fn of(partitioned: &[Partitioned], keep: usize) -> Self {
        let rest = keep - partitioned.iter().map(|partitioned| partitioned.above).sum::<usize>();
        let mut keys: Vec<f32> =
            partitioned.iter().flat_map(|partitioned| &partitioned.between).map(|(key, _)| *key).collect();
        if rest == 0 {
            return Self { key: f32::INFINITY, equal: 0 };
        }
        let (larger, key, _) = keys.select_nth_unstable_by(rest - 1, |a, b| b.total_cmp(a));
        Self { key: *key, equal: rest - larger.iter().filter(|larger| **larger > *key).count() }
    }

    /// The threshold for `partitioned`, the next part: it takes as many of the keys equal to the threshold as it has.
    fn share(&mut self, partitioned: &Partitioned) -> Self {
        let equal = partitioned.between.iter().filter(|(key, _)| *key == self.key).count().min(self.equal);
        self.equal -= equal;
        Self { key: self.key, equal }
    }

    /// Sets the bits of the keys in the bracket that are kept.
    fn mark(&mut self, partitioned: &Partitioned, words: &mut [u64]) {
        for (key, at) in &partitioned.between {
            words[*at as usize / 64] |= u64::from(self.takes(*key)) << (at % 64);
        }
    }

    /// Whether a key is kept; call it in order, the first of equal keys are kept.
    fn takes(&mut self, key: f32) -> bool {
        // Without a branch: a processor cannot predict which keys are kept.
        let tie = (key == self.key) & (self.equal > 0);
        self.equal -= usize::from(tie);
        (key > self.key) | tie
    }
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
        let same = |values: &[f32], keys: &mut [f32]| keys.copy_from_slice(values);
        assert!(top_k_rows(&[1.0, f32::NAN], 2, 1, same).is_err());
        assert!(top_k_rows(&[1.0, 2.0], 2, 3, same).is_err() && top_k_rows(&[1.0], 2, 1, same).is_err());
    }

    /// The indices of the `keep` largest, by sorting; among equal ones the first.
    fn sorted(scores: &[f32], keep: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].partial_cmp(&scores[*a]).unwrap().then(a.cmp(b)));
        let mut kept = order[..keep].to_vec();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn of_many_pieces_what_a_stable_sort_keeps() {
        let n = 2 * PIECE + 77;
        for levels in [1u32, 3, 1000, u32::MAX] {
            let score = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).rotate_left(11) % levels) as f32 - 1.0;
            let scores: Vec<f32> = (0..n).map(score).collect();
            for keep in [0, 1, n / 3, n - 1, n] {
                assert_eq!(kept(&scores, keep), sorted(&scores, keep), "{keep} of {levels} levels");
            }
            let half = kept(&scores, n / 2);
            let first = half.iter().filter(|i| **i < PIECE).count();
            assert_eq!(shares(&[&scores[..PIECE], &scores[PIECE..]], n / 2).unwrap(), [first, n / 2 - first]);
        }
    }

    #[test]
    fn every_level_sifts_alike() {
        let scores: Vec<f32> = (0..1000).map(|i| (i * 7919 % 101) as f32 - 50.0).collect();
        let bracket = Bracket { low: -3.0, high: 20.0 };
        for level in SimdLevel::all() {
            let mut words = [0u64; 16];
            let put = |at: usize, word| words[at] = word;
            let partitioned = level.run(Sift { bracket, scores: &scores, key: &f32::abs, put });
            let is = |i: usize| words[i / 64] >> (i % 64) & 1 == 1;
            assert!(scores.iter().enumerate().all(|(i, score)| is(i) == (score.abs() > 20.0)), "{level}");
            assert_eq!(
                (partitioned.above, partitioned.nan, words[15] >> 40),
                ((0..1000).filter(|i| is(*i)).count(), false, 0)
            );
            let between = scores.iter().map(|score| score.abs()).zip(0..).filter(|(key, _)| *key <= 20.0);
            assert!(partitioned.between.iter().copied().eq(between), "{level}");
        }
    }

    /// Scores of which all that a sample takes of each slice, up to one of `ends`, are `misleading`.
    fn misleading(ends: &[usize], stride: usize, misleading: f32) -> Vec<f32> {
        let n = ends.last().copied().unwrap_or(0);
        let places: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let mut scores: Vec<f32> = (0..n).map(|i| (i % 1009) as f32 / 1009.0).collect();
        let mut start = 0;
        for end in ends {
            for place in sample(&places[start..*end], stride, &|place| place) {
                scores[place as usize] = misleading;
            }
            start = *end;
        }
        let bracket = Bracket::around(n / 2, n, &mut vec![misleading; n / stride]);
        let partitioned = bracket.partition(&scores, &|score| score, |_, _| ());
        assert!(bracket.missed(&[partitioned], n / 2).unwrap().is_some(), "this sample does not mislead");
        scores
    }

    #[test]
    fn a_sample_that_misleads_costs_a_pass_and_nothing_else() {
        let (n, cut) = (100_000, 30_000);
        for value in [2.0, -2.0] {
            let scores = misleading(&[n], stride(n), value);
            assert_eq!(kept(&scores, n / 2), sorted(&scores, n / 2));
            let scores = misleading(&[cut, n], STRIDE, value);
            let first = sorted(&scores, n / 2).iter().filter(|i| **i < cut).count();
            assert_eq!(shares(&[&scores[..cut], &scores[cut..]], n / 2).unwrap(), [first, n / 2 - first]);
        }
    }

    proptest! {
        #[test]
        fn equals_a_stable_sort(raw in prop::collection::vec(-4i32..4, 0..500), share in 0.0f64..=1.0) {
            let scores: Vec<f32> = raw.iter().map(|x| *x as f32 * 0.37).collect();
            let keep = (share * scores.len() as f64) as usize;
            prop_assert_eq!(kept(&scores, keep), sorted(&scores, keep));
        }

        #[test]
        fn rows_are_chosen_as_each_by_itself(raw in prop::collection::vec(-4i32..4, 1..900), cols in 1usize..40, share in 0.0f64..=1.0) {
            let rows = raw.len() / cols;
            let values: Vec<f32> = raw[..rows * cols].iter().map(|x| *x as f32 * 0.37).collect();
            let keep = (share * cols as f64) as usize;
            let scale = |col: usize| 1.0 + (col % 3) as f32;
            let scaled = |values: &[f32], keys: &mut [f32]| {
                (0..cols).for_each(|col| keys[col] = values[col] * scale(col));
            };
            let words = top_k_rows(&values, cols, keep, scaled).unwrap();
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
