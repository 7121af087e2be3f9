//! The strategies of the table, each with its settings, in one list.

use std::sync::Arc;

use regrow_continual::dst::Growth;
use regrow_continual::stream::Scenario;
use regrow_continual::{AGem, DerPp, Dst, Er, Ewc, FineTune, Gem, ICarl, Joint, Lwf, PackNet, Si, Strategy, Wa};
use regrow_sparse_core::{Budget, Result};
use regrow_zoo::Net;

use super::Plan;

/// What a strategy is made for.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The table's settings.
    pub plan: &'a Plan,
    /// The scenario.
    pub scenario: Scenario,
}

impl Setting<'_> {
    /// Strength of EWC.
    pub fn ewc(&self) -> f64 {
        of(self.scenario, self.plan.ewc)
    }

    /// Strength of SI.
    pub fn si(&self) -> f64 {
        of(self.scenario, self.plan.si)
    }

    /// Examples in memory.
    pub fn memory(&self) -> usize {
        self.plan.memory
    }
}

/// The one of three numbers that belongs to `scenario`.
fn of(scenario: Scenario, [task, class, domain]: [f64; 3]) -> f64 {
    match scenario {
        Scenario::Task => task,
        Scenario::Class => class,
        Scenario::Domain => domain,
    }
}

type Make = dyn Fn(&Setting<'_>) -> Result<Box<dyn Strategy<Net>>> + Send + Sync;

/// A strategy of the table.
#[derive(Clone)]
pub struct Method {
    /// Its name: row of the table, word on the command line.
    pub name: String,
    make: Arc<Make>,
}

impl Method {
    /// A strategy that `make` makes anew for every cell.
    pub fn new<S: Strategy<Net> + 'static>(
        name: &str,
        make: impl Fn(&Setting<'_>) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), make: Arc::new(move |setting| Ok(Box::new(make(setting)?))) }
    }

    /// A fresh one.
    ///
    /// # Errors
    /// If the plan's settings are impossible.
    pub fn make(&self, plan: &Plan, scenario: Scenario) -> Result<Box<dyn Strategy<Net>>> {
        (self.make)(&Setting { plan, scenario })
    }
}

/// Without anything kept: the lower bound.
pub const FINE_TUNE: &str = "fine-tune";

/// All of them: bounds first, then springs, distillation, replay, weights shared out.
pub fn all() -> Vec<Method> {
    vec![
        Method::new(FINE_TUNE, |_| Ok(FineTune)),
        Method::new("joint", |_| Ok(Joint)),
        Method::new("EWC", |at| Ewc::new(at.ewc())?.with_samples(at.plan.fisher)),
        Method::new("online EWC", |at| Ewc::online(at.ewc(), 1.0)?.with_samples(at.plan.fisher)),
        Method::new("SI", |at| Si::new(at.si(), 0.1)),
        Method::new("LwF", |_| Lwf::new(1.0, 2.0)),
        Method::new("ER", |at| Er::new(at.memory())),
        Method::new("DER++", |at| DerPp::new(at.memory(), 0.5, 0.5)),
        Method::new("GEM", |at| Gem::new(at.memory(), 0.5)),
        Method::new("A-GEM", |at| AGem::new(at.memory())),
        Method::new("iCaRL", |at| ICarl::new(at.memory())),
        Method::new("WA", |at| Wa::new(at.memory())),
        Method::new("PackNet", |_| PackNet::new(0.75)),
        Method::new("DST-CL", |_| Dst::new(0.8, Budget::Erk, Growth::Gradient, 20)),
    ]
}
