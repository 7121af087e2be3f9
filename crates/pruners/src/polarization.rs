//! Polarization gates: which blocks or channels a network needs, learned in one training
//! (arXiv 2302.10798).
//!
//! A small module before each residual block reads the block's input and decides, per sample, whether the branch runs
//! (or which of its channels do): `g = [a > 0]`, with the gradient as if `g` were `sigmoid(a)`. With `m_l` the mean of
//! gate `l` over the batch and `c_l` its share of the network's FLOPs, this is added to the task's loss:
//!
//! `lambda_pol * mean_l m_l (1 - m_l) + lambda_act * (c_0 + sum_l c_l m_l - target)^2`:
//!
//! the variance of a gate is zero exactly when all samples agree, so at the end gates are constant; those at 0 are
//! removed with what they gate, those at 1 are dropped, and nothing is retrained. `c_0` is the share of the ungated
//! part. (We read the paper's abstract and summaries: a binary gating module, the straight-through estimator, the
//! polarization term, a user-defined sparsity. The gate's size, the two weights and their schedules are ours.)

use burn::module::{Module, Param};
use burn::nn::{BatchNorm, Linear};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::Classifier;
use regrow_train::classifier::{Examples, cross_entropy};
use regrow_train::gated_forward::{GatedForward, Gates};
use regrow_train::{Problem, StepContext};

/// Width of a gate's hidden layer.
const HIDDEN: usize = 16;
/// The initial logit of gates: open.
const OPEN: f32 = 2.0;

/// What a gate switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A whole block.
    Layers,
    /// Each channel of a block's inside; a block whose channels are all closed is bypassed.
    Channels,
}

/// A network with a gate before each of its residual blocks.
#[derive(Module, Debug)]
pub struct Polarized<M: Module> {
    net: M,
    gates: Vec<Gate>,
    #[module(skip)]
    plan: Plan,
}

/// Two linear layers, from the mean of the block's input to a logit for each unit.
#[derive(Module, Debug)]
struct Gate {
    hidden: Linear,
    logits: Linear,
}

/// What the gates switch.
#[derive(Clone, Debug)]
struct Plan {
    grain: Grain,
    layout: ChannelGraph,
}

impl<M: GatedForward> Polarized<M> {
    /// `net`, whose channel graph is `layout`, with gates that are open; their weights are
    /// drawn from `seed`.
    ///
    /// # Errors
    /// If the network has no residual block.
    pub fn new(net: M, layout: &ChannelGraph, grain: Grain, seed: u64) -> Result<Self> {
        let blocks = layout.removable();
        if blocks.is_empty() {
            return Err(Error::Argument("polarization gates need residual blocks, and this network has none".into()));
        }
        let device = net.devices().into_iter().next().unwrap_or_default();
        let gate = |(i, inside): (usize, &usize)| -> Result<Gate> {
            let reads = layout.layers.iter().find(|layer| layer.output == *inside).map(|layer| layer.input);
            let reads = reads.ok_or_else(|| Error::Argument("a block of the layout is written by no layer".into()))?;
            let units = if grain == Grain::Layers { 1 } else { layout.groups[*inside].width };
            Ok(Gate::new(layout.groups[reads].width, units, mix(seed, i as u64), &device))
        };
        let gates = blocks.iter().enumerate().map(gate).collect::<Result<Vec<_>>>()?;
        Ok(Self { net, gates, plan: Plan { grain, layout: layout.clone() } })
    }

    /// Logits, and the gates `[batch, units]` of each block.
    fn decided(&self, images: Tensor<4>) -> (Tensor<2>, Vec<Tensor<2>>) {
        let mut decisions = Vec::with_capacity(self.gates.len());
        let logits = self.net.gated(images, &mut |block, input| {
            let gate = binary(self.gates[block].forward(input));
            decisions.push(gate.clone());
            match self.plan.grain {
                Grain::Layers => Gates { whole: gate, inside: None },
                Grain::Channels => Gates { whole: gate.clone().detach().max_dim(1), inside: Some(gate) },
            }
        });
        (logits, decisions)
    }

    /// The share of the network's FLOPs that runs if `means` of the gates are open: `c_0 + sum c m`.
    fn cost(&self, means: &[Tensor<1>]) -> Tensor<1> {
        let open = Tensor::cat(means.iter().map(|m| m.clone().mean()).collect(), 0);
        let (rest, shares) = self.plan.layout.shares();
        let shares = Tensor::from_data(shares.as_slice(), &open.device());
        (open * shares).sum() + rest
    }

    /// The gates' decisions on `batches` of images, in validation mode: whether all agree, and what stays.
    pub fn consensus(&self, batches: impl IntoIterator<Item = Tensor<4>>) -> Consensus {
        let mut open: Vec<Vec<f64>> = Vec::new();
        let mut samples = 0;
        for images in batches {
            samples += images.dims()[0];
            let (_, gates) = self.decided(images);
            let sums = gates.into_iter().map(|g| g.sum_dim(0).into_data().convert::<f64>().iter::<f64>().collect());
            let sums: Vec<Vec<f64>> = sums.collect();
            match open.is_empty() {
                true => open = sums,
                false => open.iter_mut().flatten().zip(sums.iter().flatten()).for_each(|(sum, more)| *sum += more),
            }
        }
        open.iter_mut().flatten().for_each(|sum| *sum /= samples.max(1) as f64);
        Consensus { means: open }
    }

    /// The network without gates: units that are open for most samples stay, the others are removed. Its batch-norm
    /// statistics must be recomputed.
    pub fn settle(self, consensus: &Consensus) -> M {
        let plan = self.plan;
        let widths = plan.layout.removable().into_iter().map(|group| plan.layout.groups[group].width);
        let kept = consensus.means.iter().zip(widths).map(|(means, width)| match plan.grain {
            Grain::Layers => vec![means[0] >= 0.5; width],
            Grain::Channels => means.iter().map(|m| *m >= 0.5).collect(),
        });
        self.net.narrowed(&kept.collect::<Vec<Vec<bool>>>())
    }
}

/// Gates are used as in training, per sample.
impl<M: GatedForward> Classifier for Polarized<M> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.decided(images).0
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        self.net.batch_norms(f);
    }
}

impl Gate {
    fn new(input: usize, units: usize, seed: u64, device: &Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layer = |d_in: usize, d_out: usize, bias: f32| {
            let bound = 1.0 / (d_in as f32).sqrt();
            let values: Vec<f32> = (0..d_in * d_out).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
            let weight = Tensor::from_data(TensorData::new(values, [d_in, d_out]), device);
            let bias = Tensor::from_data(TensorData::new(vec![bias; d_out], [d_out]), device);
            let bias = Some(Param::from_tensor(bias));
            Linear { weight: Param::from_tensor(weight), bias }
        };
        Self { hidden: layer(input, HIDDEN, 0.0), logits: layer(HIDDEN, units, OPEN) }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.logits.forward(relu(self.hidden.forward(input)))
    }
}

/// `[a > 0]`, with the gradient of `sigmoid(a)`.
fn binary(a: Tensor<2>) -> Tensor<2> {
    let soft = sigmoid(a.clone());
    let hard = a.detach().greater_elem(0.0).float();
    hard - soft.clone().detach() + soft
}

/// How often each unit of each block is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Consensus {
    /// By block and unit, in [0, 1].
    pub means: Vec<Vec<f64>>,
}

impl Consensus {
    /// The fraction of units that are neither open nor closed for nearly all samples (a mean between 0.05 and 0.95).
    pub fn undecided(&self) -> f64 {
        let all: Vec<&f64> = self.means.iter().flatten().collect();
        all.iter().filter(|m| (0.05..0.95).contains(**m)).count() as f64 / all.len().max(1) as f64
    }
}

/// Learns to classify with gates that are trained to agree.
#[derive(Clone, Copy, Debug)]
pub struct Polarizing<'a, D> {
    data: &'a D,
    target: f64,
    polarization: f64,
    activity: f64,
}

impl<'a, D: Examples> Polarizing<'a, D> {
    /// To the share `target` in (0, 1] of the FLOPs of the network in `layout`, with `lambda_pol` 4, rising from 0 over
    /// the first half of the training, and `lambda_act` 20.
    ///
    /// # Errors
    /// A target above 1, or below the share of the ungated part.
    pub fn new(data: &'a D, layout: &ChannelGraph, target: f64) -> Result<Self> {
        let (rest, _) = layout.shares();
        match target > rest && target <= 1.0 {
            true => Ok(Self { data, target, polarization: 4.0, activity: 20.0 }),
            false => Err(Error::Argument(format!(
                "a share of {target} of the FLOPs cannot be reached: what has no gate takes {rest:.3}"
            ))),
        }
    }

    /// With other weights of the two terms.
    ///
    /// # Errors
    /// If one is negative or not finite.
    pub fn with_weights(mut self, polarization: f64, activity: f64) -> Result<Self> {
        if [polarization, activity].iter().any(|w| !w.is_finite() || *w < 0.0) {
            return Err(Error::Argument(format!("weights {polarization} and {activity} must not be negative")));
        }
        (self.polarization, self.activity) = (polarization, activity);
        Ok(self)
    }

    /// The two terms, `[1]`.
    fn penalty<M: GatedForward>(&self, net: &Polarized<M>, gates: Vec<Tensor<2>>, progress: f64) -> Tensor<1> {
        let means: Vec<Tensor<1>> = gates.into_iter().map(|g| g.mean_dim(0).squeeze_dim(0)).collect();
        let excess = (net.cost(&means) - self.target).powf_scalar(2.0);
        let ramp = (2.0 * progress).min(1.0);
        polarization(means) * (self.polarization * ramp) + excess * self.activity
    }
}

/// `mean_l m_l (1 - m_l)`, 0 where all samples agree.
fn polarization(means: Vec<Tensor<1>>) -> Tensor<1> {
    let m = Tensor::cat(means, 0);
    (m.clone() * (-m + 1.0)).mean()
}

impl<M: GatedForward, D: Examples> Problem<Polarized<M>> for Polarizing<'_, D> {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn losses(&self, net: &Polarized<M>, batch: &[usize], moment: StepContext, device: &Device) -> Tensor<1> {
        let (logits, gates) = net.decided(self.data.augmented(batch, moment.seed, device));
        cross_entropy(logits, &self.data.labels(batch), 0.0) + self.penalty(net, gates, moment.progress())
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;

    use super::*;

    fn column(values: &[f32]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &regrow_device::current().autodiff())
    }

    #[test]
    fn the_penalty_by_hand() {
        let one = polarization(vec![Tensor::from_data([0.75], &regrow_device::current())]);
        assert_eq!(one.into_scalar::<f32>(), 0.1875);
        let agreed = vec![
            Tensor::from_data([0.0], &regrow_device::current()),
            Tensor::from_data([1.0], &regrow_device::current()),
        ];
        assert_eq!(polarization(agreed).into_scalar::<f32>(), 0.0);
    }

    /// `x + fc2(relu(fc1(x)))` with three channels inside.
    #[derive(Module, Debug)]
    struct Toy {
        fc1: Linear,
        fc2: Linear,
    }

    impl Classifier for Toy {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            let open = |batch| Gates { whole: Tensor::ones([batch, 1], &images.device()), inside: None };
            self.gated(images.clone(), &mut |_, x| open(x.dims()[0]))
        }
    }

    impl GatedForward for Toy {
        fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2> {
            let x = images.flatten::<2>(1, 3);
            let Gates { whole, inside } = gates(0, x.clone());
            let y = relu(self.fc1.forward(x.clone()));
            let y = if let Some(inside) = inside { y * inside } else { y };
            x + self.fc2.forward(y) * whole
        }

        fn narrowed(self, kept: &[Vec<bool>]) -> Self {
            assert_eq!(kept, [[true; 3]]);
            self
        }
    }

    #[test]
    fn gates_start_open_and_open_ones_change_nothing() {
        let mut layout = ChannelGraph::default();
        let (stream, inside) = (layout.group(4, 4), layout.group(3, 0));
        layout.linear(stream, inside);
        layout.linear(inside, stream);
        let device = regrow_device::current();
        let layer = |d_in, d_out| LinearConfig::new(d_in, d_out).init(&device);
        let toy = Toy { fc1: layer(4, 3), fc2: layer(3, 4) };
        let images = || Tensor::<4>::from_data([[[[0.3, -1.2, 0.5, 0.1]]], [[[1.0, 0.4, -0.2, -0.7]]]], &device);
        let floats = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<_>>();
        for (grain, units) in [(Grain::Layers, 1), (Grain::Channels, 3)] {
            let gated = Polarized::new(toy.clone(), &layout, grain, 5).unwrap();
            assert_eq!(floats(gated.logits(images())), floats(toy.logits(images())));
            let consensus = gated.consensus([images(), images()]);
            assert_eq!(consensus, Consensus { means: vec![vec![1.0; units]] });
            assert_eq!(consensus.undecided(), 0.0);
            // The whole network is the block: its cost is how often it runs.
            let half = Tensor::from_data(vec![0.5f32; units].as_slice(), &device);
            assert!((gated.cost(&[half]).into_scalar::<f32>() - 0.5).abs() < 1e-6);
            assert_eq!(floats(gated.settle(&consensus).logits(images())), floats(toy.logits(images())));
        }
        assert!(Polarized::new(toy, &ChannelGraph::chain(&[4, 3, 4]), Grain::Layers, 0).is_err());
    }

    #[test]
    fn gates_are_binary_and_polarization_drives_them_apart() {
        // Three of five open: 0.6 is pushed up, one of five: down.
        for (logits, opens) in [([1.0, 0.5, 0.2, -0.3, -0.1], true), ([-1.0, -0.5, 0.2, -0.3, -0.1], false)] {
            let a = column(&logits).require_grad();
            let gates = binary(a.clone());
            let values: Vec<f32> = gates.clone().into_data().iter().collect();
            assert_eq!(values, logits.map(|a| if a > 0.0 { 1.0 } else { 0.0 }));
            let loss = polarization(vec![gates.mean_dim(0).squeeze_dim(0)]);
            let slope = a.grad(&loss.backward()).expect("a gradient");
            let downhill: Vec<f32> = slope.neg().into_data().iter().collect();
            assert!(downhill.iter().all(|d| (*d > 0.0) == opens), "{downhill:?}");
        }
    }
}
