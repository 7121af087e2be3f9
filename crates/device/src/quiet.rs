//! Panics of drivers and peers as errors: not printed, and caught.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread expects to panic.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; turns a panic, which is not printed, into its first line.
///
/// For failures of a driver or a peer, not for bugs of this library. State that `work` shares with other code must stay
/// consistent if it panics halfway.
///
/// # Errors
/// If `work` panics.
pub fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is global to the process, so it is installed once and checks a flag of each thread.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |said| {
            if !QUIET.get() {
                before(said);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    done.map_err(|said| {
        let said = said.downcast_ref::<String>().map(String::as_str).or(said.downcast_ref::<&str>().copied());
        first_line(said.unwrap_or_default()).to_string()
    })
}

/// The first meaningful line. An unwrapped error is printed in debug form, all its lines in one.
fn first_line(said: &str) -> &str {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
    let line = line.strip_prefix("called `Result::unwrap()` on an `Err` value: ").unwrap_or(line);
    line.split_once("\\n").map_or(line, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_expected_is_its_first_line() {
        assert_eq!(quietly(|| 3), Ok(3));
        assert_eq!(quietly(|| -> u8 { panic!("\n no driver\nand more") }), Err("no driver".to_string()));
        let unwrapped = || "x".parse::<u8>().map_err(|_| "no such GPU\nframe #0").unwrap();
        assert_eq!(quietly(unwrapped), Err("\"no such GPU".to_string()));
        assert!(!QUIET.get());
    }
}
