//! Choosing the largest scores on the device that holds them: their threshold is found by counting.
//!
//! A sample of the scores, some n^(2/3) of them, says between which two values the threshold almost certainly lies;
//! how many scores are at least as large as some value between tells on which side of it the threshold is, and so on:
//! a dozen passes over scores that stay where they are. Of equal ones those with the lower index are kept. The answer
//! is that of [`top_k`](super::top_k), bit for bit, or none at all where a device might see other numbers than the
//! processor does.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::{Bracket, scattered, stride};

/// Scores of one matrix on their device, none of them NaN or plus infinity.
#[derive(Clone)]
pub(crate) struct Scores {
    /// `[d_out, d_in]` or the other way round.
    pub(crate) values: Tensor<2>,
    /// Which of its dimensions counts outputs.
    pub(crate) outputs: usize,
}

impl Scores {
    fn len(&self) -> usize {
        self.values.shape().num_elements()
    }

    /// How many are at least `least`.
    fn at_least(&self, least: f32) -> Tensor<1, Int> {
        self.values.clone().greater_equal_elem(least).int().sum()
    }

    /// One of every `stride`, as [`sample`](super::sample) takes them.
    fn sample(&self, stride: usize) -> Vec<f32> {
        let (len, stride) = (self.len(), stride.max(1));
        let place = |block: usize| (block * stride + scattered(block) % stride.min(len - block * stride)) as i32;
        let places: Vec<i32> = (0..len.div_ceil(stride)).map(place).collect();
        let places = TensorData::new(places, [len.div_ceil(stride)]);
        let places = Tensor::<1, Int>::from_data(places, &self.values.device());
        self.values.clone().reshape([len]).select(0, places).into_data().convert::<f32>().iter::<f32>().collect()
    }

    /// What `cut` keeps, which takes from it as many of those that equal the threshold.
    fn kept(&self, cut: &mut Cut) -> Tensor<2, Bool> {
        let values = || self.values.clone();
        let Some(equal) = &mut cut.equal else { return values().greater_equal_elem(cut.threshold) };
        let ties = values().equal_elem(cut.threshold);
        let cols = self.values.dims()[1 - self.outputs];
        let limits: Vec<i32> = numbers(ties.clone().int().sum_dim(1 - self.outputs))
            .into_iter()
            .enumerate()
            .map(|(row, there)| {
                let taken = there.min(*equal);
                *equal -= taken;
                match taken {
                    _ if taken == there => cols as i32,
                    0 => 0,
                    _ => self.column_after(&ties, row, taken) as i32,
                }
            })
            .collect();
        values().greater_elem(cut.threshold).bool_or(ties.bool_and(self.left_of(limits)))
    }

    /// The first column of `row` that has `count` of `ties` to its left.
    fn column_after(&self, ties: &Tensor<2, Bool>, row: usize, count: usize) -> usize {
        let flags = ties.clone().slice_dim(self.outputs, row..row + 1).into_data().convert::<bool>();
        flags.iter::<bool>().enumerate().filter(|(_, tie)| *tie).nth(count - 1).map_or(0, |(at, _)| at + 1)
    }

    /// True where a score's column is left of its row's limit.
    fn left_of(&self, limits: Vec<i32>) -> Tensor<2, Bool> {
        let (device, dims) = (self.values.device(), self.values.dims());
        let along = |dim: usize| if dim == 0 { [dims[0], 1] } else { [1, dims[1]] };
        let limits = TensorData::new(limits, along(self.outputs));
        let limits = Tensor::<2, Int>::from_data(limits, &device);
        let columns = Tensor::<1, Int>::arange(0..dims[1 - self.outputs] as i64, &device);
        columns.reshape(along(1 - self.outputs)).expand(dims).lower(limits.expand(dims))
    }
}

/// For each of `scores`, what is kept of it: true for the `keep` largest of each group, `groups` says how many, and
/// `group` to which one scores belong. Of equal ones those of the earlier scores and in these the lower index (row by
/// row of `[d_out, d_in]`) are kept.
///
/// None where the device cannot be trusted to tell scores apart: a threshold that is zero or smaller than numbers of
/// full precision, which it may take for zero; or more scores than it counts.
pub(crate) fn kept(scores: &[Scores], group: &[usize], keep: &[usize]) -> Option<Vec<Tensor<2, Bool>>> {
    let lens: Vec<usize> = scores.iter().map(Scores::len).collect();
    if lens.iter().any(|len| *len == 0 || i32::try_from(*len).is_err()) {
        return None;
    }
    let in_group = |g: usize| (0..scores.len()).filter(move |i| group[*i] == g);
    let search = |(g, keep): (usize, &usize)| {
        let total = in_group(g).map(|i| lens[i]).sum();
        let mut sample: Vec<f32> = in_group(g).flat_map(|i| scores[i].sample(stride(total))).collect();
        Search::new(*keep, total, Bracket::around(*keep, total, &mut sample))
    };
    let mut searches: Vec<Search> = keep.iter().enumerate().map(search).collect();
    while searches.iter().any(|search| search.cut().is_none()) {
        let asked: Vec<f32> = searches.iter().map(Search::asks).collect();
        let counts = scores.iter().zip(group).map(|(scores, g)| scores.at_least(asked[*g])).collect();
        let counts = numbers(Tensor::cat(counts, 0));
        for (g, search) in searches.iter_mut().enumerate() {
            search.told(asked[g], in_group(g).map(|i| counts[i]).sum());
        }
    }
    let mut cuts: Vec<Cut> = searches.iter().filter_map(Search::cut).collect();
    let told_apart = |cut: &Cut| cut.threshold.is_normal() || (cut.threshold.is_infinite() && cut.equal.is_none());
    cuts.iter().all(told_apart).then(|| scores.iter().zip(group).map(|(s, g)| s.kept(&mut cuts[*g])).collect())
}

/// What is at least the threshold is kept; of what equals it only so many, if that is said.
#[derive(Clone, Debug, PartialEq)]
struct Cut {
    threshold: f32,
    equal: Option<usize>,
}

/// A threshold between two values, of which it is known how many scores are at least as large.
#[derive(Clone, Debug)]
struct Search {
    keep: usize,
    /// Enough are, and too few.
    low: f32,
    high: f32,
    at_low: usize,
    at_high: usize,
    hint: Bracket,
    rounds: usize,
}

impl Search {
    /// For the `keep` largest of `total`.
    fn new(keep: usize, total: usize, hint: Bracket) -> Self {
        Self { keep, low: f32::NEG_INFINITY, high: f32::INFINITY, at_low: total, at_high: 0, hint, rounds: 0 }
    }

    /// The cut, once no value lies between.
    fn cut(&self) -> Option<Cut> {
        match self {
            Self { keep: 0, .. } => Some(Cut { threshold: f32::INFINITY, equal: None }),
            _ if self.at_low == self.keep => Some(Cut { threshold: self.low, equal: None }),
            _ if order(self.low) + 1 == order(self.high) => {
                Some(Cut { threshold: self.low, equal: Some(self.keep - self.at_high) })
            }
            _ => None,
        }
    }

    /// The value to count at next: the sample's two; then where the share between is expected to leave a little on
    /// one side of the wanted rank, and on the other; in the middle of what numbers there are, where that fails.
    fn asks(&self) -> f32 {
        let between = (self.at_low - self.at_high) as f64;
        let slack = between.sqrt() * if self.rounds.is_multiple_of(2) { 1.0 } else { -1.0 };
        let share = ((self.at_low as f64 - self.keep as f64 - slack) / between).clamp(0.0, 1.0);
        let value = match self.rounds {
            0 => self.hint.low,
            1 => self.hint.high,
            2..20 => (f64::from(self.low) + (f64::from(self.high) - f64::from(self.low)) * share) as f32,
            _ => f32::NAN,
        };
        if self.low < value && value < self.high { value } else { self.middle() }
    }

    /// The number with as many below it as above; one of full precision, if there is one.
    fn middle(&self) -> f32 {
        let middle = in_order(order(self.low).midpoint(order(self.high)));
        let near = [middle, f32::MIN_POSITIVE, -f32::MIN_POSITIVE];
        let inside = |value: &f32| value.is_normal() && self.low < *value && *value < self.high;
        near.into_iter().find(inside).unwrap_or(middle)
    }

    /// `count` scores are at least `value`.
    fn told(&mut self, value: f32, count: usize) {
        self.rounds += 1;
        match count >= self.keep {
            true => (self.low, self.at_low) = (value, count),
            false => (self.high, self.at_high) = (value, count),
        }
    }
}

/// The place of a number among all, zero's being 0.
fn order(value: f32) -> i64 {
    let size = i64::from(value.to_bits() & 0x7fff_ffff);
    if value.is_sign_negative() { -size } else { size }
}

/// The number at a place.
fn in_order(place: i64) -> f32 {
    f32::from_bits(place.unsigned_abs() as u32).copysign(place as f32)
}

/// Whole numbers, none of them negative, from their device.
fn numbers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<usize> {
    tensor.into_data().convert::<i64>().iter::<i64>().map(|n| n as usize).collect()
}

/// One bit for each flag, row by row of `[d_out, d_in]`, low bit first; `outputs` says which dimension counts outputs.
pub(crate) fn words(flags: Tensor<2, Bool>, outputs: usize) -> Vec<u64> {
    /// Bits of a number that every device has.
    const BITS: usize = 32;
    let flags = if outputs == 1 { flags.swap_dims(0, 1) } else { flags };
    let (device, len) = (flags.device(), flags.shape().num_elements());
    let mut ones = flags.int().reshape([len]);
    let missing = len.next_multiple_of(BITS) - len;
    if missing > 0 {
        ones = Tensor::cat(vec![ones, Tensor::zeros([missing], &device)], 0);
    }
    let powers: Vec<i32> = (0..BITS).map(|bit| 1i32 << bit).collect();
    let powers = Tensor::<2, Int>::from_data(TensorData::new(powers, [1, BITS]), &device);
    let halves = (ones.reshape([len.div_ceil(BITS), BITS]) * powers).sum_dim(1).into_data().convert::<i64>();
    let halves: Vec<u32> = halves.iter::<i64>().map(|half| half as u32).collect();
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << BITS;
    halves.chunks(2).map(word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::top_k;
    use super::*;

    fn placed(values: &[f32], rows: usize, outputs: usize) -> Scores {
        let cols = values.len() / rows;
        let values =
            Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &crate::device::current());
        let values = values.reshape([rows, cols]);
        Scores { values: if outputs == 1 { values.swap_dims(0, 1) } else { values }, outputs }
    }

    fn chosen(values: &[f32], rows: usize, outputs: usize, keep: usize) -> Option<Vec<u64>> {
        let kept = kept(&[placed(values, rows, outputs)], &[0], &[keep])?;
        Some(words(kept[0].clone(), outputs))
    }

    #[test]
    fn numbers_are_in_order() {
        let values = [f32::NEG_INFINITY, -2.0, -1e-40, -0.0, 1e-45, 3.0, f32::MAX, f32::INFINITY];
        assert!(values.windows(2).all(|pair| order(pair[0]) < order(pair[1])));
        assert!(values.iter().all(|value| in_order(order(*value)) == *value));
        assert_eq!(order(f32::MAX) + 1, order(f32::INFINITY));
    }

    #[test]
    fn zeros_that_all_go_leave_no_doubt() {
        let hint = Bracket { low: f32::NEG_INFINITY, high: f32::INFINITY };
        let mut search = Search { rounds: 20, ..Search::new(1, 3, hint) };
        assert_eq!(search.asks(), f32::MIN_POSITIVE);
        search.told(f32::MIN_POSITIVE, 1);
        assert_eq!(search.cut(), Some(Cut { threshold: f32::MIN_POSITIVE, equal: None }));
    }

    #[test]
    fn a_search_ends_wherever_the_threshold_is() {
        let keys: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 613) as f32 - 300.0).powi(3)).collect();
        let all = Bracket { low: f32::NEG_INFINITY, high: f32::INFINITY };
        for hint in [all, Bracket { low: 5.0, high: 6.0 }, Bracket { low: 7.0, high: -7.0 }] {
            for keep in [1, 2, 399, 400, 999] {
                let mut search = Search::new(keep, keys.len(), hint);
                while search.cut().is_none() {
                    let asked = search.asks();
                    search.told(asked, keys.iter().filter(|key| **key >= asked).count());
                    assert!(search.rounds < 60, "{keep}");
                }
                let Cut { threshold, equal } = search.cut().unwrap();
                let above = keys.iter().filter(|key| **key > threshold).count();
                let ties = keys.iter().filter(|key| **key == threshold).count();
                assert_eq!(above + equal.unwrap_or(ties), keep);
                assert!(equal.is_none_or(|equal| equal < ties));
            }
        }
    }

    #[test]
    fn what_a_device_may_not_tell_apart_is_left_to_the_processor() {
        assert_eq!(chosen(&[1e-40, 0.0, 2.0, 1e-39], 1, 0, 2), None);
        assert_eq!(chosen(&[0.0, 0.0, 2.0, 0.0], 2, 0, 2), None);
        assert_eq!(chosen(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], 1, 0, 2), None);
        assert_eq!(chosen(&[f32::NEG_INFINITY, 0.0, 1.0], 1, 0, 3), Some(vec![0b111]));
        assert_eq!(chosen(&[1e-40, 0.0, 2.0, 3.0], 1, 0, 2), Some(vec![0b1100]));
        assert_eq!(chosen(&[1.0, 2.0], 1, 0, 0), Some(vec![0]));
    }

    #[test]
    fn groups_are_cut_each_for_itself_and_ties_go_to_the_earlier_scores() {
        let (a, b, c) = ([3.0, 1.0, 1.0, 2.0], [1.0, 1.0, 4.0, 1.0], [9.0, 8.0, 7.0, 7.0]);
        let scores = [placed(&a, 2, 0), placed(&c, 2, 1), placed(&b, 2, 1)];
        let kept = kept(&scores, &[0, 1, 0], &[6, 3]).unwrap();
        let drawn: Vec<u64> = kept.into_iter().zip([0, 1, 1]).map(|(kept, outputs)| words(kept, outputs)[0]).collect();
        assert_eq!(drawn, [0b1111, 0b0111, 0b0101]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_is_what_the_processor_chooses(
            rows in 1usize..20,
            cols in 1usize..90,
            outputs in 0usize..2,
            kinds in prop::sample::select(vec![3u32, 50, 1 << 20]),
            share in 0.0f64..=1.0,
            seed in any::<u32>(),
        ) {
            let draw = |i: u32| ((i ^ seed).wrapping_mul(2_654_435_761).rotate_left(9) % kinds) as f32 * 0.37 - 5.0;
            let values: Vec<f32> = (0..(rows * cols) as u32).map(draw).collect();
            let keep = (share * values.len() as f64) as usize;
            let want = top_k(&values, keep, |x| x).unwrap();
            prop_assert_eq!(chosen(&values, rows, outputs, keep), Some(want));
        }
    }
}
