//! Settings of a method by name, as a command line gives them: `block=64,damping=0.02`.

use std::collections::BTreeMap;
use std::str::FromStr;

use regrow_sparse_core::{Error, Result};

/// A seed, and what was said of a method's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The source of randomness, for methods that have some.
    pub seed: u64,
    said: BTreeMap<String, String>,
}

impl Settings {
    /// This seed, and everything else as the method has it.
    pub fn new(seed: u64) -> Self {
        Self { seed, said: BTreeMap::new() }
    }

    /// With the settings of `list`, as `a=1,b=2`.
    ///
    /// # Errors
    /// What is not of that form, a setting that is there twice.
    pub fn with(mut self, list: &str) -> Result<Self> {
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let bad = || Error::Argument(format!("`{item}` is no setting: write name=value"));
            let (name, value) = item.split_once('=').ok_or_else(bad)?;
            if self.said.insert(name.trim().into(), value.trim().into()).is_some() {
                return Err(Error::Argument(format!("the setting `{}` is there twice", name.trim())));
            }
        }
        Ok(self)
    }

    /// Refuses settings that are not among the `known` ones of `method`.
    ///
    /// # Errors
    /// The first such setting, naming those there are.
    pub fn check(&self, method: &str, known: &[&str]) -> Result<()> {
        match self.said.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if known.is_empty() => {
                Err(Error::Argument(format!("{method} has no setting `{name}`, nor any")))
            }
            Some(name) => {
                Err(Error::Argument(format!("{method} has no setting `{name}`: there are {}", known.join(", "))))
            }
        }
    }

    /// The setting of that name, if it was given.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |value: &String| {
            value.parse().map_err(|_| Error::Argument(format!("`{value}` is no value of the setting `{name}`")))
        };
        self.said.get(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_found() {
        let settings = Settings::new(3).with("block=64, damping=0.5").unwrap();
        assert_eq!((settings.seed, settings.get("block").unwrap()), (3, Some(64usize)));
        assert_eq!(settings.get("damping").unwrap(), Some(0.5f64));
        assert_eq!(settings.get::<f64>("other").unwrap(), None);
        settings.check("x", &["damping", "block"]).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |list: &str| Settings::new(0).with(list);
        assert!(with("block").unwrap_err().to_string().contains("name=value"));
        assert!(with("a=1,a=2").unwrap_err().to_string().contains("twice"));
        let said = with("blok=1").unwrap().check("sparsegpt", &["block", "damping"]).unwrap_err().to_string();
        assert_eq!(said, "sparsegpt has no setting `blok`: there are block, damping");
        assert!(with("a=1").unwrap().check("random", &[]).unwrap_err().to_string().contains("nor any"));
        assert!(with("block=x").unwrap().get::<usize>("block").unwrap_err().to_string().contains("`x`"));
    }
}
