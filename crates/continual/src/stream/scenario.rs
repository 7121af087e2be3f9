//! What is known about tasks: the scenario, and which logits a loss uses.

use std::fmt;

use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is known at test time (van de Ven & Tolias, arXiv 1904.07734).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The task is known: the answer is one of its classes. Every class has its logit.
    Task,
    /// Nothing is known: the answer is one of the classes seen so far. Every class has its logit.
    Class,
    /// Every task has the same labels, from other inputs: one set of logits for all tasks.
    Domain,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Task, Self::Class, Self::Domain];

    /// The scenario with that name: `task`, `class` or `domain`.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|s| s.to_string() == name);
        let unknown = || Error::UnknownMethod {
            kind: "scenario".into(),
            name: name.into(),
            hint: String::new(),
            known: Self::ALL.map(|s| s.to_string()).join(", "),
        };
        found.ok_or_else(unknown)
    }

    /// The default logit scope of a loss.
    pub fn default_scope(self) -> LogitScope {
        match self {
            Self::Task => LogitScope::Task,
            Self::Class => LogitScope::Seen,
            Self::Domain => LogitScope::All,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Class => "class",
            Self::Domain => "domain",
        })
    }
}

/// Which logits the loss of an example uses; the others do not compete with its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogitScope {
    /// Those of the example's own task.
    Task,
    /// Those of all classes seen so far.
    Seen,
    /// All, including future classes.
    All,
}

impl fmt::Display for LogitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "the example's task",
            Self::Seen => "classes seen so far",
            Self::All => "all classes",
        })
    }
}
