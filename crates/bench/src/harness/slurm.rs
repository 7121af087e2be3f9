//! A table as a Slurm array: a task for each seed, with results gathered from files.
//!
//! Tasks share nothing. Each writes its part of the table to `OUT/part-K`; the same command with `--resume` takes the
//! cells of all parts it finds there, computes missing ones, and shows the table.

use std::fmt::Write;
use std::path::Path;

use regrow_sparse_core::{Error, Result};

use crate::harness::settings::Common;

/// Options of a table that each task sets itself.
const OWN: [&str; 3] = ["--seeds", "--first-seed", "--out"];

/// Checks the number of seeds. If a script was requested instead of the table, prints it and returns true.
///
/// # Errors
/// No seed.
pub fn scripted(common: &Common) -> Result<bool> {
    if common.seeds == 0 {
        return Err(Error::Argument("a table needs at least one seed (--seeds)".into()));
    }
    if common.slurm {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let program = std::env::current_exe().unwrap_or_else(|_| "bench".into());
        print!("{}", script(&program, &words, common));
    }
    Ok(common.slurm)
}

/// The script for the table of `words`, a command line without the program.
pub fn script(program: &Path, words: &[String], common: &Common) -> String {
    let out = std::path::absolute(&common.out).unwrap_or_else(|_| common.out.clone());
    let (out, program) = (out.display().to_string(), program.display().to_string());
    let words = kept(words);
    let table = words.iter().find(|word| !word.starts_with('-')).map_or("table", String::as_str);
    let command: String = std::iter::once(&program).chain(&words).map(|word| quoted(word) + " ").collect();
    let Common { seeds, first_seed, .. } = common;
    let mut script = String::from("#!/usr/bin/env bash\n");
    let _ = writeln!(script, "#SBATCH --job-name=regrow-{table}");
    let _ = writeln!(script, "#SBATCH --array=0-{}", seeds.saturating_sub(1));
    let _ =
        writeln!(script, "# A seed per task. A task that was killed goes on when it is run again. When all are done:");
    let gathered = format!("--first-seed {first_seed} --seeds {seeds} --out {}", quoted(&out));
    let _ = writeln!(script, "#   {command}{gathered} --resume");
    let _ = writeln!(script, "set -euo pipefail");
    let part = format!("{}\"/part-$SLURM_ARRAY_TASK_ID\"", quoted(&out));
    let seed = format!("$(({first_seed} + SLURM_ARRAY_TASK_ID))");
    let _ = writeln!(script, "exec {command}--first-seed {seed} --seeds 1 --out {part} --resume");
    script
}

/// The words without those that each task sets itself.
fn kept(words: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if OWN.contains(&word.as_str()) {
            words.next();
        } else if word != "--slurm" && word != "--resume" && !OWN.iter().any(|own| word.starts_with(&format!("{own}=")))
        {
            kept.push(word.clone());
        }
    }
    kept
}

/// A word quoted for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::harness::settings::Scale;

    #[test]
    fn a_seed_per_task() {
        let common = Common {
            scale: Scale::Quick,
            data: None,
            seeds: 3,
            first_seed: 7,
            out: PathBuf::from("/tmp/my tables"),
            resume: false,
            slurm: true,
            parallel: None,
        };
        let words = ["pruning", "--seeds", "3", "--method", "GMP,one-shot", "--first-seed=7", "--out", "x", "--slurm"];
        let script = script(Path::new("/bin/bench"), &words.map(String::from), &common);
        assert!(script.contains("#SBATCH --array=0-2\n") && script.contains("--job-name=regrow-pruning\n"), "{script}");
        let last = script.lines().last().unwrap();
        assert_eq!(
            last,
            "exec /bin/bench pruning --method GMP,one-shot --first-seed $((7 + SLURM_ARRAY_TASK_ID)) --seeds 1 \
             --out '/tmp/my tables'\"/part-$SLURM_ARRAY_TASK_ID\" --resume"
        );
        assert!(script.contains("--first-seed 7 --seeds 3 --out '/tmp/my tables' --resume\n"), "{script}");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
