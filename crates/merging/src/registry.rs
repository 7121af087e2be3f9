//! Every method that merges tensors, by name.

use regrow_sparse_core::{Error, Result};

use crate::tensors::{Parameters, TensorMerge};
use crate::{Breadcrumbs, Dare, Della, Fisher, Linear, ModelStock, RegMean, Slerp, SparseSoup, TaskArithmetic, Ties};

/// A method as the command line and the tables list it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// What it does with a base.
    pub base: Base,
    /// The fewest models and the most, a base that counts as one among them.
    pub models: (usize, usize),
    /// The parameters that it understands.
    pub parameters: &'static [&'static str],
    /// Makes one for as many models as the parameters speak of.
    pub make: fn(&Parameters) -> Result<Box<dyn TensorMerge>>,
}

/// What a base is to a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: it is not looked at.
    Unused,
    /// The models' common parent, which it needs.
    Parent,
    /// The first of the models, where there is one fewer than it needs.
    Model,
}

/// A method that takes models as wholes, not tensor by tensor: its module says how.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// The parameters that it understands.
    pub parameters: &'static [&'static str],
}

const MANY: usize = usize::MAX;

/// Those that take models as wholes, in the order of their names.
pub const WHOLE: &[About] = &[
    About {
        name: "opcm",
        about: "models merged as they arrive, each freed of what is merged already",
        paper: "arXiv 2501.09522",
        parameters: &["alpha", "convolutions"],
    },
    About {
        name: "rmm",
        about: "adapters merged reversibly into basis models and coefficients",
        paper: "arXiv 2510.14163",
        parameters: &["basis", "storage", "error", "granularity", "align", "centred", "normalize", "rank"],
    },
];

/// All of them, in the order of their names.
pub const ALL: &[Entry] = &[
    Entry {
        name: "breadcrumbs",
        about: "task vectors without their largest and smallest entries, added",
        paper: "arXiv 2312.06795",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "gamma", "lambda", "normalize", "rescale"],
        make: |p| Ok(Box::new(Breadcrumbs::from_parameters(p)?)),
    },
    Entry {
        name: "breadcrumbs-ties",
        about: "the same, added where they agree in sign",
        paper: "arXiv 2312.06795",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "gamma", "lambda", "normalize", "rescale"],
        make: |p| Ok(Box::new(Breadcrumbs::from_parameters(p)?.with_election())),
    },
    Entry {
        name: "dare",
        about: "task vectors thinned out at random and rescaled, added",
        paper: "arXiv 2311.03099",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Dare::from_parameters(p)?)),
    },
    Entry {
        name: "dare-ties",
        about: "the same, added where they agree in sign",
        paper: "arXiv 2311.03099",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Dare::from_parameters(p)?.with_election())),
    },
    Entry {
        name: "della",
        about: "task vectors thinned out at random by rank, averaged where they agree in sign",
        paper: "arXiv 2406.11617",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "epsilon", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Della::from_parameters(p, true)?)),
    },
    Entry {
        name: "della-linear",
        about: "the same, added",
        paper: "arXiv 2406.11617",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "epsilon", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Della::from_parameters(p, false)?)),
    },
    Entry {
        name: "fisher",
        about: "the average weighted by each model's Fisher information",
        paper: "arXiv 2111.09832",
        base: Base::Unused,
        models: (1, MANY),
        parameters: &["weight", "floor"],
        make: |p| Ok(Box::new(Fisher::from_parameters(p)?)),
    },
    Entry {
        name: "linear",
        about: "the weighted average",
        paper: "arXiv 2203.05482",
        base: Base::Unused,
        models: (1, MANY),
        parameters: &["weight", "normalize"],
        make: |p| Ok(Box::new(Linear::from_parameters(p)?)),
    },
    Entry {
        name: "model-stock",
        about: "between the base and the mean, by the angle of the task vectors",
        paper: "arXiv 2403.19522",
        base: Base::Parent,
        models: (2, MANY),
        parameters: &["filter_wise", "clamp"],
        make: |p| Ok(Box::new(ModelStock::from_parameters(p)?)),
    },
    Entry {
        name: "regmean",
        about: "linear layers by regression on the models' inputs, the rest averaged",
        paper: "arXiv 2212.09849",
        base: Base::Unused,
        models: (1, MANY),
        parameters: &["weight", "alpha"],
        make: |p| Ok(Box::new(RegMean::from_parameters(p)?)),
    },
    Entry {
        name: "slerp",
        about: "on the arc between two models, or between the base and one",
        paper: "Shoemake 1985",
        base: Base::Model,
        models: (2, 2),
        parameters: &["t"],
        make: |p| Ok(Box::new(Slerp::from_parameters(p)?)),
    },
    Entry {
        name: "sms",
        about: "the average of models that share a mask; others are refused",
        paper: "arXiv 2306.16788",
        base: Base::Unused,
        models: (1, MANY),
        parameters: &["weight"],
        make: |p| Ok(Box::new(SparseSoup::from_parameters(p)?)),
    },
    Entry {
        name: "task-arithmetic",
        about: "the base and a weighted sum of task vectors",
        paper: "arXiv 2212.04089",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "lambda", "normalize"],
        make: |p| Ok(Box::new(TaskArithmetic::from_parameters(p)?)),
    },
    Entry {
        name: "ties",
        about: "task vectors trimmed to their largest entries, averaged where they agree in sign",
        paper: "arXiv 2306.01708",
        base: Base::Parent,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "count", "rescale", "scope"],
        make: |p| Ok(Box::new(Ties::from_parameters(p)?)),
    },
];

impl Entry {
    /// Whether the base is looked at where so many models stand beside it.
    pub fn reads_base(&self, models: usize) -> bool {
        match self.base {
            Base::Unused => false,
            Base::Parent => true,
            Base::Model => models < self.models.0,
        }
    }

    /// Refuses a number of models, with a base or without, that the method does not take.
    ///
    /// # Errors
    /// Too few or too many models, no base where it is needed.
    pub fn check(&self, models: usize, base: bool) -> Result<()> {
        let (name, (fewest, most)) = (self.name, self.models);
        let says = |reason: String| Err(Error::Argument(format!("{name} {reason}")));
        if self.base == Base::Parent && !base {
            return says("needs a `base`, the models' common parent".into());
        }
        match models + usize::from(base && self.base == Base::Model && self.reads_base(models)) {
            n if n < fewest && self.base == Base::Model => {
                says(format!("needs {fewest} models, or a `base` and {}, the recipe has {n}", fewest - 1))
            }
            n if n < fewest => says(format!("needs at least {fewest} models, the recipe has {n}")),
            n if n > most => says(format!("takes at most {most} models, the recipe has {n}")),
            _ => Ok(()),
        }
    }

    /// What it is.
    pub fn said(&self) -> About {
        About { name: self.name, about: self.about, paper: self.paper, parameters: self.parameters }
    }
}

/// The entry of that name.
///
/// # Errors
/// If there is none, naming those there are, or the method takes models as wholes.
pub fn find(name: &str) -> Result<&'static Entry> {
    let says = || {
        if WHOLE.iter().any(|about| about.name == name) {
            return Error::Argument(format!("{name} takes models as wholes, not tensor by tensor"));
        }
        let mut names: Vec<&str> = ALL.iter().map(|e| e.name).chain(WHOLE.iter().map(|about| about.name)).collect();
        names.sort_unstable();
        Error::Argument(format!("unknown merging method `{name}`: use {}", names.join(", ")))
    };
    ALL.iter().find(|e| e.name == name).ok_or_else(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::{Operand, Operands, Value};
    use crate::testing::numbers;

    fn made(entry: &Entry, models: usize) -> Box<dyn TensorMerge> {
        (entry.make)(&Parameters::defaults(models).with("t", Value::Number(0.5))).unwrap()
    }

    #[test]
    fn names_are_sorted_and_those_of_the_methods() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
        for entry in ALL {
            assert_eq!(made(entry, 2).name(), entry.name);
            assert_eq!(find(entry.name).unwrap().paper, entry.paper);
        }
        let unknown = find("tiess").err().unwrap().to_string();
        assert!(unknown.contains("task-arithmetic, ties") && unknown.contains("model-stock, opcm, regmean, rmm"));
        assert!(find("opcm").err().unwrap().to_string().contains("as wholes"));
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
        for entry in ALL {
            let merged = made(entry, 2).merge(&tensor).unwrap();
            let far = merged.iter().zip(&w).map(|(m, w)| (m - w).abs()).fold(0.0, f32::max);
            assert!(far < 1e-6, "{}: {far}", entry.name);
            assert!(made(entry, 2).merge(&empty).unwrap().is_empty());
            assert!(
                made(entry, 2).merge(&Operands::new("w", &[300], Some(&w), &models[..1]).unwrap()).is_err()
                    || entry.base == Base::Model
            );
        }
    }

    #[test]
    fn what_they_say_they_need_is_what_they_need() {
        let (a, b) = (numbers(12, 1), numbers(12, 2));
        let models = [Operand::new("a", &a), Operand::new("b", &b)];
        for entry in ALL {
            let alone = made(entry, 2).merge(&Operands::new("w", &[3, 4], None, &models).unwrap());
            assert_eq!(alone.is_err(), entry.base == Base::Parent, "{}", entry.name);
        }
    }

    #[test]
    fn the_order_of_the_models_does_not_matter() {
        let (base, a, b) = (numbers(500, 1), numbers(500, 2), numbers(500, 3));
        let (first, second) = (Operand::new("a", &a), Operand::new("b", &b));
        for entry in ALL.iter().filter(|e| e.name != "slerp") {
            let parameters = Parameters::defaults(2).with("density", Value::Number(0.5));
            let method = (entry.make)(&parameters).unwrap();
            let merged = |models: &[Operand<'_>]| {
                method.merge(&Operands::new("w", &[50, 10], Some(&base), models).unwrap()).unwrap()
            };
            let (one, other) = (merged(&[first, second]), merged(&[second, first]));
            let far = one.iter().zip(&other).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(far < 1e-6, "{}: {far}", entry.name);
        }
    }
}
