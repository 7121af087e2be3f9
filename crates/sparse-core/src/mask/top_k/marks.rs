//! Compares 64 keys with the ends of a bracket; results are bits, computed with the available instructions.

use crate::mask::bitpack::packed;
use crate::mask::simd::SimdLevel;

/// A bit for each key, low bit first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Above the upper end.
    pub(super) above: u64,
    /// Not below the lower end.
    pub(super) least: u64,
    /// Whether any key is NaN, which is neither.
    pub(super) nan: bool,
}

/// Which of `keys` are above `high`, and which not below `low`.
#[inline(always)]
pub(super) fn marks(level: SimdLevel, keys: &[f32; 64], low: f32, high: f32) -> Marks {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: such a level exists only if the processor has the instructions.
    match level {
        SimdLevel::AVX512 => return unsafe { x86::avx512(keys, low, high) },
        SimdLevel::AVX2 => return unsafe { x86::avx2(keys, low, high) },
        _ => {}
    }
    portable(keys, low, high)
}

fn portable(keys: &[f32; 64], low: f32, high: f32) -> Marks {
    // One byte per bool: compilers vectorize this.
    let (mut above, mut least, mut nan) = ([false; 64], [false; 64], false);
    for (i, key) in keys.iter().enumerate() {
        above[i] = *key > high;
        least[i] = *key >= low;
        nan |= key.is_nan();
    }
    Marks { above: packed(&above), least: packed(&least), nan }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Marks;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(keys: &[f32; 64], low: f32, high: f32) -> Marks {
        let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
        let (mut above, mut least, mut nan) = (0, 0, 0);
        for (i, keys) in keys.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: the chunk has 16 numbers.
            let keys = unsafe { _mm512_loadu_ps(keys.as_ptr()) };
            above |= u64::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(keys, high)) << (16 * i);
            least |= u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(keys, low)) << (16 * i);
            nan |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(keys, keys);
        }
        Marks { above, least, nan: nan != 0 }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(keys: &[f32; 64], low: f32, high: f32) -> Marks {
        let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
        let (mut above, mut least, mut nan) = (0, 0, 0);
        for (i, keys) in keys.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: the chunk has 8 numbers.
            let keys = unsafe { _mm256_loadu_ps(keys.as_ptr()) };
            let bits = |truths| u64::from(_mm256_movemask_ps(truths) as u8) << (8 * i);
            above |= bits(_mm256_cmp_ps::<_CMP_GT_OQ>(keys, high));
            least |= bits(_mm256_cmp_ps::<_CMP_GE_OQ>(keys, low));
            nan |= bits(_mm256_cmp_ps::<_CMP_UNORD_Q>(keys, keys));
        }
        Marks { above, least, nan: nan != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_marks_what_the_comparisons_say() {
        let special = [0.0, -0.0, 1.5, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e30];
        for turn in 0..special.len() * special.len() {
            let keys: [f32; 64] = std::array::from_fn(|i| special[(i * 7 + turn) % special.len()]);
            let without: [f32; 64] = keys.map(|key| if key.is_nan() { 0.5 } else { key });
            let ends = special.map(|end| if end.is_nan() { 0.25 } else { end });
            let (low, high) = (ends[turn % 9], ends[turn / 9]);
            for keys in [keys, without] {
                let bit = |truth: fn(f32, f32) -> bool, end: f32| {
                    (0..64).fold(0, |word, i| word | u64::from(truth(keys[i], end)) << i)
                };
                let (above, least) = (bit(|key, end| key > end, high), bit(|key, end| key >= end, low));
                let want = Marks { above, least, nan: keys.iter().any(|key| key.is_nan()) };
                for level in SimdLevel::all() {
                    assert_eq!(marks(level, &keys, low, high), want, "{level}, {low} to {high}");
                }
            }
        }
    }
}
