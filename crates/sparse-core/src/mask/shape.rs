//! Tensors as matrices.

/// `shape` as a matrix `[d_out, everything else]`; a vector is one row.
pub fn matrix_dims(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [n] => (1, *n),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}
