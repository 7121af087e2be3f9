//! See `examples/`.
