//! The mask inside the model: a Burn reparameterization, so layers, types, records and optimizers stay the same.

use std::collections::BTreeMap;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Bool, Tensor};

use crate::model::weight::{MASK_PATH, ScaleUnder, Slot, carried_masks, everything, matching_slots};
use crate::{MaskSet, Result};

/// Where its gradient form stands.
const DENSE_PATH: &str = "mask.dense_gradient";

/// A mask on one parameter: the base stays stored, the effective value is zero where pruned.
///
/// With `m` the mask (1 = kept) and `w` the base, the effective weight is `m * w`. Its gradient at
/// the base is `m * g` ([`Gradient::Masked`]) or, in the dense form
/// `m * w + (1 - m) * (w - stop_gradient(w))`, all of `g` ([`Gradient::Dense`]).
#[derive(Module, Debug)]
pub struct Masked {
    /// One flag per stored position, flattened: true where the weight is pruned.
    pub pruned: Param<Tensor<1, Bool>>,
    /// Whether the gradient reaches pruned positions while training.
    dense_gradient: Param<Flag>,
}

impl Reparameterization for Masked {
    const NAME: &'static str = "mask";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let pruned = self.pruned.val().reshape(base.shape());
        match self.dense_gradient.val().is_enabled() {
            false => {
                let keep = factor(pruned, &base);
                base * keep
            }
            // w - stop_gradient(w) where pruned, w - 0 where kept: the same two values.
            true => base.clone() - base.detach().mask_fill(pruned.bool_not(), 0.0),
        }
    }
}

/// 1 where kept, 0 where pruned, in the type of `like`.
///
/// A product costs two passes that vectorize. Filling looks equivalent, but its gradient is filled in place, flag by
/// flag: on flex five times slower.
pub(crate) fn factor<const D: usize>(pruned: Tensor<D, Bool>, like: &Tensor<D>) -> Tensor<D> {
    let keep = pruned.bool_not().float();
    if keep.dtype() == like.dtype() { keep } else { keep.cast(like.dtype()) }
}

/// What gradient a pruned weight receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gradient {
    /// None: zero at pruned positions.
    #[default]
    Masked,
    /// The one it would have at the masked weights if it were not pruned.
    Dense,
}

/// What happens to the stored base at pruned positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// Set to zero: a weight that grows back starts at zero.
    #[default]
    Zeroed,
    /// Left unchanged: a weight that grows back starts where it was.
    Kept,
}

/// Attaches `masks` to `model`, replacing existing masks of the same parameters. `gradient` applies to these.
///
/// # Errors
/// If a mask names no linear, convolution or other matrix parameter, or has another shape.
pub fn apply_masks<M: Module>(model: M, masks: &MaskSet, gradient: Gradient, base: Base) -> Result<M> {
    let pruned = flags_by_path(&model, masks)?;
    Ok(attach(model, &pruned, gradient, base))
}

/// The same with flags that are on the weights' device already, by path, in storage order: true where a weight is
/// pruned.
pub(crate) fn attach<M: Module>(
    model: M,
    pruned: &BTreeMap<String, Tensor<1, Bool>>,
    gradient: Gradient,
    base: Base,
) -> M {
    let flags = |path: &str| pruned.get(path).cloned();
    let present = mask_paths(&model);
    let model = match base {
        Base::Zeroed => model.map(&mut ScaleUnder { path: Vec::new(), pruned: &flags, factor: 0.0 }),
        Base::Kept => model,
    };
    let model = model.map(&mut Replace { path: Vec::new(), pruned: &flags });
    let model = model.apply_reparameterization(Attach { pruned: &flags, present });
    set_gradient(model, gradient, &|path| pruned.contains_key(path))
}

/// Sets the gradient that pruned weights receive, for the masks that `named` selects.
pub(crate) fn set_gradient<M: Module>(model: M, gradient: Gradient, named: &dyn Fn(&str) -> bool) -> M {
    model.map(&mut Form { path: Vec::new(), named, dense: gradient == Gradient::Dense })
}

/// Sets the flag of the gradient's form.
struct Form<'a> {
    path: Vec<String>,
    named: &'a dyn Fn(&str) -> bool,
    dense: bool,
}

impl ModuleMapper for Form<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_flag(&mut self, param: Param<Flag>) -> Param<Flag> {
        let path = self.path.join(".");
        match path.strip_suffix(&format!(".{DENSE_PATH}")).is_some_and(self.named) {
            true => param.with_value(self.dense),
            false => param,
        }
    }
}

/// Multiplies the stored values that `masks` prune by `factor`, without masking them.
///
/// # Errors
/// If a mask names no such parameter, or has another shape.
pub(crate) fn scale_under<M: Module>(model: M, masks: &MaskSet, factor: f32) -> Result<M> {
    let pruned = flags_by_path(&model, masks)?;
    let flags = |path: &str| pruned.get(path).cloned();
    Ok(model.map(&mut ScaleUnder { path: Vec::new(), pruned: &flags, factor }))
}

/// The masks that `model` carries, by parameter path. The weights are not read, so that a model whose training went
/// wrong still gives its masks.
///
/// # Errors
/// If the flags of a mask cannot be read.
pub fn masks<M: Module>(model: &M) -> Result<MaskSet> {
    if mask_paths(model).is_empty() {
        return Ok(MaskSet::new());
    }
    Ok(carried_masks(model, &everything())?.into_iter().collect())
}

/// One flag for each stored number of the parameters that `masks` names, on their device: true where they prune.
fn flags_by_path<M: Module>(model: &M, masks: &MaskSet) -> Result<BTreeMap<String, Tensor<1, Bool>>> {
    let flags = |slot: Slot| masks.get(&slot.path).map(|mask| (slot.path.clone(), slot.pruned(mask)));
    Ok(matching_slots(model, masks)?.into_iter().filter_map(flags).collect())
}

type Flags<'a> = &'a dyn Fn(&str) -> Option<Tensor<1, Bool>>;

/// Attaches a mask to parameters that do not have one yet.
struct Attach<'a> {
    pruned: Flags<'a>,
    present: Vec<String>,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = Masked;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Masked>) {
        if self.present.contains(&format!("{path}.{MASK_PATH}")) {
            return (param, None);
        }
        let masked = (self.pruned)(path).map(|pruned| Masked {
            pruned: Param::initialized(burn::module::ParamId::new(), pruned),
            dense_gradient: Param::from_bool(false),
        });
        (param, masked)
    }
}

/// Replaces the flags of existing masks.
struct Replace<'a> {
    path: Vec<String>,
    pruned: Flags<'a>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let path = self.path.join(".");
        let Some(owner) = path.strip_suffix(&format!(".{MASK_PATH}")) else { return param };
        let Some(flags) = (self.pruned)(owner) else { return param };
        param.map(|old| flags.reshape(old.shape()))
    }
}

/// The paths of all masks in `model`.
fn mask_paths<M: Module>(model: &M) -> Vec<String> {
    #[derive(Default)]
    struct Paths {
        path: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
            let path = self.path.join(".");
            if path.ends_with(MASK_PATH) {
                self.found.push(path);
            }
        }
    }
    let mut paths = Paths::default();
    model.visit(&mut paths);
    paths.found
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;

    use super::*;
    use crate::Mask;

    struct Spoiled;

    impl ModuleMapper for Spoiled {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor * f32::NAN)
        }
    }

    #[test]
    fn masks_are_told_of_a_model_whose_weights_are_not_numbers() {
        let layer = LinearConfig::new(3, 2).init(&regrow_device::current());
        let masks: MaskSet = [("weight".to_string(), Mask::from_fn([2, 3], |i| i != 4))].into_iter().collect();
        let mut layer = apply_masks(layer, &masks, Gradient::Masked, Base::Zeroed).expect("the mask fits");
        // The base alone: mapping the parameter itself would bake the mask in.
        layer = layer.map(&mut Spoiled);
        assert!(layer.weight.val().into_data().iter::<f32>().any(f32::is_nan));
        assert_eq!(super::masks(&layer).expect("masks are read alone").difference(&masks), None);
    }
}
