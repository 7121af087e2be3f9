//! The floating-point types of a checkpoint: reading their values, zeroing some.

use half::{bf16, f16};
use safetensors::Dtype;

use super::Entry;
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

/// Bytes per element of the types that can be masked; the error says that `dtype` is none.
fn width(dtype: Dtype) -> Result<usize, String> {
    match dtype {
        Dtype::F64 => Ok(8),
        Dtype::F32 => Ok(4),
        Dtype::F16 | Dtype::BF16 => Ok(2),
        other => Err(format!("type {other} is none of F64, F32, F16, BF16")),
    }
}

/// Hands each value to `visit`; every one of the four types fits `f64` exactly.
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

/// Zeroes in place the elements of `bytes`, the data of `tensor`, that `keep` turns down.
///
/// `keep` is asked with the element's row-major index over the shape in the file, which is
/// PyTorch's `[out, in, ...]`.
///
/// # Errors
/// The tensor's type is none of F64, F32, F16, BF16, or `bytes` has not its length.
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
