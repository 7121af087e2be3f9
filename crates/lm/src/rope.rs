//! Rotary positions (arXiv 2104.09864) and their scaling for longer contexts.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

/// The angles by which pairs of a head's coordinates rotate from one position to the next: `theta^(-2i / head_dim)`,
/// scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    theta: f64,
    scaling: Scaling,
}

/// How angles are scaled for longer contexts.
#[derive(Clone, Debug, PartialEq)]
enum Scaling {
    None,
    /// Positions divided by a factor (arXiv 2306.15595).
    Linear(f64),
    /// Slow angles divided, fast ones kept, with a ramp between (Llama 3).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// The same by dimensions, attention sharpened (YaRN, arXiv 2309.00071).
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original: f64,
        attention: Option<f64>,
    },
}

impl Rope {
    /// From `rope_theta` and `rope_scaling`, or `rope_parameters`, which holds both.
    pub(super) fn read(theta: Option<f64>, parameters: Option<&Value>) -> Result<Self, String> {
        let number = |key: &str| parameters.and_then(|p| p.get(key)).and_then(Value::as_f64);
        let need = |key: &str| number(key).ok_or_else(|| format!("rope scaling has no {key}"));
        let named = |key: &str| parameters.and_then(|p| p.get(key)).and_then(Value::as_str);
        let scaling = match named("rope_type").or(named("type")).unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear(need("factor")?),
            "llama3" => Scaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: need("original_max_position_embeddings")?,
            },
            "yarn" => Scaling::Yarn {
                factor: need("factor")?,
                fast: number("beta_fast").unwrap_or(32.0),
                slow: number("beta_slow").unwrap_or(1.0),
                original: need("original_max_position_embeddings")?,
                attention: number("attention_factor"),
            },
            other => return Err(format!("rope scaling {other:?} is not supported: use linear, llama3, yarn")),
        };
        Ok(Self { theta: number("rope_theta").or(theta).unwrap_or(10_000.0), scaling })
    }

    /// Cosines and sines `[tokens, head_dim]` for positions from 0.
    pub fn tables(&self, tokens: usize, head_dim: usize, device: &Device) -> [Tensor<2>; 2] {
        let (angles, sharper) = self.angles(head_dim);
        let table = |f: fn(f64) -> f64| {
            let row = |t: usize| angles.iter().chain(&angles).map(move |a| (sharper * f(t as f64 * a)) as f32);
            let values: Vec<f32> = (0..tokens).flat_map(row).collect();
            Tensor::from_data(TensorData::new(values, [tokens, 2 * angles.len()]), device)
        };
        [table(f64::cos), table(f64::sin)]
    }

    /// The angle of each pair, and a factor on cosines and sines.
    fn angles(&self, head_dim: usize) -> (Vec<f64>, f64) {
        let pairs = head_dim / 2;
        let plain = |i: usize| self.theta.powf(-2.0 * i as f64 / head_dim as f64);
        let turns = |angle: f64, original: f64| original * angle / std::f64::consts::TAU;
        match self.scaling {
            Scaling::None => ((0..pairs).map(plain).collect(), 1.0),
            Scaling::Linear(factor) => ((0..pairs).map(|i| plain(i) / factor).collect(), 1.0),
            Scaling::Llama3 { factor, low, high, original } => {
                let scaled = |i: usize| {
                    // 0 if a context has fewer than `low` turns, 1 if it has more than `high`.
                    let kept = ((turns(plain(i), original) - low) / (high - low)).clamp(0.0, 1.0);
                    plain(i) * (kept + (1.0 - kept) / factor)
                };
                ((0..pairs).map(scaled).collect(), 1.0)
            }
            Scaling::Yarn { factor, fast, slow, original, attention } => {
                // The (fractional) pair that makes this many turns in a context.
                let pair = |turns: f64| {
                    head_dim as f64 * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
                };
                let (first, last) = (pair(fast).floor().max(0.0), pair(slow).ceil().min(head_dim as f64 - 1.0));
                let scaled = |i: usize| {
                    let kept = 1.0 - ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
                    plain(i) * (kept + (1.0 - kept) / factor)
                };
                let sharper = attention.unwrap_or(if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 });
                ((0..pairs).map(scaled).collect(), sharper)
            }
        }
    }
}

/// Rotates `x` `[batch, heads, tokens, head_dim]`: the first half of the coordinates against the second.
pub fn rotate(x: Tensor<4>, [cos, sin]: &[Tensor<2>; 2]) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
    let turned = Tensor::cat(vec![-second, first], 3);
    let table = |t: &Tensor<2>| t.clone().unsqueeze::<4>();
    x * table(cos) + turned * table(sin)
}
