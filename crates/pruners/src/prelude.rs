//! What most programs use: `use regrow_pruners::prelude::*;`

pub use crate::{
    Allocate, BipConfig, Budget, Change, Curve, Error, Evidence, Gmp, GmpConfig, GranetConfig, Imp, IsspConfig,
    KeepMasks, LayerView, Magnitude, MaskSet, Needs, OneShot, Pattern, Probe, Pruner, PruningOptimizer, Random, Recipe,
    RiglConfig, Schedule, Scheduled, Score, Select, SetConfig, Snip, StraightThrough, SynFlow, View, Wanda, masks,
};
