//! The strategies of the table, each with its settings, in one list.

use std::sync::Arc;

use regrow_continual::stream::Scenario;
use regrow_continual::{Strategy, registry};
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{Params, find};
use regrow_zoo::Net;

use super::Plan;

/// What a strategy is made for.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The table's settings.
    pub plan: &'a Plan,
    /// The scenario.
    pub scenario: Scenario,
}

impl At<'_> {
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

type Make = dyn Fn(&At<'_>) -> Result<Box<dyn Strategy<Net>>> + Send + Sync;

/// A strategy of the table.
#[derive(Clone)]
pub struct Method {
    /// Its name: a row of the table, and a value on the command line.
    pub name: String,
    make: Arc<Make>,
}

impl Method {
    /// A strategy that `make` creates for every cell.
    pub fn new<S: Strategy<Net> + 'static>(
        name: &str,
        make: impl Fn(&At<'_>) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), make: Arc::new(move |setting| Ok(Box::new(make(setting)?))) }
    }

    /// The registry's strategy `name`, with `params` in the form `a=1,b=2`.
    fn listed(row: &str, name: &'static str, params: impl Fn(&At<'_>) -> String + Send + Sync + 'static) -> Self {
        let make = move |setting: &At<'_>| {
            find(&registry::entries::<Net>(), name)?.build(&Params::new(0).with(&params(setting))?)
        };
        Self { name: row.into(), make: Arc::new(make) }
    }

    /// A new instance.
    ///
    /// # Errors
    /// If the plan's settings are impossible.
    pub fn make(&self, plan: &Plan, scenario: Scenario) -> Result<Box<dyn Strategy<Net>>> {
        (self.make)(&At { plan, scenario })
    }
}

/// Stores nothing: the lower bound.
pub const FINE_TUNE: &str = "fine-tune";

/// All of them: bounds first, then regularization, distillation, replay, parameter isolation.
pub fn all() -> Vec<Method> {
    let memory = |at: &At<'_>| format!("memory={}", at.memory());
    let ewc = |at: &At<'_>| format!("lambda={},samples={}", at.ewc(), at.plan.fisher);
    vec![
        Method::listed(FINE_TUNE, "finetune", |_| String::new()),
        Method::listed("joint", "joint", |_| String::new()),
        Method::listed("EWC", "ewc", ewc),
        Method::listed("online EWC", "ewc-online", ewc),
        Method::listed("SI", "si", |at| format!("c={},xi=0.1", at.si())),
        Method::listed("LwF", "lwf", |_| String::new()),
        Method::listed("ER", "er", memory),
        Method::listed("DER++", "der++", memory),
        Method::listed("GEM", "gem", memory),
        Method::listed("A-GEM", "agem", memory),
        Method::listed("iCaRL", "icarl", memory),
        Method::listed("WA", "wa", memory),
        Method::listed("PackNet", "packnet", |_| String::new()),
        Method::listed("DST-CL", "dst-cl", |_| String::new()),
    ]
}
