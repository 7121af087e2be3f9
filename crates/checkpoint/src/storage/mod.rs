//! Sparse matrices as stored in files: one bit per weight, and the kept values one after the other.
//!
//! | [`Storage`] | keeps | stored of a matrix `[rows, cols]`, `w` bytes per weight |
//! | --- | --- | --- |
//! | `Dense` | everything | `rows cols w` |
//! | [`Bitmask`](mod@bitmask) | what is not zero | `kept w`, `rows ceil(cols / 8)`, and 8 bytes per row |
//! | [`TwoFour`](two_four) | two of every four along a row | `rows cols w / 2` and `rows ceil(cols / 8)` |
//!
//! Names, types and shapes of the [`Part`]s are those of the compressed-tensors package (its formats `sparse-bitmask`
//! and `sparse-24-bitmask`, which it reads up to version 0.14): `x.weight` becomes `x.compressed`, `x.bitmask` and so
//! on. [`checkpoint::convert`](fn@crate::convert) writes whole checkpoints in this form, and
//! [`Checkpoint`](crate::Checkpoint) shows such tensors unpacked.
//!
//! ```
//! use regrow_checkpoint::Dtype;
//! use regrow_checkpoint::storage::{Matrix, Part, Storage, unpack};
//!
//! let values: Vec<u8> = [0f32, 1.0, 0.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
//! let matrix = Matrix::new(Dtype::F32, &[1, 4], &values)?;
//! let part = |part| Storage::Bitmask.part(&matrix, part);
//! assert_eq!(part(Part::Bitmask), [0b1010]);
//! let dense = unpack(Dtype::F32, &[1, 4], &part(Part::Compressed), &part(Part::Bitmask));
//! assert_eq!(dense, Ok(values));
//! # Ok::<(), String>(())
//! ```

pub mod bitmask;
mod bits;
pub mod two_four;

use std::borrow::Cow;
use std::fmt;

use safetensors::Dtype;

use crate::{Error, Result};
pub use bits::unpack;

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// All values, zeros too.
    #[default]
    Dense,
    /// The values that are not zero.
    Bitmask,
    /// Two values of every four along a row.
    TwoFour,
}

/// The parts of a packed matrix; [`Storage::Bitmask`] has all of them, [`Storage::TwoFour`] all but the row offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The kept values, row by row.
    Compressed,
    /// A bit per weight, low bit first, rows padded to whole bytes.
    Bitmask,
    /// The shape of the dense matrix.
    Shape,
    /// Where each row's values start.
    RowOffsets,
}

/// A matrix of floating-point numbers as in a dense file: row-major, little-endian.
///
/// A tensor with more dimensions is a matrix whose columns are the last dimension.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl Storage {
    /// The storage with this name: `dense`, `bitmask` or `2:4`.
    ///
    /// # Errors
    /// For any other name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "dense" => Ok(Self::Dense),
            "bitmask" => Ok(Self::Bitmask),
            "2:4" => Ok(Self::TwoFour),
            other => Err(Error::Argument(format!("unknown format `{other}`: use 2:4, bitmask, dense"))),
        }
    }

    /// The name in compressed-tensors.
    pub fn package_name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Bitmask => "sparse-bitmask",
            Self::TwoFour => "sparse-24-bitmask",
        }
    }

    /// The parts of `matrix` in this form, their types and shapes; `None` if it has no such form: a dense matrix has no
    /// parts, and 2:4 requires that no four values along a row keep more than two.
    pub fn parts(self, matrix: &Matrix<'_>) -> Option<Vec<(Part, Dtype, Vec<usize>)>> {
        let (rows, cols, shape) = (matrix.rows(), matrix.cols(), matrix.shape);
        // All dimensions but the last stay.
        let with_last = |last: usize| [&shape[..shape.len() - 1], &[last]].concat();
        let (kept, dims) = match self {
            Self::Dense => return None,
            Self::Bitmask => (vec![bits::count(&self.bits(matrix)?)], vec![shape.len()]),
            Self::TwoFour => (with_last(self.bits(matrix).map(|_| cols / 2)?), vec![shape.len(), 1]),
        };
        let mut parts = vec![
            (Part::Compressed, matrix.dtype, kept),
            (Part::Bitmask, Dtype::U8, with_last(cols.div_ceil(8))),
            (Part::Shape, Dtype::I64, dims),
        ];
        if self == Self::Bitmask {
            parts.push((Part::RowOffsets, Dtype::I64, vec![rows]));
        }
        Some(parts)
    }

    /// One of the [`Storage::parts`] of `matrix`, little-endian; empty if there is no such form.
    pub fn part(self, matrix: &Matrix<'_>, part: Part) -> Vec<u8> {
        if part == Part::Shape {
            return matrix.shape.iter().flat_map(|d| (*d as i64).to_le_bytes()).collect();
        }
        let bits = self.bits(matrix).unwrap_or_default();
        match part {
            Part::Compressed => bits::select(matrix, &bits),
            Part::RowOffsets => bits::row_offsets(&bits, matrix.rows()),
            _ => bits,
        }
    }

    /// A bit for each weight, set if it is kept; rows padded to whole bytes.
    fn bits(self, matrix: &Matrix<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Dense => None,
            Self::Bitmask => Some(bitmask::bits(matrix)),
            Self::TwoFour => two_four::bits(matrix),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dense => "dense",
            Self::Bitmask => "bitmask",
            Self::TwoFour => "2:4",
        })
    }
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Compressed, Self::Bitmask, Self::Shape, Self::RowOffsets];

    /// What replaces `weight` in a name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Bitmask => "bitmask",
            Self::Shape => "shape",
            Self::RowOffsets => "row_offsets",
        }
    }
}

impl<'a> Matrix<'a> {
    /// A matrix of this type and shape.
    ///
    /// # Errors
    /// A scalar, a type that is none of F64, F32, F16, BF16, or another number of bytes.
    pub fn new(dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self, String> {
        if !matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(format!("type {dtype} is none of F64, F32, F16, BF16"));
        }
        let size = shape.iter().product::<usize>() * width(dtype);
        match shape.is_empty() || size != bytes.len() {
            true => Err(format!("{} bytes are no matrix of shape {shape:?}", bytes.len())),
            false => Ok(Self { dtype, shape, bytes }),
        }
    }

    /// How many of its values are not zero.
    pub fn nonzero(&self) -> usize {
        bits::count(&bits::nonzero(self))
    }

    fn cols(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }
}

fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// The name of a part of the tensor `weight`.
pub fn part_name(weight: &str, part: Part) -> String {
    let stem = weight.strip_suffix(".weight").unwrap_or(weight);
    format!("{stem}.{}", part.name())
}

/// The name of the tensor whose kept values are called `name`, if it is such a name.
pub fn packed_name(name: &str) -> Option<Cow<'_, str>> {
    name.strip_suffix(".compressed").map(|stem| format!("{stem}.weight").into())
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
        let each = |v: &f32| match dtype {
            Dtype::F64 => f64::from(*v).to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(*v).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(*v).to_le_bytes().to_vec(),
            _ => v.to_le_bytes().to_vec(),
        };
        values.iter().flat_map(each).collect()
    }

    /// Packs and unpacks; returns the resulting bytes, and the sizes as planned.
    fn round_trip(storage: Storage, dtype: Dtype, shape: &[usize], dense: &[u8]) -> Option<Vec<u8>> {
        let matrix = Matrix::new(dtype, shape, dense).unwrap();
        let parts = storage.parts(&matrix)?;
        for (part, dtype, shape) in &parts {
            let size = shape.iter().product::<usize>() * width(*dtype);
            assert_eq!(storage.part(&matrix, *part).len(), size, "{part:?}");
        }
        let part = |part| storage.part(&matrix, part);
        Some(unpack(dtype, shape, &part(Part::Compressed), &part(Part::Bitmask)).unwrap())
    }

    const TYPES: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];

    proptest! {
        #[test]
        fn what_is_packed_comes_back(rows in 0usize..5, cols in 0usize..40, seed in any::<u64>(), which in 0usize..4) {
            let value = |i: usize| ((seed.rotate_left(i as u32) % 5) as f32 - 2.0) * (1.0 + i as f32);
            let values: Vec<f32> = (0..rows * cols).map(value).collect();
            let dense = bytes(TYPES[which], &values);
            let back = round_trip(Storage::Bitmask, TYPES[which], &[rows, cols], &dense);
            // A zero may lose its sign.
            let plus: Vec<f32> = values.iter().map(|v| v + 0.0).collect();
            prop_assert_eq!(back, Some(bytes(TYPES[which], &plus)));
        }

        #[test]
        fn two_of_four_come_back(rows in 1usize..5, fours in 1usize..9, seed in any::<u64>(), which in 0usize..4) {
            let cols = 4 * fours;
            let keeps = |i: usize| {
                let first = seed.rotate_left((i / 4) as u32) % 4;
                let second = seed.rotate_left((i / 4) as u32 + 7) % 5;
                [first, second].contains(&((i % 4) as u64))
            };
            let values: Vec<f32> = (0..rows * cols).map(|i| if keeps(i) { 1.5 + i as f32 } else { 0.0 }).collect();
            let dense = bytes(TYPES[which], &values);
            prop_assert_eq!(round_trip(Storage::TwoFour, TYPES[which], &[rows, cols], &dense), Some(dense));
        }
    }

    #[test]
    fn names_lead_there_and_back() {
        for storage in [Storage::Dense, Storage::Bitmask, Storage::TwoFour] {
            assert_eq!(Storage::parse(&storage.to_string()).unwrap(), storage);
        }
        assert!(Storage::parse("csr").unwrap_err().to_string().contains("2:4, bitmask, dense"));
        assert_eq!(part_name("a.b.weight", Part::RowOffsets), "a.b.row_offsets");
        assert_eq!(packed_name("a.b.compressed").as_deref(), Some("a.b.weight"));
        assert_eq!(packed_name("a.b.weight"), None);
    }

    #[test]
    fn no_matrix_is_refused() {
        assert!(Matrix::new(Dtype::F32, &[], &[0; 4]).is_err());
        assert!(Matrix::new(Dtype::F32, &[2], &[0; 4]).is_err());
        assert!(Matrix::new(Dtype::I64, &[1], &[0; 8]).unwrap_err().contains("I64"));
    }
}
