//! The floating-point types of a checkpoint: reading and writing their values, zeroing some.

use std::borrow::Cow;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::Entry;
use crate::{Error, Result};

/// How many values of a tensor are special.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Zeros of either sign.
    pub zeros: usize,
    /// Values that are not a number.
    pub nan: usize,
    /// Infinities of either sign.
    pub infinite: usize,
}

impl Counts {
    pub(super) fn add(&mut self, value: f64) {
        self.zeros += usize::from(value == 0.0);
        self.nan += usize::from(value.is_nan());
        self.infinite += usize::from(value.is_infinite());
    }

    /// Whether all values are finite numbers.
    pub fn finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0
    }
}

/// Bytes per element of the types that can be masked; an error for any other `dtype`.
fn width(dtype: Dtype) -> Result<usize, String> {
    match dtype {
        Dtype::F64 => Ok(8),
        Dtype::F32 => Ok(4),
        Dtype::F16 | Dtype::BF16 => Ok(2),
        other => Err(format!("type {other} is none of F64, F32, F16, BF16")),
    }
}

/// Passes each value to `visit`; all values of the four types fit `f64` exactly.
pub(super) fn for_each(dtype: Dtype, bytes: &[u8], mut visit: impl FnMut(f64)) -> Result<(), String> {
    fn each<const N: usize>(bytes: &[u8], visit: impl FnMut([u8; N])) {
        bytes.as_chunks::<N>().0.iter().copied().for_each(visit);
    }
    match dtype {
        Dtype::F64 => each(bytes, |b| visit(f64::from_le_bytes(b))),
        Dtype::F32 => each(bytes, |b| visit(f32::from_le_bytes(b).into())),
        Dtype::F16 => each(bytes, |b| visit(f16::from_le_bytes(b).to_f64())),
        Dtype::BF16 => each(bytes, |b| visit(bf16::from_le_bytes(b).to_f64())),
        other => return width(other).map(drop),
    }
    Ok(())
}

/// Values that are converted at a time.
const PIECE: usize = 4096;

/// `bytes` as `f32` values without a copy, if they have that type and this machine's byte order and alignment.
pub(super) fn in_place(dtype: Dtype, bytes: &[u8]) -> Option<&[f32]> {
    let same = dtype == Dtype::F32 && cfg!(target_endian = "little");
    same.then(|| bytemuck::try_cast_slice(bytes).ok()).flatten()
}

/// All values as `f32`, rounded to nearest.
pub(super) fn decoded(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, String> {
    if let Some(values) = in_place(dtype, bytes) {
        return Ok(values.to_vec());
    }
    let mut values = vec![0.0; bytes.len() / width(dtype)?];
    match dtype {
        Dtype::F16 => halves(bytes, &mut values, |bits, values| {
            bits.reinterpret_cast::<f16>().convert_to_f32_slice(values);
        }),
        Dtype::BF16 => halves(bytes, &mut values, |bits, values| {
            values.iter_mut().zip(bits).for_each(|(v, bits)| *v = f32::from_bits(u32::from(*bits) << 16));
        }),
        _ => {
            let mut slots = values.iter_mut();
            for_each(dtype, bytes, |value| slots.next().into_iter().for_each(|slot| *slot = value as f32))?;
        }
    }
    Ok(values)
}

/// Fills `values` piece by piece from the bits of 16-bit numbers.
fn halves(bytes: &[u8], values: &mut [f32], convert: impl Fn(&[u16], &mut [f32])) {
    let mut bits = [0u16; PIECE];
    for (bytes, values) in bytes.chunks(2 * PIECE).zip(values.chunks_mut(PIECE)) {
        let bits = &mut bits[..values.len()];
        bits.iter_mut().zip(bytes.as_chunks::<2>().0).for_each(|(bits, b)| *bits = u16::from_le_bytes(*b));
        convert(bits, values);
    }
}

/// `values` of the tensor `name` as `dtype`, little-endian, rounded to nearest.
///
/// # Errors
/// A value that is not a number or beyond the range of the type, or a type that is none of F64, F32, F16, BF16.
pub(super) fn encoded<'v>(name: &str, dtype: Dtype, values: &'v [f32]) -> Result<Cow<'v, [u8]>> {
    check_range(name, dtype, values)?;
    let in_pieces = |convert: &dyn Fn(&[f32], &mut [u16])| {
        let (mut bytes, mut bits) = (Vec::with_capacity(2 * values.len()), [0u16; PIECE]);
        for values in values.chunks(PIECE) {
            let bits = &mut bits[..values.len()];
            convert(values, bits);
            bits.iter_mut().for_each(|bits| *bits = bits.to_le());
            bytes.extend_from_slice(bytemuck::cast_slice(bits));
        }
        Cow::Owned(bytes)
    };
    Ok(match dtype {
        Dtype::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect::<Vec<_>>().into(),
        Dtype::F32 if cfg!(target_endian = "little") => bytemuck::cast_slice(values).into(),
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into(),
        Dtype::F16 => in_pieces(&|values, bits| bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values)),
        _ => in_pieces(&|values, bits| bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(values)),
    })
}

/// `values` as they are read back from a file with this type.
///
/// # Errors
/// A value that is not a number or beyond the range of the type, or a type that is none of F64, F32, F16, BF16.
pub fn rounded(name: &str, dtype: Dtype, values: Vec<f32>) -> Result<Vec<f32>> {
    if dtype == Dtype::F32 {
        return Ok(values);
    }
    let bytes = encoded(name, dtype, &values)?;
    decoded(dtype, &bytes).map_err(|reason| Error::tensor(name, reason))
}

fn check_range(name: &str, dtype: Dtype, values: &[f32]) -> Result<()> {
    width(dtype).map_err(|reason| Error::tensor(name, reason))?;
    // Without their sign, floats order as their bits do; infinity and NaN are above all others.
    let largest = f32::from_bits(values.iter().fold(0, |m, v| m.max(v.to_bits() & !(1 << 31))));
    let fits = match dtype {
        Dtype::F16 => f16::from_f32(largest).is_finite(),
        Dtype::BF16 => bf16::from_f32(largest).is_finite(),
        _ => largest.is_finite(),
    };
    match fits {
        true => Ok(()),
        false if largest.is_nan() => Err(Error::tensor(name, "a value is not a number (NaN)")),
        false => Err(Error::tensor(name, format!("{largest} is beyond the range of {dtype}"))),
    }
}

/// Zeroes in place the elements of `bytes`, the data of `tensor`, for which `keep` is false.
///
/// `keep` gets the element's row-major index over the shape in the file, which is PyTorch's `[out, in, ...]`.
///
/// # Errors
/// The tensor's type is none of F64, F32, F16, BF16, or `bytes` has another length.
pub fn apply_mask(tensor: &Entry, bytes: &mut [u8], keep: impl Fn(usize) -> bool) -> Result<()> {
    let width = width(tensor.dtype).map_err(|reason| Error::tensor(&tensor.name, reason))?;
    if bytes.len() != tensor.bytes() {
        let reason = format!("{} bytes given, it has {}", bytes.len(), tensor.bytes());
        return Err(Error::tensor(&tensor.name, reason));
    }
    for (index, element) in bytes.chunks_exact_mut(width).enumerate() {
        if !keep(index) {
            element.fill(0);
        }
    }
    Ok(())
}
