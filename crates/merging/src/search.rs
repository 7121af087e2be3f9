//! Chooses merge coefficients on validation data, with argmin's solvers.
//!
//! A search optimizes a point: weights, a density, or other numbers of the caller's choice. The caller sees every
//! evaluation and may store it. Given the stored evaluations, an interrupted search repeats its steps without
//! evaluating anything twice, since the solvers depend only on the losses and a seed.
//!
//! ```
//! use regrow_merging::search::Search;
//!
//! let mut losses = Vec::new();
//! let search = Search::new(vec![0.5, 0.5])?.with_evaluations(60);
//! let found = search.run(&[], &mut |x: &[f64]| {
//!     let loss = (x[0] - 0.8).powi(2) + (x[1] - 0.1).powi(2);
//!     losses.push(loss);
//!     Ok::<_, regrow_sparse_core::Error>(loss)
//! })?;
//! assert!(found.loss < 1e-4 && losses.len() == found.evaluations);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use argmin::core::{CostFunction, Executor};
use argmin::solver::neldermead::NelderMead;
use argmin::solver::particleswarm::ParticleSwarm;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use regrow_sparse_core::{Error, Result};

/// How the next points are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Solver {
    /// A simplex that moves downhill from the start (Nelder & Mead, 1965): few evaluations, a local
    /// optimum.
    #[default]
    NelderMead,
    /// Particles that move through all of the bounds (Kennedy & Eberhart, 1995): many evaluations.
    ParticleSwarm,
    /// The greedy soup (Wortsman et al., arXiv 2203.05482, algorithm 1) as weights: each model alone, then models are
    /// added in the order of their losses, and kept if the loss decreases. For `n` models `2 n - 1` evaluations, of
    /// points whose coordinates are at either bound; the start does not matter.
    GreedySoup,
}

/// A search for the point of least loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    start: Vec<f64>,
    bounds: (f64, f64),
    evaluations: usize,
    solver: Solver,
    seed: u64,
}

/// A point and its loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The point, within the bounds.
    pub point: Vec<f64>,
    /// Its loss.
    pub loss: f64,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// The point of least loss.
    pub point: Vec<f64>,
    /// Its loss.
    pub loss: f64,
    /// How many points were evaluated, including those known before.
    pub evaluations: usize,
}

impl Search {
    /// Starts from a point, which is evaluated first, within 0 and 1 in every direction; 50 evaluations.
    ///
    /// # Errors
    /// A point without numbers, or outside the bounds.
    pub fn new(start: Vec<f64>) -> Result<Self> {
        Self::within(start, 0.0, 1.0)
    }

    /// Within other bounds.
    ///
    /// # Errors
    /// As [`Search::new`].
    pub fn within(start: Vec<f64>, lower: f64, upper: f64) -> Result<Self> {
        let inside = start.iter().all(|x| (lower..=upper).contains(x)) && lower < upper;
        match inside && !start.is_empty() {
            true => Ok(Self { start, bounds: (lower, upper), evaluations: 50, solver: Solver::default(), seed: 0 }),
            false => Err(Error::Argument(format!("a search from {start:?} within {lower} and {upper}"))),
        }
    }

    /// With another number of evaluations.
    pub fn with_evaluations(mut self, evaluations: usize) -> Self {
        self.evaluations = evaluations.max(1);
        self
    }

    /// With another solver; `seed` determines how particles move.
    pub fn with_solver(mut self, solver: Solver, seed: u64) -> Self {
        (self.solver, self.seed) = (solver, seed);
        self
    }

    /// The best of at most the set number of evaluations; `known` are the first evaluations of an interrupted run of
    /// the same search, in order. A loss that is NaN counts as infinite.
    ///
    /// # Errors
    /// Errors of `loss`, or `known` evaluations of another search.
    pub fn run<E: From<Error> + Send>(
        &self,
        known: &[Evaluation],
        loss: &mut (dyn FnMut(&[f64]) -> Result<f64, E> + Send),
    ) -> Result<SearchResult, E> {
        let asked = Mutex::new(Asked { known, done: Vec::new(), loss, failure: None });
        let objective = || Objective { search: self, asked: &asked };
        // Evaluations are collected in `asked`; the solver's own result is not needed.
        match self.solver {
            Solver::NelderMead => {
                let solver = NelderMead::new(self.simplex());
                let _result = Executor::new(objective(), solver)
                    .configure(|state| state.max_iters(self.evaluations as u64))
                    .run();
            }
            Solver::GreedySoup => self.greedy(&|point| objective().cost(&point).unwrap_or(f64::INFINITY)),
            Solver::ParticleSwarm => {
                let _first = objective().cost(&self.start);
                let bounds = (vec![self.bounds.0; self.start.len()], vec![self.bounds.1; self.start.len()]);
                let random = Xoshiro256PlusPlus::seed_from_u64(self.seed);
                let solver = ParticleSwarm::new(bounds, particles(self.start.len())).with_rng_generator(random);
                let _result = Executor::new(objective(), solver)
                    .configure(|state| state.max_iters(self.evaluations as u64))
                    .run();
            }
        }
        let asked = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        match asked.failure {
            Some(failure) => Err(failure),
            None => Ok(best(asked.done)?),
        }
    }

    /// Requests the losses of a greedy soup.
    fn greedy(&self, loss: &dyn Fn(Vec<f64>) -> f64) {
        let count = self.start.len();
        let of = |chosen: &[usize]| -> Vec<f64> {
            (0..count).map(|i| if chosen.contains(&i) { self.bounds.1 } else { self.bounds.0 }).collect()
        };
        let mut order: Vec<(usize, f64)> = (0..count).map(|i| (i, loss(of(&[i])))).collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        let Some((&(first, mut least), others)) = order.split_first() else { return };
        let mut chosen = vec![first];
        for (next, _) in others {
            chosen.push(*next);
            let found = loss(of(&chosen));
            if found < least {
                least = found;
            } else {
                chosen.pop();
            }
        }
    }

    /// The start and, for each direction, a point a quarter of the bounds away, towards their middle.
    fn simplex(&self) -> Vec<Vec<f64>> {
        let (lower, upper) = self.bounds;
        let step = (upper - lower) / 4.0;
        let corner = |direction: usize| {
            let mut point = self.start.clone();
            point[direction] += if point[direction] + step > upper { -step } else { step };
            point
        };
        [self.start.clone()].into_iter().chain((0..self.start.len()).map(corner)).collect()
    }

    fn clamped(&self, point: &[f64]) -> Vec<f64> {
        point.iter().map(|x| x.clamp(self.bounds.0, self.bounds.1)).collect()
    }
}

/// argmin recommends some dozens. Fewer leave more steps to each within a small number of evaluations.
fn particles(directions: usize) -> usize {
    5 + 2 * directions
}

fn best(done: Vec<Evaluation>) -> Result<SearchResult> {
    let evaluations = done.len();
    let best = done.into_iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
    let best = best.ok_or_else(|| Error::Argument("the search evaluated nothing".into()))?;
    Ok(SearchResult { point: best.point, loss: best.loss, evaluations })
}

/// The solver's requests, and the answers.
struct Asked<'a, E> {
    known: &'a [Evaluation],
    done: Vec<Evaluation>,
    loss: &'a mut (dyn FnMut(&[f64]) -> Result<f64, E> + Send),
    failure: Option<E>,
}

struct Objective<'s, 'a, E> {
    search: &'s Search,
    asked: &'s Mutex<Asked<'a, E>>,
}

impl<'a, E: From<Error>> Objective<'_, 'a, E> {
    fn asked(&self) -> MutexGuard<'_, Asked<'a, E>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evaluate(&self, point: &[f64]) -> Result<f64, E> {
        let mut asked = self.asked();
        let Some(known) = asked.known.get(asked.done.len()) else { return (asked.loss)(point) };
        let same = known.point.len() == point.len() && known.point.iter().zip(point).all(|(a, b)| (a - b).abs() < 1e-9);
        match same {
            true => Ok(known.loss),
            false => {
                Err(Error::Argument("what is known of an interrupted search belongs to another one".into()).into())
            }
        }
    }
}

impl<E: From<Error>> CostFunction for Objective<'_, '_, E> {
    type Param = Vec<f64>;
    type Output = f64;

    /// Once the evaluations are used up or one has failed, the solver gets infinite losses: it does not take an error.
    fn cost(&self, point: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        if self.asked().done.len() >= self.search.evaluations || self.asked().failure.is_some() {
            return Ok(f64::INFINITY);
        }
        let point = self.search.clamped(point);
        match self.evaluate(&point) {
            Ok(loss) => {
                let loss = if loss.is_nan() { f64::INFINITY } else { loss };
                self.asked().done.push(Evaluation { point, loss });
                Ok(loss)
            }
            Err(failure) => {
                self.asked().failure = Some(failure);
                Ok(f64::INFINITY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greedy_soup_keeps_what_helps() {
        // Alone: 0.9, 0.2, 0.5, 0.3. The best is 1; 3 improves it, 2 and 0 do not.
        let mut asked = Vec::new();
        let search = Search::new(vec![0.5; 4]).unwrap().with_solver(Solver::GreedySoup, 0);
        let mut loss = |x: &[f64]| {
            asked.push(x.iter().map(|x| *x as u8).collect::<Vec<u8>>());
            let alone = [0.9, 0.2, 0.5, 0.3];
            let some: Vec<usize> = (0..4).filter(|i| x[*i] > 0.5).collect();
            Ok::<_, Error>(match some[..] {
                [one] => alone[one],
                [1, 3] => 0.1,
                _ => 0.4,
            })
        };
        let found = search.run(&[], &mut loss).unwrap();
        assert_eq!((found.point.as_slice(), found.loss, found.evaluations), (&[0.0, 1.0, 0.0, 1.0][..], 0.1, 7));
        assert_eq!(asked[4..], [[0, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]]);
    }

    const SOLVERS: [Solver; 2] = [Solver::NelderMead, Solver::ParticleSwarm];

    /// A bowl with its minimum at (0.7, 0.2), and the evaluated points.
    fn run(search: &Search, known: &[Evaluation]) -> (SearchResult, Vec<Evaluation>) {
        let mut asked = Vec::new();
        let found = search.run(known, &mut |x: &[f64]| {
            let loss = (x[0] - 0.7).powi(2) + 3.0 * (x[1] - 0.2).powi(2);
            asked.push(Evaluation { point: x.to_vec(), loss });
            Ok::<_, Error>(loss)
        });
        (found.unwrap(), asked)
    }

    #[test]
    fn the_least_loss_is_found_within_the_bounds() {
        for solver in SOLVERS {
            let search = Search::new(vec![0.1, 0.9]).unwrap().with_solver(solver, 1).with_evaluations(150);
            let (found, asked) = run(&search, &[]);
            assert!(found.loss < 1e-2, "{solver:?} {found:?}");
            assert!(asked.len() <= 150 && asked.len() == found.evaluations);
            assert_eq!(asked[0].point, [0.1, 0.9]);
            assert!(asked.iter().all(|e| e.point.iter().all(|x| (0.0..=1.0).contains(x))));
        }
    }

    #[test]
    fn an_interrupted_search_evaluates_nothing_twice() {
        for solver in SOLVERS {
            let search = Search::new(vec![0.5, 0.5]).unwrap().with_solver(solver, 3).with_evaluations(40);
            let (whole, asked) = run(&search, &[]);
            let (resumed, more) = run(&search, &asked[..17]);
            assert_eq!((resumed, more), (whole, asked[17..].to_vec()), "{solver:?}");
        }
    }

    #[test]
    fn failures_come_through_and_strangers_are_refused() {
        let search = Search::new(vec![0.5]).unwrap();
        let failing = search.run(&[], &mut |_| Err::<f64, _>(Error::Argument("no data".into())));
        assert_eq!(failing.unwrap_err().to_string(), "no data");
        let other = [Evaluation { point: vec![0.9], loss: 1.0 }];
        let says = search.run(&other, &mut |_| Ok::<_, Error>(1.0)).unwrap_err();
        assert!(says.to_string().contains("another one"));
        assert!(Search::new(vec![]).is_err() && Search::new(vec![2.0]).is_err());
        assert!(Search::within(vec![0.5], 0.6, 0.9).is_err());
        let nan = search.with_evaluations(3).run(&[], &mut |_| Ok::<_, Error>(f64::NAN)).unwrap();
        assert_eq!(nan.loss, f64::INFINITY);
    }
}
