//! Distributes pieces of work over several devices: candidates of a soup, cells and seeds of a table.
//!
//! A pool has workers, on each device as many as requested. A free worker takes the next piece. When a peer dies,
//! another worker takes its piece, and the peer gets no more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use crate::quiet::quietly;
use crate::select::{is_peer, probe, title};
use crate::{Error, Result};

/// Called with a line of text when a worker is lost.
type Tell<'a> = &'a (dyn Fn(&str) + Sync);

/// The workers that take pieces of work.
pub struct DevicePool<'a> {
    workers: Vec<Worker>,
    tell: Tell<'a>,
}

struct Worker {
    device: Device,
    lost: AtomicBool,
}

/// The remaining pieces of a job, and the results of the others.
struct Job<T, E> {
    open: VecDeque<usize>,
    running: usize,
    done: Vec<Option<T>>,
    failed: Option<E>,
}

impl<'a> DevicePool<'a> {
    /// As many workers on each of `devices` as `side_by_side` returns, at least one.
    pub fn new(devices: &[Device], side_by_side: impl Fn(&Device) -> usize) -> Self {
        let times = |device: &Device| side_by_side(device).max(1);
        let worker = |device: &Device| Worker { device: device.clone(), lost: AtomicBool::new(false) };
        let workers = devices.iter().flat_map(|device| (0..times(device)).map(move |_| worker(device))).collect();
        Self { workers, tell: &|_| () }
    }

    /// Reports lost workers.
    pub fn with_tell(mut self, tell: Tell<'a>) -> Self {
        self.tell = tell;
        self
    }

    /// How many pieces are processed at a time.
    pub fn workers(&self) -> usize {
        self.left().count().max(1)
    }

    fn left(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| !worker.lost.load(Ordering::Relaxed))
    }

    /// Runs `work` on the pieces `0..count`, each on the device it is given; results in order.
    ///
    /// Threads are started for this call and belong to no pool: a tensor operation that waits for the pool must not
    /// pick up a whole piece meanwhile.
    ///
    /// # Errors
    /// The first error of any piece, after which no piece is started; or every device was lost.
    pub fn run<T: Send, E: From<Error> + Send>(
        &self,
        count: usize,
        work: impl Fn(&Device, usize) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let workers: Vec<&Worker> = self.left().take(count).collect();
        if let [only] = workers[..]
            && !is_peer(&only.device)
        {
            return (0..count).map(|piece| work(&only.device, piece)).collect();
        }
        let job =
            Job { open: (0..count).collect(), running: 0, done: (0..count).map(|_| None).collect(), failed: None };
        let board = Board { job: Mutex::new(job), changed: Condvar::new() };
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(|| self.at(worker, &board, &work));
            }
        });
        let job = board.job.into_inner().unwrap_or_else(PoisonError::into_inner);
        match job.failed {
            Some(error) => Err(error),
            None => job.done.into_iter().collect::<Option<Vec<T>>>().ok_or_else(|| {
                Error::Argument("every device that was given work is lost; run again with --resume".into()).into()
            }),
        }
    }

    /// The loop of one worker, until nothing is left.
    fn at<T, E: From<Error>>(
        &self,
        worker: &Worker,
        board: &Board<T, E>,
        work: &(impl Fn(&Device, usize) -> Result<T, E> + Sync),
    ) {
        while let Some(piece) = board.take() {
            match self.attempt(worker, || work(&worker.device, piece)) {
                Some(Ok(value)) => board.put(|job| job.done[piece] = Some(value)),
                Some(Err(error)) => board.put(|job| {
                    job.open.clear();
                    job.failed.get_or_insert(error);
                }),
                None => {
                    board.put(|job| job.open.push_front(piece));
                    return;
                }
            }
        }
    }

    /// The result of a piece; `None` if its peer was lost.
    fn attempt<T, E: From<Error>>(
        &self,
        worker: &Worker,
        piece: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let died = |line: &str| Error::Argument(format!("a thread at work on a part of the job died: {line}"));
        // Burn's operations panic if a peer is gone; a method may have turned that into an error.
        match quietly(piece) {
            Ok(Ok(value)) => Some(Ok(value)),
            Ok(Err(error)) if !self.is_lost(worker) => Some(Err(error)),
            Err(line) if !self.is_lost(worker) => Some(Err(died(&line).into())),
            _ => None,
        }
    }

    /// Whether a peer no longer answers.
    fn is_lost(&self, worker: &Worker) -> bool {
        let name = title(&worker.device);
        let lost = is_peer(&worker.device) && probe(&name, &worker.device).is_err();
        if lost && !worker.lost.swap(true, Ordering::Relaxed) {
            (self.tell)(&format!("{name} is lost; what it was at is given to another"));
        }
        lost
    }
}

/// The queue from which workers take pieces.
struct Board<T, E> {
    job: Mutex<Job<T, E>>,
    changed: Condvar,
}

impl<T, E> Board<T, E> {
    fn job(&self) -> MutexGuard<'_, Job<T, E>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece. If there is none, waits for the running ones: one may come back.
    fn take(&self) -> Option<usize> {
        let mut job = self.job();
        loop {
            if let Some(piece) = job.open.pop_front() {
                job.running += 1;
                return Some(piece);
            }
            if job.running == 0 || job.failed.is_some() {
                return None;
            }
            job = self.changed.wait(job).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a piece.
    fn put(&self, end: impl FnOnce(&mut Job<T, E>)) {
        let mut job = self.job();
        job.running -= 1;
        end(&mut job);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::current;

    /// A pool of `workers` workers on one device of any kind.
    fn pool(workers: usize) -> DevicePool<'static> {
        DevicePool::new(&vec![current(); workers], |_| 1)
    }

    #[test]
    fn results_keep_their_order_and_errors_come_through() {
        for workers in [1, 2, 5] {
            let pool = pool(workers);
            assert_eq!(pool.workers(), workers);
            assert_eq!(pool.run::<_, Error>(5, |_, i| Ok(i * i)).unwrap(), [0, 1, 4, 9, 16]);
            assert!(pool.run::<usize, Error>(0, |_, i| Ok(i)).unwrap().is_empty());
            let failing = |_: &Device, i| if i == 3 { Err(Error::Argument("three".into())) } else { Ok(i) };
            assert_eq!(pool.run(5, failing).unwrap_err().to_string(), "three");
        }
    }

    #[test]
    fn a_device_has_as_many_workers_as_are_asked_for() {
        for (asked, workers) in [(3, 3), (0, 1)] {
            assert_eq!(DevicePool::new(&[current()], |_| asked).workers(), workers);
        }
    }

    #[test]
    fn a_panic_of_a_piece_is_an_error_of_the_job() {
        let said = pool(2).run::<usize, Error>(3, |_, i| if i == 1 { panic!("an index") } else { Ok(i) });
        assert!(said.unwrap_err().to_string().contains("died: an index"));
    }

    #[test]
    fn workers_share_the_pieces() {
        let together = std::sync::Barrier::new(3);
        // None ends before three have started.
        let all = pool(3).run::<_, Error>(3, |_, i| {
            together.wait();
            Ok(i)
        });
        assert_eq!(all.unwrap(), [0, 1, 2]);
    }
}
