//! What the file of a table needs: `use crate::harness::prelude::*;`.

pub use std::path::Path;
pub use std::time::Instant;

pub use regrow_sparse_core::model::sparsify::KeepMasks;
pub use regrow_sparse_core::seed::mix;
pub use regrow_sparse_core::{Error, Result};
pub use regrow_train::lr::LrSchedule;
pub use serde::Serialize;

pub use crate::harness::claim::Claim;
pub use crate::harness::info::Info;
pub use crate::harness::record::{Measure, Record};
pub use crate::harness::settings::{Common, Scale};
pub use crate::harness::table::{Context, Setting, Table, chosen, ensure};
pub use crate::harness::trainer::{Fit, Trainer};
pub use crate::harness::view::{self, Column, View};
