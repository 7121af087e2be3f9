//! Independent pieces of work side by side: candidates of a soup, seeds of a table.

use crate::Error;

/// `work(0), work(1), .. work(count - 1)`, up to `threads` at a time, results in order.
///
/// Threads are started for the purpose and are no pool's: a tensor operation that waits for the
/// pool must not pick up a whole piece of work meanwhile.
///
/// # Errors
/// The first error of any piece; pieces of later groups are then not started.
pub fn side_by_side<T: Send, E: From<Error> + Send>(
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
            running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(died()))).collect::<Result<Vec<T>, E>>()
        })?;
        done.extend(group);
    }
    Ok(done)
}

fn died<E: From<Error>>() -> E {
    Error::Argument("a thread at work on a part of the job died".into()).into()
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
}
