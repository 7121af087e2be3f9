//! A method's description, the same for every kind: name, paper, needs, parameters, constructor.
//!
//! Each method crate has a `registry.rs` with a list of [`Entry`]s for each kind of method. The command line's help,
//! recipes, tables and the README read these lists, so a new method is its own file and one entry.
//!
//! ```
//! use regrow_sparse_core::registry::{Entry, MethodInfo, Param, Params, Range, find};
//!
//! trait Greet {
//!     fn greet(&self) -> String;
//! }
//!
//! struct Hello(u64);
//!
//! impl Greet for Hello {
//!     fn greet(&self) -> String {
//!         "hello ".repeat(self.0 as usize)
//!     }
//! }
//!
//! const ALL: &[Entry<dyn Greet>] = &[Entry {
//!     info: MethodInfo {
//!         kind: "greeting",
//!         name: "hello",
//!         summary: "says hello",
//!         paper: "none",
//!         needs: "nothing",
//!         params: &[Param { name: "times", meaning: "how often", default: "1", range: Range::Integer { min: 1, max: 9 } }],
//!     },
//!     build: |params| Ok(Box::new(Hello(params.integer("times")?))),
//! }];
//!
//! let params = Params::new(0).with("times=2")?;
//! assert_eq!(find(ALL, "hello")?.build(&params)?.greet(), "hello hello ");
//! assert!(find(ALL, "hello")?.build(&Params::new(0).with("times=10")?).is_err());
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::{Error, Result};

/// The values a parameter may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// `true` or `false`.
    Flag,
    /// An integer, both ends included.
    Integer {
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
    },
    /// A finite number, both ends included.
    Real {
        /// The minimum.
        min: f64,
        /// The maximum.
        max: f64,
    },
    /// A finite number above `min`, such as a temperature.
    Above {
        /// What it must exceed.
        min: f64,
    },
    /// A finite number of at least `min` and below `below`, such as a sparsity.
    Below {
        /// The minimum.
        min: f64,
        /// What it must stay below.
        below: f64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text; the method defines what it accepts.
    Text,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("true or false"),
            Self::Integer { min, max: u64::MAX } => write!(f, "whole number from {min}"),
            Self::Integer { min, max } => write!(f, "whole number, {min} to {max}"),
            Self::Real { min, max } => match (min.is_finite(), max.is_finite()) {
                (true, true) => write!(f, "[{min}, {max}]"),
                (true, false) => write!(f, "at least {min}"),
                (false, true) => write!(f, "at most {max}"),
                (false, false) => f.write_str("number"),
            },
            Self::Above { min } => write!(f, "above {min}"),
            Self::Below { min, below } => write!(f, "[{min}, {below})"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Text => f.write_str("text"),
        }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Range {
    /// Any finite number.
    pub const NUMBER: Self = Self::Real { min: f64::NEG_INFINITY, max: f64::INFINITY };
    /// A finite number above 0.
    pub const POSITIVE: Self = Self::Above { min: 0.0 };
    /// A finite number of at least 0.
    pub const NON_NEGATIVE: Self = Self::Real { min: 0.0, max: f64::INFINITY };
    /// A fraction in [0, 1].
    pub const FRACTION: Self = Self::Real { min: 0.0, max: 1.0 };
    /// A sparsity in [0, 1).
    pub const SPARSITY: Self = Self::Below { min: 0.0, below: 1.0 };
    /// An integer of at least 1.
    pub const COUNT: Self = Self::Integer { min: 1, max: u64::MAX };

    /// Whether `value` is one of these.
    pub fn admits(&self, value: &str) -> bool {
        let real = |inside: &dyn Fn(f64) -> bool| value.parse().is_ok_and(|v: f64| v.is_finite() && inside(v));
        match self {
            Self::Flag => value.parse::<bool>().is_ok(),
            Self::Integer { min, max } => value.parse().is_ok_and(|v: u64| (*min..=*max).contains(&v)),
            Self::Real { min, max } => real(&|v| (*min..=*max).contains(&v)),
            Self::Above { min } => real(&|v| v > *min),
            Self::Below { min, below } => real(&|v| v >= *min && v < *below),
            Self::Choice(words) => words.contains(&value),
            Self::Text => true,
        }
    }
}

/// A parameter of a method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a few words, with its unit.
    pub meaning: &'static str,
    /// Its default value, as text; empty if it must be given.
    pub default: &'static str,
    /// The values it may have.
    pub range: Range,
}

/// A method's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MethodInfo {
    /// The kind of method: `score`, `budget`, `layer-solver`, `pruner`, `merge`, `strategy`, `weighter`.
    pub kind: &'static str,
    /// Its name, as on the command line and in tables.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its paper, such as `arXiv 2306.11695`; `baseline` if there is none.
    pub paper: &'static str,
    /// What it needs besides weights: evidence, a base, data, or the scenarios it fits.
    pub needs: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
}

impl MethodInfo {
    /// The names of its parameters.
    pub fn param_names(&self) -> Vec<&'static str> {
        self.params.iter().map(|p| p.name).collect()
    }

    /// Checks a value against the range of the named parameter; for constructors.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`]; [`Error::UnknownParameter`] for a name that is no parameter of the method.
    pub fn check(&self, parameter: &str, value: impl fmt::Display) -> Result<()> {
        let (method, value) = (self.name.to_string(), value.to_string());
        match self.params.iter().find(|p| p.name == parameter) {
            Some(param) if param.range.admits(&value) => Ok(()),
            Some(param) => {
                let (parameter, range) = (parameter.into(), param.range.to_string());
                Err(Error::InvalidParameter { method, parameter, value, range })
            }
            None => {
                let known = self.param_names().join(", ");
                Err(Error::UnknownParameter { method, parameter: parameter.into(), known })
            }
        }
    }

    /// Every parameter of the method: those of `given`, defaults for the others.
    ///
    /// # Errors
    /// A parameter that the method does not have, a value outside its range, a required one that is missing.
    pub fn complete(&self, given: &Params) -> Result<Params> {
        let name = self.name;
        if let Some(unknown) = given.values.keys().find(|key| !self.params.iter().any(|p| p.name == *key)) {
            let known = match self.params {
                [] => "it has none".into(),
                _ => format!("it has {}", self.param_names().join(", ")),
            };
            return Err(Error::UnknownParameter { method: name.into(), parameter: unknown.clone(), known });
        }
        let mut all = Params::new(given.seed);
        for param in self.params {
            let value = given.values.get(param.name).map_or(param.default, String::as_str);
            if value.is_empty() && param.default.is_empty() && !given.values.contains_key(param.name) {
                return Err(Error::Argument(format!("{name} needs `{}`: {}", param.name, param.meaning)));
            }
            if value != param.default && !param.range.admits(value) {
                let (parameter, range) = (param.name.into(), param.range.to_string());
                return Err(Error::InvalidParameter { method: name.into(), parameter, value: value.into(), range });
            }
            all.values.insert(param.name.into(), value.into());
        }
        Ok(all)
    }
}

/// A seed, and parameters by name, in the form `block=64,damping=0.02`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The random seed, for methods that use randomness.
    pub seed: u64,
    values: BTreeMap<String, String>,
}

impl Params {
    /// This seed, and every parameter at its default.
    pub fn new(seed: u64) -> Self {
        Self { seed, values: BTreeMap::new() }
    }

    /// With the parameters of `list`, in the form `a=1,b=2`.
    ///
    /// # Errors
    /// A list not of that form, a parameter given twice.
    pub fn with(mut self, list: &str) -> Result<Self> {
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let bad = || Error::Argument(format!("`{item}` is no parameter: write name=value"));
            let (name, value) = item.split_once('=').ok_or_else(bad)?;
            if self.values.insert(name.trim().into(), value.trim().into()).is_some() {
                return Err(Error::Argument(format!("the parameter `{}` is given twice", name.trim())));
            }
        }
        Ok(self)
    }

    /// With one parameter set, replacing its old value.
    pub fn set(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.values.insert(name.into(), value.to_string());
        self
    }

    /// Whether only the seed is given.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The named parameter, if present, parsed as `T`.
    ///
    /// # Errors
    /// A value that cannot be parsed as `T`.
    pub fn get<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |value: &String| {
            value.parse().map_err(|_| Error::Argument(format!("`{value}` is no value of the parameter `{name}`")))
        };
        self.values.get(name).map(parse).transpose()
    }

    /// The named parameter, which must be present, as after [`MethodInfo::complete`].
    ///
    /// # Errors
    /// If it is missing, or cannot be parsed as `T`.
    pub fn require<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        self.get(name)?.ok_or_else(|| Error::Argument(format!("the parameter `{name}` is missing")))
    }

    /// An integer.
    ///
    /// # Errors
    /// As [`Params::require`].
    pub fn integer(&self, name: &str) -> Result<u64> {
        self.require(name)
    }

    /// A count or an index.
    ///
    /// # Errors
    /// As [`Params::require`].
    pub fn count(&self, name: &str) -> Result<usize> {
        self.require(name)
    }

    /// A real number.
    ///
    /// # Errors
    /// As [`Params::require`].
    pub fn real(&self, name: &str) -> Result<f64> {
        self.require(name)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// As [`Params::require`].
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.require(name)
    }

    /// A word.
    ///
    /// # Errors
    /// As [`Params::require`].
    pub fn text(&self, name: &str) -> Result<String> {
        self.require(name)
    }
}

/// A method in its crate's list: its description and its constructor.
pub struct Entry<T: ?Sized + 'static> {
    /// Its description.
    pub info: MethodInfo,
    /// Builds one from a complete table of parameters; call [`Entry::build`].
    pub build: fn(&Params) -> Result<Box<T>>,
}

impl<T: ?Sized> Entry<T> {
    /// The method with these parameters, defaults for those not given.
    ///
    /// # Errors
    /// As [`MethodInfo::complete`], and values that the method rejects.
    pub fn build(&self, params: &Params) -> Result<Box<T>> {
        (self.build)(&self.info.complete(params)?)
    }
}

/// The entry with that name.
///
/// # Errors
/// If there is none; the message lists the known names and the nearest.
pub fn find<'a, T: ?Sized>(all: &'a [Entry<T>], name: &str) -> Result<&'a Entry<T>> {
    let unknown = || unknown_method(name, &all.iter().map(|entry| entry.info).collect::<Vec<_>>());
    all.iter().find(|entry| entry.info.name == name).ok_or_else(unknown)
}

/// The error for a name that is not in `known`.
pub fn unknown_method(name: &str, known: &[MethodInfo]) -> Error {
    let names: Vec<&str> = known.iter().map(|info| info.name).collect();
    let near = names.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    let near =
        near.filter(|(similarity, _)| *similarity > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name);
    Error::UnknownMethod {
        kind: known.first().map_or("method", |info| info.kind).into(),
        name: name.into(),
        hint: near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)")),
        known: names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: MethodInfo = MethodInfo {
        kind: "score",
        name: "example",
        summary: "an example",
        paper: "baseline",
        needs: "nothing",
        params: &[
            Param { name: "block", meaning: "columns at a time", default: "128", range: Range::COUNT },
            Param {
                name: "group",
                meaning: "what is compared",
                default: "row",
                range: Range::Choice(&["layer", "row"]),
            },
            Param { name: "sparsity", meaning: "fraction of zeros", default: "", range: Range::SPARSITY },
        ],
    };

    #[test]
    fn what_is_given_is_completed_by_defaults() {
        let given = Params::new(3).with("block=64, sparsity=0.5").unwrap();
        let all = INFO.complete(&given).unwrap();
        assert_eq!((all.seed, all.count("block").unwrap(), all.text("group").unwrap().as_str()), (3, 64, "row"));
        assert_eq!(all.real("sparsity").unwrap(), 0.5);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let says = |list: &str| INFO.complete(&Params::new(0).with(list).unwrap()).unwrap_err();
        assert!(matches!(says("blok=1"), Error::UnknownParameter { parameter, .. } if parameter == "blok"));
        assert!(matches!(says("sparsity=1"), Error::InvalidParameter { parameter, .. } if parameter == "sparsity"));
        for bad in ["block=0", "block=x", "group=column", "sparsity=NaN"] {
            assert!(matches!(says(bad), Error::InvalidParameter { .. }), "{bad}");
        }
        assert_eq!(says("").to_string(), "example needs `sparsity`: fraction of zeros");
        assert!(Params::new(0).with("block").unwrap_err().to_string().contains("name=value"));
        assert!(Params::new(0).with("a=1,a=2").unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_constructor_checks_by_the_same_ranges() {
        assert!(INFO.check("block", 1).is_ok() && INFO.check("sparsity", 0.5).is_ok());
        assert!(matches!(INFO.check("block", 0), Err(Error::InvalidParameter { .. })));
        assert!(matches!(INFO.check("blok", 1), Err(Error::UnknownParameter { .. })));
        assert!(Range::POSITIVE.admits("1e-9") && !Range::POSITIVE.admits("0") && !Range::POSITIVE.admits("NaN"));
        assert_eq!(Range::POSITIVE.to_string(), "above 0");
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_name() {
        let says = unknown_method("exampel", &[INFO]).to_string();
        assert_eq!(says, "unknown score `exampel` (did you mean `example`?): use example");
        assert_eq!(unknown_method("zzz", &[INFO]).to_string(), "unknown score `zzz`: use example");
    }
}
