//! The view of a weight that every method uses: a matrix `[d_out, d_in]` in PyTorch's order.
//!
//! Burn's `Linear` stores `[d_in, d_out]`, PyTorch the transpose; a convolution is `[out, in, kh, kw]` in both. Layouts
//! are converted only here.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::mask::matrix_dims;
use crate::mask::top_k::on_device;
use crate::{Error, Mask, MaskSet, Result};
use regrow_device::has_own_memory;

/// Which parameters may be pruned.
///
/// By default the weights of linear and convolution layers, except the last of them (the head): never biases, norms or
/// embeddings. A model with only one such weight has no head.
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

    /// Only parameters of `group`. A matrix or kernel of a custom layer is selected only if it is named here; its first
    /// dimension counts as the output.
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

/// Where the mask of a parameter stands in the module: `<parameter>.mask.pruned`.
pub(crate) const MASK_PATH: &str = "mask.pruned";

/// Rows and columns of the tiles by which a matrix is transposed.
const TILE: usize = 16;

/// The `values` of a row-major matrix `[rows, cols]` as those of its transpose `[cols, rows]`.
///
/// # Panics
/// If there are not `rows * cols` of them.
pub fn transposed<T: Copy + Default + Send + Sync>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    assert_eq!(values.len(), rows * cols, "values of a matrix of {rows} rows and {cols} columns");
    let mut out = vec![T::default(); values.len()];
    let bands = out.par_chunks_mut((TILE * rows).max(1)).enumerate();
    bands.for_each(|(band, out)| {
        let (left, width) = (band * TILE, out.len() / rows);
        for top in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - top);
            // Through a local tile, so that whole cache lines are read and written.
            let mut tile = [[T::default(); TILE]; TILE];
            for (r, row) in tile[..height].iter_mut().enumerate() {
                row[..width].copy_from_slice(&values[(top + r) * cols + left..][..width]);
            }
            for c in 0..width {
                let column = &mut out[c * rows + top..][..height];
                column.iter_mut().zip(&tile).for_each(|(value, row)| *value = row[c]);
            }
        }
    });
    out
}

/// The first of `values` that is NaN or infinite.
pub(crate) fn not_finite(values: &[f32]) -> Option<f32> {
    // Whole pieces without an early exit: the compiler vectorizes that.
    let holds = |piece: &[f32]| piece.iter().fold(false, |found, v| found | !v.is_finite());
    match values.par_chunks(1 << 16).any(holds) {
        true => values.iter().copied().find(|v| !v.is_finite()),
        false => None,
    }
}

/// A prunable weight read from a model.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Path in the module, such as `layers.0.weight`.
    pub path: String,
    /// Burn's identity of the parameter.
    pub id: ParamId,
    /// PyTorch's shape: `[d_out, d_in]` or `[out, in, kh, kw]`.
    pub shape: Vec<usize>,
    /// The effective values (zero where masked), row-major in `shape`.
    pub values: Vec<f32>,
    /// The mask that the model already has there.
    pub mask: Option<Mask>,
}

impl Weight {
    /// `(d_out, everything else)`.
    pub fn dims(&self) -> (usize, usize) {
        matrix_dims(&self.shape)
    }

    /// The same without its mask: all weights can be chosen again.
    pub fn unmasked(self) -> Self {
        Self { mask: None, ..self }
    }

    /// The same under another mask: zero where it prunes.
    ///
    /// # Errors
    /// If the mask has another shape.
    pub fn under(mut self, mask: &Mask) -> Result<Self> {
        if mask.shape() != self.shape {
            let shapes = format!("its mask has shape {:?}, the weight {:?}", mask.shape(), self.shape);
            return Err(Error::tensor(&self.path, shapes));
        }
        mask.fill_pruned(&mut self.values, 0.0);
        self.mask = Some(mask.clone());
        Ok(self)
    }

    /// Its mask; keeps everything if it has none.
    pub fn mask_or_dense(&self) -> Mask {
        self.mask.clone().unwrap_or_else(|| Mask::dense(self.shape.clone()))
    }
}

/// How a layer stores its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Burn's `Linear`: `[d_in, d_out]`.
    Linear,
    /// A convolution: `[out, in, ...]`.
    Convolution,
    /// Anything else; used as stored, output first.
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

    /// A tensor as stored, converted to PyTorch's order on its device.
    fn outer<const D: usize>(self, stored: Tensor<D>) -> Tensor<D> {
        if self == Self::Linear && D == 2 { stored.swap_dims(0, 1) } else { stored }
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
    /// Where.
    pub(crate) device: Device,
}

impl Slot {
    /// The number of its weights.
    pub(crate) fn len(&self) -> usize {
        self.stored.iter().product()
    }

    /// One flag per stored position: true where `mask`, which has this slot's shape, prunes.
    pub(crate) fn pruned_flags(&self, mask: &Mask) -> Vec<bool> {
        let pruned = mask.inverted();
        if self.kind == Kind::Linear { pruned.to_bools_transposed() } else { pruned.to_bools() }
    }

    /// The same on the weight's device. A large mask is copied to separate device memory as bits.
    pub(crate) fn pruned(&self, mask: &Mask) -> Tensor<1, Bool> {
        if self.goes_as_bits(&self.device) {
            let flags = on_device::flags(mask.words(), self.matrix(), self.outputs(), &self.device);
            return flags.bool_not().reshape([mask.len()]);
        }
        Tensor::from_data(TensorData::new(self.pruned_flags(mask), [mask.len()]), &self.device)
    }

    /// Whether a mask is copied to and from `device` as one bit per weight: if it is copied at all, and is worth the
    /// few operations that expand bits to flags.
    fn goes_as_bits(&self, device: &Device) -> bool {
        const FEW: usize = 1 << 16;
        self.len() >= FEW && has_own_memory(device)
    }

    /// The shape of the stored values as a matrix.
    pub(crate) fn matrix(&self) -> [usize; 2] {
        matrix_dims(&self.stored).into()
    }

    /// The output dimension of that matrix.
    pub(crate) fn outputs(&self) -> usize {
        usize::from(self.kind == Kind::Linear)
    }

    /// The mask from flags in stored order, true = pruned. A large mask is copied from separate device memory as bits.
    ///
    /// # Errors
    /// If there is not one for each position, or they cannot be read.
    fn mask_on_device(&self, pruned: Tensor<1, Bool>) -> Result<Mask> {
        if self.goes_as_bits(&pruned.device()) && pruned.shape().num_elements() == self.len() {
            let words = on_device::words(pruned.reshape(self.matrix()), self.outputs());
            return Ok(Mask::from_words(self.kind.outer_shape(&self.stored), words)?.inverted());
        }
        let flags = pruned.into_data().try_into_vec_as::<bool>();
        self.mask_of(&flags.map_err(|e| Error::tensor(&self.path, format!("{e:?}")))?)
    }

    /// The same from flags on the CPU.
    ///
    /// # Errors
    /// If there is not one for each position.
    pub(crate) fn mask_of(&self, pruned: &[bool]) -> Result<Mask> {
        let (flags, len) = (pruned.len(), self.len());
        if flags != len {
            return Err(Error::tensor(&self.path, format!("its mask has {flags} flags for {len} weights")));
        }
        let shape = self.kind.outer_shape(&self.stored);
        Ok(Mask::from_bools(shape, &self.to_outer(pruned.to_vec()))?.inverted())
    }

    /// Values in stored order, converted to PyTorch's.
    fn to_outer<T: Copy + Default + Send + Sync>(&self, stored: Vec<T>) -> Vec<T> {
        let (rows, cols) = matrix_dims(&self.stored);
        if self.kind == Kind::Linear { transposed(&stored, rows, cols) } else { stored }
    }

    /// Values in PyTorch's order, converted to stored order.
    pub(crate) fn to_stored<T: Copy + Default + Send + Sync>(&self, outer: Vec<T>) -> Vec<T> {
        let (rows, cols) = matrix_dims(&self.stored);
        if self.kind == Kind::Linear { transposed(&outer, cols, rows) } else { outer }
    }
}

/// The prunable weights of `model`, effective values read to the CPU.
///
/// # Errors
/// If nothing is prunable, or a weight holds NaN or infinity.
pub fn weights<M: Module>(model: &M, select: &Select) -> Result<Vec<Weight>> {
    let mut weights = stored(model, select)?;
    for weight in &mut weights {
        let Some(mask) = &weight.mask else { continue };
        mask.fill_pruned(&mut weight.values, 0.0);
    }
    Ok(weights)
}

/// The same with the stored values, those under masks included.
///
/// # Errors
/// As [`weights`].
pub fn stored<M: Module>(model: &M, select: &Select) -> Result<Vec<Weight>> {
    let mut found = Reader::visit(model, select, Reads::Everything);
    drop_head(&mut found, select);
    if found.is_empty() {
        return Err(Error::Argument("the model has no weight that may be pruned".into()));
    }
    found.into_iter().map(read).collect()
}

/// The gradients of the prunable weights of `model`, in their order and layout.
///
/// # Errors
/// If a weight has no gradient, or one that is NaN or infinite.
pub fn gradients<M: Module>(model: &M, select: &Select, grads: &GradientsParams) -> Result<Vec<Vec<f32>>> {
    let mut reader = GradientReader { slots: slots(model, select), grads, found: BTreeMap::new() };
    model.visit(&mut reader);
    let mut found = reader.found;
    let slots = reader.slots.into_iter();
    slots.map(|slot| in_order(&slot, found.remove(&slot.path).flatten())).collect()
}

fn in_order(slot: &Slot, data: Option<TensorData>) -> Result<Vec<f32>> {
    let data = data.ok_or_else(|| Error::tensor(&slot.path, "has no gradient"))?;
    let values = data.try_into_vec_as::<f32>().map_err(|e| Error::tensor(&slot.path, format!("{e:?}")))?;
    match not_finite(&values) {
        Some(bad) => Err(Error::tensor(&slot.path, format!("its gradient holds {bad}"))),
        None => Ok(values),
    }
}

/// Fetches the gradients of `slots`.
struct GradientReader<'a> {
    slots: Vec<Slot>,
    grads: &'a GradientsParams,
    found: BTreeMap<String, Option<TensorData>>,
}

impl ModuleVisitor for GradientReader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(slot) = self.slots.iter().find(|slot| slot.id == param.id) {
            let gradient = self.grads.get::<D>(param.id).map(|gradient| slot.kind.outer(gradient).into_data());
            self.found.insert(slot.path.clone(), gradient);
        }
    }
}

/// For each of `masks`, the parameter of `model` it belongs to and one flag for each of its numbers, in
/// the order in which Burn stores them: true where the mask prunes.
///
/// # Errors
/// If a mask names no such parameter, or has another shape.
pub fn pruned_flags<M: Module>(model: &M, masks: &MaskSet) -> Result<Vec<(ParamId, Vec<bool>)>> {
    let slots = matching_slots(model, masks)?.into_iter();
    Ok(slots.filter_map(|slot| Some((slot.id, slot.pruned_flags(masks.get(&slot.path)?)))).collect())
}

/// The prunable slots of `model`, without reading any value.
pub(crate) fn slots<M: Module>(model: &M, select: &Select) -> Vec<Slot> {
    let mut found = Reader::visit(model, select, Reads::Shapes);
    drop_head(&mut found, select);
    found.into_iter().map(|f| f.slot).collect()
}

/// Every matrix or kernel of a model, of whatever layer.
pub(crate) fn everything() -> Select {
    Select::default().with_head().only(burn::module::ParamGroup::all())
}

/// The slots that `masks` names, each checked.
pub(crate) fn matching_slots<M: Module>(model: &M, masks: &MaskSet) -> Result<Vec<Slot>> {
    let mut all = slots(model, &everything());
    for (path, mask) in masks.iter() {
        let slot = all.iter().find(|s| s.path == path);
        let slot =
            slot.ok_or_else(|| Error::tensor(path, "there is a mask for it, but the model has no such weight"))?;
        let shape = slot.kind.outer_shape(&slot.stored);
        if mask.shape() != shape {
            return Err(Error::tensor(path, format!("its mask has shape {:?}, the weight {shape:?}", mask.shape())));
        }
    }
    all.retain(|s| masks.get(&s.path).is_some());
    Ok(all)
}

/// The masks that the selected weights of `model` carry, by path. No weight is read.
///
/// # Errors
/// If the flags of a mask cannot be read.
pub(crate) fn carried_masks<M: Module>(model: &M, select: &Select) -> Result<Vec<(String, Mask)>> {
    let found = Reader::visit(model, select, Reads::Masks);
    let masked = found.into_iter().filter_map(|Found { slot, pruned, .. }| Some((slot, pruned?)));
    masked.map(|(slot, flags)| Ok((slot.path.clone(), slot.mask_on_device(flags)?))).collect()
}

fn drop_head(found: &mut Vec<Found>, select: &Select) {
    let layers = found.iter().filter(|f| f.slot.kind.is_layer()).count();
    if !select.head && select.only.is_none() && layers > 1 {
        found.pop();
    }
}

/// Checks every value of a slot and builds its weight.
fn read(found: Found) -> Result<Weight> {
    let Found { slot, data, pruned } = found;
    let shape = slot.kind.outer_shape(&slot.stored);
    let unreadable = |e: &dyn std::fmt::Debug| Error::tensor(&slot.path, format!("{e:?}"));
    let mask = pruned.map(|flags| slot.mask_on_device(flags)).transpose()?;
    let values = data.map(|data| data.try_into_vec_as::<f32>()).transpose();
    let values = values.map_err(|e| unreadable(&e))?.unwrap_or_default();
    if let Some(bad) = not_finite(&values) {
        return Err(Error::tensor(&slot.path, format!("holds {bad}, which cannot be ranked")));
    }
    Ok(Weight { path: slot.path, id: slot.id, shape, values, mask })
}

/// A slot found on the way, with its values in PyTorch's order and the flags of its mask in stored order.
struct Found {
    slot: Slot,
    data: Option<TensorData>,
    pruned: Option<Tensor<1, Bool>>,
}

/// Visits the module. The base of a masked parameter comes first, then its mask, one level deeper.
#[derive(Default)]
struct Reader {
    path: Vec<String>,
    container: Vec<String>,
    select: Select,
    reads: Reads,
    /// The outputs of linear layers with a bias, by the layer's path.
    outputs: BTreeMap<String, usize>,
    found: Vec<Found>,
}

/// What is read of a model besides shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reads {
    /// Values and masks.
    #[default]
    Everything,
    /// Masks alone.
    Masks,
    /// Nothing.
    Shapes,
}

impl Reader {
    fn visit<M: Module>(model: &M, select: &Select, reads: Reads) -> Vec<Found> {
        let mut outputs = Outputs::default();
        model.visit(&mut outputs);
        let mut reader = Self { select: select.clone(), reads, outputs: outputs.found, ..Self::default() };
        model.visit(&mut reader);
        reader.found
    }

    /// The shape of a parameter's value, as the module computes with it.
    ///
    /// Before a linear layer with `LinearLayout::Col` is initialized, Burn names the shape of what it will store,
    /// `[d_out, d_in]`, not of the value, `[d_in, d_out]`. Its bias tells the two apart; without one the weight is
    /// initialized to know.
    fn shape<const D: usize>(&self, kind: Kind, param: &Param<Tensor<D>>) -> Vec<usize> {
        let lazy = param.lazy_shape().as_slice().to_vec();
        let [rows, cols] = lazy[..] else { return lazy };
        if kind != Kind::Linear || param.is_initialized() || rows == cols {
            return lazy;
        }
        let layer = self.path[..self.path.len() - 1].join(".");
        match self.outputs.get(&layer) {
            Some(outputs) if *outputs == cols => lazy,
            Some(_) => vec![cols, rows],
            None => param.val().shape().as_slice().to_vec(),
        }
    }
}

/// Collects the number of outputs of linear layers that have a bias.
#[derive(Default)]
struct Outputs {
    path: Vec<String>,
    found: BTreeMap<String, usize>,
}

impl ModuleVisitor for Outputs {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let ([layer @ .., name], 1) = (&self.path[..], D)
            && name == "bias"
        {
            self.found.insert(layer.join("."), param.lazy_shape().num_elements());
        }
    }
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
        let stored = self.shape(kind, param);
        let slot = Slot { path: self.path.join("."), id: param.id, kind, stored, device: param.lazy_device() };
        if self.select.admits(&slot) {
            let data = (self.reads == Reads::Everything).then(|| kind.outer(param.val()).into_data());
            self.found.push(Found { slot, data, pruned: None });
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let path = self.path.join(".");
        let last = self.found.last_mut().filter(|f| path == format!("{}.{MASK_PATH}", f.slot.path));
        if let Some(found) = last.filter(|_| self.reads != Reads::Shapes) {
            let flags = param.val();
            let len = flags.shape().num_elements();
            found.pruned = Some(flags.reshape([len]));
        }
    }
}

/// Multiplies the stored values of `model` by `factor` where `pruned` is true for the parameter's path; a factor of 0
/// sets them to zero.
pub(crate) struct ScaleUnder<'a> {
    pub(crate) path: Vec<String>,
    pub(crate) pruned: &'a dyn Fn(&str) -> Option<Tensor<1, Bool>>,
    pub(crate) factor: f32,
}

impl ModuleMapper for ScaleUnder<'_> {
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
        let flags = flags.reshape(tensor.shape());
        // Detached, so that the new value is a leaf and not the result of a step.
        let tensor = tensor.detach();
        let mut tensor = match self.factor == 0.0 {
            true => tensor.mask_fill(flags, 0.0),
            false => tensor.clone().mask_where(flags, tensor * self.factor),
        };
        tensor = tensor.detach();
        if require_grad {
            tensor = tensor.require_grad();
        }
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn transposing_makes_rows_columns(rows in 0usize..70, cols in 0usize..70) {
            let values: Vec<u32> = (0..(rows * cols) as u32).collect();
            let columns = transposed(&values, rows, cols);
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!(columns[i % cols * rows + i / cols], *value);
            }
            prop_assert_eq!(transposed(&columns, cols, rows), values);
        }
    }

    #[test]
    fn a_column_layout_has_one_shape_before_and_after_it_is_initialized() {
        use burn::nn::{LinearConfig, LinearLayout};

        let device = regrow_device::current();
        for bias in [true, false] {
            for (layout, rows, cols) in
                [(LinearLayout::Row, 3, 5), (LinearLayout::Col, 3, 5), (LinearLayout::Col, 4, 4)]
            {
                let config = LinearConfig::new(rows, cols).with_bias(bias).with_layout(layout);
                let layer = config.init(&device);
                let before = slots(&layer, &Select::default()).remove(0).stored;
                assert_eq!(before, [rows, cols], "{layout:?} {bias}");
                let weight = weights(&config.init(&device), &Select::default()).unwrap().remove(0);
                assert_eq!((weight.shape.clone(), weight.values.len()), (vec![cols, rows], rows * cols));
                let mask = Mask::from_fn([cols, rows], |i| i % 2 == 0);
                let masks = [("weight".to_string(), mask)].into_iter().collect();
                let masked = crate::model::masked::apply_masks(
                    layer,
                    &masks,
                    crate::model::masked::Gradient::Masked,
                    crate::model::masked::Base::Zeroed,
                );
                let zeros = masked.unwrap().weight.val().into_data().iter::<f32>().filter(|w| *w == 0.0).count();
                assert_eq!(zeros, rows * cols / 2, "{layout:?} {bias}");
            }
        }
    }

    #[test]
    fn the_first_that_is_not_finite_is_told() {
        assert_eq!(not_finite(&[0.0, f32::MAX]), None);
        assert_eq!(not_finite(&[0.0, f32::NEG_INFINITY, f32::INFINITY]), Some(f32::NEG_INFINITY));
        assert!(not_finite(&[f32::NAN]).is_some_and(f32::is_nan));
    }
}
