//! A network's parameters as vectors to compute with.

mod flags;
mod layers;
mod vector;

pub use flags::ParameterFlags;
pub use layers::within;
pub(crate) use layers::{LAYERS, NORMS};
pub use vector::ParameterVector;
pub(crate) use vector::{numbers_from_state, numbers_to_state};
