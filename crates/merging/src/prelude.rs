//! What most programs that merge need: `use regrow_merging::prelude::*;`.

pub use crate::average::{average, equal_weights};
pub use crate::params::{MergeParams, PerModel};
pub use crate::registry::find;
pub use crate::soup::Soup;
pub use crate::stream::{Merge, ModelInput};
pub use crate::tensors::{Operand, Operands, TensorMerge};
pub use crate::whole::{ModelMerge, WholeModels};
pub use crate::{
    BreadcrumbsConfig, DareConfig, DellaConfig, Error, FisherMergeConfig, LowRank, Masks, ModelStockConfig, OpcmConfig,
    RegMeanConfig, Result, RmmConfig, SlerpConfig, SmsConfig, SparseSoupConfig, TaskArithmeticConfig, TiesConfig,
    WeightedAverageConfig,
};
