//! Independent pieces of work in parallel: candidates of a soup, seeds of a table, windows of a text.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::Error;
use crate::properties::is_host;

/// `work(0), work(1), .. work(count - 1)`, up to `threads` at a time, results in order.
///
/// Threads are started for this call and belong to no pool: a tensor operation that waits for the pool must not pick up
/// a whole piece of work meanwhile.
///
/// # Errors
/// The first error of any piece; pieces of later groups are then not started. A panic of a piece is propagated.
pub fn side_by_side<T: Send, E: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    if threads <= 1 || count <= 1 {
        return (0..count).map(work).collect();
    }
    let all: Vec<usize> = (0..count).collect();
    let mut done = Vec::with_capacity(count);
    for group in all.chunks(threads) {
        let work = &work;
        let group = std::thread::scope(|scope| {
            let running: Vec<_> = group.iter().map(|i| scope.spawn(move || work(*i))).collect();
            running
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<Vec<T>, E>>()
        })?;
        done.extend(group);
    }
    Ok(done)
}

/// The results of `work` for all items, in order: in parallel on the CPU's cores if `device` is the CPU, else one after
/// the other. `work` must be small: threads that wait inside it may start another item.
pub fn map_on<A: Send, B: Send>(device: &Device, items: Vec<A>, work: impl Fn(A) -> B + Sync) -> Vec<B> {
    match items.len() > 1 && is_host(device) {
        true => items.into_par_iter().map(&work).collect(),
        false => items.into_iter().map(work).collect(),
    }
}

/// Values that are computed in groups and requested one by one, from several threads: each group is computed once, by
/// the thread that asks first, and kept until all of it has been taken.
pub struct Together<T> {
    groups: Vec<Mutex<Group<T>>>,
}

/// The remaining members of a group, by name; `None` before it is computed.
type Group<T> = Option<Vec<(String, T)>>;

impl<T> Together<T> {
    /// For `groups` groups.
    pub fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Mutex::new(None)).collect() }
    }

    /// Takes the member `name` of a group; `make` computes the whole group.
    ///
    /// # Errors
    /// Errors of `make`; a group or member that does not exist or was taken already.
    pub fn take<E: From<Error>>(
        &self,
        group: usize,
        name: &str,
        make: impl FnOnce() -> Result<Vec<(String, T)>, E>,
    ) -> Result<T, E> {
        let missing = || Error::Argument(format!("there is no `{name}` in group {group}"));
        let mut held = self.groups.get(group).ok_or_else(missing)?.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(make()?);
        }
        let members = held.iter_mut().flatten().position(|(member, _)| member == name);
        match (held.as_mut(), members) {
            (Some(group), Some(place)) => Ok(group.swap_remove(place).1),
            _ => Err(missing().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_errors_come_through() {
        for threads in [1, 2, 5] {
            assert_eq!(side_by_side::<_, Error>(5, threads, |i| Ok(i * i)).unwrap(), [0, 1, 4, 9, 16]);
            let failing = |i| if i == 3 { Err(Error::Argument("three".into())) } else { Ok(i) };
            assert_eq!(side_by_side(5, threads, failing).unwrap_err().to_string(), "three");
        }
    }

    #[test]
    fn what_belongs_together_is_computed_once() {
        let (together, made) = (Together::new(3), std::sync::atomic::AtomicUsize::new(0));
        let make = |group: usize| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, Error>(vec![("a".to_string(), group), ("b".to_string(), 10 + group)])
        };
        let take = |i: usize| together.take(i / 2, if i.is_multiple_of(2) { "a" } else { "b" }, || make(i / 2));
        assert_eq!(side_by_side(6, 6, take).unwrap(), [0, 10, 1, 11, 2, 12]);
        assert_eq!(made.load(std::sync::atomic::Ordering::Relaxed), 3);
        assert!(together.take(0, "a", || make(0)).unwrap_err().to_string().contains("no `a` in group 0"));
        assert!(together.take(7, "a", || make(0)).is_err());
    }
}
