//! The papers' tables. A new one needs a file here, its published figures in `published/`, and a line in [`ALL`].

pub mod bip;
pub mod clr;
pub mod continual;
pub mod granet;
pub mod llm;
pub mod merge;
pub mod opcm;
pub mod polarization;
pub mod pruning;
pub mod rd;
pub mod reweighting;
pub mod rmm;
pub mod sms;

use continual::{dst, wa};

use crate::harness::run::{Entry, parsed};

/// All tables, in the order of their names.
pub const ALL: &[Entry] = &[
    Entry::with::<pruning::Args>(&bip::INFO, |_, options| bip::run(&parsed(options)?)),
    Entry::of::<clr::ClrTable>(&clr::INFO),
    Entry::with::<continual::Args>(&continual::INFO, |_, options| continual::run(&parsed(options)?, &[])),
    Entry::with::<continual::Args>(&dst::INFO, |_, options| dst::run(&parsed(options)?)),
    Entry::with::<pruning::Args>(&granet::INFO, |_, options| granet::run(&parsed(options)?)),
    Entry::with::<llm::Args>(&llm::INFO, |_, options| llm::run(&parsed(options)?)),
    Entry::of::<merge::MergeTable>(&merge::INFO),
    Entry::of::<opcm::OpcmTable>(&opcm::INFO),
    Entry::with::<pruning::Args>(&polarization::INFO, |_, options| polarization::run(&parsed(options)?)),
    Entry::with::<pruning::Args>(&pruning::INFO, |_, options| pruning::run(&parsed(options)?, &[])),
    Entry::of::<rd::Rd>(&rd::INFO),
    Entry::with::<reweighting::Args>(&reweighting::INFO, |_, options| reweighting::run(&parsed(options)?)),
    Entry::of::<rmm::RmmTable>(&rmm::INFO),
    Entry::with::<sms::Args>(&sms::INFO, |_, options| sms::run(&parsed(options)?)),
    Entry::with::<continual::Args>(&wa::INFO, |_, options| wa::run(&parsed(options)?)),
];

/// The table `name`, if there is one.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.info.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::paper::Paper;

    #[test]
    fn every_table_has_published_figures_that_are_read_and_an_example() {
        assert!(ALL.is_sorted_by_key(|entry| entry.info.name));
        for Entry { info, .. } in ALL {
            let paper = Paper::parse(info.paper).unwrap_or_else(|e| panic!("{}: {e}", info.name));
            assert!(!paper.title.is_empty() && !paper.setting.is_empty() && !paper.source.is_empty(), "{}", info.name);
            assert!(paper.figures.iter().all(|f| !f.source.is_empty() && f.value.is_finite()), "{}", info.name);
            assert!(!paper.claims.is_empty(), "{} has no claim", info.name);
            assert!(
                info.example.lines().all(|line| line.starts_with(&format!("bench {}", info.name))),
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn claims_are_of_methods_that_the_committed_results_have() {
        let papers = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../papers");
        for Entry { info, .. } in ALL {
            let folder = papers.join(info.name).join("results");
            let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let json = files.flatten().map(|f| f.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
            let all: Vec<String> = json.map(|path| std::fs::read_to_string(path).unwrap()).collect();
            for claim in Paper::parse(info.paper).unwrap().claims {
                for method in [&claim.better, &claim.than] {
                    let there = all.iter().any(|text| text.contains(&format!("\"method\": \"{method}\"")));
                    assert!(there, "{}: `{}` is about `{method}`, which no result has", info.name, claim.text);
                }
            }
        }
    }
}
