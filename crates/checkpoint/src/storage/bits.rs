//! Rows of bits, low bit first and padded to whole bytes, and the values they select.

use safetensors::Dtype;

use super::{Matrix, width};

/// A bit for each number of `matrix`, set if it is not zero; NaN is not zero, zeros may have either sign.
pub(super) fn nonzero(matrix: &Matrix<'_>) -> Vec<u8> {
    match width(matrix.dtype) {
        2 => nonzero_of::<2>(matrix),
        4 => nonzero_of::<4>(matrix),
        _ => nonzero_of::<8>(matrix),
    }
}

fn nonzero_of<const N: usize>(matrix: &Matrix<'_>) -> Vec<u8> {
    let is_nonzero = |value: &[u8; N]| {
        let mut size = *value;
        size[N - 1] &= 0x7f;
        size != [0; N]
    };
    let cols = matrix.cols();
    let mut bits = Vec::with_capacity(matrix.rows() * cols.div_ceil(8));
    for row in matrix.bytes.as_chunks::<N>().0.chunks_exact(cols.max(1)) {
        bits.extend(row.chunks(8).map(|eight| {
            eight.iter().enumerate().fold(0u8, |byte, (i, value)| byte | (u8::from(is_nonzero(value)) << i))
        }));
    }
    bits
}

/// How many bits are set.
pub(super) fn count(bits: &[u8]) -> usize {
    bits.iter().map(|byte| byte.count_ones() as usize).sum()
}

/// The values whose bit is set.
pub(super) fn select(matrix: &Matrix<'_>, bits: &[u8]) -> Vec<u8> {
    match width(matrix.dtype) {
        2 => select_of::<2>(matrix, bits),
        4 => select_of::<4>(matrix, bits),
        _ => select_of::<8>(matrix, bits),
    }
}

fn select_of<const N: usize>(matrix: &Matrix<'_>, bits: &[u8]) -> Vec<u8> {
    let cols = matrix.cols().max(1);
    let mut kept = Vec::with_capacity(count(bits) * N);
    let rows = matrix.bytes.as_chunks::<N>().0.chunks_exact(cols);
    for (row, bits) in rows.zip(bits.chunks(cols.div_ceil(8))) {
        for (eight, byte) in row.chunks(8).zip(bits) {
            let mut left = *byte;
            while left != 0 {
                kept.extend_from_slice(&eight[left.trailing_zeros() as usize]);
                left &= left - 1;
            }
        }
    }
    kept
}

/// Where each row's values start, as 64-bit integers, little-endian.
pub(super) fn row_offsets(bits: &[u8], rows: usize) -> Vec<u8> {
    let (mut begin, width) = (0i64, bits.len() / rows.max(1));
    let offset = |row: usize| {
        let offset = begin;
        begin += count(&bits[row * width..][..width]) as i64;
        offset.to_le_bytes()
    };
    (0..rows).flat_map(offset).collect()
}

/// The dense matrix of this type and shape, row-major, from its kept values and their bits.
///
/// # Errors
/// A type that is none of F64, F32, F16, BF16; another number of bits than the shape has, or another number of values
/// than set bits.
pub fn unpack(dtype: Dtype, shape: &[usize], values: &[u8], bits: &[u8]) -> Result<Vec<u8>, String> {
    match dtype {
        Dtype::F16 | Dtype::BF16 => unpack_of::<2>(shape, values, bits),
        Dtype::F32 => unpack_of::<4>(shape, values, bits),
        Dtype::F64 => unpack_of::<8>(shape, values, bits),
        other => Err(format!("type {other} is none of F64, F32, F16, BF16")),
    }
}

fn unpack_of<const N: usize>(shape: &[usize], values: &[u8], bits: &[u8]) -> Result<Vec<u8>, String> {
    let cols = shape.last().copied().unwrap_or(1);
    let rows: usize = shape[..shape.len().saturating_sub(1)].iter().product();
    if bits.len() != rows * cols.div_ceil(8) {
        return Err(format!("its bitmask has {} bytes, which do not fit shape {shape:?}", bits.len()));
    }
    let mut dense = vec![0; rows * cols * N];
    let (values, rest) = values.as_chunks::<N>();
    let mut values = values.iter();
    let lacks = || "its bitmask keeps more values than there are".to_string();
    let slots = dense.as_chunks_mut::<N>().0.chunks_exact_mut(cols.max(1));
    for (row, bits) in slots.zip(bits.chunks(cols.div_ceil(8).max(1))) {
        for (eight, byte) in row.chunks_mut(8).zip(bits) {
            // Bits beyond the row's end are ignored.
            let mut left = byte & (0xff >> (8 - eight.len()));
            while left != 0 {
                eight[left.trailing_zeros() as usize] = *values.next().ok_or_else(lacks)?;
                left &= left - 1;
            }
        }
    }
    match values.len() + rest.len() {
        0 => Ok(dense),
        _ => Err("its bitmask keeps fewer values than there are".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn rows_begin_at_whole_bytes() {
        // Two rows of nine; 0x8000 is negative zero, 0x7e00 is NaN.
        let mut values = [0u16; 18];
        (values[0], values[8], values[9], values[10], values[11]) = (1, 2, 0x8000, 0x7e00, 3);
        let bytes = halves(&values);
        let matrix = Matrix::new(Dtype::F16, &[2, 9], &bytes).unwrap();
        let bits = nonzero(&matrix);
        assert_eq!(bits, [0b1, 0b1, 0b110, 0]);
        assert_eq!(select(&matrix, &bits), halves(&[1, 2, 0x7e00, 3]));
        assert_eq!(row_offsets(&bits, 2), [[0u8; 8], [2, 0, 0, 0, 0, 0, 0, 0]].concat());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let says = |shape: &[usize], values: &[u16], bits: &[u8]| {
            unpack(Dtype::F16, shape, &halves(values), bits).unwrap_err()
        };
        assert!(says(&[1, 9], &[1], &[1]).contains("do not fit shape [1, 9]"));
        assert!(says(&[1, 4], &[1], &[0b11]).contains("more values"));
        assert!(says(&[1, 4], &[1, 2], &[0b1]).contains("fewer values"));
        assert!(unpack(Dtype::I64, &[1, 4], &[], &[0]).unwrap_err().contains("I64"));
        // Bits beyond the end are ignored.
        assert_eq!(unpack(Dtype::F16, &[1, 3], &halves(&[5]), &[0b1111_1010]).unwrap(), halves(&[0, 5, 0]));
    }
}
