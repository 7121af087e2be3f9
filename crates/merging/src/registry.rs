//! Every merging method in one list, by name: tensor by tensor, of whole models, reversible.
//!
//! A new method is its own file and one entry in [`ALL`]. `regrow merge`, its help, mergekit's YAML, `regrow methods`
//! and the tables read this list.
//!
//! ```
//! use regrow_merging::{MergeParams, Operand, Operands, find};
//!
//! let entry = find("task-arithmetic")?;
//! let method = entry.tensor(&MergeParams::new(2).with("lambda", 0.5))?;
//! let models = [Operand::new("a", &[3.0, 0.0]), Operand::new("b", &[1.0, 2.0])];
//! assert_eq!(method.merge(&Operands::new("w", &[2], Some(&[1.0, 0.0]), &models)?)?, [2.0, 1.0]);
//! assert_eq!(entry.info.paper, "arXiv 2212.04089");
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range, unknown_method};
use regrow_sparse_core::{Error, Result};

use crate::breadcrumbs::BreadcrumbsConfig;
use crate::dare::DareConfig;
use crate::della::DellaConfig;
use crate::fisher::FisherMergeConfig;
use crate::linear::WeightedAverageConfig;
use crate::model_stock::ModelStockConfig;
use crate::opcm::OpcmConfig;
use crate::params::MergeParams;
use crate::regmean::RegMeanConfig;
use crate::rmm::{BasisBudget, Rmm, RmmConfig};
use crate::slerp::SlerpConfig;
use crate::sparse_soup::SparseSoupConfig;
use crate::task_arithmetic::TaskArithmeticConfig;
use crate::tensors::TensorMerge;
use crate::ties::TiesConfig;
use crate::whole::ModelMerge;

/// A merging method in the list.
pub struct MergeEntry {
    /// Name, summary, paper, needs and parameters.
    pub info: MethodInfo,
    /// The role of a base in the method.
    pub base: BaseRole,
    /// The minimum and maximum number of models, including a base that counts as one.
    pub models: (usize, usize),
    /// The parameters that each model may set for itself.
    pub per_model: &'static [&'static str],
    /// Its name in mergekit's configurations, if it exists there.
    pub mergekit: Option<&'static str>,
    /// Its constructor, by what it merges.
    pub form: MergeForm,
}

/// How a method is built from complete parameters; [`MergeEntry::tensor`] and the others complete them.
#[derive(Clone, Copy)]
pub enum MergeForm {
    /// Merges one tensor at a time, of models of any size.
    Tensor(fn(&MergeParams) -> Result<Box<dyn TensorMerge>>),
    /// Merges whole models in memory.
    Whole(fn(&MergeParams) -> Result<Box<dyn ModelMerge>>),
    /// Merges low-rank models into basis models, from which each is rebuilt.
    Reversible(fn(&MergeParams) -> Result<(Rmm, BasisBudget)>),
}

/// The role of a base in a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseRole {
    /// Not used.
    Unused,
    /// The models' common parent, which the method needs.
    Parent,
    /// The first of the models, if there is one fewer than the method needs.
    Model,
}

const MANY: usize = usize::MAX;

const fn param(name: &'static str, meaning: &'static str, default: &'static str, range: Range) -> Param {
    Param { name, meaning, default, range }
}

const WEIGHT: Param = param("weight", "weight of the model", "1", Range::NUMBER);
const DENSITY: Param = param("density", "share of entries kept of the task vector", "1", Range::FRACTION);
const GAMMA: Param = param("gamma", "share of largest entries dropped", "0.01", Range::FRACTION);
const EPSILON: Param = param("epsilon", "half the width of the keeping probabilities", "0.15", Range::FRACTION);
const LAMBDA: Param = param("lambda", "factor of the merged task vector", "1", Range::NUMBER);
const SEED: Param = param("seed", "seed of the random draws", "0", Range::Integer { min: 0, max: u64::MAX });
const ADDED: Param = param("normalize", "divide by the sum of the weights", "false", Range::Flag);
const AVERAGED: Param = Param { default: "true", ..ADDED };
const RESCALE: Param = param("rescale", "what makes up for dropped entries", "none", RESCALES);
const RESCALE_DENSITY: Param = Param { default: "density", ..RESCALE };
const RESCALES: Range = Range::Choice(&["none", "density", "l1"]);
const POSITIVE: Range = Range::Real { min: 0.0, max: f64::INFINITY };

/// An entry without parameters, tensor by tensor, that needs a base.
const PARENT: MergeEntry = MergeEntry {
    info: MethodInfo { kind: "merge", name: "", summary: "", paper: "", needs: "a base", params: &[] },
    base: BaseRole::Parent,
    models: (1, MANY),
    per_model: &["weight"],
    mergekit: None,
    form: MergeForm::Tensor(|p| Ok(Box::new(TaskArithmeticConfig::from_params(p)?.init(p.models.len())?))),
};
/// The same without a base.
const ALONE: MergeEntry =
    MergeEntry { info: MethodInfo { needs: "models", ..PARENT.info }, base: BaseRole::Unused, ..PARENT };

/// All methods, in the order of their names.
pub const ALL: &[MergeEntry] = &[
    MergeEntry {
        info: MethodInfo {
            name: "breadcrumbs",
            summary: "task vectors without their largest and smallest entries, added",
            paper: "arXiv 2312.06795",
            params: &[WEIGHT, DENSITY, GAMMA, LAMBDA, ADDED, RESCALE],
            ..PARENT.info
        },
        per_model: &["weight", "density", "gamma"],
        mergekit: Some("breadcrumbs"),
        form: MergeForm::Tensor(|p| Ok(Box::new(BreadcrumbsConfig::from_params(p)?.init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "breadcrumbs-ties",
            summary: "task vectors without their largest and smallest entries, added where they agree in sign",
            paper: "arXiv 2312.06795",
            params: &[WEIGHT, DENSITY, GAMMA, LAMBDA, ADDED, RESCALE],
            ..PARENT.info
        },
        per_model: &["weight", "density", "gamma"],
        mergekit: Some("breadcrumbs_ties"),
        form: MergeForm::Tensor(|p| {
            Ok(Box::new(BreadcrumbsConfig::from_params(p)?.with_elect(true).init(p.models.len())?))
        }),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "dare",
            summary: "task vectors with entries dropped at random and the rest rescaled, added",
            paper: "arXiv 2311.03099",
            params: &[WEIGHT, DENSITY, LAMBDA, ADDED, RESCALE_DENSITY, SEED],
            ..PARENT.info
        },
        per_model: &["weight", "density"],
        mergekit: Some("dare_linear"),
        form: MergeForm::Tensor(|p| Ok(Box::new(DareConfig::from_params(p)?.init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "dare-ties",
            summary: "task vectors with entries dropped at random and the rest rescaled, added where they agree in sign",
            paper: "arXiv 2311.03099",
            params: &[WEIGHT, DENSITY, LAMBDA, ADDED, RESCALE_DENSITY, SEED],
            ..PARENT.info
        },
        per_model: &["weight", "density"],
        mergekit: Some("dare_ties"),
        form: MergeForm::Tensor(|p| Ok(Box::new(DareConfig::from_params(p)?.with_elect(true).init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "della",
            summary: "task vectors with entries dropped at random by rank, averaged where they agree in sign",
            paper: "arXiv 2406.11617",
            params: &[WEIGHT, DENSITY, EPSILON, LAMBDA, AVERAGED, RESCALE_DENSITY, SEED],
            ..PARENT.info
        },
        per_model: &["weight", "density", "epsilon"],
        mergekit: Some("della"),
        form: MergeForm::Tensor(|p| Ok(Box::new(DellaConfig::from_params(p, true)?.init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "della-linear",
            summary: "task vectors with entries dropped at random by rank, added",
            paper: "arXiv 2406.11617",
            params: &[WEIGHT, DENSITY, EPSILON, LAMBDA, ADDED, RESCALE_DENSITY, SEED],
            ..PARENT.info
        },
        per_model: &["weight", "density", "epsilon"],
        mergekit: Some("della_linear"),
        form: MergeForm::Tensor(|p| Ok(Box::new(DellaConfig::from_params(p, false)?.init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "fisher",
            summary: "the average weighted by each model's Fisher information",
            paper: "arXiv 2111.09832",
            needs: "each model's Fisher information",
            params: &[WEIGHT, param("floor", "added to the Fisher information", "0.000001", POSITIVE)],
            ..ALONE.info
        },
        form: MergeForm::Tensor(|p| Ok(Box::new(FisherMergeConfig::from_params(p)?.init(p.models.len())?))),
        ..ALONE
    },
    MergeEntry {
        info: MethodInfo {
            name: "linear",
            summary: "the weighted average",
            paper: "arXiv 2203.05482",
            params: &[WEIGHT, AVERAGED],
            ..ALONE.info
        },
        mergekit: Some("linear"),
        form: MergeForm::Tensor(|p| Ok(Box::new(WeightedAverageConfig::from_params(p)?.init(p.models.len())?))),
        ..ALONE
    },
    MergeEntry {
        info: MethodInfo {
            name: "model-stock",
            summary: "between the base and the mean, by the angle of the task vectors",
            paper: "arXiv 2403.19522",
            needs: "a base, two models or more",
            params: &[
                param("filter_wise", "an angle for each row, not each tensor", "false", Range::Flag),
                param("clamp", "hold the interpolation in [0, 1]", "true", Range::Flag),
            ],
            ..PARENT.info
        },
        models: (2, MANY),
        per_model: &[],
        mergekit: Some("model_stock"),
        form: MergeForm::Tensor(|p| Ok(Box::new(ModelStockConfig::from_params(p)?.init(p.models.len())?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "opcm",
            summary: "models merged as they arrive, each projected away from what is merged already",
            paper: "arXiv 2501.09522",
            params: &[
                param("alpha", "share of the singular values that is protected", "0.5", Range::SPARSITY),
                param("convolutions", "project kernels of convolutions too", "false", Range::Flag),
            ],
            ..PARENT.info
        },
        per_model: &[],
        form: MergeForm::Whole(|p| Ok(Box::new(OpcmConfig::from_params(p)?.init()?))),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "regmean",
            summary: "linear layers by regression on the models' inputs, the rest averaged",
            paper: "arXiv 2212.09849",
            needs: "each model's second moments of layer inputs",
            params: &[WEIGHT, param("alpha", "factor of off-diagonal second moments", "1", Range::FRACTION)],
            ..ALONE.info
        },
        form: MergeForm::Tensor(|p| Ok(Box::new(RegMeanConfig::from_params(p)?.init(p.models.len())?))),
        ..ALONE
    },
    MergeEntry {
        info: MethodInfo {
            name: "rmm",
            summary: "adapters merged reversibly into basis models and coefficients",
            paper: "arXiv 2510.14163",
            needs: "adapters of one base",
            params: &[
                param("basis", "basis models (2 where neither storage nor error is given)", "none", Range::COUNT),
                param("storage", "most share of all adapters' numbers kept", "none", POSITIVE),
                param("error", "most relative error of all differences", "none", POSITIVE),
                param(
                    "granularity",
                    "which vectors share coefficients",
                    "position",
                    Range::Choice(&["position", "layer", "product"]),
                ),
                param(
                    "align",
                    "how factors are brought into one form",
                    "none",
                    Range::Choice(&["none", "balanced", "procrustes"]),
                ),
                param("centred", "the mean is the first basis model", "false", Range::Flag),
                param("normalize", "scale every task's vectors to one norm", "false", Range::Flag),
                param("rank", "rank of basis models by product", "none", Range::COUNT),
            ],
            ..ALONE.info
        },
        per_model: &[],
        form: MergeForm::Reversible(|p| Ok((RmmConfig::from_params(p)?.init()?, BasisBudget::from_params(p)?))),
        ..ALONE
    },
    MergeEntry {
        info: MethodInfo {
            name: "slerp",
            summary: "on the arc between two models, or between the base and one",
            paper: "Shoemake 1985",
            needs: "two models, or a base and one",
            params: &[param("t", "place on the arc, 0 the first and 1 the second", "", Range::FRACTION)],
            ..ALONE.info
        },
        base: BaseRole::Model,
        models: (2, 2),
        per_model: &[],
        mergekit: Some("slerp"),
        form: MergeForm::Tensor(|p| Ok(Box::new(SlerpConfig::from_params(p)?.init()?))),
    },
    MergeEntry {
        info: MethodInfo {
            name: "sms",
            summary: "the average of models that share a mask; others are refused",
            paper: "arXiv 2306.16788",
            needs: "models that share a mask",
            params: &[WEIGHT],
            ..ALONE.info
        },
        form: MergeForm::Tensor(|p| Ok(Box::new(SparseSoupConfig::from_params(p)?.init(p.models.len())?))),
        ..ALONE
    },
    MergeEntry {
        info: MethodInfo {
            name: "task-arithmetic",
            summary: "the base and a weighted sum of task vectors",
            paper: "arXiv 2212.04089",
            params: &[WEIGHT, LAMBDA, ADDED],
            ..PARENT.info
        },
        mergekit: Some("task_arithmetic"),
        ..PARENT
    },
    MergeEntry {
        info: MethodInfo {
            name: "ties",
            summary: "task vectors trimmed to their largest entries, averaged where they agree in sign",
            paper: "arXiv 2306.01708",
            params: &[
                WEIGHT,
                DENSITY,
                LAMBDA,
                AVERAGED,
                param("count", "how many entries a density keeps", "exact", Range::Choice(&["exact", "authors"])),
                RESCALE,
                param("scope", "what a density is a share of", "tensor", Range::Choice(&["tensor", "model"])),
            ],
            ..PARENT.info
        },
        per_model: &["weight", "density"],
        mergekit: Some("ties"),
        form: MergeForm::Tensor(|p| Ok(Box::new(TiesConfig::from_params(p)?.init(p.models.len())?))),
        ..PARENT
    },
];

impl MergeEntry {
    /// Every parameter of the method: those of `given`, defaults for the others.
    ///
    /// # Errors
    /// A parameter that the method does not have, or not for each model; a value outside its range; a missing required
    /// parameter.
    pub fn complete(&self, given: &MergeParams) -> Result<MergeParams> {
        given.models.iter().try_for_each(|model| self.check_own(model))?;
        Ok(MergeParams { shared: self.info.complete(&given.shared)?, models: given.models.clone() })
    }

    /// Rejects parameters of one model that the method does not support per model.
    fn check_own(&self, model: &Params) -> Result<()> {
        for (name, value) in model.iter() {
            let (method, parameter) = (self.info.name.to_string(), name.to_string());
            let own = self.info.params.iter().find(|p| p.name == name && self.per_model.contains(&name));
            let Some(param) = own else {
                let known = format!("a model may have {}", self.per_model.join(", "));
                return Err(Error::UnknownParameter { method, parameter, known });
            };
            if !param.range.admits(value) {
                let (value, range) = (value.to_string(), param.range.to_string());
                return Err(Error::InvalidParameter { method, parameter, value, range });
            }
        }
        Ok(())
    }

    /// The method, which merges tensor by tensor.
    ///
    /// # Errors
    /// As [`MergeEntry::complete`]; a method of another form.
    pub fn tensor(&self, params: &MergeParams) -> Result<Box<dyn TensorMerge>> {
        match self.form {
            MergeForm::Tensor(make) => make(&self.complete(params)?),
            _ => Err(self.other_form("does not merge tensor by tensor")),
        }
    }

    /// The method, which merges whole models in memory.
    ///
    /// # Errors
    /// As [`MergeEntry::complete`]; a method of another form.
    pub fn whole(&self, params: &MergeParams) -> Result<Box<dyn ModelMerge>> {
        match self.form {
            MergeForm::Whole(make) => make(&self.complete(params)?),
            _ => Err(self.other_form("does not merge whole models in memory")),
        }
    }

    /// The method, which merges reversibly, and how many basis models it keeps.
    ///
    /// # Errors
    /// As [`MergeEntry::complete`]; a method of another form.
    pub fn reversible(&self, params: &MergeParams) -> Result<(Rmm, BasisBudget)> {
        match self.form {
            MergeForm::Reversible(make) => make(&self.complete(params)?),
            _ => Err(self.other_form("does not merge reversibly")),
        }
    }

    fn other_form(&self, reason: &str) -> Error {
        Error::Argument(format!("{} {reason}", self.info.name))
    }

    /// Whether it has a parameter of this name.
    pub fn has(&self, param: &str) -> bool {
        self.info.params.iter().any(|p| p.name == param)
    }

    /// Whether the base is used with `models` other models.
    pub fn reads_base(&self, models: usize) -> bool {
        match self.base {
            BaseRole::Unused => false,
            BaseRole::Parent => true,
            BaseRole::Model => models < self.models.0,
        }
    }

    /// Rejects a number of models, with or without a base, that the method does not support.
    ///
    /// # Errors
    /// Too few or too many models, or a missing base.
    pub fn check(&self, models: usize, base: bool) -> Result<()> {
        let (name, (fewest, most)) = (self.info.name, self.models);
        let says = |reason: String| Err(Error::Argument(format!("{name} {reason}")));
        if self.base == BaseRole::Parent && !base {
            return says("needs a `base`, the models' common parent".into());
        }
        match models + usize::from(base && self.base == BaseRole::Model && self.reads_base(models)) {
            n if n < fewest && self.base == BaseRole::Model => {
                says(format!("needs {fewest} models, or a `base` and {}, the recipe has {n}", fewest - 1))
            }
            n if n < fewest => says(format!("needs at least {fewest} models, the recipe has {n}")),
            n if n > most => says(format!("takes at most {most} models, the recipe has {n}")),
            _ => Ok(()),
        }
    }
}

/// The entry with that name.
///
/// # Errors
/// If there is none; the message lists the nearest and all.
pub fn find(name: &str) -> Result<&'static MergeEntry> {
    ALL.iter().find(|entry| entry.info.name == name).ok_or_else(|| unknown_method(name, &methods()))
}

/// The methods that merge tensor by tensor.
pub fn tensor_methods() -> impl Iterator<Item = &'static MergeEntry> {
    ALL.iter().filter(|entry| matches!(entry.form, MergeForm::Tensor(_)))
}

/// The descriptions of all methods.
pub fn methods() -> Vec<MethodInfo> {
    ALL.iter().map(|entry| entry.info).collect()
}

#[cfg(test)]
mod tests {
    use regrow_testing::assert_close;

    use super::*;
    use crate::tensors::{Operand, Operands};
    use crate::testing::numbers;

    fn params(entry: &MergeEntry, models: usize) -> MergeParams {
        let given = entry.info.params.iter().filter(|p| p.default.is_empty());
        given.fold(MergeParams::new(models), |params, p| params.with(p.name, 0.5))
    }

    fn made(entry: &MergeEntry, models: usize) -> Box<dyn TensorMerge> {
        entry.tensor(&params(entry, models)).unwrap()
    }

    #[test]
    fn names_are_sorted_and_those_of_the_methods() {
        assert!(ALL.windows(2).all(|pair| pair[0].info.name < pair[1].info.name));
        for entry in ALL {
            let params = params(entry, 2);
            let name = match entry.form {
                MergeForm::Tensor(_) => entry.tensor(&params).unwrap().name(),
                MergeForm::Whole(_) => entry.whole(&params).unwrap().name(),
                MergeForm::Reversible(_) => entry.reversible(&params).map(|_| "rmm").unwrap(),
            };
            assert_eq!(name, entry.info.name);
            assert_eq!(find(entry.info.name).unwrap().info, entry.info);
            assert!(!entry.info.summary.is_empty() && !entry.info.paper.is_empty() && entry.info.kind == "merge");
            assert_eq!(entry.info.needs.contains("a base"), entry.base != BaseRole::Unused, "{name}");
        }
        let unknown = find("tiess").err().unwrap().to_string();
        assert!(unknown.contains("did you mean `ties`?") && unknown.contains("model-stock, opcm, regmean, rmm"));
        assert!(
            find("opcm").unwrap().tensor(&MergeParams::new(2)).err().unwrap().to_string().contains("opcm does not")
        );
        assert!(find("ties").unwrap().whole(&MergeParams::new(2)).is_err());
        assert!(find("ties").unwrap().reversible(&MergeParams::new(2)).is_err());
    }

    #[test]
    fn every_default_and_every_word_is_understood() {
        for entry in tensor_methods() {
            assert!(entry.per_model.iter().all(|name| entry.has(name)), "{}", entry.info.name);
            for param in entry.info.params {
                let Range::Choice(words) = param.range else { continue };
                for word in words {
                    let params = params(entry, 2).with(param.name, word);
                    assert!(entry.tensor(&params).is_ok(), "{} {}", entry.info.name, param.name);
                }
            }
        }
        for (name, words) in
            [("granularity", &["position", "layer", "product"]), ("align", &["none", "balanced", "procrustes"])]
        {
            for word in words {
                assert!(find("rmm").unwrap().reversible(&MergeParams::new(2).with(name, word)).is_ok());
            }
        }
    }

    #[test]
    fn what_is_given_is_checked_by_the_lists() {
        let ties = find("ties").unwrap();
        let says = |params: MergeParams| ties.tensor(&params).err().unwrap();
        let two = || MergeParams::new(2);
        assert!(
            matches!(says(two().with("densty", 0.5)), Error::UnknownParameter { parameter, .. } if parameter == "densty")
        );
        assert!(
            matches!(says(two().with_each("lambda", &[1.0])), Error::UnknownParameter { known, .. } if known == "a model may have weight, density")
        );
        assert!(
            matches!(says(two().with_each("density", &[1.5])), Error::InvalidParameter { value, .. } if value == "1.5")
        );
        assert!(matches!(says(two().with("count", "all")), Error::InvalidParameter { .. }));
        let slerp = find("slerp").unwrap().tensor(&two()).err().unwrap().to_string();
        assert!(slerp.starts_with("slerp needs `t`"), "{slerp}");
        let rmm = |params: MergeParams| find("rmm").unwrap().reversible(&params);
        assert_eq!(rmm(two()).unwrap().1, BasisBudget::Basis(2));
        assert_eq!(rmm(two().with("error", 0.1)).unwrap().1, BasisBudget::Error(0.1));
        let says = rmm(two().with("error", 0.1).with("basis", 1)).unwrap_err().to_string();
        assert_eq!(says, "basis and error say the same thing: choose one");
    }

    #[test]
    fn numbers_of_models_are_checked_by_what_the_entries_say() {
        let says = |name: &str, models: usize, base: bool| match find(name).unwrap().check(models, base) {
            Ok(()) => String::new(),
            Err(e) => e.to_string(),
        };
        assert_eq!((says("slerp", 2, false), says("slerp", 1, true), says("slerp", 2, true)), Default::default());
        assert!(says("slerp", 1, false).contains("2 models, or a `base` and 1"));
        assert!(says("slerp", 3, false).contains("at most 2") && says("slerp", 3, true).contains("has 3"));
        assert!(says("ties", 2, false).contains("needs a `base`") && says("ties", 1, true).is_empty());
        assert!(says("model-stock", 1, true).contains("at least 2"));
        assert!(!find("linear").unwrap().reads_base(2) && find("slerp").unwrap().reads_base(1));
    }

    #[test]
    fn equal_models_on_their_own_base_are_given_back_by_all() {
        let w = numbers(300, 1);
        let models = [Operand::new("a", &w), Operand::new("b", &w)];
        let tensor = Operands::new("w", &[30, 10], Some(&w), &models).unwrap();
        let none = [Operand::new("a", &[]), Operand::new("b", &[])];
        let empty = Operands::new("e", &[0, 4], Some(&[]), &none).unwrap();
        for entry in tensor_methods() {
            assert_close(&made(entry, 2).merge(&tensor).unwrap(), &w, 1e-6);
            assert!(made(entry, 2).merge(&empty).unwrap().is_empty());
            assert!(
                made(entry, 2).merge(&Operands::new("w", &[300], Some(&w), &models[..1]).unwrap()).is_err()
                    || entry.base == BaseRole::Model
            );
        }
    }

    #[test]
    fn what_they_say_they_need_is_what_they_need() {
        let (a, b) = (numbers(12, 1), numbers(12, 2));
        let models = [Operand::new("a", &a), Operand::new("b", &b)];
        for entry in tensor_methods() {
            let alone = made(entry, 2).merge(&Operands::new("w", &[3, 4], None, &models).unwrap());
            assert_eq!(alone.is_err(), entry.base == BaseRole::Parent, "{}", entry.info.name);
        }
    }

    #[test]
    fn the_order_of_the_models_does_not_matter() {
        let (base, a, b) = (numbers(500, 1), numbers(500, 2), numbers(500, 3));
        let (first, second) = (Operand::new("a", &a), Operand::new("b", &b));
        for entry in tensor_methods().filter(|e| e.info.name != "slerp") {
            let params = MergeParams::new(2);
            let params = if entry.has("density") { params.with("density", 0.5) } else { params };
            let method = entry.tensor(&params).unwrap();
            let merged = |models: &[Operand<'_>]| {
                method.merge(&Operands::new("w", &[50, 10], Some(&base), models).unwrap()).unwrap()
            };
            assert_close(&merged(&[first, second]), &merged(&[second, first]), 1e-6);
        }
    }
}
