//! One bit per weight, and two values of every four along a row (`sparse-24-bitmask`).
//!
//! | part | type | shape |
//! | --- | --- | --- |
//! | `compressed` | the matrix's | `[rows, cols / 2]` |
//! | `bitmask` | U8 | `[rows, ceil(cols / 8)]`, low bit first |
//! | `shape` | I64 | `[2, 1]` |
//!
//! Of 16-bit weights it takes 9/16 of the dense size. Four with fewer than two values that are not zero keep
//! zeros as well, those that PyTorch's `topk` keeps in the package's own compression.

use super::{Matrix, bits};

/// The kept values among four, given which are not zero, low bit first; 0 if there are too many.
const KEPT: [u8; 16] =
    [0b1100, 0b0101, 0b1010, 0b0011, 0b1100, 0b0101, 0b0110, 0, 0b1100, 0b1001, 0b1010, 0, 0b1100, 0, 0, 0];

/// A bit for each value, set if it is kept, two of every four along a row; `None` if four have more, or the row length
/// is not a multiple of four.
pub(super) fn bits(matrix: &Matrix<'_>) -> Option<Vec<u8>> {
    if !matrix.cols().is_multiple_of(4) {
        return None;
    }
    let mut bits = bits::nonzero(matrix);
    let bytes = matrix.cols().div_ceil(8).max(1);
    // A row may end in the middle of a byte.
    let half = !matrix.cols().is_multiple_of(8);
    let mut conforms = true;
    for row in bits.chunks_mut(bytes) {
        for (i, byte) in row.iter_mut().enumerate() {
            let (low, high) = (KEPT[usize::from(*byte & 15)], KEPT[usize::from(*byte >> 4)]);
            conforms &= low != 0 && high != 0;
            *byte = if half && i + 1 == bytes { low } else { low | high << 4 };
        }
    }
    conforms.then_some(bits)
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    fn drawn(rows: &[&str]) -> Option<Vec<String>> {
        let value = |c: char| f32::to_le_bytes(c.to_digit(10).unwrap() as f32);
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.chars().flat_map(value)).collect();
        let shape = [rows.len(), rows[0].len()];
        let bits = bits(&Matrix::new(Dtype::F32, &shape, &bytes).unwrap())?;
        let draw = |row: &[u8]| (0..shape[1]).map(|i| if row[i / 8] >> (i % 8) & 1 == 1 { '1' } else { '0' }).collect();
        Some(bits.chunks(shape[1].div_ceil(8)).map(draw).collect())
    }

    #[test]
    fn two_of_four_are_kept() {
        let rows = ["090580070001", "000000003020", "430000880000"];
        assert_eq!(drawn(&rows).unwrap(), ["010110010011", "001100111010", "110000110011"]);
    }

    #[test]
    fn three_of_four_or_rows_of_another_length_have_no_such_form() {
        assert_eq!(drawn(&["11101100"]), None);
        assert_eq!(drawn(&["110011"]), None);
        // Conforming along columns alone does not count.
        assert_eq!(drawn(&["1111", "1111", "0000", "0000"]), None);
    }
}
