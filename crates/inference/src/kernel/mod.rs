//! The inner loops, for each kind of processor: a row times some inputs, a row spread over lanes.
//!
//! All `unsafe` code of this crate is in this folder: loads whose bounds the forms guarantee (`Bits`, `Csr`), and calls
//! of functions with instructions that a [`SimdLevel`] guarantees.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::convert::identity;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::SimdLevel;
use regrow_sparse_core::mask::simd::Kind;

/// Inputs are padded with zeros to a multiple of this, and so are rows of bits.
pub(super) const WORD: usize = 64;
/// This many values past the last may be read.
pub(super) const SLACK: usize = 64;
/// Bytes in a cache line.
const LINE: usize = 64;
/// Lanes in the smallest vector of lanes.
pub(super) const LANES: usize = 16;

/// Sums of a row's products with [`LANES`] inputs, sixteen for each: those of every sixteenth column.
pub(super) type Sums = [[f32; 16]; LANES];

/// A type that weights are stored in.
pub(super) trait Number: Copy + Default + Send + Sync + 'static {
    /// Its name in files.
    const DTYPE: Dtype;

    /// The nearest number of this type.
    fn narrow(value: f32) -> Self;

    /// As an f32, which holds it exactly.
    fn wide(self) -> f32;

    /// Whether [`Number::bits`] expects the even inputs of every 32 before the odd ones.
    fn sorts(level: SimdLevel) -> bool;

    /// The products of a row of bits with `B` inputs. `values` starts with the row's own and continues for at least
    /// [`SLACK`] values; inputs have a number for every bit.
    fn bits<const B: usize>(level: SimdLevel, words: &[u64], values: &[Self], x: &[&[f32]; B]) -> [f32; B];

    /// Adds the products of a row of bits with [`LANES`] inputs to `sums`, and returns how many bits are set. Inputs
    /// are stored in `x` as `[columns / 16, LANES, 16]`; `values` as for [`Number::bits`]. Prefetches the values
    /// `ahead` positions further on.
    fn beside(level: SimdLevel, words: &[u64], values: &[Self], x: &[f32], ahead: usize, sums: &mut Sums) -> usize;

    /// The products of a row, given by its columns, with `B` inputs, which are longer than any column index.
    fn listed<const B: usize>(level: SimdLevel, columns: &[u16], values: &[Self], x: &[&[f32]; B]) -> [f32; B];

    /// A row of bits with its zeros, a number for every bit, and how many bits are set; `values` as for
    /// [`Number::bits`].
    fn expand(level: SimdLevel, words: &[u64], values: &[Self], out: &mut [f32]) -> usize;

    /// `values` as f32: borrowed if they are f32, else converted into `room`.
    fn widened<'a>(values: &'a [Self], room: &'a mut Vec<f32>) -> &'a [f32];
}

macro_rules! number {
    ($type:ty, $dtype:ident, $bits:ident, $beside:ident, $listed:ident, $expand:ident, $sorted:expr, $narrow:expr, $wide:expr, $widened:expr) => {
        impl Number for $type {
            const DTYPE: Dtype = Dtype::$dtype;

            fn narrow(value: f32) -> Self {
                $narrow(value)
            }

            fn wide(self) -> f32 {
                $wide(self)
            }

            fn sorts(level: SimdLevel) -> bool {
                level.is_avx512() && $sorted
            }

            fn bits<const B: usize>(level: SimdLevel, words: &[u64], values: &[Self], x: &[&[f32]; B]) -> [f32; B] {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: such a level exists only if the processor has the instructions.
                match level.kind() {
                    Kind::Avx512 => return unsafe { avx512::$bits(words, values, x) },
                    Kind::Avx2 => return unsafe { avx2::$bits(words, values, x) },
                    _ => {}
                }
                portable::bits(words, values, x)
            }

            fn beside(
                level: SimdLevel,
                words: &[u64],
                values: &[Self],
                x: &[f32],
                ahead: usize,
                sums: &mut Sums,
            ) -> usize {
                #[cfg(target_arch = "x86_64")]
                if level.is_avx512() {
                    assert!(x.len() >= words.len() * WORD * LANES, "an input for every bit");
                    // SAFETY: as above, and there is an input for every bit.
                    return unsafe { avx512::$beside(words, values, x, ahead, sums) };
                }
                portable::beside(words, values, x, ahead, sums)
            }

            fn listed<const B: usize>(level: SimdLevel, columns: &[u16], values: &[Self], x: &[&[f32]; B]) -> [f32; B] {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                match level.kind() {
                    Kind::Avx512 => return unsafe { avx512::$listed(columns, values, x) },
                    Kind::Avx2 => return unsafe { avx2::$listed(columns, values, x) },
                    _ => {}
                }
                portable::listed(columns.iter().map(|c| usize::from(*c)), values, x)
            }

            fn expand(level: SimdLevel, words: &[u64], values: &[Self], out: &mut [f32]) -> usize {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                match level.kind() {
                    Kind::Avx512 => return unsafe { avx512::$expand(words, values, out) },
                    Kind::Avx2 => return unsafe { avx2::$expand(words, values, out) },
                    _ => {}
                }
                portable::expand(words, values, out)
            }

            fn widened<'a>(values: &'a [Self], room: &'a mut Vec<f32>) -> &'a [f32] {
                $widened(values, room)
            }
        }
    };
}

number!(f32, F32, bits_f32, beside_f32, listed_f32, expand_f32, false, identity, identity, same);
number!(f16, F16, bits_f16, beside_f16, listed_f16, expand_f16, false, f16::from_f32, f16::to_f32, convert);
number!(bf16, BF16, bits_bf16, beside_bf16, listed_bf16, expand_bf16, true, bf16::from_f32, upper_half, upper_halves);

fn same<'a>(values: &'a [f32], _room: &'a mut Vec<f32>) -> &'a [f32] {
    values
}

fn convert<'a, N>(values: &'a [N], room: &'a mut Vec<f32>) -> &'a [f32]
where
    [N]: HalfFloatSliceExt,
{
    room.resize(values.len(), 0.0);
    values.convert_to_f32_slice(room);
    room
}

/// A bf16 is the upper half of an f32.
fn upper_half(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

fn upper_halves<'a>(values: &'a [bf16], room: &'a mut Vec<f32>) -> &'a [f32] {
    room.clear();
    room.extend(values.iter().map(|v| upper_half(*v)));
    room
}

/// The products of a row whose columns need more than 16 bits.
pub(super) fn portable_listed<N: Number, const B: usize>(columns: &[u32], values: &[N], x: &[&[f32]; B]) -> [f32; B] {
    portable::listed(columns.iter().map(|c| *c as usize), values, x)
}

/// Prefetches the first `count` of `values`; does nothing past their end.
pub(super) fn ask<T>(values: &[T], count: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..(count * size_of::<T>()).div_ceil(LINE) + 1 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint: nothing is read through the pointer, wherever it leads; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_byte_add(LINE * line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, count);
}

/// Where a kept value's lanes start in `[cols, lanes]`: given directly, or by its column.
pub(super) trait Place: Copy {
    /// For `lanes` times [`LANES`].
    fn offset(self, lanes: usize) -> usize;
}

impl Place for u32 {
    #[inline]
    fn offset(self, _lanes: usize) -> usize {
        self as usize
    }
}

impl Place for u16 {
    #[inline]
    fn offset(self, lanes: usize) -> usize {
        usize::from(self) * lanes * LANES
    }
}

/// Adds all `values[i] * source[places[i] ..][.. out.len()]` to `out`, which has 1, 2 or 4 times [`LANES`].
///
/// Every place has as many numbers of `source` after it.
pub(super) fn spread<P: Place>(level: SimdLevel, places: &[P], values: &[f32], source: &[f32], out: &mut [f32]) {
    debug_assert!(places.iter().all(|p| p.offset(out.len() / LANES) + out.len() <= source.len()));
    match out.len() / LANES {
        1 => spread_over::<P, 1>(level, places, values, source, out),
        2 => spread_over::<P, 2>(level, places, values, source, out),
        _ => spread_over::<P, 4>(level, places, values, source, out),
    }
}

fn spread_over<P: Place, const T: usize>(
    level: SimdLevel,
    places: &[P],
    values: &[f32],
    source: &[f32],
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: such a level exists only if the processor has the instructions; places leave room.
    match level.kind() {
        Kind::Avx512 => return unsafe { avx512::spread::<P, T>(places, values, source, out) },
        Kind::Avx2 => return unsafe { avx2::spread::<P, T>(places, values, source, out) },
        _ => {}
    }
    portable::spread::<P, T>(places, values, source, out);
}

/// Numbers of a row that fit in the nearest cache together with their inputs, `[BLOCK / (lanes / LANES), lanes]`.
pub(super) const BLOCK: usize = 256;
/// Rows that are multiplied together.
pub(super) const TILE: usize = 16;

/// Adds the rows of `weights`, each [`BLOCK`]` / (lanes / LANES)` numbers apart, times `source`, `[cols, lanes]`, to
/// `out`, `[rows, lanes]`: a plain product of data in the nearest caches. There are 1, 2 or 4 times [`LANES`].
pub(super) fn tile(level: SimdLevel, weights: &[f32], source: &[f32], lanes: usize, out: &mut [f32]) {
    match lanes / LANES {
        1 => tiles::<16, 1>(level, weights, source, out),
        2 => tiles::<8, 2>(level, weights, source, out),
        _ => tiles::<4, 4>(level, weights, source, out),
    }
}

/// `R` rows at a time, the remaining ones one by one.
fn tiles<const R: usize, const T: usize>(level: SimdLevel, weights: &[f32], source: &[f32], out: &mut [f32]) {
    let (width, lanes) = (BLOCK / T, T * LANES);
    debug_assert!(source.len() / lanes <= width && weights.len() >= out.len() / lanes * width);
    for (weights, out) in weights.chunks(R * width).zip(out.chunks_mut(R * lanes)) {
        if out.len() == R * lanes {
            tile_of::<R, T>(level, weights, source, out);
            continue;
        }
        for (weights, out) in weights.chunks(width).zip(out.chunks_mut(lanes)) {
            tile_of::<1, T>(level, weights, source, out);
        }
    }
}

fn tile_of<const R: usize, const T: usize>(level: SimdLevel, weights: &[f32], source: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: such a level exists only if the processor has the instructions; `tiles` cuts whole rows.
    match level.kind() {
        Kind::Avx512 => return unsafe { avx512::tile::<R, T>(weights, source, out) },
        Kind::Avx2 => return unsafe { avx2::tile::<R, T>(weights, source, out) },
        _ => {}
    }
    portable::tile::<R, T>(weights, source, out);
}

/// The columns whose bit is set; there are no more columns than fit a u16.
pub(super) fn columns(level: SimdLevel, words: &[u64], out: &mut Vec<u16>) {
    #[cfg(target_arch = "x86_64")]
    if level.is_avx512() {
        out.resize(words.len() * WORD, 0);
        // SAFETY: such a level exists only if the processor has the instructions; there is room.
        let count = unsafe { avx512::columns(words, out) };
        return out.truncate(count);
    }
    portable::columns(words, out);
}

/// `to[c][r] = from[r][c]`; rows of `from` are `apart` numbers apart, those of `to` `apart_to`.
pub(super) fn turn(
    level: SimdLevel,
    from: &[f32],
    [rows, cols]: [usize; 2],
    apart: usize,
    to: &mut [f32],
    apart_to: usize,
) {
    for c in (0..cols).step_by(LANES) {
        for r in (0..rows).step_by(LANES) {
            let square = [(rows - r).min(LANES), (cols - c).min(LANES)];
            turn_square(level, &from[r * apart + c..], square, apart, &mut to[c * apart_to + r..], apart_to);
        }
    }
}

/// The same for at most 16 rows and columns.
fn turn_square(
    level: SimdLevel,
    from: &[f32],
    [rows, cols]: [usize; 2],
    apart: usize,
    to: &mut [f32],
    apart_to: usize,
) {
    let holds = |numbers: usize, lines: usize, width: usize, apart: usize| (lines - 1) * apart + width <= numbers;
    assert!(holds(from.len(), rows, cols, apart) && holds(to.len(), cols, rows, apart_to), "rows that fit");
    #[cfg(target_arch = "x86_64")]
    if level.is_avx512() {
        // SAFETY: such a level exists only if the processor has the instructions; rows fit.
        return unsafe { avx512::turn(from, [rows, cols], apart, to, apart_to) };
    }
    for r in 0..rows {
        (0..cols).for_each(|c| to[c * apart_to + r] = from[r * apart + c]);
    }
}
