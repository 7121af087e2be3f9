//! Progress bars for operations that take more than two seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar that shows once two seconds have passed.
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    /// Counts items with this name.
    pub fn new(of: &str) -> Self {
        Self::with(&format!("{{bar:30}} {{pos}}/{{len}} {of}, {{eta}} left"))
    }

    /// Counts bytes.
    pub fn bytes() -> Self {
        Self::with("{bar:30} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left")
    }

    fn with(template: &str) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    /// Sets progress to `done` of `all`.
    pub fn at(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() && self.started.elapsed() > Duration::from_secs(2) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if done == all {
            self.bar.finish_and_clear();
        }
    }
}
