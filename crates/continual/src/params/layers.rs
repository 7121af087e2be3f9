//! Parameters by the kind of layer they belong to.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

/// Burn's linear and convolution layers, with the container names of a `ModuleVisitor`.
pub(crate) const LAYERS: [&str; 7] = [
    "Struct:Linear",
    "Struct:Conv1d",
    "Struct:Conv2d",
    "Struct:Conv3d",
    "Struct:ConvTranspose1d",
    "Struct:ConvTranspose2d",
    "Struct:ConvTranspose3d",
];

/// Burn's norms, likewise.
pub(crate) const NORMS: [&str; 5] =
    ["Struct:BatchNorm", "Struct:GroupNorm", "Struct:InstanceNorm", "Struct:LayerNorm", "Struct:RmsNorm"];

/// The parameters of `model` within a container whose name, such as `Struct:Linear`, `kind` accepts.
pub fn within<M: Module>(model: &M, kind: &dyn Fn(&str) -> bool) -> BTreeSet<ParamId> {
    struct Read<'a>(&'a dyn Fn(&str) -> bool, Vec<bool>, BTreeSet<ParamId>);
    impl ModuleVisitor for Read<'_> {
        fn enter_module(&mut self, _name: &str, container: &str) {
            self.1.push((self.0)(container));
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.1.contains(&true) {
                self.2.insert(param.id);
            }
        }
    }
    let mut read = Read(kind, Vec::new(), BTreeSet::new());
    model.visit(&mut read);
    read.2
}
