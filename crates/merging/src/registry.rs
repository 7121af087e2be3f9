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
    /// Whether it needs the models' common parent.
    pub base: bool,
    /// The fewest models and the most.
    pub models: (usize, usize),
    /// The parameters that it understands.
    pub parameters: &'static [&'static str],
    /// Makes one for as many models as the parameters speak of.
    pub make: fn(&Parameters) -> Result<Box<dyn TensorMerge>>,
}

const MANY: usize = usize::MAX;

/// All of them, in the order of their names.
pub const ALL: &[Entry] = &[
    Entry {
        name: "breadcrumbs",
        about: "task vectors without their largest and smallest entries, added",
        paper: "arXiv 2312.06795",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "gamma", "lambda", "normalize", "rescale"],
        make: |p| Ok(Box::new(Breadcrumbs::from_parameters(p)?)),
    },
    Entry {
        name: "breadcrumbs-ties",
        about: "the same, added where they agree in sign",
        paper: "arXiv 2312.06795",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "gamma", "lambda", "normalize", "rescale"],
        make: |p| Ok(Box::new(Breadcrumbs::from_parameters(p)?.with_election())),
    },
    Entry {
        name: "dare",
        about: "task vectors thinned out at random and rescaled, added",
        paper: "arXiv 2311.03099",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Dare::from_parameters(p)?)),
    },
    Entry {
        name: "dare-ties",
        about: "the same, added where they agree in sign",
        paper: "arXiv 2311.03099",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Dare::from_parameters(p)?.with_election())),
    },
    Entry {
        name: "della",
        about: "task vectors thinned out at random by rank, averaged where they agree in sign",
        paper: "arXiv 2406.11617",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "epsilon", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Della::from_parameters(p, true)?)),
    },
    Entry {
        name: "della-linear",
        about: "the same, added",
        paper: "arXiv 2406.11617",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "epsilon", "lambda", "normalize", "rescale", "seed"],
        make: |p| Ok(Box::new(Della::from_parameters(p, false)?)),
    },
    Entry {
        name: "fisher",
        about: "the average weighted by each model's Fisher information",
        paper: "arXiv 2111.09832",
        base: false,
        models: (1, MANY),
        parameters: &["weight", "floor"],
        make: |p| Ok(Box::new(Fisher::from_parameters(p)?)),
    },
    Entry {
        name: "linear",
        about: "the weighted average",
        paper: "arXiv 2203.05482",
        base: false,
        models: (1, MANY),
        parameters: &["weight", "normalize"],
        make: |p| Ok(Box::new(Linear::from_parameters(p)?)),
    },
    Entry {
        name: "model-stock",
        about: "between the base and the mean, by the angle of the task vectors",
        paper: "arXiv 2403.19522",
        base: true,
        models: (2, MANY),
        parameters: &["filter_wise", "clamp"],
        make: |p| Ok(Box::new(ModelStock::from_parameters(p)?)),
    },
    Entry {
        name: "regmean",
        about: "linear layers by regression on the models' inputs, the rest averaged",
        paper: "arXiv 2212.09849",
        base: false,
        models: (1, MANY),
        parameters: &["weight", "alpha"],
        make: |p| Ok(Box::new(RegMean::from_parameters(p)?)),
    },
    Entry {
        name: "slerp",
        about: "on the arc between two models, or between the base and one",
        paper: "Shoemake 1985",
        base: false,
        models: (1, 2),
        parameters: &["t"],
        make: |p| Ok(Box::new(Slerp::from_parameters(p)?)),
    },
    Entry {
        name: "sms",
        about: "the average of models that share a mask; others are refused",
        paper: "arXiv 2306.16788",
        base: false,
        models: (1, MANY),
        parameters: &["weight"],
        make: |p| Ok(Box::new(SparseSoup::from_parameters(p)?)),
    },
    Entry {
        name: "task-arithmetic",
        about: "the base and a weighted sum of task vectors",
        paper: "arXiv 2212.04089",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "lambda", "normalize"],
        make: |p| Ok(Box::new(TaskArithmetic::from_parameters(p)?)),
    },
    Entry {
        name: "ties",
        about: "task vectors trimmed to their largest entries, averaged where they agree in sign",
        paper: "arXiv 2306.01708",
        base: true,
        models: (1, MANY),
        parameters: &["weight", "density", "lambda", "normalize", "count", "rescale", "scope"],
        make: |p| Ok(Box::new(Ties::from_parameters(p)?)),
    },
];

/// The entry of that name.
///
/// # Errors
/// If there is none, naming those there are.
pub fn find(name: &str) -> Result<&'static Entry> {
    let names = || ALL.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
    let unknown = || Error::Argument(format!("unknown merging method `{name}`: use {}", names()));
    ALL.iter().find(|e| e.name == name).ok_or_else(unknown)
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
        assert!(find("tiess").err().unwrap().to_string().contains("task-arithmetic, ties"));
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
                    || entry.name == "slerp"
            );
        }
    }

    #[test]
    fn what_they_say_they_need_is_what_they_need() {
        let (a, b) = (numbers(12, 1), numbers(12, 2));
        let models = [Operand::new("a", &a), Operand::new("b", &b)];
        for entry in ALL {
            let alone = made(entry, 2).merge(&Operands::new("w", &[3, 4], None, &models).unwrap());
            assert_eq!(alone.is_err(), entry.base, "{}", entry.name);
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
