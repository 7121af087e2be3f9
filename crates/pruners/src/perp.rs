//! PERP: after pruning, retrain a few parameters and merge them back (Zimmer et al., arXiv 2312.15230).
//!
//! | name | trained | weight of a pruned layer | merged |
//! | --- | --- | --- | --- |
//! | `biases`, `norms`, `biases-norms` | those | `W` | nothing to merge |
//! | `lora` | `A [r, d_in]`, `B [d_out, r]`, biases, norms | `W + (alpha/r) BA` | fills the zeros: refused |
//! | `lora-prune` | the same | `W + (alpha/r) BA` | `W + (alpha/r) (BA) * M`: another function |
//! | `mask-lora` | the same | `W + (alpha/r) (BA) * M` | the same expression |
//! | `scale-lora` | the same, `A` and `B` from `1/sqrt(r)` | `W * (BA)` | the same expression |
//! | `full` | everything, `W` under `M` | `W * M` | the same expression |
//!
//! The head is not pruned: if it is [trained too](Perp::with_head), low-rank forms give it plain terms `W + (alpha/r)
//! BA`, merged unchanged, and the others train it whole.
//!
//! `M = W != 0`, products elementwise (sec. 3). A weight that is zero without having been pruned counts as pruned.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId, Reparameterization, Reparameterizer};
use burn::optim::{AdamW, AdamWConfig};
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::model::weight::{Select, Weight, stored};
use regrow_sparse_core::{Error, Mask, MaskSet, Result};
use regrow_train::lr::LrSchedule;
use regrow_train::{Checkpointing, Problem, Progress, Training, train};

/// What is retrained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Biases of layers.
    Biases,
    /// Scales and shifts of norms.
    Norms,
    /// Both.
    BiasesNorms,
    /// Both and low-rank terms: `W + (alpha/r) BA`.
    Lora,
    /// The same, `BA` masked when it is merged.
    LoraPrune,
    /// `W + (alpha/r) (BA) * M`.
    MaskLora,
    /// `W * (BA)`.
    ScaleLora,
    /// Everything except pruned weights.
    Full,
}

/// Every form, in the order of what they train.
pub const FORMS: [(&str, Form); 8] = [
    ("biases", Form::Biases),
    ("norms", Form::Norms),
    ("biases-norms", Form::BiasesNorms),
    ("lora", Form::Lora),
    ("lora-prune", Form::LoraPrune),
    ("mask-lora", Form::MaskLora),
    ("scale-lora", Form::ScaleLora),
    ("full", Form::Full),
];

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS.iter().find(|(_, form)| form == self).map_or("", |(name, _)| name))
    }
}

impl Form {
    /// The form with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        let names = || FORMS.map(|(name, _)| name).join(", ");
        let unknown = || Error::Argument(format!("unknown form of retraining `{name}`: use {}", names()));
        FORMS.iter().find(|(known, _)| *known == name).map(|(_, form)| *form).ok_or_else(unknown)
    }

    fn is_low_rank(self) -> bool {
        matches!(self, Self::Lora | Self::LoraPrune | Self::MaskLora | Self::ScaleLora)
    }
}

/// Retrains a pruned model by a few parameters.
#[derive(Clone, Debug)]
pub struct Perp {
    form: Form,
    rank: usize,
    alpha: f64,
    pruned: Select,
    head: bool,
}

/// How many parameters are trained, and how many the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Trained ones, including low-rank terms, excluding weights under masks.
    pub trained: usize,
    /// Those of the model before.
    pub all: usize,
}

impl Perp {
    /// By `form`, low-rank terms of rank 16 with `alpha` 32 as in the authors' code, on all linear layers
    /// but the head.
    pub fn new(form: Form) -> Self {
        Self { form, rank: 16, alpha: 32.0, pruned: Select::default(), head: false }
    }

    /// What is trained.
    pub fn form(&self) -> Form {
        self.form
    }

    /// With low-rank terms of another rank and `alpha`.
    ///
    /// # Errors
    /// A rank of zero, an `alpha` that is not finite.
    pub fn with_rank(mut self, rank: usize, alpha: f64) -> Result<Self> {
        if rank == 0 || !alpha.is_finite() {
            return Err(Error::Argument(format!("low-rank terms of rank {rank} and alpha {alpha} are impossible")));
        }
        (self.rank, self.alpha) = (rank, alpha);
        Ok(self)
    }

    /// With other layers as the pruned ones.
    pub fn with_pruned(mut self, select: Select) -> Self {
        self.pruned = select;
        self
    }

    /// With the head trained too: the last linear layer, which is not among the pruned ones.
    pub fn with_head(mut self) -> Self {
        self.head = true;
        self
    }

    /// The model prepared for training: everything is frozen except what the form trains.
    ///
    /// # Errors
    /// A model without any parameters of the form, a weight that is not finite.
    pub fn prepare<M: Module>(&self, model: M, seed: u64) -> Result<M> {
        if self.form == Form::Full {
            let masks = self.masks(&model)?;
            return apply_masks(model, &masks, Gradient::Masked, Base::Zeroed);
        }
        let mut small = Small::default();
        model.visit(&mut small);
        let head = self.head_of(&model)?;
        let mut ids = match self.form {
            Form::Biases => small.biases,
            Form::Norms => small.norms,
            _ => [small.biases, small.norms].concat(),
        };
        if !self.form.is_low_rank() {
            ids.extend(head.iter().map(|w| w.id));
        }
        if ids.is_empty() && !self.form.is_low_rank() {
            return Err(Error::Argument(format!("the model has no {} to train", self.form)));
        }
        let model = model.set_require_grad(false).set_require_grad_group(ParamGroup::from_ids(ids), true);
        if !self.form.is_low_rank() {
            return Ok(model);
        }
        let pruned = stored(&model, &self.pruned)?.into_iter().map(|w| (w.path, self.form));
        let all = pruned.chain(head.into_iter().map(|w| (w.path, Form::Lora)));
        let targets = all.zip(0..).map(|((path, form), stream)| (path, Target { form, stream })).collect();
        let Self { rank, alpha, .. } = *self;
        Ok(model.apply_reparameterization(Attach { rank, scale: alpha / rank as f64, targets, seed }))
    }

    /// The head, if it is trained.
    fn head_of<M: Module>(&self, model: &M) -> Result<Option<Weight>> {
        if !self.head {
            return Ok(None);
        }
        let pruned: Vec<ParamId> = stored(model, &self.pruned)?.into_iter().map(|w| w.id).collect();
        let head = stored(model, &self.pruned.clone().with_head())?.into_iter().find(|w| !pruned.contains(&w.id));
        let none = || Error::Argument("the model has no head of its own to train".into());
        head.map(Some).ok_or_else(none)
    }

    /// The trained model as a plain one, zeros unchanged.
    ///
    /// # Errors
    /// For [`Form::Lora`], whose merging would fill the zeros; a weight that is not finite.
    pub fn merge<M: Module>(&self, model: M) -> Result<M> {
        match self.form {
            Form::Lora => Err(Error::Argument("lora cannot be merged without filling the zeros: use mask-lora".into())),
            Form::LoraPrune => {
                let masks = self.masks(&model)?;
                Ok(apply_masks(model.materialize(), &masks, Gradient::Masked, Base::Zeroed)?.materialize())
            }
            _ => Ok(model.materialize()),
        }
    }

    /// `W != 0` of the stored weights.
    fn masks<M: Module>(&self, model: &M) -> Result<MaskSet> {
        let kept = |w: Weight| {
            let mask = Mask::from_fn(w.shape.clone(), |i| w.values[i] != 0.0);
            (w.path, mask)
        };
        Ok(stored(model, &self.pruned)?.into_iter().map(kept).collect())
    }

    /// What a model from [`Perp::prepare`] trains.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn trained<M: Module>(&self, model: &M) -> Result<Trained> {
        let mut count = Count { path: Vec::new(), trained: 0, all: 0 };
        // Which parameters have gradients is visible only on a device with gradients.
        model.clone().train().visit(&mut count);
        let masked = if self.form == Form::Full { self.masks(model)?.pruned() } else { 0 };
        Ok(Trained { trained: count.trained - masked, all: count.all })
    }

    /// Retrains `model` on `problem` with AdamW (no weight decay) and returns it as [prepared](Perp::prepare), not yet
    /// [merged](Perp::merge). `settings` contain learning rate and steps, see [`rate`].
    ///
    /// # Errors
    /// As [`Perp::prepare`] and [`train`].
    pub fn retrain<M: Module>(
        &self,
        model: M,
        problem: &impl Problem<M>,
        settings: &Training,
        save: Option<&Checkpointing>,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<M> {
        train(self.prepare(model, settings.seed)?, optimizer(), KeepMasks, problem, settings, save, watch)
    }
}

/// The paper's schedule: a linear warm-up in the first tenth of the steps, then a linear decay to 0.
pub fn rate(initial: f64) -> LrSchedule {
    LrSchedule::linear(initial).with_warmup(0.1)
}

/// PyTorch's AdamW, without weight decay.
fn optimizer() -> AdamW {
    AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).build()
}

/// `A` and `B` of one weight, stored like the weight: `a [d_in, r]`, `b [r, d_out]`.
#[derive(Module, Debug)]
pub struct LowRank {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    scale: f64,
    #[module(skip)]
    form: Form,
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "perp";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let product = self.a.val().matmul(self.b.val()).reshape(base.shape());
        match self.form {
            Form::ScaleLora => base * product,
            Form::MaskLora => {
                let kept = base.clone().not_equal_elem(0.0).float();
                base + product * kept * self.scale
            }
            _ => base + product * self.scale,
        }
    }
}

/// Attaches low-rank terms to the named weights, each with its own random stream.
struct Attach {
    rank: usize,
    scale: f64,
    targets: BTreeMap<String, Target>,
    seed: u64,
}

/// A weight that low-rank terms are attached to, and the number of its random stream.
struct Target {
    form: Form,
    stream: u64,
}

impl Reparameterizer for Attach {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let shape = param.base().dims();
        let (Some(Target { form, stream }), true) = (self.targets.get(path), D == 2) else { return (param, None) };
        let mut random = ChaCha8Rng::seed_from_u64(regrow_sparse_core::seed::mix(self.seed, *stream));
        let (d_in, d_out, rank) = (shape[0], shape[1], self.rank);
        let device = param.lazy_device();
        let matrix = |rows: usize, cols: usize, value: &mut dyn FnMut() -> f32| {
            let values: Vec<f32> = (0..rows * cols).map(|_| value()).collect();
            Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, cols]), &device))
        };
        let even = 1.0 / (rank as f32).sqrt();
        // Kaiming's uniform with a = sqrt(5), PyTorch's for linear layers.
        let reach = 1.0 / (d_in as f32).sqrt();
        let (a, b) = match form {
            Form::ScaleLora => (matrix(d_in, rank, &mut || even), matrix(rank, d_out, &mut || even)),
            _ => (
                matrix(d_in, rank, &mut || reach * (2.0 * random.random::<f32>() - 1.0)),
                matrix(rank, d_out, &mut || 0.0),
            ),
        };
        (param, Some(LowRank { a, b, scale: self.scale, form: *form }))
    }
}

/// The parameters of biases and norms.
#[derive(Default)]
struct Small {
    place: Vec<(String, String)>,
    biases: Vec<ParamId>,
    norms: Vec<ParamId>,
}

impl ModuleVisitor for Small {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.push((name.to_string(), container.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((name, container)) = self.place.last() else { return };
        if container.ends_with("Norm") {
            self.norms.push(param.id);
        } else if name == "bias" {
            self.biases.push(param.id);
        }
    }
}

/// Counts parameters, those of low-rank terms only among the trained ones.
struct Count {
    path: Vec<String>,
    trained: usize,
    all: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let size = param.base().shape().num_elements();
        let added = self.path.iter().any(|name| name == LowRank::NAME);
        self.all += if added { 0 } else { size };
        self.trained += if param.is_require_grad() { size } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;
    use regrow_testing::assert_close;
    use regrow_train::StepContext;

    use super::*;

    /// Like a block of OPT: layers with biases behind a norm; the last layer is the head.
    #[derive(Module, Debug)]
    struct Net {
        norm: LayerNorm,
        first: Linear,
        second: Linear,
        head: Linear,
    }

    impl Net {
        fn new() -> Self {
            let device = regrow_device::current();
            let layer = |d_in: usize, d_out: usize| {
                let values: Vec<f32> =
                    (0..d_in * d_out).map(|i| if i % 2 == 0 { 0.0 } else { (i as f32 * 0.7).sin() }).collect();
                let weight = Tensor::<2>::from_data(TensorData::new(values, [d_in, d_out]), &device);
                let bias = LinearConfig::new(d_in, d_out).init(&device).bias.map(|b| b.map(|b| b * 0.0 + 0.1));
                Linear { weight: Param::from_tensor(weight), bias }
            };
            let norm = LayerNormConfig::new(6).init(&device);
            Self { norm, first: layer(6, 8), second: layer(8, 5), head: layer(5, 3) }
        }

        fn forward(&self, x: Tensor<2>) -> Tensor<2> {
            self.head.forward(self.second.forward(self.first.forward(self.norm.forward(x))))
        }

        fn zeros(&self) -> Vec<bool> {
            let of = |l: &Linear| l.weight.val().into_data().iter::<f32>().map(|v| v == 0.0).collect::<Vec<_>>();
            [of(&self.first), of(&self.second)].concat()
        }
    }

    /// Learns to output 1 for every input.
    struct One;

    fn inputs(rows: usize, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = (0..rows * 6).map(|i| (i as f32 * 1.3).cos()).collect();
        Tensor::from_data(TensorData::new(values, [rows, 6]), device)
    }

    impl Problem<Net> for One {
        fn len(&self) -> usize {
            4
        }

        fn losses(&self, model: &Net, batch: &[usize], _moment: StepContext, device: &Device) -> Tensor<1> {
            let out = model.forward(inputs(batch.len(), device));
            (out - 1.0).powf_scalar(2.0).mean_dim(1).flatten(0, 1)
        }
    }

    fn outputs(net: &Net) -> Vec<f32> {
        net.forward(inputs(3, &regrow_device::current())).into_data().iter::<f32>().collect()
    }

    fn retrained(perp: &Perp) -> Net {
        let settings = Training { epochs: 20, batch: 4, lr: rate(0.05), seed: 3 };
        perp.retrain(Net::new(), &One, &settings, None, &mut |_| {}).unwrap()
    }

    #[test]
    fn every_form_begins_as_the_identity() {
        let roundoff = regrow_device::roundoff(&regrow_device::current());
        for (_, form) in FORMS {
            let prepared = Perp::new(form).with_rank(2, 4.0).unwrap().prepare(Net::new(), 0).unwrap();
            assert_close(&outputs(&prepared), &outputs(&Net::new()), f64::from((20.0 * roundoff).max(1e-6)));
        }
    }

    #[test]
    fn training_helps_and_merging_keeps_zeros_and_function() {
        let loss = |net: &Net| outputs(net).iter().map(|v| (v - 1.0).powi(2)).sum::<f32>();
        let before = loss(&Net::new());
        for (name, form) in FORMS {
            let perp = Perp::new(form).with_rank(2, 4.0).unwrap();
            let trained = retrained(&perp);
            assert!(loss(&trained) < before, "{name}: {} is not below {before}", loss(&trained));
            if form == Form::Lora {
                assert!(perp.merge(trained).unwrap_err().to_string().contains("mask-lora"));
                continue;
            }
            let merged = perp.merge(trained.clone()).unwrap();
            assert_eq!(merged.zeros(), Net::new().zeros(), "{name}");
            let (trained, merged) = (outputs(&trained), outputs(&merged));
            match form {
                Form::LoraPrune => assert_ne!(trained, merged),
                _ => assert_close(&merged, &trained, 1e-5),
            }
        }
    }

    #[test]
    fn what_is_trained_is_counted_by_hand() {
        let of = |form: Form| {
            let perp = Perp::new(form).with_rank(2, 4.0).unwrap();
            perp.trained(&perp.prepare(Net::new(), 0).unwrap()).unwrap()
        };
        let all = 12 + (48 + 8) + (40 + 5) + (15 + 3);
        let (biases, norms, low) = (8 + 5 + 3, 12, 2 * (6 + 8) + 2 * (8 + 5));
        assert_eq!(of(Form::Biases), Trained { trained: biases, all });
        assert_eq!(of(Form::Norms), Trained { trained: norms, all });
        assert_eq!(of(Form::MaskLora), Trained { trained: biases + norms + low, all });
        assert_eq!(of(Form::Full), Trained { trained: all - 24 - 20, all });
    }

    #[test]
    fn the_head_is_trained_where_it_is_asked_for() {
        let count = |perp: &Perp| perp.trained(&perp.prepare(Net::new(), 0).unwrap()).unwrap().trained;
        let of = |form: Form| Perp::new(form).with_rank(2, 4.0).unwrap();
        let more = |form: Form| count(&of(form).with_head()) - count(&of(form));
        assert_eq!(more(Form::MaskLora), 2 * (5 + 3));
        assert_eq!(more(Form::Biases), 5 * 3);
        let perp = of(Form::MaskLora).with_head();
        let trained = retrained(&perp);
        let merged = perp.merge(trained.clone()).unwrap();
        let head = |net: &Net| net.head.weight.val().into_data().iter::<f32>().collect::<Vec<_>>();
        // Half of its weights are zero; it was not pruned, so they may change.
        assert!(head(&merged).iter().zip(head(&Net::new())).all(|(a, b)| *a != b));
        assert_eq!(merged.zeros(), Net::new().zeros());
        assert_close(&outputs(&merged), &outputs(&trained), 1e-5);
        let headless = of(Form::MaskLora).with_pruned(Select::default().with_head()).with_head();
        assert!(headless.prepare(Net::new(), 0).unwrap_err().to_string().contains("no head of its own"));
    }

    #[test]
    fn only_what_is_named_moves() {
        let trained = retrained(&Perp::new(Form::Norms));
        let (before, values) = (Net::new(), |l: &Linear| l.weight.val().into_data());
        assert_eq!(values(&trained.second), values(&before.second));
        assert_ne!(trained.norm.gamma.val().into_data(), before.norm.gamma.val().into_data());
        assert!(Form::parse("everything").unwrap_err().to_string().contains("mask-lora"));
        assert!(Perp::new(Form::Lora).with_rank(0, 1.0).is_err());
    }
}
