//! Channel-wise lightweight reprogramming (CLR; Ge et al., arXiv 2307.11386): a frozen network, and for each task small
//! kernels after its convolutions.
//!
//! ```text
//! F' [b, c] = F [b, c] * K_c           after each frozen convolution, one k x k kernel for each channel
//! ```
//!
//! Kernels start as the identity (1 in the middle), so a task starts with the anchor's features. A task has its own
//! kernels, batch norms (including their statistics) and head; everything else is the anchor's. Each task starts from
//! the anchor again. Batch norms of other tasks do not change, so that earlier tasks answer bit for bit as before.

use std::collections::BTreeSet;

use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, Initializer, Linear, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use regrow_sparse_core::registry::MethodInfo;
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::{Classifier, ConvHooks, Headed};
use serde::{Deserialize, Serialize};

use crate::isolation::{Frozen, is_head};
use crate::params::{LAYERS, ParameterFlags, ParameterVector, numbers_from_state, numbers_to_state, within};
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "clr",
    summary: "a frozen anchor with small kernels of each task after its convolutions",
    paper: "arXiv 2307.11386",
    needs: "task scenario, a network with convolutions wrapped by `ReprogramConfig`",
    params: &[],
};

/// Which convolutions are followed by kernels, and of what size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelVariant {
    /// All, k x k.
    #[default]
    All,
    /// Not those of 1x1 (the authors' `reduced_v1`).
    SkipPointwise,
    /// After 1x1 convolutions a kernel of 1x1: a factor for each channel (the authors' `reduced_v2`). If a batch norm
    /// follows, it cancels the factor.
    ScalePointwise,
}

/// An anchor with kernels after its convolutions.
#[derive(Module, Debug)]
pub struct Reprogrammed<M: Module> {
    anchor: M,
    kernels: Vec<Option<Conv2d>>,
}

/// Settings of the kernels after an anchor's convolutions.
#[derive(Config, Debug, PartialEq)]
pub struct ReprogramConfig {
    /// Height and width of each kernel, odd.
    #[config(default = 3)]
    pub size: usize,
    /// Which convolutions are followed by kernels.
    #[config(default = "KernelVariant::All")]
    pub variant: KernelVariant,
}

impl ReprogramConfig {
    /// `anchor` with identity kernels.
    ///
    /// # Errors
    /// If the size is even, or the anchor has no convolution.
    pub fn init<M: ConvHooks>(&self, anchor: M) -> Result<Reprogrammed<M>> {
        let size = self.size;
        if size.is_multiple_of(2) {
            return Err(Error::InvalidParameter {
                method: INFO.name.into(),
                parameter: "size".into(),
                value: size.to_string(),
                range: "an odd number".into(),
            });
        }
        let device = anchor.devices().into_iter().next().unwrap_or_default();
        let convolutions = anchor.convolutions();
        if convolutions.is_empty() {
            return Err(Error::Argument("the network has no convolution to reprogram".into()));
        }
        let kernel = |(channels, kernel): (usize, [usize; 2])| match (self.variant, kernel == [1, 1]) {
            (KernelVariant::SkipPointwise, true) => None,
            (KernelVariant::ScalePointwise, true) => Some(identity(channels, 1, &device)),
            _ => Some(identity(channels, size, &device)),
        };
        Ok(Reprogrammed { kernels: convolutions.into_iter().map(kernel).collect(), anchor })
    }
}

impl<M: ConvHooks> Reprogrammed<M> {
    /// `anchor` without kernels: [`Clr`] then only has norms and heads, and other strategies train the whole network.
    pub fn plain(anchor: M) -> Self {
        Self { kernels: Vec::new(), anchor }
    }

    /// The anchor.
    pub fn anchor(&self) -> &M {
        &self.anchor
    }
}

/// A kernel for each channel, 1 in the middle.
fn identity(channels: usize, size: usize, device: &Device) -> Conv2d {
    let pad = size / 2;
    let conv = Conv2dConfig::new([channels, channels], [size, size])
        .with_groups(channels)
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .with_initializer(Initializer::Zeros)
        .init(device);
    let middle = size * size / 2;
    let values = (0..channels * size * size).map(|i| if i % (size * size) == middle { 1.0f32 } else { 0.0 });
    let values = TensorData::new(values.collect::<Vec<_>>(), [channels, 1, size, size]);
    Conv2d { weight: Param::from_tensor(Tensor::from_data(values, device)), ..conv }
}

impl<M: ConvHooks> Classifier for Reprogrammed<M> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head().forward(self.features(images))
    }

    fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
        self.anchor.batch_norms(f);
    }
}

impl<M: ConvHooks> Headed for Reprogrammed<M> {
    fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.anchor.tapped(images, &mut |i, maps| match self.kernels.get(i) {
            Some(Some(kernel)) => kernel.forward(maps),
            _ => maps,
        })
    }

    fn head(&self) -> &Linear {
        self.anchor.head()
    }

    fn head_mut(&mut self) -> &mut Linear {
        self.anchor.head_mut()
    }
}

/// Channel-wise lightweight reprogramming, of a [`Reprogrammed`] anchor.
#[derive(Debug)]
pub struct Clr<M: ConvHooks> {
    /// Each task's own parameters.
    own: Vec<Vec<Vec<f32>>>,
    /// The network before the first task.
    fresh: Option<Reprogrammed<M>>,
    frozen: Option<Frozen>,
}

impl<M: ConvHooks> Default for Clr<M> {
    fn default() -> Self {
        Self { own: Vec::new(), fresh: None, frozen: None }
    }
}

impl<M: ConvHooks> Clr<M> {
    /// Number of values of one task: kernels, batch norms, head.
    pub fn per_task(&self) -> usize {
        self.own.first().map_or(0, |own| own.iter().map(Vec::len).sum())
    }
}

/// The parameters of the anchor's linear and convolution layers, except the head.
fn anchored<M: ConvHooks>(model: &Reprogrammed<M>) -> BTreeSet<ParamId> {
    let (mut fixed, is_head) = (within(&model.anchor, &|kind| LAYERS.contains(&kind)), is_head(model));
    fixed.retain(|id| !is_head(*id));
    fixed
}

/// Flags of the parameters that belong to a task.
fn of_task<M: ConvHooks>(model: &Reprogrammed<M>) -> ParameterFlags {
    let fixed = anchored(model);
    ParameterFlags::of_parameters(model, &|id| !fixed.contains(&id))
}

impl<M: ConvHooks> Strategy<Reprogrammed<M>> for Clr<M> {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin_task(&mut self, model: Reprogrammed<M>, _at: &TaskContext<'_>) -> Result<Reprogrammed<M>> {
        let model = self.fresh.get_or_insert(model).clone();
        self.frozen = Some(Frozen { free: of_task(&model), values: ParameterVector::of(&model) });
        Ok(model)
    }

    fn after_step(
        &mut self,
        model: Reprogrammed<M>,
        _batch: &[Example],
        _at: &TaskContext<'_>,
    ) -> Result<Reprogrammed<M>> {
        Ok(match &self.frozen {
            Some(frozen) => frozen.hold(model),
            None => model,
        })
    }

    fn end_task(&mut self, model: Reprogrammed<M>, _at: &TaskContext<'_>) -> Result<Reprogrammed<M>> {
        self.own.push(ParameterVector::of(&model).outside(&of_task(&model)));
        Ok(model)
    }

    fn eval_model(&self, model: &Reprogrammed<M>, task: usize) -> Result<Reprogrammed<M>> {
        let Some(own) = self.own.get(task) else { return Ok(model.clone()) };
        Ok(ParameterVector::of(model).with_outside(&of_task(model), own).put(model.clone()))
    }

    fn added(&self) -> usize {
        self.own.iter().flatten().map(Vec::len).sum()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        let Some(fresh) = &self.fresh else { return state };
        state.set_integer("tasks", self.own.len() as u64);
        state.set_nested("start", ParameterVector::of(fresh).to_state());
        let own = self.own.iter().enumerate();
        own.for_each(|(task, own)| state.set_nested(&format!("own.{task}"), numbers_to_state(own)));
        state
    }

    fn restore(&mut self, mut state: State, model: &Reprogrammed<M>, _at: &TaskContext<'_>) -> Result<()> {
        if state.is_empty() {
            return Ok(());
        }
        let tasks = state.integer("tasks")?;
        self.fresh = Some(ParameterVector::from_state(state.take_nested("start"), model)?.put(model.clone()));
        let own = (0..tasks).map(|task| numbers_from_state(state.take_nested(&format!("own.{task}"))));
        self.own = own.collect::<Result<_>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNormConfig, LinearConfig};
    use burn::optim::SgdConfig;
    use burn::tensor::activation::relu;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Toy, uniform};

    /// Two convolutions, the second of 1x1, each with its batch norm; one name is a prefix of a layer's.
    #[derive(Module, Debug)]
    struct ConvTiny {
        first: Conv2d,
        first_norm: BatchNorm,
        second: Conv2d,
        second_norm: BatchNorm,
        hidden: Linear,
        head: Linear,
    }

    fn tiny(classes: usize) -> ConvTiny {
        let device = regrow_device::current();
        let numbers = |seed: u64, len: usize| -> Vec<f32> { (0..len).map(|i| uniform(seed, i as u64)).collect() };
        let conv = |seed: u64, [input, output, size]: [usize; 3]| {
            let pad = size / 2;
            let conv = Conv2dConfig::new([input, output], [size, size])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .init(&device);
            let values = TensorData::new(numbers(seed, input * output * size * size), [output, input, size, size]);
            Conv2d { weight: Param::from_tensor(Tensor::from_data(values, &device)), ..conv }
        };
        let linear = |seed: u64, input: usize, output: usize| {
            let layer = LinearConfig::new(input, output).init(&device);
            let values = TensorData::new(numbers(seed, input * output), [input, output]);
            Linear { weight: Param::from_tensor(Tensor::from_data(values, &device)), ..layer }
        };
        ConvTiny {
            first: conv(1, [1, 4, 3]),
            first_norm: BatchNormConfig::new(4).init(&device),
            second: conv(2, [4, 6, 1]),
            second_norm: BatchNormConfig::new(6).init(&device),
            hidden: linear(3, 54, 8),
            head: linear(4, 8, classes),
        }
    }

    impl Classifier for ConvTiny {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            self.head.forward(self.features(images))
        }
        fn batch_norms(&mut self, f: &mut dyn FnMut(&mut BatchNorm)) {
            f(&mut self.first_norm);
            f(&mut self.second_norm);
        }
    }

    impl Headed for ConvTiny {
        fn features(&self, images: Tensor<4>) -> Tensor<2> {
            self.tapped(images, &mut |_, maps| maps)
        }
        fn head(&self) -> &Linear {
            &self.head
        }
        fn head_mut(&mut self) -> &mut Linear {
            &mut self.head
        }
    }

    impl ConvHooks for ConvTiny {
        fn convolutions(&self) -> Vec<(usize, [usize; 2])> {
            vec![(4, [3, 3]), (6, [1, 1])]
        }
        fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2> {
            let x = relu(self.first_norm.forward(after(0, self.first.forward(images))));
            let x = relu(self.second_norm.forward(after(1, self.second.forward(x))));
            relu(self.hidden.forward(x.flatten::<2>(1, 3)))
        }
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    #[test]
    fn at_first_it_is_the_anchor() {
        let (anchor, data) = (tiny(4).valid(), Toy::new(8, 4));
        let images = data.split(Scenario::Task, 2);
        let images = images.images(&images.train(0), &regrow_device::current());
        for (variant, kernels) in [
            (KernelVariant::All, 4 * 9 + 6 * 9),
            (KernelVariant::SkipPointwise, 4 * 9),
            (KernelVariant::ScalePointwise, 4 * 9 + 6),
        ] {
            let program = ReprogramConfig::new().with_variant(variant).init(anchor.clone()).unwrap();
            assert_eq!(values(program.logits(images.clone())), values(anchor.logits(images.clone())));
            assert_eq!(program.num_params() - anchor.num_params(), kernels);
        }
        let plain = Reprogrammed::plain(anchor.clone());
        assert_eq!(values(plain.logits(images.clone())), values(anchor.logits(images)));
        assert_eq!(plain.num_params(), anchor.num_params());
        assert!(ReprogramConfig::new().with_size(2).init(anchor).unwrap_err().to_string().contains("odd"));
    }

    #[test]
    fn a_kernel_by_hand() {
        let device = regrow_device::current();
        let kernel = identity(1, 3, &device);
        let numbers = TensorData::new(vec![0.0f32, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0], [1, 1, 3, 3]);
        let kernel = Conv2d { weight: Param::from_tensor(Tensor::from_data(numbers, &device)), ..kernel };
        let map = Tensor::<4>::from_data(TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0], [1, 1, 2, 2]), &device);
        assert_eq!(values(kernel.forward(map)), [4.0, 4.0, 10.0, 8.0]);
    }

    /// CLR that shows every task's logits after each.
    struct Watched(Clr<ConvTiny>, Vec<Vec<Vec<f32>>>);

    impl Strategy<Reprogrammed<ConvTiny>> for Watched {
        fn begin_task(
            &mut self,
            model: Reprogrammed<ConvTiny>,
            at: &TaskContext<'_>,
        ) -> Result<Reprogrammed<ConvTiny>> {
            self.0.begin_task(model, at)
        }
        fn after_step(
            &mut self,
            model: Reprogrammed<ConvTiny>,
            batch: &[Example],
            at: &TaskContext<'_>,
        ) -> Result<Reprogrammed<ConvTiny>> {
            self.0.after_step(model, batch, at)
        }
        fn end_task(&mut self, model: Reprogrammed<ConvTiny>, at: &TaskContext<'_>) -> Result<Reprogrammed<ConvTiny>> {
            let model = self.0.end_task(model, at)?;
            let logits = |task: usize| {
                let images = at.stream.images(&at.stream.train(task), &regrow_device::current());
                values(self.0.eval_model(&model.valid(), task).expect("a model").logits(images))
            };
            self.1.push((0..=at.task).map(logits).collect());
            Ok(model)
        }
        fn eval_model(&self, model: &Reprogrammed<ConvTiny>, task: usize) -> Result<Reprogrammed<ConvTiny>> {
            self.0.eval_model(model, task)
        }
    }

    #[test]
    fn earlier_tasks_say_the_same_to_the_bit_and_the_anchor_stays() {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 4, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        let program = ReprogramConfig::new().init(tiny(6)).unwrap();
        let anchor = program.anchor().clone();
        let mut watched = Watched(Clr::default(), Vec::new());
        let sgd = SgdConfig::new().build();
        let learned = learn(program, &sgd, &mut watched, &stream, &protocol, None, &mut |_| {}).unwrap();
        let Watched(clr, said) = watched;
        assert_eq!(said[1][0], said[0][0]);
        assert_eq!((&said[2][0], &said[2][1]), (&said[0][0], &said[1][1]));
        let trained = learned.model.anchor();
        assert_eq!(values(trained.first.weight.val()), values(anchor.first.weight.val()));
        assert_eq!(values(trained.hidden.weight.val()), values(anchor.hidden.weight.val()));
        // Kernels, gamma, beta, mean and variance of both norms, the head.
        assert_eq!(clr.per_task(), 90 + 4 * 10 + 8 * 6 + 6);
        assert!(learned.matrix.average().unwrap() > 0.7, "{:?}", learned.matrix);
    }
}
