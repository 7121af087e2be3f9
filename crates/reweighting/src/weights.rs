//! Weights on the simplex: created, checked, converted to factors of losses and to numbers of examples.

use regrow_sparse_core::{Error, Result};

/// `exp(x_i / temperature)`, normalized to sum to 1; the maximum is subtracted first.
pub fn softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.iter().map(|x| ((x - top) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// `weights`, normalized to sum to 1.
///
/// # Errors
/// If there are none, one is negative or not finite, or all are zero.
pub fn normalized(weights: &[f64]) -> Result<Vec<f64>> {
    if let Some(bad) = weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
        return Err(Error::Argument(format!("{bad} is no weight: use numbers from 0")));
    }
    let sum: f64 = weights.iter().sum();
    match sum > 0.0 {
        true => Ok(weights.iter().map(|w| w / sum).collect()),
        false => Err(Error::Argument("all weights are zero: nothing would be learned".into())),
    }
}

/// Rejects an empty list and values that are not finite.
pub(crate) fn check_losses(losses: &[f64]) -> Result<()> {
    match losses.iter().position(|l| !l.is_finite()) {
        _ if losses.is_empty() => Err(Error::Argument("there are no losses to weigh by".into())),
        Some(i) => Err(Error::Argument(format!("loss {i} is {}: it cannot be weighed", losses[i]))),
        None => Ok(()),
    }
}

/// The factors of a batch's losses with which their **mean** is the weighted loss:
///
/// ```text
/// B w_i B n_i / sum_j n_j          B: examples, n_i: tokens of example i
/// ```
///
/// Equal weights give the plain mean over tokens.
///
/// # Errors
/// If there is not one count for each weight, or no token at all.
pub fn loss_factors(weights: &[f64], tokens: &[usize]) -> Result<Vec<f32>> {
    let (count, all) = (weights.len() as f64, tokens.iter().sum::<usize>() as f64);
    if weights.len() != tokens.len() || all == 0.0 {
        return Err(Error::Argument(format!("{} weights need as many counts of tokens above 0", weights.len())));
    }
    Ok(weights.iter().zip(tokens).map(|(w, n)| (count * w * count * *n as f64 / all) as f32).collect())
}

/// How many examples to take of each source, by its weight: never more than it has; the rest is distributed over the
/// others in proportion. The counts sum to `budget`, or to all examples.
///
/// # Errors
/// As [`normalized`]; also if there is not one size for each weight.
pub fn quotas(weights: &[f64], sizes: &[usize], budget: usize) -> Result<Vec<usize>> {
    let weights = normalized(weights)?;
    if weights.len() != sizes.len() {
        return Err(Error::Argument(format!("{} weights do not fit {} sources", weights.len(), sizes.len())));
    }
    let mut full = vec![false; sizes.len()];
    let exact = loop {
        let taken: usize = sizes.iter().zip(&full).filter(|(_, full)| **full).map(|(n, _)| n).sum();
        let open: f64 = weights.iter().zip(&full).filter(|(_, full)| !**full).map(|(w, _)| w).sum();
        let left = budget.saturating_sub(taken) as f64;
        let want = |i: usize| match (full[i], open > 0.0) {
            (true, _) => sizes[i] as f64,
            (false, true) => left * weights[i] / open,
            (false, false) => 0.0,
        };
        let wants: Vec<f64> = (0..sizes.len()).map(want).collect();
        let over: Vec<usize> = (0..sizes.len()).filter(|i| !full[*i] && wants[*i] > sizes[*i] as f64).collect();
        if over.is_empty() {
            break wants;
        }
        over.into_iter().for_each(|i| full[i] = true);
    };
    Ok(rounded(&exact, sizes))
}

/// Integers near `exact`: the largest remainders are rounded up, ties to the lower index.
fn rounded(exact: &[f64], sizes: &[usize]) -> Vec<usize> {
    let mut counts: Vec<usize> = exact.iter().map(|x| x.floor() as usize).collect();
    let missing = (exact.iter().sum::<f64>().round() as usize).saturating_sub(counts.iter().sum());
    let mut order: Vec<usize> = (0..exact.len()).filter(|i| counts[*i] < sizes[*i]).collect();
    order.sort_by(|a, b| (exact[*b] - exact[*b].floor()).total_cmp(&(exact[*a] - exact[*a].floor())));
    order.into_iter().take(missing).for_each(|i| counts[i] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_or_are_refused() {
        assert_eq!(normalized(&[1.0, 3.0]).unwrap(), [0.25, 0.75]);
        for bad in [&[][..], &[0.0, 0.0], &[1.0, -1.0], &[f64::NAN]] {
            assert!(normalized(bad).is_err(), "{bad:?}");
        }
        assert!(normalized(&[0.0, 0.0]).unwrap_err().to_string().contains("all weights are zero"));
        assert_eq!(softmax(&[1000.0, 1000.0], 0.1), [0.5, 0.5]);
    }

    #[test]
    fn equal_weights_are_the_mean_over_tokens() {
        assert_eq!(loss_factors(&[0.5, 0.5], &[1, 1]).unwrap(), [1.0, 1.0]);
        // (2 l_1 + 6 l_2) / 8 as a mean of two.
        assert_eq!(loss_factors(&[0.5, 0.5], &[2, 6]).unwrap(), [0.5, 1.5]);
        assert!(loss_factors(&[1.0], &[0]).is_err() && loss_factors(&[1.0], &[1, 1]).is_err());
    }

    #[test]
    fn quotas_by_hand() {
        assert_eq!(quotas(&[0.5, 0.3, 0.2], &[100, 100, 100], 10).unwrap(), [5, 3, 2]);
        // The first has only two; its three go to the others, 3 : 2.
        assert_eq!(quotas(&[0.5, 0.3, 0.2], &[2, 100, 100], 10).unwrap(), [2, 5, 3]);
        assert_eq!(quotas(&[1.0, 1.0], &[3, 4], 100).unwrap(), [3, 4]);
        assert_eq!(quotas(&[1.0, 1.0, 1.0], &[9, 9, 9], 10).unwrap(), [4, 3, 3]);
        assert!(quotas(&[1.0], &[1, 2], 1).is_err());
    }
}
