//! For processors with AVX2, FMA and F16C: a table gives for each mask of eight the positions of its values.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{BLOCK, LANES, Place, SLACK, WORD};

/// For each mask of eight columns, which of the values in a row belongs to each; 0 where none does.
static PLACES: [[u8; 8]; 256] = places();
/// The same in bytes of 16-bit values; 0x80, which gives zero, where none belongs.
static BYTES: [[u8; 16]; 256] = bytes();

const fn places() -> [[u8; 8]; 256] {
    let (mut table, mut mask) = ([[0; 8]; 256], 0);
    while mask < 256 {
        let (mut column, mut count) = (0, 0);
        while column < 8 {
            if mask >> column & 1 == 1 {
                table[mask][column] = count;
                count += 1;
            }
            column += 1;
        }
        mask += 1;
    }
    table
}

const fn bytes() -> [[u8; 16]; 256] {
    let (from, mut table, mut mask) = (places(), [[0x80; 16]; 256], 0);
    while mask < 256 {
        let mut column = 0;
        while column < 8 {
            if mask >> column & 1 == 1 {
                table[mask][2 * column] = 2 * from[mask][column];
                table[mask][2 * column + 1] = 2 * from[mask][column] + 1;
            }
            column += 1;
        }
        mask += 1;
    }
    table
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(acc: [__m256; 2]) -> f32 {
    let v = _mm256_add_ps(acc[0], acc[1]);
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

/// The eight weights of columns with this mask, their values starting at `from`.
///
/// # Safety
/// Of all three: eight values may be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread_f32(mask: u8, from: *const f32) -> __m256 {
    // SAFETY: an entry of the table has eight bytes; the caller's.
    let (places, kept) = unsafe { (_mm_loadl_epi64(PLACES[usize::from(mask)].as_ptr().cast()), _mm256_loadu_ps(from)) };
    let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits), bits);
    let spread = _mm256_permutevar8x32_ps(kept, _mm256_cvtepu8_epi32(places));
    _mm256_and_ps(spread, _mm256_castsi256_ps(set))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread_16(mask: u8, from: *const u16) -> __m128i {
    // SAFETY: an entry of the table has 16 bytes; the caller's.
    unsafe { _mm_shuffle_epi8(_mm_loadu_si128(from.cast()), _mm_loadu_si128(BYTES[usize::from(mask)].as_ptr().cast())) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread_f16(mask: u8, from: *const f16) -> __m256 {
    // SAFETY: the caller's.
    wide_f16(unsafe { spread_16(mask, from.cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn spread_bf16(mask: u8, from: *const bf16) -> __m256 {
    // SAFETY: the caller's.
    wide_bf16(unsafe { spread_16(mask, from.cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide_f16(values: __m128i) -> __m256 {
    _mm256_cvtph_ps(values)
}

/// A bf16 is the upper half of an f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide_bf16(values: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(values)))
}

macro_rules! bits {
    ($name:ident, $type:ty, $spread:ident) => {
        /// # Safety
        /// `values` has the values of all bits and [`SLACK`] more; inputs have a number for every bit.
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        pub(super) unsafe fn $name<const B: usize>(words: &[u64], values: &[$type], x: &[&[f32]; B]) -> [f32; B] {
            debug_assert!(SLACK >= 8 && x.iter().all(|x| x.len() >= words.len() * WORD));
            let (mut acc, mut at) = ([[_mm256_setzero_ps(); 2]; B], 0);
            for (w, word) in words.iter().enumerate() {
                for (part, mask) in word.to_le_bytes().into_iter().enumerate() {
                    // SAFETY: `at` values went before; eight may be read beyond the last.
                    let weights = unsafe { $spread(mask, values.as_ptr().add(at)) };
                    at += mask.count_ones() as usize;
                    for (sums, x) in acc.iter_mut().zip(x) {
                        // SAFETY: inputs are as long as the bits.
                        let x = unsafe { _mm256_loadu_ps(x.as_ptr().add(w * WORD + 8 * part)) };
                        sums[part % 2] = _mm256_fmadd_ps(weights, x, sums[part % 2]);
                    }
                }
            }
            std::array::from_fn(|b| sum(acc[b]))
        }
    };
}

bits!(bits_f32, f32, spread_f32);
bits!(bits_f16, f16, spread_f16);
bits!(bits_bf16, bf16, spread_bf16);

macro_rules! listed {
    ($name:ident, $type:ty, $load:ident) => {
        /// # Safety
        /// Inputs are longer than any column.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) unsafe fn $name<const B: usize>(columns: &[u16], values: &[$type], x: &[&[f32]; B]) -> [f32; B] {
            debug_assert!(x.iter().all(|x| columns.iter().all(|c| usize::from(*c) < x.len())));
            let mut acc = [[_mm256_setzero_ps(); 2]; B];
            let (columns8, columns1) = columns.as_chunks::<8>();
            let (values8, values1) = values[..columns.len()].as_chunks::<8>();
            for (step, (columns, values)) in columns8.iter().zip(values8).enumerate() {
                // SAFETY: both hold eight.
                let (places, weights) = unsafe {
                    (_mm256_cvtepu16_epi32(_mm_loadu_si128(columns.as_ptr().cast())), $load(values.as_ptr()))
                };
                for (sums, x) in acc.iter_mut().zip(x) {
                    // SAFETY: columns lie in the input.
                    let x = unsafe { _mm256_i32gather_ps::<4>(x.as_ptr(), places) };
                    sums[step % 2] = _mm256_fmadd_ps(weights, x, sums[step % 2]);
                }
            }
            let rest = super::portable::listed(columns1.iter().map(|c| usize::from(*c)), values1, x);
            std::array::from_fn(|b| sum(acc[b]) + rest[b])
        }
    };
}

listed!(listed_f32, f32, _mm256_loadu_ps);
listed!(listed_f16, f16, load_f16);
listed!(listed_bf16, bf16, load_bf16);

/// # Safety
/// Of both: eight values may be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_f16(from: *const f16) -> __m256 {
    // SAFETY: the caller's.
    wide_f16(unsafe { _mm_loadu_si128(from.cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_bf16(from: *const bf16) -> __m256 {
    // SAFETY: the caller's.
    wide_bf16(unsafe { _mm_loadu_si128(from.cast()) })
}

/// # Safety
/// Every place leaves `16 T` numbers of `source` behind it; `out` is as long.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn spread<P: Place, const T: usize>(places: &[P], values: &[f32], source: &[f32], out: &mut [f32]) {
    debug_assert_eq!(out.len(), T * LANES);
    // Eight independent sums: a sum waits four cycles for the one before, and there are 16 registers.
    let (mut acc, side) = ([[[_mm256_setzero_ps(); 2]; T]; 4], const { 4 / T });
    for (acc, out) in acc[0].as_flattened_mut().iter_mut().zip(out.as_chunks::<8>().0) {
        // SAFETY: the chunk has eight numbers.
        *acc = unsafe { _mm256_loadu_ps(out.as_ptr()) };
    }
    let (places4, places1) = places.as_chunks::<4>();
    let (values4, values1) = values[..places.len()].as_chunks::<4>();
    for (places, values) in places4.iter().zip(values4) {
        for (i, (place, value)) in places.iter().zip(values).enumerate() {
            // SAFETY: the place leaves room.
            unsafe { add_lanes(&mut acc[i % side], *value, source, place.offset(T)) };
        }
    }
    for (place, value) in places1.iter().zip(values1) {
        // SAFETY: the place leaves room.
        unsafe { add_lanes(&mut acc[0], *value, source, place.offset(T)) };
    }
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let [s0, s1, s2, s3] = acc.map(|acc| acc.as_flattened()[i]);
        // SAFETY: the chunk has eight numbers.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3))) };
    }
}

/// Adds `value` times the lanes at `offset`.
///
/// # Safety
/// As [`spread`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_lanes<const T: usize>(acc: &mut [[__m256; 2]; T], value: f32, source: &[f32], offset: usize) {
    let weight = _mm256_set1_ps(value);
    for (i, sum) in acc.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: the caller's.
        let lanes = unsafe { _mm256_loadu_ps(source.as_ptr().add(offset + 8 * i)) };
        *sum = _mm256_fmadd_ps(weight, lanes, *sum);
    }
}

macro_rules! expand {
    ($name:ident, $type:ty, $spread:ident) => {
        /// # Safety
        /// `values` has the values of all bits and [`SLACK`] more; `out` has a number for every bit.
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        pub(super) unsafe fn $name(words: &[u64], values: &[$type], out: &mut [f32]) -> usize {
            let mut at = 0;
            for (word, out) in words.iter().zip(out.as_chunks_mut::<WORD>().0) {
                for (mask, out) in word.to_le_bytes().into_iter().zip(out.as_chunks_mut::<8>().0) {
                    // SAFETY: `at` values went before, eight may be read beyond the last; the chunk has eight.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), $spread(mask, values.as_ptr().add(at))) };
                    at += mask.count_ones() as usize;
                }
            }
            at
        }
    };
}

expand!(expand_f32, f32, spread_f32);
expand!(expand_f16, f16, spread_f16);
expand!(expand_bf16, bf16, spread_bf16);

/// # Safety
/// `weights` has `R` rows of `BLOCK / T` numbers, of which as many count as `source` has times `16 T`; `out` has
/// `16 R T`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile<const R: usize, const T: usize>(weights: &[f32], source: &[f32], out: &mut [f32]) {
    // Known at compile time, so that one register points at all rows.
    let width = const { BLOCK / T };
    let cols = source.len() / (T * LANES);
    debug_assert!(cols <= width && weights.len() >= R * width && out.len() == R * T * LANES);
    let mut acc = [[[_mm256_setzero_ps(); 2]; T]; R];
    for (acc, out) in acc.as_flattened_mut().as_flattened_mut().iter_mut().zip(out.as_chunks::<8>().0) {
        // SAFETY: the chunk has eight numbers.
        *acc = unsafe { _mm256_loadu_ps(out.as_ptr()) };
    }
    for c in 0..cols {
        for (r, sums) in acc.iter_mut().enumerate() {
            // SAFETY: rows are `width` wide, which `c` is below.
            let weight = _mm256_set1_ps(unsafe { *weights.get_unchecked(r * width + c) });
            for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                // SAFETY: `c` is a column of the source.
                let lanes = unsafe { _mm256_loadu_ps(source.as_ptr().add(c * T * LANES + 8 * i)) };
                *sum = _mm256_fmadd_ps(weight, lanes, *sum);
            }
        }
    }
    for (sum, out) in acc.as_flattened().as_flattened().iter().zip(out.as_chunks_mut::<8>().0) {
        // SAFETY: the chunk has eight numbers.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
    }
}
