//! Comparisons that the workspace's tests share. They fail on what a plain loop overlooks: lists of different length,
//! empty lists, values that are not finite.

/// Asserts that `got` and `want` have the same length, are not empty, hold finite numbers only, and that no pair is
/// further apart than `tolerance`.
///
/// # Panics
/// If one of these does not hold, saying which and where.
#[track_caller]
pub fn assert_close<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B], tolerance: f64) {
    let far = distance(got, want).unwrap_or_else(|reason| panic!("{reason}"));
    assert!(far.0 <= tolerance, "value {} is {}, expected {} within {tolerance}", far.1, far.2, far.3);
}

/// The same with `tolerance` relative to the largest absolute value of `want`.
///
/// # Panics
/// As [`assert_close`].
#[track_caller]
pub fn assert_close_relative<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B], tolerance: f64) {
    let size = want.iter().map(|w| (*w).into().abs()).fold(0.0, f64::max);
    assert_close(got, want, tolerance * size);
}

/// The largest distance of a pair, where it stands, and the two values.
fn distance<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B]) -> Result<(f64, usize, f64, f64), String> {
    if got.len() != want.len() {
        return Err(format!("{} values, expected {}", got.len(), want.len()));
    }
    if want.is_empty() {
        return Err("there is nothing to compare".into());
    }
    let mut worst = (0.0, 0, got[0].into(), want[0].into());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want): (f64, f64) = ((*got).into(), (*want).into());
        if !got.is_finite() || !want.is_finite() {
            return Err(format!("value {i} is {got}, expected {want}: both must be finite"));
        }
        if (got - want).abs() > worst.0 {
            worst = ((got - want).abs(), i, got, want);
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fold_over_a_zip_overlooks_is_seen() {
        assert!(distance(&[1.0f32], &[1.0f32, 2.0]).unwrap_err().contains("1 values, expected 2"));
        assert!(distance::<f32, f32>(&[], &[]).unwrap_err().contains("nothing"));
        assert!(distance(&[f32::NAN], &[1.0f32]).unwrap_err().contains("finite"));
        assert!(distance(&[f32::INFINITY], &[f32::INFINITY]).is_err());
        assert_eq!(distance(&[1.0f32, 2.0], &[1.0f64, 2.5]).unwrap(), (0.5, 1, 2.0, 2.5));
    }

    #[test]
    #[should_panic(expected = "value 1 is 2, expected 2.5 within 0.1")]
    fn the_worst_pair_is_named() {
        assert_close(&[1.0f32, 2.0], &[1.0f32, 2.5], 0.1);
    }
}
