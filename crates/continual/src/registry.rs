//! All strategies by name. A new one needs its own file and one line here.
//!
//! ```
//! use burn::tensor::Tensor;
//! use regrow_continual::prelude::*;
//! use regrow_continual::registry;
//!
//! fn strategy<M: Headed + 'static>() -> Result<Box<dyn Strategy<M>>> {
//!     find(&registry::entries::<M>(), "der++")?.build(&Params::new(0).with("memory=500,alpha=0.3")?)
//! }
//!
//! assert!(registry::methods().iter().any(|info| info.name == "der++"));
//! ```

use regrow_sparse_core::registry::{Entry, MethodInfo, Param, Range};
use regrow_train::classifier::{ConvHooks, Headed};

use crate::agem::{self, AGemConfig};
use crate::clr::{self, Clr, Reprogrammed};
use crate::derpp::{self, DerPpConfig};
use crate::dst::{self, DstConfig};
use crate::er::{self, ErConfig};
use crate::ewc::{self, EwcConfig};
use crate::finetune::{self, FineTune};
use crate::gem::{self, GemConfig};
use crate::icarl::{self, ICarlConfig};
use crate::joint::{self, Joint};
use crate::lwf::{self, LwfConfig};
use crate::packnet::{self, PackNetConfig};
use crate::separate::{self, Separate};
use crate::si::{self, SiConfig};
use crate::strategy::Strategy;
use crate::wa::{self, WaConfig};

/// The scenarios in methods' descriptions.
pub(crate) const ANY_SCENARIO: &str = "task, class or domain scenario";
pub(crate) const TASK_SCENARIO: &str = "task scenario";
pub(crate) const CLASS_SCENARIO: &str = "class scenario";
pub(crate) const TASK_OR_CLASS_SCENARIO: &str = "task or class scenario";

/// The parameter of methods with a memory.
pub(crate) const MEMORY: Param =
    Param { name: "memory", meaning: "examples kept", default: "200", range: Range::COUNT };

/// Generates [`entries`] and [`methods`] from one list.
macro_rules! strategies {
    ($($info:path => $make:expr,)*) => {
        /// All strategies for networks of type `M`. [`reprogrammed_entries`] has one more.
        pub fn entries<M: Headed>() -> Vec<Entry<dyn Strategy<M>>> {
            vec![$(Entry { info: $info, build: |params| Ok(Box::new($make(params)?)) }),*]
        }

        /// The descriptions of all strategies.
        pub fn methods() -> Vec<MethodInfo> {
            vec![$($info,)* clr::INFO]
        }
    };
}

strategies! {
    finetune::INFO => |_| Ok::<_, crate::Error>(FineTune),
    joint::INFO => |_| Ok::<_, crate::Error>(Joint),
    separate::INFO => |_| Ok::<_, crate::Error>(Separate::default()),
    ewc::INFO => |params| EwcConfig::from_params(params)?.init(),
    ewc::ONLINE_INFO => |params| EwcConfig::from_params(params)?.init(),
    si::INFO => |params| SiConfig::from_params(params)?.init(),
    lwf::INFO => |params| LwfConfig::from_params(params)?.init::<M>(),
    er::INFO => |params| ErConfig::from_params(params)?.init(),
    derpp::INFO => |params| DerPpConfig::from_params(params)?.init(),
    gem::INFO => |params| GemConfig::from_params(params)?.init(),
    agem::INFO => |params| AGemConfig::from_params(params)?.init(),
    icarl::INFO => |params| ICarlConfig::from_params(params)?.init::<M>(),
    wa::INFO => |params| WaConfig::from_params(params)?.init::<M>(),
    packnet::INFO => |params| PackNetConfig::from_params(params)?.init(),
    dst::INFO => |params| DstConfig::from_params(params)?.init::<M>(),
}

/// All strategies for an anchor with kernels after its convolutions: [`entries`] and CLR.
pub fn reprogrammed_entries<M: ConvHooks>() -> Vec<Entry<dyn Strategy<Reprogrammed<M>>>> {
    let mut all = entries::<Reprogrammed<M>>();
    all.push(Entry { info: clr::INFO, build: |_| Ok(Box::new(Clr::<M>::default())) });
    all
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::registry::Params;

    use super::*;
    use crate::stream::Scenario;
    use crate::testing::Net;

    #[test]
    fn every_entry_is_made_from_its_defaults_and_says_what_it_fits() {
        for entry in entries::<Net>() {
            let name = entry.info.name;
            let strategy = entry.build(&Params::new(0)).unwrap_or_else(|e| panic!("{name}: {e}"));
            for scenario in Scenario::ALL {
                let says = entry.info.needs.contains(&scenario.to_string());
                assert_eq!(strategy.fits(scenario), says, "{name}, {scenario}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_both_lists_agree() {
        let mut names: Vec<&str> = methods().iter().map(|info| info.name).collect();
        let entries = entries::<Net>();
        assert!(entries.iter().zip(&names).all(|(entry, name)| entry.info.name == *name));
        assert_eq!((entries.len() + 1, names.last()), (names.len(), Some(&"clr")));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
