//! For processors with AVX-512 (F, BW, VL, VBMI2): a mask in a register spreads values over their columns.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{BLOCK, LANES, LINE, Place, SLACK, Sums, WORD};

/// How many independent sums each input has: a sum waits four cycles for the one before.
const fn chains(inputs: usize) -> usize {
    match inputs {
        1 => 4,
        2 => 2,
        _ => 1,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
fn sums<const B: usize>(sums: &[[__m512; 4]; B]) -> [f32; B] {
    std::array::from_fn(|b| {
        let [s0, s1, s2, s3] = sums[b];
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
    })
}

/// How far ahead of the multiplication memory is prefetched: the hardware prefetcher, with one stream, requests too
/// little at a time, and does not cross a page.
const AHEAD: usize = 4096;

/// Prefetches the cache line [`AHEAD`] of `values[at]`; does nothing past the end.
#[inline]
#[target_feature(enable = "avx512f")]
fn ask<T>(values: &[T], at: usize) {
    let ahead = values.as_ptr().wrapping_add(at).wrapping_byte_add(AHEAD);
    // A hint: nothing is read through the pointer, wherever it leads.
    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
}

/// # Safety
/// `x` holds 16 numbers from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(x: &[f32], at: usize) -> __m512 {
    debug_assert!(at + 16 <= x.len());
    // SAFETY: the caller's.
    unsafe { _mm512_loadu_ps(x.as_ptr().add(at)) }
}

/// # Safety
/// `values` has the values of all bits and [`SLACK`] more; inputs have a number for every bit.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
pub(super) unsafe fn bits_f32<const B: usize>(words: &[u64], values: &[f32], x: &[&[f32]; B]) -> [f32; B] {
    debug_assert!(SLACK >= 16 && x.iter().all(|x| x.len() >= words.len() * WORD));
    let (mut acc, mut at) = ([[_mm512_setzero_ps(); 4]; B], 0);
    for (w, word) in words.iter().enumerate() {
        for part in 0..4 {
            let mask = (word >> (16 * part)) as u16;
            ask(values, at);
            // SAFETY: `at` values went before; 16 may be read beyond the last.
            let kept = unsafe { load(values, at) };
            let weights = _mm512_maskz_expand_ps(mask, kept);
            at += mask.count_ones() as usize;
            for (sums, x) in acc.iter_mut().zip(x) {
                // SAFETY: inputs are as long as the bits.
                let x = unsafe { load(x, w * WORD + 16 * part) };
                let sum = &mut sums[part % chains(B)];
                *sum = _mm512_fmadd_ps(weights, x, *sum);
            }
        }
    }
    sums(&acc)
}

/// Adds the products of 32 columns.
///
/// # Safety
/// Inputs hold 32 numbers from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add<const B: usize>(acc: &mut [[__m512; 4]; B], halves: [__m512; 2], x: &[&[f32]; B], at: usize) {
    for (h, weights) in halves.into_iter().enumerate() {
        let chain = (at / 16 + h) % 4;
        for (sums, x) in acc.iter_mut().zip(x) {
            // SAFETY: the caller's.
            let x = unsafe { load(x, at + 16 * h) };
            let sum = &mut sums[chain % chains(B)];
            *sum = _mm512_fmadd_ps(weights, x, *sum);
        }
    }
}

macro_rules! bits_of_16 {
    ($name:ident, $type:ty, $halves:ident) => {
        /// # Safety
        /// As [`bits_f32`].
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
        pub(super) unsafe fn $name<const B: usize>(words: &[u64], values: &[$type], x: &[&[f32]; B]) -> [f32; B] {
            debug_assert!(SLACK >= 32 && x.iter().all(|x| x.len() >= words.len() * WORD));
            let (mut acc, mut at) = ([[_mm512_setzero_ps(); 4]; B], 0);
            for (w, word) in words.iter().enumerate() {
                for part in 0..2 {
                    let mask = (word >> (32 * part)) as u32;
                    ask(values, at);
                    // SAFETY: `at` values went before; 32 may be read beyond the last.
                    let kept = unsafe { _mm512_loadu_epi16(values.as_ptr().add(at).cast()) };
                    let halves = $halves(_mm512_maskz_expand_epi16(mask, kept));
                    at += mask.count_ones() as usize;
                    // SAFETY: inputs are as long as the bits.
                    unsafe { add(&mut acc, halves, x, w * WORD + 32 * part) };
                }
            }
            sums(&acc)
        }
    };
}

bits_of_16!(bits_f16, f16, halves_f16);
bits_of_16!(bits_bf16, bf16, halves_bf16);

/// The lower 16 numbers and the upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves_f16(values: __m512i) -> [__m512; 2] {
    [_mm512_cvtph_ps(_mm512_castsi512_si256(values)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(values))]
}

/// The 16 even numbers and the odd ones: a bf16 is the upper half of an f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves_bf16(values: __m512i) -> [__m512; 2] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(values)), _mm512_castsi512_ps(_mm512_and_si512(values, upper))]
}

macro_rules! listed {
    ($name:ident, $type:ty, $load:ident) => {
        /// # Safety
        /// Inputs are longer than any column.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
        pub(super) unsafe fn $name<const B: usize>(columns: &[u16], values: &[$type], x: &[&[f32]; B]) -> [f32; B] {
            debug_assert!(x.iter().all(|x| columns.iter().all(|c| usize::from(*c) < x.len())));
            let mut acc = [[_mm512_setzero_ps(); 4]; B];
            let (whole, rest) = columns.as_chunks::<16>();
            for (step, places) in whole.iter().enumerate() {
                let values = &values[16 * step..][..16];
                ask(places, 0);
                ask(values, 0);
                // SAFETY: both hold 16.
                let (places, weights) = unsafe {
                    let places = _mm256_loadu_si256(places.as_ptr().cast());
                    (_mm512_cvtepu16_epi32(places), $load(u16::MAX, values.as_ptr()))
                };
                for (sums, x) in acc.iter_mut().zip(x) {
                    // SAFETY: columns lie in the input.
                    let x = unsafe { _mm512_i32gather_ps::<4>(places, x.as_ptr()) };
                    let sum = &mut sums[step % chains(B)];
                    *sum = _mm512_fmadd_ps(weights, x, *sum);
                }
            }
            if !rest.is_empty() {
                let (mask, values) = ((1u16 << rest.len()) - 1, &values[16 * whole.len()..][..rest.len()]);
                // SAFETY: the mask ends where columns and values do.
                let (places, weights) = unsafe {
                    let places = _mm256_maskz_loadu_epi16(mask, rest.as_ptr().cast());
                    (_mm512_cvtepu16_epi32(places), $load(mask, values.as_ptr()))
                };
                for (sums, x) in acc.iter_mut().zip(x) {
                    // SAFETY: columns lie in the input; beyond the mask they are 0, and so are the weights.
                    let x = unsafe { _mm512_i32gather_ps::<4>(places, x.as_ptr()) };
                    sums[0] = _mm512_fmadd_ps(weights, x, sums[0]);
                }
            }
            sums(&acc)
        }
    };
}

listed!(listed_f32, f32, load_f32);
listed!(listed_f16, f16, load_f16);
listed!(listed_bf16, bf16, load_bf16);

/// # Safety
/// Of all three: where the mask is set there are numbers.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_f32(mask: u16, from: *const f32) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_f16(mask: u16, from: *const f16) -> __m512 {
    // SAFETY: the caller's.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_bf16(mask: u16, from: *const bf16) -> __m512 {
    // SAFETY: the caller's.
    let wide = _mm512_cvtepu16_epi32(unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) });
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
}

/// Adds `value` times the lanes at `offset`.
///
/// # Safety
/// As [`spread`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_lanes<const T: usize>(acc: &mut [__m512; T], value: f32, source: &[f32], offset: usize) {
    let weight = _mm512_set1_ps(value);
    for (t, sum) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let lanes = unsafe { load(source, offset + 16 * t) };
        *sum = _mm512_fmadd_ps(weight, lanes, *sum);
    }
}

/// # Safety
/// Every place leaves `16 T` numbers of `source` behind it; `out` is as long.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn spread<P: Place, const T: usize>(places: &[P], values: &[f32], source: &[f32], out: &mut [f32]) {
    debug_assert_eq!(out.len(), T * LANES);
    // Eight independent sums, or four: a sum waits four cycles for the one before.
    let mut acc = [[_mm512_setzero_ps(); T]; 4];
    for (acc, out) in acc[0].iter_mut().zip(out.as_chunks::<16>().0) {
        // SAFETY: the chunk has 16 numbers.
        *acc = unsafe { _mm512_loadu_ps(out.as_ptr()) };
    }
    let side = if T < 4 { 4 } else { 2 };
    let (places8, places1) = places.as_chunks::<8>();
    let (values8, values1) = values[..places.len()].as_chunks::<8>();
    for (places, values) in places8.iter().zip(values8) {
        ask(places, 0);
        ask(values, 0);
        for (i, (place, value)) in places.iter().zip(values).enumerate() {
            // SAFETY: the place leaves room.
            unsafe { add_lanes(&mut acc[i % side], *value, source, place.offset(T)) };
        }
    }
    for (place, value) in places1.iter().zip(values1) {
        // SAFETY: the place leaves room.
        unsafe { add_lanes(&mut acc[0], *value, source, place.offset(T)) };
    }
    for (t, out) in out.chunks_exact_mut(16).enumerate() {
        let sum = _mm512_add_ps(_mm512_add_ps(acc[0][t], acc[1][t]), _mm512_add_ps(acc[2][t], acc[3][t]));
        // SAFETY: the chunk has 16 numbers.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
}

/// The 16 weights of columns with this mask, their values starting at `from`.
///
/// # Safety
/// Of all three: 16 values may be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2")]
unsafe fn sixteen_f32(mask: u16, from: *const f32) -> __m512 {
    // SAFETY: the caller's.
    _mm512_maskz_expand_ps(mask, unsafe { _mm512_loadu_ps(from) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2")]
unsafe fn sixteen_f16(mask: u16, from: *const f16) -> __m512 {
    // SAFETY: the caller's.
    wide_f16(_mm256_maskz_expand_epi16(mask, unsafe { _mm256_loadu_epi16(from.cast()) }))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2")]
unsafe fn sixteen_bf16(mask: u16, from: *const bf16) -> __m512 {
    // SAFETY: the caller's.
    wide_bf16(_mm256_maskz_expand_epi16(mask, unsafe { _mm256_loadu_epi16(from.cast()) }))
}

macro_rules! beside {
    ($name:ident, $type:ty, $sixteen:ident) => {
        /// # Safety
        /// `values` has the values of all bits and [`SLACK`] more; `x` has [`LANES`] numbers for every bit. `ahead` may
        /// be anything.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
        pub(super) unsafe fn $name(words: &[u64], values: &[$type], x: &[f32], ahead: usize, sums: &mut Sums) -> usize {
            debug_assert!(SLACK >= 16 && x.len() >= words.len() * WORD * LANES);
            let mut acc = [_mm512_setzero_ps(); LANES];
            for (acc, sums) in acc.iter_mut().zip(&*sums) {
                // SAFETY: there are 16.
                *acc = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
            }
            let mut at = 0;
            for (word, x) in words.iter().zip(x.chunks_exact(WORD * LANES)) {
                for line in 0..2 {
                    // A hint: nothing is read through the pointer, wherever it leads.
                    let to = values.as_ptr().wrapping_add(at + ahead + line * LINE / size_of::<$type>());
                    _mm_prefetch::<_MM_HINT_T1>(to.cast());
                }
                for part in 0..4 {
                    let mask = (word >> (16 * part)) as u16;
                    // SAFETY: `at` values went before; 16 may be read beyond the last.
                    let weights = unsafe { $sixteen(mask, values.as_ptr().add(at)) };
                    at += mask.count_ones() as usize;
                    for (b, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: the chunk has as many for each of four parts.
                        let x = unsafe { load(x, (part * LANES + b) * 16) };
                        *acc = _mm512_fmadd_ps(weights, x, *acc);
                    }
                }
            }
            for (acc, sums) in acc.iter().zip(sums) {
                // SAFETY: there are 16.
                unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *acc) };
            }
            at
        }
    };
}

beside!(beside_f32, f32, sixteen_f32);
beside!(beside_f16, f16, sixteen_f16);
beside!(beside_bf16, bf16, sixteen_bf16);

/// # Safety
/// `values` has the values of all bits and [`SLACK`] more; `out` has a number for every bit.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
pub(super) unsafe fn expand_f32(words: &[u64], values: &[f32], out: &mut [f32]) -> usize {
    let mut at = 0;
    for (word, out) in words.iter().zip(out.as_chunks_mut::<WORD>().0) {
        for (part, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mask = (word >> (16 * part)) as u16;
            // SAFETY: `at` values went before; 16 may be read beyond the last.
            let kept = unsafe { load(values, at) };
            at += mask.count_ones() as usize;
            // SAFETY: the chunk has 16 numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_maskz_expand_ps(mask, kept)) };
        }
    }
    at
}

macro_rules! expand_16 {
    ($name:ident, $type:ty, $wide:ident) => {
        /// # Safety
        /// As [`expand_f32`].
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
        pub(super) unsafe fn $name(words: &[u64], values: &[$type], out: &mut [f32]) -> usize {
            let mut at = 0;
            for (word, out) in words.iter().zip(out.as_chunks_mut::<WORD>().0) {
                for (part, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                    let mask = (word >> (32 * part)) as u32;
                    // SAFETY: `at` values went before; 32 may be read beyond the last.
                    let kept = unsafe { _mm512_loadu_epi16(values.as_ptr().add(at).cast()) };
                    let spread = _mm512_maskz_expand_epi16(mask, kept);
                    at += mask.count_ones() as usize;
                    let halves = [_mm512_castsi512_si256(spread), _mm512_extracti64x4_epi64::<1>(spread)];
                    for (half, out) in halves.into_iter().zip(out.as_chunks_mut::<16>().0) {
                        // SAFETY: the chunk has 16 numbers.
                        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), $wide(half)) };
                    }
                }
            }
            at
        }
    };
}

expand_16!(expand_f16, f16, wide_f16);
expand_16!(expand_bf16, bf16, wide_bf16);

#[inline]
#[target_feature(enable = "avx512f")]
fn wide_f16(values: __m256i) -> __m512 {
    _mm512_cvtph_ps(values)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn wide_bf16(values: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values)))
}

/// # Safety
/// `weights` has `R` rows of `BLOCK / T` numbers, of which as many count as `source` has times `16 T`; `out` has
/// `16 R T`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile<const R: usize, const T: usize>(weights: &[f32], source: &[f32], out: &mut [f32]) {
    // Known at compile time, so that one register points at all rows.
    let width = const { BLOCK / T };
    let cols = source.len() / (T * LANES);
    debug_assert!(cols <= width && weights.len() >= R * width && out.len() == R * T * LANES);
    let mut acc = [[_mm512_setzero_ps(); T]; R];
    for (acc, out) in acc.as_flattened_mut().iter_mut().zip(out.as_chunks::<LANES>().0) {
        // SAFETY: the chunk has 16 numbers.
        *acc = unsafe { _mm512_loadu_ps(out.as_ptr()) };
    }
    for c in 0..cols {
        let mut lanes = [_mm512_setzero_ps(); T];
        for (t, lanes) in lanes.iter_mut().enumerate() {
            // SAFETY: `c` is a column of the source.
            *lanes = unsafe { load(source, (c * T + t) * LANES) };
        }
        for (r, sums) in acc.iter_mut().enumerate() {
            // SAFETY: rows are `width` wide, which `c` is below.
            let weight = _mm512_set1_ps(unsafe { *weights.get_unchecked(r * width + c) });
            for (sum, lanes) in sums.iter_mut().zip(lanes) {
                *sum = _mm512_fmadd_ps(weight, lanes, *sum);
            }
        }
    }
    for (sum, out) in acc.iter().flatten().zip(out.as_chunks_mut::<LANES>().0) {
        // SAFETY: the chunk has 16 numbers.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
    }
}

/// The columns whose bit is set; how many there are.
///
/// # Safety
/// `out` has room for all bits, which are no more than a u16 counts.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
pub(super) unsafe fn columns(words: &[u64], out: &mut [u16]) -> usize {
    debug_assert!(out.len() >= words.len() * WORD && words.len() * WORD <= 1 << 16);
    let count_up: [u16; 32] = std::array::from_fn(|i| i as u16);
    // SAFETY: there are 32.
    let (mut here, mut count) = (unsafe { _mm512_loadu_epi16(count_up.as_ptr().cast()) }, 0);
    for word in words {
        for half in 0..2 {
            let mask = (word >> (32 * half)) as u32;
            // SAFETY: no more than 32 for each 32 bits went before.
            unsafe { _mm512_storeu_epi16(out.as_mut_ptr().add(count).cast(), _mm512_maskz_compress_epi16(mask, here)) };
            here = _mm512_add_epi16(here, _mm512_set1_epi16(32));
            count += mask.count_ones() as usize;
        }
    }
    count
}

/// `to[c][r] = from[r][c]` of up to 16 rows and columns; rows of both so many numbers apart.
///
/// # Safety
/// `from` holds `rows` such rows of `cols` numbers, `to` `cols` of `rows`; neither is more than 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn turn(from: &[f32], [rows, cols]: [usize; 2], apart: usize, to: &mut [f32], apart_to: usize) {
    let mask = |count: usize| (u32::MAX >> (32 - count)) as u16;
    let mut lines = [_mm512_setzero_ps(); 16];
    for (r, line) in lines[..rows].iter_mut().enumerate() {
        // SAFETY: the caller's.
        *line = unsafe { _mm512_maskz_loadu_ps(mask(cols), from.as_ptr().add(r * apart)) };
    }
    // Numbers by twos, then by fours: 4 by 4 within each quarter of a vector; then the quarters.
    let twos: [__m512; 16] = std::array::from_fn(|i| match i % 2 {
        0 => _mm512_unpacklo_ps(lines[i], lines[i + 1]),
        _ => _mm512_unpackhi_ps(lines[i - 1], lines[i]),
    });
    let fours: [__m512; 16] = std::array::from_fn(|i| {
        let at = i / 4 * 4 + i % 4 / 2;
        let (a, b) = (_mm512_castps_pd(twos[at]), _mm512_castps_pd(twos[at + 2]));
        _mm512_castpd_ps(if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
    });
    for c in 0..4.min(cols) {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (even, even2) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(d, e));
        let (odd, odd2) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(d, e));
        let quarters = [
            _mm512_shuffle_f32x4::<0x88>(even, even2),
            _mm512_shuffle_f32x4::<0x88>(odd, odd2),
            _mm512_shuffle_f32x4::<0xdd>(even, even2),
            _mm512_shuffle_f32x4::<0xdd>(odd, odd2),
        ];
        for (at, column) in (c..cols).step_by(4).zip(quarters) {
            // SAFETY: the caller's.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr().add(at * apart_to), mask(rows), column) };
        }
    }
}
