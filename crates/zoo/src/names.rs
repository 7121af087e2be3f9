//! PyTorch's names and shapes for the parameters of a Burn module.
//!
//! The networks here name their fields as the PyTorch originals do; what differs is batch norm
//! (`gamma` and `beta` against `weight` and `bias`) and the transposed weight of `Linear`.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use regrow_sparse_core::model::weight::transposed;

use crate::models::Net;

/// The role of a tensor in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The weight of a linear or convolution layer other than the last.
    Weight,
    /// The weight of the last such layer.
    Head,
    /// A bias.
    Bias,
    /// A learned scale or shift of a normalization.
    Norm,
    /// A running statistic of a normalization.
    Statistic,
}

impl Role {
    /// Whether it is a matrix or kernel.
    pub fn is_weight(self) -> bool {
        matches!(self, Self::Weight | Self::Head)
    }
}

/// Calls `f` with PyTorch's name and shape and the role of each tensor of `net`.
pub fn visit_names(net: &Net, f: &mut dyn FnMut(String, Vec<usize>, Role)) {
    let mut walk = Walk::default();
    net.visit(&mut walk);
    let head = walk.found.iter().rposition(|(_, _, role)| *role == Role::Weight);
    for (i, (name, shape, role)) in walk.found.into_iter().enumerate() {
        f(name, shape, if Some(i) == head { Role::Head } else { role });
    }
}

/// The new values of the tensor with this PyTorch name and shape; `None` leaves it unchanged.
type NewValues<'a> = dyn FnMut(&str, &[usize]) -> Option<Vec<f32>> + 'a;

/// Replaces every tensor of `net` by the result of `value` for its PyTorch name and shape, row-major in that shape;
/// `None` leaves it unchanged.
pub fn map_values(net: Net, value: &mut NewValues) -> Net {
    net.map(&mut Fill { place: Place::default(), value })
}

/// Calls `f` with PyTorch's name, shape and values of each tensor of `net`.
pub fn visit_values(net: &Net, f: &mut dyn FnMut(String, Vec<usize>, Vec<f32>)) {
    net.visit(&mut Read { place: Place::default(), f });
}

/// The current position of a traversal in the module.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    container: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.container.push(container.to_string());
    }

    fn exit(&mut self) {
        self.path.pop();
        self.container.pop();
    }

    fn is_linear(&self) -> bool {
        self.container.last().is_some_and(|c| c == "Struct:Linear") && self.path.last().is_some_and(|n| n == "weight")
    }

    /// The name without the variant of [`Net`], in PyTorch's words.
    fn name(&self) -> String {
        let mut parts: Vec<&str> = self.path.iter().skip(1).map(String::as_str).collect();
        if let Some(last) = parts.last_mut() {
            *last = match *last {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
        }
        parts.join(".")
    }

    fn shape(&self, stored: &[usize]) -> Vec<usize> {
        match (self.is_linear(), stored) {
            (true, [d_in, d_out]) => vec![*d_out, *d_in],
            _ => stored.to_vec(),
        }
    }

    fn role(&self) -> Role {
        let norm = self.container.last().is_some_and(|c| c.starts_with("Struct:BatchNorm"));
        match (norm, self.path.last().map(String::as_str)) {
            (true, Some("running_mean" | "running_var")) => Role::Statistic,
            (true, _) => Role::Norm,
            (false, Some("weight")) => Role::Weight,
            _ => Role::Bias,
        }
    }
}

#[derive(Default)]
struct Walk {
    place: Place,
    found: Vec<(String, Vec<usize>, Role)>,
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = self.place.shape(param.lazy_shape().as_slice());
        self.found.push((self.place.name(), shape, self.place.role()));
    }
}

struct Fill<'a> {
    place: Place,
    value: &'a mut NewValues<'a>,
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let stored = param.lazy_shape();
        let shape = self.place.shape(stored.as_slice());
        let Some(values) = (self.value)(&self.place.name(), &shape) else { return param };
        let values = if self.place.is_linear() { transposed(&values, shape[0], shape[1]) } else { values };
        let tensor = Tensor::from_data(TensorData::new(values, stored), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

struct Read<'a> {
    place: Place,
    f: &'a mut dyn FnMut(String, Vec<usize>, Vec<f32>),
}

impl ModuleVisitor for Read<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data().convert::<f32>();
        let shape = self.place.shape(data.shape().as_slice());
        let values: Vec<f32> = data.iter::<f32>().collect();
        let values = if self.place.is_linear() { transposed(&values, shape[1], shape[0]) } else { values };
        (self.f)(self.place.name(), shape, values);
    }
}
