//! Choosing the largest scores on the device that holds them: the threshold is found by counting.
//!
//! A sample of the scores, about n^(2/3) of them, gives two values between which the threshold almost certainly lies.
//! Counting how many scores are at least some value between them tells on which side of it the threshold is, and so on:
//! about a dozen passes over scores that stay on the device. Among equal scores the lower index is kept. The result
//! equals that of [`top_k`](super::top_k) bit for bit, or is `None` if a device might see other numbers than the CPU.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use super::{Bracket, scattered, stride};

/// Scores of one matrix on their device, to choose the largest without copying them to the CPU.
///
/// The result is a tensor of their shape, true where kept: what [`top_k`](super::top_k) and its variants would keep.
/// The result is `None` if that cannot be determined: if scores are not f32, or one of them is NaN or plus infinity; if
/// the smallest kept score is zero or subnormal (below 1.2e-38), which a device may flush to zero; if there are fewer
/// scores than to keep, or more than a device can count (2^31).
#[derive(Clone, Debug)]
pub struct Scores {
    values: Tensor<2>,
    outputs: usize,
}

impl Scores {
    /// For a matrix `[d_out, d_in]`, `outputs` is 0; for `[d_in, d_out]`, it is 1: the output dimension.
    pub fn new(values: Tensor<2>, outputs: usize) -> Self {
        Self { values, outputs: outputs.min(1) }
    }

    /// The `keep` largest; among equal ones the lower index, row by row of `[d_out, d_in]`.
    pub fn kept(&self, keep: usize) -> Option<Tensor<2, Bool>> {
        kept(std::slice::from_ref(self), &[0], &[keep])?.pop()
    }

    /// The `keep` largest of each output; among equal ones the lower inputs.
    pub fn kept_by_row(&self, keep: usize) -> Option<Tensor<2, Bool>> {
        let cols = self.cols();
        if keep > cols || !self.plain() {
            return None;
        }
        let sample = self.sample_of_rows();
        let hints = sample.into_iter().map(|mut sample| Bracket::around(keep, cols, &mut sample));
        let mut searches: Vec<Search> = hints.map(|hint| Search::new(keep, cols, hint)).collect();
        while searches.iter().any(|search| search.cut().is_none()) {
            let asked: Vec<f32> = searches.iter().map(Search::asks).collect();
            let enough = self.values.clone().greater_equal(self.to_rows(asked.clone()));
            let counts = numbers(enough.int().sum_dim(1 - self.outputs));
            for ((search, asked), count) in searches.iter_mut().zip(asked).zip(counts) {
                search.told(asked, count);
            }
        }
        let cuts: Vec<Cut> = searches.iter().filter_map(Search::cut).collect();
        if !cuts.iter().all(Cut::is_told_apart) {
            return None;
        }
        let thresholds = self.to_rows(cuts.iter().map(|cut| cut.threshold).collect());
        let ties = self.values.clone().equal(thresholds.clone());
        let taken = |(row, cut): (usize, &Cut)| cut.equal.map_or(cols, |equal| self.column_after(&ties, row, equal));
        let limits: Vec<usize> = cuts.iter().enumerate().map(taken).collect();
        Some(self.values.clone().greater(thresholds).bool_or(ties.bool_and(self.left_of(limits))))
    }

    /// The `n` largest of every `m` neighbours along the inputs; among equal ones the first. Subnormal scores may count
    /// as equal. Also `None` if `m` does not divide the inputs.
    pub fn n_of_m(&self, n: usize, m: usize) -> Option<Tensor<2, Bool>> {
        let [rows, cols] = self.values.dims();
        if m == 0 || n > m || !self.cols().is_multiple_of(m) || !self.plain() {
            return None;
        }
        // The positions in a group, neighbours along the inputs, as a separate dimension.
        let (shape, dim) = if self.outputs == 1 { ([rows / m, m, cols], 1) } else { ([rows, cols / m, m], 2) };
        let groups = self.values.clone().reshape(shape);
        let places: Vec<Tensor<3>> = (0..m).map(|j| groups.clone().slice_dim(dim, j..j + 1)).collect();
        let beats = |i: usize, j: usize| {
            let (other, own) = (places[i].clone(), places[j].clone());
            if i < j { other.greater_equal(own) } else { other.greater(own) }
        };
        let kept = |j: usize| {
            let better = (0..m).filter(|i| *i != j).map(|i| beats(i, j).int()).reduce(|a, b| a + b);
            better.map_or_else(|| beats(j, j).bool_not(), |better| better.lower_elem(n as i32))
        };
        Some(Tensor::cat((0..m).map(kept).collect(), dim).reshape([rows, cols]))
    }

    fn len(&self) -> usize {
        self.values.shape().num_elements()
    }

    fn rows(&self) -> usize {
        self.values.dims()[self.outputs]
    }

    fn cols(&self) -> usize {
        self.values.dims()[1 - self.outputs]
    }

    /// Whether there are scores, not too many, all comparable and none plus infinity.
    fn plain(&self) -> bool {
        let few = self.len() > 0 && i32::try_from(self.len()).is_ok();
        few && self.values.dtype() == DType::F32
            && numbers(self.values.clone().lower_equal_elem(f32::MAX).int().sum()) == [self.len()]
    }

    /// A shape along one dimension of the matrix.
    fn along(&self, dim: usize) -> [usize; 2] {
        let dims = self.values.dims();
        if dim == 0 { [dims[0], 1] } else { [1, dims[1]] }
    }

    /// A number for each row, repeated along it.
    fn to_rows(&self, numbers: Vec<f32>) -> Tensor<2> {
        let numbers = TensorData::new(numbers, self.along(self.outputs));
        Tensor::<2>::from_data(numbers, &self.values.device()).expand(self.values.dims())
    }

    /// Some scores of each row, from the same columns.
    fn sample_of_rows(&self) -> Vec<Vec<f32>> {
        let (rows, cols) = (self.rows(), self.cols());
        let columns = scattered_places(cols, cols.div_ceil(SAMPLE_OF_ROW), &self.values.device());
        let drawn = self.values.clone().select(1 - self.outputs, columns);
        let drawn = if self.outputs == 1 { drawn.swap_dims(0, 1) } else { drawn };
        let drawn: Vec<f32> = drawn.into_data().convert::<f32>().iter::<f32>().collect();
        drawn.chunks(drawn.len() / rows).map(<[f32]>::to_vec).collect()
    }

    /// How many scores are at least `least`.
    fn at_least(&self, least: f32) -> Tensor<1, Int> {
        self.values.clone().greater_equal_elem(least).int().sum()
    }

    /// One of every `stride`, as [`sample`](super::sample) takes them.
    fn sample(&self, stride: usize) -> Vec<f32> {
        let places = scattered_places(self.len(), stride, &self.values.device());
        self.values.clone().reshape([self.len()]).select(0, places).into_data().convert::<f32>().iter::<f32>().collect()
    }

    /// What `cut` keeps; the scores equal to the threshold that are kept are subtracted from `cut`.
    fn past(&self, cut: &mut Cut) -> Tensor<2, Bool> {
        let values = || self.values.clone();
        let Some(equal) = &mut cut.equal else { return values().greater_equal_elem(cut.threshold) };
        let ties = values().equal_elem(cut.threshold);
        let cols = self.cols();
        let limits: Vec<usize> = numbers(ties.clone().int().sum_dim(1 - self.outputs))
            .into_iter()
            .enumerate()
            .map(|(row, there)| {
                let taken = there.min(*equal);
                *equal -= taken;
                match taken {
                    _ if taken == there => cols,
                    0 => 0,
                    _ => self.column_after(&ties, row, taken),
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
    fn left_of(&self, limits: Vec<usize>) -> Tensor<2, Bool> {
        let (device, dims) = (self.values.device(), self.values.dims());
        let limits: Vec<i32> = limits.into_iter().map(|limit| limit as i32).collect();
        let limits = Tensor::<2, Int>::from_data(TensorData::new(limits, self.along(self.outputs)), &device);
        let columns = Tensor::<1, Int>::arange(0..self.cols() as i64, &device);
        columns.reshape(self.along(1 - self.outputs)).expand(dims).lower(limits.expand(dims))
    }
}

/// The number of scores of a row from which its threshold is first estimated.
const SAMPLE_OF_ROW: usize = 128;

/// One position of every `stride` of `len`, as [`sample`](super::sample) takes them.
fn scattered_places(len: usize, stride: usize, device: &Device) -> Tensor<1, Int> {
    let stride = stride.max(1);
    let place = |block: usize| (block * stride + scattered(block) % stride.min(len - block * stride)) as i32;
    let places: Vec<i32> = (0..len.div_ceil(stride)).map(place).collect();
    Tensor::from_data(TensorData::new(places, [len.div_ceil(stride)]), device)
}

/// For each of `scores`, the kept ones: true for the `keep` largest of each group; `keep` gives the count of each
/// group, `group` the group of each of `scores`. Among equal ones those of the earlier scores, and within these the
/// lower index (row by row of `[d_out, d_in]`), are kept. `None` as for [`Scores`].
pub(crate) fn kept(scores: &[Scores], group: &[usize], keep: &[usize]) -> Option<Vec<Tensor<2, Bool>>> {
    if !scores.iter().all(Scores::plain) {
        return None;
    }
    let lens: Vec<usize> = scores.iter().map(Scores::len).collect();
    let in_group = |g: usize| (0..scores.len()).filter(move |i| group[*i] == g);
    let total = |g: usize| in_group(g).map(|i| lens[i]).sum::<usize>();
    if keep.iter().enumerate().any(|(g, keep)| *keep > total(g)) {
        return None;
    }
    let search = |(g, keep): (usize, &usize)| {
        let total = total(g);
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
    cuts.iter().all(Cut::is_told_apart).then(|| scores.iter().zip(group).map(|(s, g)| s.past(&mut cuts[*g])).collect())
}

/// Scores above the threshold are kept; of those equal to it, at most a given number if one is set.
#[derive(Clone, Debug, PartialEq)]
struct Cut {
    threshold: f32,
    equal: Option<usize>,
}

impl Cut {
    /// Whether every device agrees on which side of it a score is.
    fn is_told_apart(&self) -> bool {
        self.threshold.is_normal() || (self.threshold.is_infinite() && self.equal.is_none())
    }
}

/// A threshold between two values, with the number of scores at least as large as each.
#[derive(Clone, Debug)]
struct Search {
    keep: usize,
    /// At `low` enough scores are at least as large, at the upper end too few.
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

    /// The cut, once no value lies between the two.
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

    /// The value to count at next: first the sample's two; then where the density between the ends suggests a value
    /// slightly to one side of the wanted rank, then to the other; the midpoint of the representable numbers if that
    /// fails.
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

    /// The number with as many representable numbers below it as above; a normal number if possible.
    fn middle(&self) -> f32 {
        let middle = in_order(order(self.low).midpoint(order(self.high)));
        let near = [middle, f32::MIN_POSITIVE, -f32::MIN_POSITIVE];
        let inside = |value: &f32| value.is_normal() && self.low < *value && *value < self.high;
        near.into_iter().find(inside).unwrap_or(middle)
    }

    /// Records that `count` scores are at least `value`.
    fn told(&mut self, value: f32, count: usize) {
        self.rounds += 1;
        match count >= self.keep {
            true => (self.low, self.at_low) = (value, count),
            false => (self.high, self.at_high) = (value, count),
        }
    }
}

/// The index of a number in the order of all floats, zero's being 0.
fn order(value: f32) -> i64 {
    let size = i64::from(value.to_bits() & 0x7fff_ffff);
    if value.is_sign_negative() { -size } else { size }
}

/// The number at an index.
fn in_order(place: i64) -> f32 {
    f32::from_bits(place.unsigned_abs() as u32).copysign(place as f32)
}

/// Non-negative integers, read from their device.
fn numbers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<usize> {
    tensor.into_data().convert::<i64>().iter::<i64>().map(|n| n as usize).collect()
}

/// Bits per integer that every device supports.
const BITS: usize = 32;

/// A row of such integers, each with one bit set.
fn powers(device: &Device) -> Tensor<2, Int> {
    let powers: Vec<i32> = (0..BITS).map(|bit| 1i32 << bit).collect();
    Tensor::from_data(TensorData::new(powers, [1, BITS]), device)
}

/// The flags of a matrix of `dims` (as stored) on `device`, from the words that [`words`] returned.
pub(crate) fn flags(words: &[u64], dims: [usize; 2], outputs: usize, device: &Device) -> Tensor<2, Bool> {
    let len = dims[0] * dims[1];
    let halves: Vec<i32> = words.iter().flat_map(|word| [*word as i32, (word >> BITS) as i32]).collect();
    let halves = TensorData::new(halves, [2 * words.len(), 1]);
    let (shape, powers) = ([2 * words.len(), BITS], powers(device));
    let bits = Tensor::<2, Int>::from_data(halves, device).expand(shape).bitwise_and(powers.expand(shape));
    let flags = bits.not_equal_elem(0).reshape([shape[0] * BITS]).slice_dim(0, 0..len);
    if outputs == 1 { flags.reshape([dims[1], dims[0]]).swap_dims(0, 1) } else { flags.reshape(dims) }
}

/// One bit for each flag, row by row of `[d_out, d_in]`, low bit first; `outputs` is the output dimension.
pub(crate) fn words(flags: Tensor<2, Bool>, outputs: usize) -> Vec<u64> {
    let flags = if outputs == 1 { flags.swap_dims(0, 1) } else { flags };
    let (device, len) = (flags.device(), flags.shape().num_elements());
    let mut ones = flags.int().reshape([len]);
    let missing = len.next_multiple_of(BITS) - len;
    if missing > 0 {
        ones = Tensor::cat(vec![ones, Tensor::zeros([missing], &device)], 0);
    }
    let halves = (ones.reshape([len.div_ceil(BITS), BITS]) * powers(&device)).sum_dim(1).into_data().convert::<i64>();
    let halves: Vec<u32> = halves.iter::<i64>().map(|half| half as u32).collect();
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << BITS;
    halves.chunks(2).map(word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{top_k, top_k_rows};
    use super::*;

    fn placed(values: &[f32], rows: usize, outputs: usize) -> Scores {
        let cols = values.len() / rows;
        let values =
            Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &regrow_device::current());
        let values = values.reshape([rows, cols]);
        Scores::new(if outputs == 1 { values.swap_dims(0, 1) } else { values }, outputs)
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
        for bad in [f32::NAN, f32::INFINITY] {
            let scores = placed(&[1.0, bad, 2.0, 3.0], 2, 1);
            assert!(scores.kept(1).is_none() && scores.kept_by_row(1).is_none() && scores.n_of_m(1, 2).is_none());
        }
        assert!(placed(&[0.0, 0.0, 2.0, 1.0], 2, 0).kept_by_row(1).is_none());
        assert!(placed(&[1.0, 2.0], 1, 0).kept_by_row(3).is_none());
        assert!(placed(&[1.0, 2.0], 1, 0).kept(3).is_none());
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
            prop_assert_eq!(chosen(&values, rows, outputs, keep), Some(want.clone()));
            let stored = if outputs == 1 { [cols, rows] } else { [rows, cols] };
            let again = flags(&want, stored, outputs, &regrow_device::current());
            prop_assert_eq!(again.dims(), stored);
            prop_assert_eq!(words(again, outputs), want);
            let keep = (share * cols as f64) as usize;
            let want = top_k_rows(&values, cols, keep, |row, keys| keys.copy_from_slice(row)).unwrap();
            let got = placed(&values, rows, outputs).kept_by_row(keep).map(|kept| words(kept, outputs));
            prop_assert_eq!(got, Some(want));
        }
    }
}
