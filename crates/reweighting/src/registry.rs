//! All weighters by name. A new one needs its own file and one entry here.
//!
//! ```
//! use regrow_reweighting::prelude::*;
//! use regrow_reweighting::registry;
//!
//! let all = registry::source_weighters();
//! let scalebio = find(&all, "scalebio")?.build(&Params::new(0).with("sources=3,alpha=25")?)?;
//! assert_eq!(scalebio.weights().len(), 3);
//! # Ok::<(), regrow_reweighting::Error>(())
//! ```

use regrow_sparse_core::registry::{Entry, MethodInfo, Param, Range};

use crate::loss_based::{INFOS, LossBasedConfig, LossShape};
use crate::{FixedWeights, SampleWeighter, ScaleBiOConfig, SourceWeighter, fixed, scalebio};

/// The parameter that says how many sources there are.
pub(crate) const SOURCES: Param =
    Param { name: "sources", meaning: "how many data sources there are", default: "", range: Range::COUNT };

/// An entry of a loss-based shape.
macro_rules! shape {
    ($shape:ident) => {
        Entry {
            info: INFOS[LossShape::$shape as usize],
            build: |params| Ok(Box::new(LossBasedConfig::from_params(LossShape::$shape, params)?.init()?)),
        }
    };
}

/// Weighters of the examples of a batch.
pub fn sample_weighters() -> Vec<Entry<dyn SampleWeighter>> {
    vec![shape!(Uniform), shape!(LinearUpper), shape!(Quadratic), shape!(Extremes), shape!(Upper)]
}

/// Weighters of data sources.
pub fn source_weighters() -> Vec<Entry<dyn SourceWeighter>> {
    vec![
        Entry { info: scalebio::INFO, build: |params| Ok(Box::new(ScaleBiOConfig::from_params(params)?.init()?)) },
        Entry { info: fixed::UNIFORM, build: |params| Ok(Box::new(FixedWeights::uniform(params.count("sources")?)?)) },
        Entry { info: fixed::PROPORTIONAL, build: |params| Ok(Box::new(fixed::proportional(params)?)) },
        Entry { info: fixed::GIVEN, build: |params| Ok(Box::new(fixed::given(params)?)) },
    ]
}

/// The descriptions of all weighters: those of examples, then those of sources.
pub fn methods() -> Vec<MethodInfo> {
    let samples = sample_weighters().into_iter().map(|entry| entry.info);
    samples.chain(source_weighters().into_iter().map(|entry| entry.info)).collect()
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::registry::{Params, find};

    use super::*;

    #[test]
    fn every_entry_can_be_made_by_its_name() {
        for entry in sample_weighters() {
            let weights = entry.build(&Params::new(0)).unwrap().weigh(&[1.0, 2.0, 4.0]).unwrap();
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{}", entry.info.name);
        }
        let all = source_weighters();
        for (name, given) in [
            ("scalebio", "sources=2"),
            ("uniform-sources", "sources=2"),
            ("proportional", "sizes=3:3"),
            ("given", "weights=1:1"),
        ] {
            let weighter = find(&all, name).unwrap().build(&Params::new(0).with(given).unwrap()).unwrap();
            assert_eq!(weighter.weights(), [0.5, 0.5], "{name}");
        }
        assert!(find(&all, "scalebio").unwrap().build(&Params::new(0)).is_err(), "sources must be given");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = methods().iter().map(|info| info.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
