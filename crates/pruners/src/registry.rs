//! Every method of this crate by name: scores, layer solvers, pruners, budgets.
//!
//! A new method is its own file and one entry here; the command line's help, tables and lists read these.
//!
//! ```
//! use regrow_pruners::registry::{PRUNERS, Params, find};
//!
//! let pruner = find(PRUNERS, "gmp")?.build(&Params::new(0).with("sparsity=0.9,every=50,score=snip")?)?;
//! assert!(pruner.needs().gradients);
//! # Ok::<(), regrow_pruners::Error>(())
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use regrow_sparse_core::layerwise::{DataFree, LayerSolver};
use regrow_sparse_core::mask::budget::{Allocate, Budget};
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::Pruner;
pub use regrow_sparse_core::registry::{Entry, MethodInfo, Param, Params, Range, find};
use regrow_sparse_core::{Error, Result, Schedule};

use crate::wanda::Group;
use crate::{
    BipConfig, GmpConfig, GranetConfig, Grasp, IsspConfig, Magnitude, Owl, Random, Rd, RiglConfig, Scheduled,
    SetConfig, Snip, SparseGptConfig, StraightThrough, SynFlow, Wanda,
};

/// The descriptions of all methods of this crate, kind by kind.
pub fn methods() -> Vec<MethodInfo> {
    let scores = SCORES.iter().map(|entry| entry.info);
    let solvers = LAYER_SOLVERS.iter().map(|entry| entry.info);
    let pruners = PRUNERS.iter().map(|entry| entry.info);
    scores.chain(solvers).chain(pruners).chain(BUDGETS.iter().map(|entry| entry.info)).collect()
}

const NOTHING: &str = "nothing";
const SEED: &str = "a seed";

const fn score(name: &'static str, summary: &'static str, paper: &'static str, needs: &'static str) -> MethodInfo {
    MethodInfo { kind: "score", name, summary, paper, needs, params: &[] }
}

/// Scores: the importance of a weight. Each works in one-shot, scheduled, gradual, straight-through and iterative
/// pruning.
pub const SCORES: &[Entry<dyn Score>] = &[
    Entry {
        info: score("grasp", "keeps the gradient flowing: w (H g)", "arXiv 2002.07376", "Hessian-gradient products"),
        build: |_| Ok(Box::new(Grasp)),
    },
    Entry {
        info: score("magnitude", "keeps the weights of largest absolute value", "arXiv 1506.02626", NOTHING),
        build: |_| Ok(Box::new(Magnitude)),
    },
    Entry {
        info: score("random", "keeps weights at random", "baseline", SEED),
        build: |params| Ok(Box::new(Random { seed: params.seed })),
    },
    Entry {
        info: score(
            "snip",
            "keeps what the loss would change most without: |w dL/dw|",
            "arXiv 1810.02340",
            "gradients",
        ),
        build: |_| Ok(Box::new(Snip)),
    },
    Entry {
        info: score(
            "synflow",
            "keeps what flows through a network of ones: |w| dR/d|w|",
            "arXiv 2006.05467",
            "synaptic flow",
        ),
        build: |_| Ok(Box::new(SynFlow)),
    },
    Entry {
        info: score("wanda", "weights times the norms of their inputs", "arXiv 2306.11695", "input norms"),
        build: |_| Ok(Box::new(Wanda::default())),
    },
];

/// Methods that prune a linear layer by the inputs it has seen.
pub const LAYER_SOLVERS: &[Entry<dyn LayerSolver>] = &[
    Entry {
        info: MethodInfo {
            kind: "layer-solver",
            name: "magnitude",
            summary: "keeps the weights of largest absolute value",
            paper: "arXiv 1506.02626",
            needs: NOTHING,
            params: &[],
        },
        build: |params| data_free("magnitude", params),
    },
    Entry {
        info: MethodInfo {
            kind: "layer-solver",
            name: "random",
            summary: "keeps weights at random",
            paper: "baseline",
            needs: SEED,
            params: &[],
        },
        build: |params| data_free("random", params),
    },
    Entry {
        info: MethodInfo {
            kind: "layer-solver",
            name: "sparsegpt",
            summary: "prunes column by column, the later ones making up for it",
            paper: "arXiv 2301.00774",
            needs: "calibration inputs",
            params: &[
                Param {
                    name: "block",
                    meaning: "columns whose masks are chosen together",
                    default: "128",
                    range: Range::COUNT,
                },
                Param {
                    name: "damping",
                    meaning: "of the second moment, as a fraction of its mean diagonal",
                    default: "0.01",
                    range: Range::Real { min: 0.0, max: f64::INFINITY },
                },
            ],
        },
        build: |params| {
            let config =
                SparseGptConfig::new().with_block(params.count("block")?).with_damping(params.real("damping")?);
            Ok(Box::new(config.init()?))
        },
    },
    Entry {
        info: MethodInfo {
            kind: "layer-solver",
            name: "wanda",
            summary: "weights times the norms of their inputs, compared within each row",
            paper: "arXiv 2306.11695",
            needs: "calibration inputs",
            params: &[Param {
                name: "group",
                meaning: "what weights are compared with: those of the same output or layer",
                default: "row",
                range: Range::Choice(&["layer", "row"]),
            }],
        },
        build: |params| {
            let group = if params.text("group")? == "layer" { Group::Layer } else { Group::Row };
            Ok(Box::new(Wanda::default().with_group(group)))
        },
    },
];

/// A score that needs no evidence, as a layer solver.
fn data_free(name: &str, params: &Params) -> Result<Box<dyn LayerSolver>> {
    let score: Arc<dyn Score> = Arc::from(find(SCORES, name)?.build(&Params::new(params.seed))?);
    Ok(Box::new(DataFree(score)))
}

const SPARSITY: Param =
    Param { name: "sparsity", meaning: "fraction of weights at zero at the end", default: "", range: Range::SPARSITY };
const INITIAL: Param =
    Param { name: "initial", meaning: "fraction of weights at zero at first", default: "0", range: Range::SPARSITY };
const BEGIN: Param = Param {
    name: "begin",
    meaning: "step of the first update",
    default: "0",
    range: Range::Integer { min: 0, max: u64::MAX },
};
const EVERY: Param = Param { name: "every", meaning: "steps between two updates", default: "100", range: Range::COUNT };
const UPDATES: Param = Param {
    name: "updates",
    meaning: "updates after the first",
    default: "20",
    range: Range::Integer { min: 0, max: u64::MAX },
};
const CURVE: Param = Param {
    name: "curve",
    meaning: "how sparsity grows",
    default: "cubic",
    range: Range::Choice(&["cubic", "geometric", "linear"]),
};
const SCORE: Param = Param {
    name: "score",
    meaning: "what a weight is worth: the name of a score",
    default: "magnitude",
    range: Range::Text,
};
const BUDGET: Param = Param {
    name: "budget",
    meaning: "how the total is shared among layers: the name of a budget",
    default: "global",
    range: Range::Text,
};
const STEPS: Param = Param { name: "steps", meaning: "steps of the whole training", default: "", range: Range::COUNT };
const UNTIL: Param =
    Param { name: "until", meaning: "step from which on masks stay", default: "", range: Range::COUNT };
const FRACTION: Param = Param {
    name: "fraction",
    meaning: "fraction of each layer's weights that moves",
    default: "0.3",
    range: Range::FRACTION,
};

const fn pruner(
    name: &'static str,
    summary: &'static str,
    paper: &'static str,
    needs: &'static str,
    params: &'static [Param],
) -> MethodInfo {
    MethodInfo { kind: "pruner", name, summary, paper, needs, params }
}

const OF_SCORE: &str = "what the score needs";
const SCHEDULED: &[Param] = &[SPARSITY, INITIAL, BEGIN, EVERY, UPDATES, CURVE, SCORE, BUDGET];

/// Methods that prune while a model trains.
pub const PRUNERS: &[Entry<dyn Pruner>] = &[
    Entry {
        info: pruner(
            "bip",
            "learns mask and weights in turns, every second step belonging to the mask",
            "arXiv 2210.04092",
            "gradients; a trained model",
            &[
                SPARSITY,
                STEPS,
                Param {
                    name: "beta",
                    meaning: "first rate of the scores",
                    default: "0.1",
                    range: Range::Real { min: 0.0, max: f64::INFINITY },
                },
                Param {
                    name: "inverse-gamma",
                    meaning: "weight of the implicit gradient's correction",
                    default: "0.0001",
                    range: Range::Real { min: 0.0, max: f64::INFINITY },
                },
                BUDGET,
            ],
        ),
        build: |p| {
            let config = BipConfig::new(p.real("sparsity")?, p.count("steps")?).with_beta(p.real("beta")?);
            let bip = config.with_inverse_gamma(p.real("inverse-gamma")?).init()?;
            Ok(Box::new(bip.with_recipe(recipe(p)?)))
        },
    },
    Entry {
        info: pruner(
            "dpf",
            "masks in the forward pass alone, chosen anew every 16 steps; the dense weights learn on",
            "arXiv 2006.07253",
            OF_SCORE,
            SCHEDULED,
        ),
        build: |p| {
            let dpf = StraightThrough::dpf(schedule(p)?).with_score(score_of(p)?);
            Ok(Box::new(dpf.with_recipe(recipe(p)?)))
        },
    },
    Entry {
        info: pruner(
            "gmp",
            "masks a little more on a cubic schedule; what was pruned may come back",
            "arXiv 1710.01878",
            OF_SCORE,
            &[
                SPARSITY,
                INITIAL,
                BEGIN,
                EVERY,
                UPDATES,
                Param {
                    name: "permanent",
                    meaning: "whether what is pruned stays pruned",
                    default: "false",
                    range: Range::Flag,
                },
                SCORE,
                BUDGET,
            ],
        ),
        build: |p| {
            let config = GmpConfig::new(p.real("sparsity")?).with_initial(p.real("initial")?);
            let config = config.with_begin(p.count("begin")?).with_every(p.count("every")?);
            let config = config.with_updates(p.count("updates")?).with_permanent(p.flag("permanent")?);
            Ok(Box::new(config.init_with(score_of(p)?)?.with_recipe(recipe(p)?)))
        },
    },
    Entry {
        info: pruner(
            "granet",
            "prunes gradually and regrows at every update where the gradient is largest",
            "arXiv 2106.10404",
            "gradients, and what the score needs",
            &[
                SPARSITY,
                STEPS,
                INITIAL,
                EVERY,
                Param {
                    name: "updates",
                    meaning: "updates until the last sparsity; 0: as many as fit in 110 of 160 steps",
                    default: "0",
                    range: Range::Integer { min: 0, max: u64::MAX },
                },
                SCORE,
                BUDGET,
            ],
        ),
        build: |p| {
            let config = GranetConfig::new(p.real("sparsity")?, p.count("steps")?).with_initial(p.real("initial")?);
            let updates = Some(p.count("updates")?).filter(|updates| *updates > 0);
            let config = config.with_every(p.count("every")?).with_updates(updates);
            Ok(Box::new(config.init_with(score_of(p)?)?.with_recipe(recipe(p)?)?))
        },
    },
    Entry {
        info: pruner(
            "issp",
            "shrinks the weights of smallest score a little after every step, then masks them",
            "arXiv 2303.09650",
            OF_SCORE,
            &[
                SPARSITY,
                Param { name: "steps", meaning: "steps that shrink", default: "", range: Range::COUNT },
                Param {
                    name: "ratio",
                    meaning: "what a weight is multiplied by",
                    default: "0.95",
                    range: Range::FRACTION,
                },
                SCORE,
                Param { default: "uniform", ..BUDGET },
            ],
        ),
        build: |p| {
            let config = IsspConfig::new(p.real("sparsity")?, p.count("steps")?).with_ratio(p.require("ratio")?);
            Ok(Box::new(config.init_with(score_of(p)?)?.with_recipe(recipe(p)?)))
        },
    },
    Entry {
        info: pruner(
            "rigl",
            "drops the smallest and grows where the gradient is largest, at a constant sparsity",
            "arXiv 1911.11134",
            "gradients; a model that carries masks",
            &[
                UNTIL,
                EVERY,
                FRACTION,
                Param {
                    name: "dropped-among-candidates",
                    meaning: "whether what was just dropped may grow at once",
                    default: "false",
                    range: Range::Flag,
                },
            ],
        ),
        build: |p| {
            let config = RiglConfig::new(p.count("until")?).with_every(p.count("every")?);
            let config = config.with_fraction(p.real("fraction")?);
            Ok(Box::new(config.with_dropped_among_candidates(p.flag("dropped-among-candidates")?).init()?))
        },
    },
    Entry {
        info: pruner("scheduled", "prunes for good on a schedule", "baseline", OF_SCORE, SCHEDULED),
        build: |p| Ok(Box::new(Scheduled::new(score_of(p)?, schedule(p)?).with_recipe(recipe(p)?))),
    },
    Entry {
        info: pruner(
            "set",
            "drops the smallest and grows at random, at a constant sparsity",
            "arXiv 1707.04780",
            "a seed; a model that carries masks",
            &[UNTIL, EVERY, FRACTION],
        ),
        build: |p| {
            let config = SetConfig::new(p.count("until")?).with_every(p.count("every")?).with_seed(p.seed);
            Ok(Box::new(config.with_fraction(p.real("fraction")?).init()?))
        },
    },
    Entry {
        info: pruner(
            "ste",
            "masks in the forward pass alone, chosen anew after every step; the dense weights learn on",
            "arXiv 2006.07253",
            OF_SCORE,
            SCHEDULED,
        ),
        build: |p| {
            let ste = StraightThrough::ste(schedule(p)?).with_score(score_of(p)?);
            Ok(Box::new(ste.with_recipe(recipe(p)?)))
        },
    },
];

/// The score that the parameter `score` names.
fn score_of(params: &Params) -> Result<Box<dyn Score>> {
    find(SCORES, &params.text("score")?)?.build(&Params::new(params.seed))
}

/// The recipe with the budget that the parameter `budget` names.
fn recipe(params: &Params) -> Result<Recipe> {
    Ok(Recipe::default().with_budget(find(BUDGETS, &params.text("budget")?)?.build(&Params::new(params.seed))?))
}

/// The schedule of the parameters `curve`, `initial`, `sparsity`, `begin`, `every` and `updates`.
fn schedule(p: &Params) -> Result<Schedule> {
    let curve = match p.text("curve")?.as_str() {
        "geometric" => Curve::Geometric,
        "linear" => Curve::Linear,
        _ => Curve::Cubic,
    };
    let (begin, every, updates) = (p.count("begin")?, p.count("every")?, p.count("updates")?);
    Schedule::new(curve, p.real("initial")?, p.real("sparsity")?, begin, every, updates)
}

const fn budget(
    name: &'static str,
    summary: &'static str,
    paper: &'static str,
    needs: &'static str,
    params: &'static [Param],
) -> MethodInfo {
    MethodInfo { kind: "budget", name, summary, paper, needs, params }
}

/// Budgets: how the pruned weights are distributed over layers.
pub const BUDGETS: &[Entry<dyn Allocate>] = &[
    Entry {
        info: budget("er", "density by the number of channels (Erdős–Rényi)", "arXiv 1707.04780", "shapes", &[]),
        build: |_| Ok(Box::new(Budget::Er)),
    },
    Entry {
        info: budget(
            "erk",
            "density by the sum of a kernel's dimensions (Erdős–Rényi kernel)",
            "arXiv 1911.11134",
            "shapes",
            &[],
        ),
        build: |_| Ok(Box::new(Budget::Erk)),
    },
    Entry {
        info: budget(
            "explicit",
            "the sparsity given for each layer",
            "baseline",
            NOTHING,
            &[Param {
                name: "layers",
                meaning: "the layers' paths and sparsities, as conv1.weight:0.5;fc.weight:0.9; others stay dense",
                default: "",
                range: Range::Text,
            }],
        ),
        build: |params| Ok(Box::new(Budget::Explicit(named(&params.text("layers")?)?))),
    },
    Entry {
        info: budget("global", "the smallest scores of all layers together", "baseline", "scores", &[]),
        build: |_| Ok(Box::new(Budget::Global)),
    },
    Entry {
        info: budget(
            "lamp",
            "layers compared by each weight's share of the larger ones",
            "arXiv 2010.07611",
            "scores",
            &[],
        ),
        build: |_| Ok(Box::new(Budget::Lamp)),
    },
    Entry {
        info: budget(
            "owl",
            "blocks with more outliers are pruned less",
            "arXiv 2310.05175",
            "input norms",
            &[
                Param {
                    name: "lambda",
                    meaning: "how far a block may be from the sparsity asked for",
                    default: "0.08",
                    range: Range::Real { min: 0.0, max: f64::INFINITY },
                },
                Param {
                    name: "outlier",
                    meaning: "how many times the mean is an outlier",
                    default: "5",
                    range: Range::Real { min: 0.0, max: f64::INFINITY },
                },
            ],
        ),
        build: |params| Ok(Box::new(Owl::new(params.real("lambda")?, params.real("outlier")?)?)),
    },
    Entry {
        info: budget(
            "rd",
            "least distortion of the outputs",
            "arXiv 2308.10438",
            "outputs of calibration inputs",
            &[Param {
                name: "amounts",
                meaning: "at how many sparsities each layer is measured",
                default: "20",
                range: Range::COUNT,
            }],
        ),
        build: |params| Ok(Box::new(Rd::new(params.count("amounts")?)?)),
    },
    Entry {
        info: budget("uniform", "the same sparsity in every layer", "baseline", "shapes", &[]),
        build: |_| Ok(Box::new(Budget::Uniform)),
    },
    Entry {
        info: budget(
            "uniform-plus",
            "the same but for a dense first layer and a last of at most 80 %",
            "arXiv 1902.09574",
            "shapes",
            &[],
        ),
        build: |_| Ok(Box::new(Budget::UniformPlus)),
    },
];

/// Sparsities by name from a list such as `a:0.5;b:0.9`.
fn named(list: &str) -> Result<BTreeMap<String, f64>> {
    let one = |item: &str| {
        let bad = || Error::Argument(format!("`{item}` is no layer and sparsity: write name:0.5"));
        let (name, sparsity) = item.rsplit_once(':').ok_or_else(bad)?;
        Ok((name.trim().to_string(), sparsity.trim().parse().map_err(|_| bad())?))
    };
    list.split(';').map(str::trim).filter(|item| !item.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(info: &MethodInfo) -> Params {
        let missing = info.params.iter().filter(|param| param.default.is_empty());
        missing.fold(Params::new(1), |params, param| match param.name {
            "sparsity" => params.set("sparsity", 0.5),
            "layers" => params.set("layers", "a.weight:0.5"),
            name => params.set(name, 4000),
        })
    }

    fn check<T: ?Sized>(kind: &str, all: &[Entry<T>]) {
        let names: Vec<&str> = all.iter().map(|entry| entry.info.name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        for entry in all {
            assert_eq!(entry.info.kind, kind);
            assert!(!entry.info.summary.is_empty() && !entry.info.needs.is_empty());
            if let Err(e) = entry.build(&required(&entry.info)) {
                panic!("{}: {e}", entry.info.name);
            }
        }
    }

    #[test]
    fn every_entry_builds_and_names_are_sorted() {
        check("score", SCORES);
        check("layer-solver", LAYER_SOLVERS);
        check("pruner", PRUNERS);
        check("budget", BUDGETS);
        assert_eq!(methods().len(), SCORES.len() + LAYER_SOLVERS.len() + PRUNERS.len() + BUDGETS.len());
    }

    #[test]
    fn what_is_built_goes_by_its_name() {
        for entry in SCORES {
            assert_eq!(entry.build(&Params::new(0)).unwrap().name(), entry.info.name);
        }
        for entry in LAYER_SOLVERS {
            assert_eq!(entry.build(&Params::new(0)).unwrap().name(), entry.info.name);
        }
        for entry in BUDGETS {
            assert_eq!(entry.build(&required(&entry.info)).unwrap().name(), entry.info.name);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let build = |list: &str| find(PRUNERS, "gmp").unwrap().build(&Params::new(0).with(list).unwrap()).err();
        assert!(matches!(build("sparsity=1"), Some(Error::InvalidParameter { .. })));
        assert!(matches!(build("sparsity=0.5,score=magic"), Some(Error::UnknownMethod { .. })));
        assert!(matches!(find(SCORES, "snipp"), Err(Error::UnknownMethod { .. })));
        assert!(named("a.weight").is_err() && named("a:x").is_err());
    }
}
