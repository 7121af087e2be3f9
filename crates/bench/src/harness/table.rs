//! The interface of a table: [`Table`]. The harness does the rest: options, devices, progress, resuming, files,
//! verdicts.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::data::Images;
use serde::Serialize;

use crate::harness::claim::Claim;
use crate::harness::paper::Paper;
use crate::harness::record::Record;
use crate::harness::settings::Common;
use crate::harness::trainer::Trainer;
use crate::harness::view::View;

/// A table of a paper. Its own options are its fields: those that determine the numbers are serialized.
///
/// A new table is one file with an implementation, its published figures in `published/<name>.toml`, and its line in
/// [`tables::ALL`](crate::tables::ALL). `tables/rd.rs` is the pattern to follow, `tests/own_table.rs` the smallest; in
/// your own program, `Entry::of::<MyTable>(&INFO).main()` is the whole `main`.
pub trait Table: Serialize + Sync {
    /// What all rows are made from, opened once.
    type Data: Send + Sync;

    /// Fills in options that were not given, and rejects what cannot be run.
    ///
    /// # Errors
    /// Impossible options.
    fn check(&mut self, _common: &Common) -> Result<()> {
        Ok(())
    }

    /// Opens the data; `folder` contains the data sets that are not embedded.
    ///
    /// # Errors
    /// Data that is missing.
    fn open(&self, folder: Option<&Path>) -> Result<Self::Data>;

    /// The pieces to run for each seed; they share the devices.
    fn settings(&self) -> Vec<Setting> {
        vec![Setting::default()]
    }

    /// Total epochs of one seed, for the progress bar; 0 if they are not counted.
    fn epochs(&self, _data: &Self::Data) -> usize {
        0
    }

    /// The rows of one setting and seed.
    ///
    /// # Errors
    /// Errors of the methods.
    fn rows(&self, setting: &Setting, seed: u64, context: &Context<'_, Self::Data>) -> Result<Vec<Record>>;

    /// The papers' claims about the methods; by default the claims stored with the published figures.
    fn claims(&self, paper: &Paper) -> Vec<Claim> {
        paper.claims.clone()
    }

    /// Our setting, in one line.
    fn describe(&self, data: &Self::Data) -> String;

    /// How the rows are shown; an empty view means methods by sparsity.
    ///
    /// # Errors
    /// Errors of anything that is measured only for display.
    fn view(&self, _data: &Self::Data, _rows: &[Record]) -> Result<View> {
        Ok(View::default())
    }
}

/// Rejects options if `holds` is false; `why` is the reason.
///
/// # Errors
/// If it does not hold.
pub fn ensure(holds: bool, why: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument(why.into())) }
}

/// The requested methods, with the table's names.
///
/// # Errors
/// An unknown name.
pub fn chosen(wanted: &[String], all: &[&str]) -> Result<Vec<String>> {
    let find = |name: &String| {
        let found = all.iter().find(|method| method.eq_ignore_ascii_case(name)).map(ToString::to_string);
        found.ok_or_else(|| Error::Argument(format!("unknown method `{name}`: use {}", all.join(", "))))
    };
    wanted.iter().map(find).collect()
}

/// A piece of a table's seed: all rows of it, or those of one method, sparsity and number of candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setting {
    /// The method, if it is one.
    pub method: Option<String>,
    /// The sparsity, if it is one.
    pub sparsity: Option<f64>,
    /// Candidates, if given.
    pub m: Option<usize>,
}

impl Setting {
    /// The rows of a method.
    pub fn method(name: &str) -> Self {
        Self { method: Some(name.into()), ..Self::default() }
    }

    /// Those of one sparsity.
    pub fn at(self, sparsity: f64) -> Self {
        Self { sparsity: Some(sparsity), ..self }
    }

    /// Those of one number of candidates.
    pub fn with_m(self, m: usize) -> Self {
        Self { m: Some(m), ..self }
    }

    /// Whether a row belongs here.
    pub fn holds(&self, row: &Record) -> bool {
        self.method.as_ref().is_none_or(|method| *method == row.method)
            && self.sparsity.is_none_or(|sparsity| sparsity == row.sparsity)
            && self.m.is_none_or(|m| m == row.m)
    }

    /// The method's name; empty if the setting has none.
    pub fn name(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }
}

/// The device and data for computing rows.
pub struct Context<'a, D> {
    /// The table's data.
    pub data: &'a D,
    /// Where tensors live.
    pub device: &'a Device,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
    /// The device of data shared by a seed's settings.
    pub(crate) home: &'a Device,
    pub(crate) shared: &'a Shared,
}

/// Data shared by the settings of a seed, computed on first use.
#[derive(Default)]
pub(crate) struct Shared(Mutex<HashMap<(TypeId, u64), Slot>>);

type Slot = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

impl<D> Context<'_, D> {
    /// Prints a status line above the bar.
    pub fn say(&self, what: impl std::fmt::Display) {
        self.bar.set_message(format!("({what})"));
    }

    /// Trains and evaluates on `train` here: momentum 0.9, batch-norm statistics from a fifth of the images.
    pub fn trainer<'b>(&'b self, train: &'b Images, batch: usize) -> Trainer<'b> {
        Trainer { train, device: self.device, bar: self.bar, batch, momentum: 0.9, recalibration: 0.2 }
    }

    /// Data that all settings of `seed` share, such as a trained network: computed once, on the process's own device.
    ///
    /// # Errors
    /// Errors of `make`.
    pub fn of_seed<T: Any + Send + Sync>(&self, seed: u64, make: impl FnOnce(&Self) -> Result<T>) -> Result<Arc<T>> {
        let slot = {
            let mut all = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry((TypeId::of::<T>(), seed)).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = slot.as_ref().and_then(|made| made.clone().downcast::<T>().ok()) {
            return Ok(made);
        }
        let made = Arc::new(make(&Self { device: self.home, ..*self })?);
        *slot = Some(made.clone());
        Ok(made)
    }
}
