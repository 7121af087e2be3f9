//! Arithmetic on lists of numbers.

/// A curve through points of ascending `xs` at `x`, straight between them; beyond the last its value.
pub fn interpolated(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let after = xs.iter().position(|a| *a >= x).unwrap_or(xs.len() - 1);
    let before = after.saturating_sub(1);
    let width = xs[after] - xs[before];
    let share = if width > 0.0 { (x - xs[before]) / width } else { 0.0 };
    ys[before] + (ys[after] - ys[before]) * share
}

/// The squared Euclidean distance of two lists of one length.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use regrow_testing::assert_close;

    use super::*;

    #[test]
    fn by_hand() {
        let at = |x: f64| interpolated(&[0.0, 0.5, 1.0], &[0.0, 1.0, 4.0], x);
        assert_close(&[at(0.0), at(0.25), at(0.5), at(0.75), at(1.0)], &[0.0, 0.5, 1.0, 2.5, 4.0], 1e-12);
        assert_close(&[squared_distance(&[1.0, 2.0], &[0.0, 4.0])], &[5.0], 1e-12);
    }
}
