//! The one view of a weight that every method uses: a matrix `[d_out, d_in]` in PyTorch's order.
//!
//! Burn's `Linear` stores `[d_in, d_out]`, PyTorch the transpose; a convolution is
//! `[out, in, kh, kw]` in both. The layouts meet here and nowhere else.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::{Bool, Tensor, TensorData};

use crate::masked::MASK_PATH;
use crate::{Error, Mask, Result, pattern::matrix_dims};

/// Which parameters may be pruned.
///
/// By default the weights of linear and convolution layers, save the last of them (the head):
/// never biases, norms or embeddings. A model with one such weight has no head to spare.
#[derive(Clone, Debug, Default)]
pub struct Select {
    head: bool,
    only: Option<ParamGroup>,
    except: Option<ParamGroup>,
}

impl Select {
    /// Includes the head: the last linear or convolution weight in the order of declaration.
    pub fn with_head(mut self) -> Self {
        self.head = true;
        self
    }

    /// Only parameters of `group`. A matrix or kernel of a layer of one's own belongs to a
    /// selection only if it is named here; its first dimension counts as the output.
    pub fn only(mut self, group: ParamGroup) -> Self {
        self.only = Some(group);
        self
    }

    /// No parameters of `group`.
    pub fn except(mut self, group: ParamGroup) -> Self {
        self.except = Some(group);
        self
    }

    fn admits(&self, slot: &Slot) -> bool {
        let named = |group: &ParamGroup| group.matches(&slot.id, Some(&slot.path));
        let wanted = self.only.as_ref().map_or(slot.kind.is_layer(), named);
        wanted && !self.except.as_ref().is_some_and(named)
    }
}

/// A prunable weight of a model, read out.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Path in the module, as `layers.0.weight`.
    pub path: String,
    /// Burn's identity of the parameter.
    pub id: ParamId,
    /// PyTorch's shape: `[d_out, d_in]` or `[out, in, kh, kw]`.
    pub shape: Vec<usize>,
    /// The effective values (zero where masked), row-major in `shape`.
    pub values: Vec<f32>,
    /// The mask that the model already carries there.
    pub mask: Option<Mask>,
}

impl Weight {
    /// `(d_out, everything else)`.
    pub fn dims(&self) -> (usize, usize) {
        matrix_dims(&self.shape)
    }
}

/// How a layer stores its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Burn's `Linear`: `[d_in, d_out]`.
    Linear,
    /// A convolution: `[out, in, ...]`.
    Convolution,
    /// Anything else; taken as it stands, output first.
    Other,
}

impl Kind {
    fn of(container: &str, name: &str, rank: usize) -> Option<Self> {
        match container {
            "Struct:Linear" if name == "weight" => Some(Self::Linear),
            "Struct:Conv1d" | "Struct:Conv2d" | "Struct:Conv3d" if name == "weight" => Some(Self::Convolution),
            _ => (rank >= 2).then_some(Self::Other),
        }
    }

    fn is_layer(self) -> bool {
        self != Self::Other
    }

    /// PyTorch's shape of a tensor stored as `shape`.
    pub(crate) fn outer_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Linear, [d_in, d_out]) => vec![*d_out, *d_in],
            _ => shape.to_vec(),
        }
    }

    /// For each stored position its index in PyTorch's order.
    pub(crate) fn outer_index(self, stored: &[usize]) -> impl Fn(usize) -> usize + use<> {
        let (rows, cols) = matrix_dims(stored);
        let transposed = self == Self::Linear;
        move |i| if transposed { i % cols * rows + i / cols } else { i }
    }
}

/// A place in the module that holds a weight: everything but its values.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) path: String,
    pub(crate) id: ParamId,
    pub(crate) kind: Kind,
    /// As stored in Burn.
    pub(crate) stored: Vec<usize>,
}

impl Slot {
    /// One flag per stored position: true where `mask` prunes.
    pub(crate) fn pruned_flags(&self, mask: &Mask) -> Vec<bool> {
        let index = self.kind.outer_index(&self.stored);
        (0..mask.len()).map(|i| !mask.keeps(index(i))).collect()
    }
}

/// The prunable weights of `model`, effective values read to the host.
///
/// # Errors
/// If nothing is prunable, or a weight holds NaN or infinity.
pub fn weights<M: Module>(model: &M, select: &Select) -> Result<Vec<Weight>> {
    let mut reader = Reader { select: select.clone(), ..Reader::default() };
    model.visit(&mut reader);
    let mut found = reader.found;
    drop_head(&mut found, select);
    if found.is_empty() {
        return Err(Error::Argument("the model has no weight that may be pruned".into()));
    }
    found.into_iter().map(read).collect()
}

/// The prunable places of `model`, without reading any value.
pub(crate) fn slots<M: Module>(model: &M, select: &Select) -> Vec<Slot> {
    let mut reader = Reader { select: select.clone(), shapes_only: true, ..Reader::default() };
    model.visit(&mut reader);
    drop_head(&mut reader.found, select);
    reader.found.into_iter().map(|f| f.slot).collect()
}

fn drop_head(found: &mut Vec<Found>, select: &Select) {
    let layers = found.iter().filter(|f| f.slot.kind.is_layer()).count();
    if !select.head && select.only.is_none() && layers > 1 {
        found.pop();
    }
}

/// From stored order to PyTorch's, checking every value.
fn read(found: Found) -> Result<Weight> {
    let Found { slot, data, pruned: flags } = found;
    let index = slot.kind.outer_index(&slot.stored);
    let shape = slot.kind.outer_shape(&slot.stored);
    let flags = flags.map(|flags| flags.convert::<bool>().try_to_vec::<bool>()).transpose();
    let flags = flags.map_err(|e| Error::tensor(&slot.path, format!("{e:?}")))?;
    let stored = data.map(|d| d.convert::<f32>().try_to_vec::<f32>()).transpose();
    let stored = stored.map_err(|e| Error::tensor(&slot.path, format!("{e:?}")))?.unwrap_or_default();
    let mut values = vec![0.0; stored.len()];
    let mut keep = vec![true; stored.len()];
    for (i, value) in stored.into_iter().enumerate() {
        let gone = flags.as_ref().is_some_and(|f| f[i]);
        if !value.is_finite() {
            return Err(Error::tensor(&slot.path, format!("holds {value}, which cannot be ranked")));
        }
        keep[index(i)] = !gone;
        values[index(i)] = if gone { 0.0 } else { value };
    }
    let mask = flags.is_some().then(|| Mask::from_fn(shape.clone(), |i| keep[i]));
    Ok(Weight { path: slot.path, id: slot.id, shape, values, mask })
}

/// A slot met on the way, with its stored data and the flags of its mask.
struct Found {
    slot: Slot,
    data: Option<TensorData>,
    pruned: Option<TensorData>,
}

/// Walks the module. The base of a masked parameter comes first, then its mask, one level deeper.
#[derive(Default)]
struct Reader {
    path: Vec<String>,
    container: Vec<String>,
    select: Select,
    shapes_only: bool,
    found: Vec<Found>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.container.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.container.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (Some(name), Some(container)) = (self.path.last(), self.container.last()) else { return };
        let Some(kind) = Kind::of(container, name, D) else { return };
        let stored = param.lazy_shape().as_slice().to_vec();
        let slot = Slot { path: self.path.join("."), id: param.id, kind, stored };
        if self.select.admits(&slot) {
            let data = (!self.shapes_only).then(|| param.val().into_data());
            self.found.push(Found { slot, data, pruned: None });
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let path = self.path.join(".");
        let last = self.found.last_mut().filter(|f| path == format!("{}.{MASK_PATH}", f.slot.path));
        if let Some(found) = last.filter(|_| !self.shapes_only) {
            found.pruned = Some(param.val().into_data());
        }
    }
}

/// Zeroes the stored values of `model` wherever `pruned` gives true for the parameter's path.
pub(crate) struct ZeroUnder<'a> {
    pub(crate) path: Vec<String>,
    pub(crate) pruned: &'a dyn Fn(&str) -> Option<Vec<bool>>,
}

impl ModuleMapper for ZeroUnder<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(flags) = (self.pruned)(&self.path.join(".")) else { return param };
        let (id, tensor, mapper) = param.consume();
        let require_grad = tensor.is_require_grad();
        let flags = TensorData::new(flags, tensor.shape());
        let flags = Tensor::<D, Bool>::from_data(flags, &tensor.device());
        // Detached, so that the zeroed value is a leaf and not the result of a step.
        let mut tensor = tensor.detach().mask_fill(flags, 0.0).detach();
        if require_grad {
            tensor = tensor.require_grad();
        }
        Param::from_mapped_value(id, tensor, mapper)
    }
}
