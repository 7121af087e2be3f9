//! Which layers are faster sparse: measures each layer on the inputs that really reach it.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::module::ParamId;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::layers::Sparse;
use crate::linear::numbers;
use crate::{Error, Result};
use crate::{Packing, SparseConv2d, SparseLinear};
use regrow_device::{has_kernels, has_own_memory, is_host, title, wait_for};
use regrow_sparse_core::model::executor::LayerExecutor;
use regrow_sparse_core::model::weight::transposed;

/// How layers are measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The type sparse weights are stored as: F32, F16 or BF16. Without one, F32 is measured, and also the smaller type
    /// if it holds each of the layer's weights exactly: results are the same except for the order of sums.
    pub dtype: Option<Dtype>,
    /// The fraction of zeros below which a layer is not measured, unless its weights fit into a smaller type and few
    /// inputs reach it: then even a bitmask of ones is less to read.
    pub least: f64,
    /// A sparse layer must take no more than this fraction of the dense one's time.
    pub margin: f64,
    /// How long to measure each form; at least three rounds are run.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { dtype: None, least: 0.2, margin: 0.95, patience: Duration::from_millis(50) }
    }
}

/// The result for a layer.
#[derive(Clone, Debug)]
pub struct LayerTiming {
    /// Its name.
    pub layer: String,
    /// Its shape, outputs first.
    pub shape: Vec<usize>,
    /// The fraction of its weights that is zero.
    pub sparsity: f64,
    /// The number of inputs that it was measured on.
    pub batch: usize,
    /// The time of the dense layer, if it was measured: the minimum over some rounds.
    pub dense: Option<Duration>,
    /// The time of each sparse form.
    pub tried: Vec<(Kind, Duration)>,
    /// The chosen sparse form, if any.
    pub chosen: Option<Kind>,
    /// Why it was not measured.
    pub untried: Option<String>,
}

/// A sparse form of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a linear layer, and the type its weights are stored as.
    Linear(Packing, Dtype),
    /// Of a convolution.
    Direct,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(packing, Dtype::F32) => packing.fmt(f),
            Self::Linear(packing, dtype) => write!(f, "{packing} {dtype}"),
            Self::Direct => f.write_str("direct"),
        }
    }
}

impl LayerTiming {
    /// The fastest sparse form and its time over the dense one.
    pub fn best(&self) -> Option<(Kind, f64)> {
        let (kind, time) = self.tried.iter().min_by_key(|(_, time)| *time)?;
        Some((*kind, time.as_secs_f64() / self.dense?.as_secs_f64().max(1e-9)))
    }
}

/// `bitmask: 0.41 of the dense time`, or `dense: ` and the reason.
impl fmt::Display for LayerTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.chosen, self.best(), &self.untried) {
            (Some(kind), Some((_, ratio)), _) => write!(f, "{kind}: {ratio:.2} of the dense time"),
            (_, Some((kind, ratio)), _) => write!(f, "dense: {kind} would take {ratio:.2} of its time"),
            (_, _, Some(reason)) => write!(f, "dense: {reason}"),
            _ => f.write_str("dense"),
        }
    }
}

/// Up to this many inputs, a product is limited by reading its weights.
const FEW: usize = 4;

/// On a device with its own memory this many short forwards are timed together: reading a result takes as long as
/// several of them.
const TOGETHER: u32 = 10;
/// Below this a forward is short.
const SHORT: Duration = Duration::from_millis(5);

/// Whether linear layers on `device` can be computed sparse: on this process's own threads, and where a kernel can be
/// compiled. On a peer and with LibTorch they stay dense. On LibTorch's CPU device single layers win the race, but
/// LibTorch's threads, which busy-wait for work, and ours disturb each other: models were no faster.
pub fn is_possible(device: &Device) -> bool {
    is_host(device) || has_kernels(device)
}

/// How many weights a model's layers have, and whether the CPU computes them.
#[derive(Default)]
pub(super) struct Weights {
    count: usize,
    on_host: bool,
}

impl LayerExecutor for Weights {
    fn linear(&mut self, _name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        self.count += layer.weight.dims().iter().product::<usize>();
        self.on_host = is_host(&x.device());
        layer.forward(x)
    }

    fn conv2d(&mut self, _name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        self.count += layer.weight.dims().iter().product::<usize>();
        self.on_host = is_host(&images.device());
        layer.forward(images)
    }
}

/// Simulates reading a model's other weights between two runs of a layer.
struct Others(Vec<f32>);

impl Others {
    /// More than any cache holds.
    const MOST: usize = 1 << 26;

    fn new(weights: &Weights) -> Self {
        // Ones, because zeros that were never written share a single page.
        Self(vec![1.0; if weights.on_host { weights.count.min(Self::MOST) } else { 0 }])
    }

    /// Moves all of them through the caches of all threads.
    fn pass(&self) {
        self.0.par_chunks(1 << 12).for_each(|part| {
            black_box(part.iter().fold(0, |bits, value| bits ^ value.to_bits()));
        });
    }
}

/// Times, and the winning form if any.
type Outcome = (Option<Duration>, Vec<(Kind, Duration)>, Option<Kind>);

/// Layers to compute sparse, and their weights.
pub(super) type Chosen = (BTreeMap<String, Sparse>, Vec<ParamId>);

/// Layers that are measured while a model runs.
pub(super) struct Autotune {
    options: Options,
    others: Others,
    layers: BTreeMap<String, Sparse>,
    /// The weights of those.
    weights: Vec<ParamId>,
    verdicts: Vec<LayerTiming>,
    /// Layers of equal shape, sparsity and batch are measured once.
    known: BTreeMap<String, Outcome>,
    failed: Option<Error>,
}

impl Autotune {
    pub(super) fn new(options: Options, all: &Weights) -> Self {
        let (layers, weights, verdicts, known) = Default::default();
        Self { options, others: Others::new(all), layers, weights, verdicts, known, failed: None }
    }

    pub(super) fn finish(self) -> Result<(Chosen, Vec<LayerTiming>)> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(((self.layers, self.weights), self.verdicts)),
        }
    }

    fn seen(&self, name: &str) -> bool {
        self.failed.is_some() || self.verdicts.iter().any(|verdict| verdict.layer == name)
    }

    /// The initial verdict on a layer with this share of zeros; `missing` is why nothing can be measured.
    fn begin(
        &self,
        name: &str,
        shape: Vec<usize>,
        sparsity: f64,
        batch: usize,
        missing: Option<String>,
    ) -> LayerTiming {
        let few =
            || (sparsity < self.options.least).then(|| format!("{:.0} % of its weights are zero", 100.0 * sparsity));
        let untried = missing.or_else(few);
        LayerTiming {
            layer: name.into(),
            shape,
            sparsity,
            batch,
            dense: None,
            tried: Vec::new(),
            chosen: None,
            untried,
        }
    }

    /// Fills in the results for these `kinds`, which are measured unless equal ones were: the times of the dense layer
    /// and of each form.
    fn race(
        &mut self,
        verdict: &mut LayerTiming,
        of: &str,
        kinds: &[Kind],
        measure: impl FnOnce(&Others, Duration) -> Result<Vec<Duration>>,
    ) -> Result<()> {
        let LayerTiming { shape, sparsity, batch, .. } = &*verdict;
        let key = format!("{shape:?} {:.0} {batch} {of} {kinds:?}", 100.0 * sparsity);
        if !self.known.contains_key(&key) {
            let times = measure(&self.others, self.options.patience)?;
            let tried: Vec<_> = kinds.iter().copied().zip(times[1..].iter().copied()).collect();
            let fastest = tried.iter().min_by_key(|(_, time)| *time);
            let within = |time: &Duration| time.as_secs_f64() <= self.options.margin * times[0].as_secs_f64();
            let won = fastest.filter(|(_, time)| within(time)).map(|(kind, _)| *kind);
            self.known.insert(key.clone(), (Some(times[0]), tried, won));
        }
        (verdict.dense, verdict.tried, verdict.chosen) = self.known[&key].clone();
        Ok(())
    }

    fn try_linear(&mut self, name: &str, layer: &Linear, x: &Tensor<2>) -> Result<()> {
        let weight = layer.weight.val();
        let [d_in, d_out] = weight.dims();
        let weights = transposed(&numbers(weight.into_data())?, d_in, d_out);
        let device = x.device();
        let missing = (!is_possible(&device)).then(|| format!("there are no sparse kernels on {}", title(&device)));
        let (batch, sparsity, possible) = (x.dims()[0], share_of_zeros(&weights), missing.is_none());
        let mut verdict = self.begin(name, vec![d_out, d_in], sparsity, batch, missing);
        let bias = layer.bias.as_ref().map(|bias| numbers(bias.val().into_data())).transpose()?;
        let matrix = Dense { shape: [d_out, d_in], weights, bias };
        let forms = match possible {
            true => matrix.forms((sparsity >= self.options.least, batch), self.options.dtype, &device),
            false => Vec::new(),
        };
        if !forms.is_empty() {
            verdict.untried = None;
            let kinds: Vec<Kind> = forms.iter().map(|(packing, dtype)| Kind::Linear(*packing, *dtype)).collect();
            self.race(&mut verdict, "", &kinds, |others, patience| {
                let made = forms.iter().map(|form| matrix.sparse(*form, &device)).collect::<Result<Vec<_>>>()?;
                let dense = || layer.forward(x.clone());
                let sparse: Vec<_> = made.iter().map(|form| move || form.forward(x.clone())).collect();
                let mut racers: Vec<&dyn Fn() -> Tensor<2>> = vec![&dense];
                racers.extend(sparse.iter().map(|racer| racer as &dyn Fn() -> Tensor<2>));
                Ok(race(&racers, others, patience))
            })
            .map_err(|e| named(name, e))?;
            if let Some(won) = kinds.iter().position(|kind| verdict.chosen == Some(*kind)) {
                let won = matrix.sparse(forms[won], &device).map_err(|e| named(name, e))?;
                self.layers.insert(name.into(), Sparse::Linear(won));
                self.weights.push(layer.weight.id);
            }
        }
        self.verdicts.push(verdict);
        Ok(())
    }

    fn try_conv2d(&mut self, name: &str, layer: &Conv2d, images: &Tensor<4>) -> Result<()> {
        let weight = layer.weight.val();
        let shape = weight.dims().to_vec();
        let [batch, _, height, width] = images.dims();
        let device = images.device();
        let missing = (!is_host(&device)).then(|| format!("there is no sparse convolution on {}", title(&device)));
        let sparsity = share_of_zeros(&numbers(weight.into_data())?);
        let mut verdict = self.begin(name, shape, sparsity, batch, missing);
        if verdict.untried.is_none() {
            match SparseConv2d::of(layer) {
                Ok(form) => {
                    let dense = || layer.forward(images.clone());
                    let sparse = || form.forward(images.clone());
                    let of = format!("{height}x{width} {:?}", layer.stride);
                    let measure = |others: &Others, patience| Ok(race(&[&dense, &sparse], others, patience));
                    self.race(&mut verdict, &of, &[Kind::Direct], measure)?;
                    if verdict.chosen.is_some() {
                        self.layers.insert(name.into(), Sparse::Conv2d(form));
                        self.weights.push(layer.weight.id);
                    }
                }
                Err(reason) => verdict.untried = Some(reason.to_string()),
            }
        }
        self.verdicts.push(verdict);
        Ok(())
    }
}

impl LayerExecutor for Autotune {
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        if !self.seen(name) {
            self.failed = self.try_linear(name, layer, &x).err();
        }
        layer.forward(x)
    }

    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        if !self.seen(name) {
            self.failed = self.try_conv2d(name, layer, &images).err();
        }
        layer.forward(images)
    }
}

fn share_of_zeros(weights: &[f32]) -> f64 {
    weights.iter().filter(|w| **w == 0.0).count() as f64 / weights.len().max(1) as f64
}

/// A linear layer's weights, `[d_out, d_in]`, and its bias.
struct Dense {
    shape: [usize; 2],
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Dense {
    /// The forms that are worth measuring on `batch` inputs. If the layer `is_sparse`: CSR, a bitmask, and N:M if it
    /// conforms, in each of the requested types; with a kernel these are all the same form, a bitmask. Otherwise a
    /// bitmask in a smaller type that holds its weights exactly.
    fn forms(&self, (is_sparse, batch): (bool, usize), dtype: Option<Dtype>, device: &Device) -> Vec<(Packing, Dtype)> {
        let smaller = if dtype.is_none() && (is_sparse || batch <= FEW) { self.exact() } else { None };
        if !is_sparse {
            return smaller.map(|dtype| (Packing::Bitmask, dtype)).into_iter().collect();
        }
        let mut packings = vec![Packing::Bitmask];
        if !has_kernels(device) {
            packings.push(Packing::Csr);
            // The sparsest pattern that it conforms to; the others would store zeros.
            let patterns = [(1, 4), (2, 4), (4, 8)].map(|(n, m)| Packing::NofM { n, m });
            packings.extend(patterns.into_iter().find(|pattern| pattern.holds(self.shape[1], &self.weights)));
        }
        let dtypes = [dtype.unwrap_or(Dtype::F32)].into_iter().chain(smaller);
        dtypes.flat_map(|dtype| packings.iter().map(move |packing| (*packing, dtype)).collect::<Vec<_>>()).collect()
    }

    /// The two-byte type, if there is one, that holds every weight exactly.
    fn exact(&self) -> Option<Dtype> {
        let all = |narrowed: fn(f32) -> f32| self.weights.iter().all(|w| narrowed(*w) == *w);
        if all(|w| bf16::from_f32(w).to_f32()) {
            return Some(Dtype::BF16);
        }
        all(|w| f16::from_f32(w).to_f32()).then_some(Dtype::F16)
    }

    fn sparse(&self, (packing, dtype): (Packing, Dtype), device: &Device) -> Result<SparseLinear> {
        let sparse = SparseLinear::new(self.shape, &self.weights, packing, dtype)?;
        let sparse = self.bias.iter().try_fold(sparse, |sparse, bias| sparse.with_bias(bias.clone()))?;
        Ok(sparse.on(device))
    }
}

fn named(layer: &str, error: Error) -> Error {
    match error {
        Error::Argument(reason) => Error::tensor(layer, reason),
        other => other,
    }
}

/// The minimum time of each, run in turn, until its output can be read; `others` are read in between.
fn race<const D: usize>(racers: &[&dyn Fn() -> Tensor<D>], others: &Others, patience: Duration) -> Vec<Duration> {
    let (mut least, mut last) = (vec![Duration::MAX; racers.len()], vec![Duration::MAX; racers.len()]);
    let began = Instant::now();
    for round in 0..=100 {
        for (i, racer) in racers.iter().enumerate() {
            others.pass();
            let start = Instant::now();
            let mut out = racer();
            let times = if last[i] < SHORT && has_own_memory(&out.device()) { TOGETHER } else { 1 };
            (1..times).for_each(|_| out = racer());
            wait_for(out);
            last[i] = start.elapsed() / times;
            // The first round is a warm-up.
            if round > 0 {
                least[i] = least[i].min(last[i]);
            }
        }
        if round >= 3 && began.elapsed() > patience * racers.len() as u32 {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};
    use burn::tensor::TensorData;

    use super::super::{ForwardWith, compress};
    use super::*;
    use regrow_device::current;

    #[derive(Module, Debug)]
    struct Chain {
        layers: Vec<Linear>,
    }

    impl ForwardWith<Tensor<2>> for Chain {
        type Output = Tensor<2>;

        fn run(&self, x: Tensor<2>, layers: &mut dyn LayerExecutor) -> Tensor<2> {
            self.layers.iter().enumerate().fold(x, |x, (i, layer)| layers.linear(&format!("{i}"), layer, x))
        }
    }

    /// `side` x `side`, with one weight of `every` kept.
    fn layer(side: usize, every: usize) -> Linear {
        let value = |i: usize| if i.is_multiple_of(every) { 0.01 * ((i * 37 % 101) as f32 - 50.5) } else { 0.0 };
        let values: Vec<f32> = (0..side * side).map(value).collect();
        let weight = Tensor::from_data(TensorData::new(values, [side, side]), &current());
        Linear { weight: Param::from_tensor(weight), bias: None }
    }

    #[test]
    fn layers_are_swapped_where_that_is_faster_and_said_not_to_be_elsewhere() {
        if !is_possible(&current()) {
            println!("skipped: there are no sparse kernels on {:?}", current());
            return;
        }
        let x = Tensor::<2>::ones([1, 512], &current());
        let chain = Chain { layers: vec![layer(512, 100), layer(512, 1), layer(512, 101)] };
        let expected: Vec<f32> = chain.run(x.clone(), &mut super::super::DenseExecutor).into_data().iter().collect();
        // Regardless of speed: so the sparse forms are used, and their results can be checked.
        let always = Options { margin: f64::INFINITY, ..Options::default() };
        let (compressed, verdicts) = compress(chain, x.clone(), &always).unwrap();
        assert_eq!(compressed.sparse(), 2);
        assert_eq!(verdicts.iter().map(|v| v.chosen.is_some()).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(verdicts[1].to_string(), "dense: 0 % of its weights are zero");
        assert!(verdicts[0].to_string().ends_with(" of the dense time"));
        let forms = if has_kernels(&current()) { 1 } else { 2 };
        assert!(verdicts[0].tried.len() >= forms && verdicts[0].shape == [512, 512] && verdicts[0].batch == 1);
        for (a, b) in compressed.run(x.clone()).into_data().iter::<f32>().zip(&expected) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
        }
        let lean = compressed.clone().without_dense();
        assert_eq!(lean.run(x.clone()).into_data(), compressed.run(x.clone()).into_data());
        let left = |layer: &Linear| (layer.weight.dims(), layer.weight.val().abs().sum().into_scalar::<f32>() > 0.0);
        assert_eq!(
            lean.model.layers.iter().map(left).collect::<Vec<_>>(),
            [false, true, false].map(|on| ([512, 512], on))
        );
        let never = Options { margin: 0.0, ..Options::default() };
        let (compressed, verdicts) = compress(compressed.model, x, &never).unwrap();
        assert_eq!(compressed.sparse(), 0);
        assert!(verdicts[2].to_string().starts_with("dense: "), "{}", verdicts[2]);
        assert!(verdicts[2].to_string().contains("would take"), "{}", verdicts[2]);
    }

    #[test]
    fn smaller_types_are_tried_where_they_hold_every_weight() {
        let of =
            |value: f32| Dense { shape: [2, 4], weights: vec![0.0, value, 0.0, 1.0, -0.0, 3.0, 2.0, 0.0], bias: None };
        // The last bits: of bfloat16's eight, of half precision's eleven, beyond both; below and above what half holds.
        let cases = [
            (1.0 + 2f32.powi(-7), Some(Dtype::BF16)),
            (1.0 + 2f32.powi(-10), Some(Dtype::F16)),
            (1.0 + 2f32.powi(-11), None),
            (2f32.powi(-30), Some(Dtype::BF16)),
            (2f32.powi(-24) * 1.5, Some(Dtype::BF16)),
            (65_537.0, None),
            (f32::NAN, None),
        ];
        for (value, expected) in cases {
            assert_eq!(of(value).exact(), expected, "{value}");
        }
        let forms = |value: f32, dtype| of(value).forms((true, 9), dtype, &current());
        let packings = if has_kernels(&current()) { 1 } else { 3 };
        assert_eq!(forms(1.0, None).len(), 2 * packings);
        assert_eq!(forms(0.1, None).len(), packings);
        assert!(forms(0.1, Some(Dtype::F16)).iter().all(|(_, dtype)| *dtype == Dtype::F16));
        for form in forms(1.0, None) {
            let made = of(1.0).sparse(form, &current()).unwrap();
            assert_eq!((made.packing(), made.dtype(), made.to_dense()), (form.0, form.1, of(1.0).weights));
        }
        let dense = |value: f32, batch| of(value).forms((false, batch), None, &current());
        assert_eq!(dense(1.0, 1), [(Packing::Bitmask, Dtype::BF16)]);
        assert!(dense(1.0, 9).is_empty() && dense(0.1, 1).is_empty());
        let kind = |dtype| Kind::Linear(Packing::NofM { n: 2, m: 4 }, dtype).to_string();
        assert_eq!((kind(Dtype::F32).as_str(), kind(Dtype::BF16).as_str()), ("2:4", "2:4 BF16"));
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused_by_name() {
        if !is_possible(&current()) {
            println!("skipped: nothing is tried on {:?}", current());
            return;
        }
        let mut bad = layer(8, 2);
        bad.weight = bad.weight.map(|w| w * f32::NAN);
        let sample = Tensor::<2>::ones([1, 8], &current());
        let always = Options { least: 0.0, ..Options::default() };
        let refused =
            compress(Chain { layers: vec![layer(8, 2), bad] }, sample, &always).map(|_| ()).unwrap_err().to_string();
        assert!(refused.starts_with("1: ") && refused.contains("NaN"), "{refused}");
    }
}
