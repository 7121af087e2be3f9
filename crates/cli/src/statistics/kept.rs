//! The sums so far, in a file beside the output, from which an interrupted run resumes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regrow_checkpoint::atomic;
use regrow_merging::information::FisherSums;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::Args;
use crate::error::{Error, Result};

/// The metadata keys for the run's settings and progress.
const SETTINGS: &str = "regrow.settings";
const EXAMPLES: &str = "regrow.examples";

/// The file.
pub struct Kept {
    path: PathBuf,
    settings: String,
    written: Instant,
    /// How long the last save took.
    took: Duration,
}

impl Kept {
    /// For a run with these settings; with `--resume` also loads what an interrupted run left.
    pub fn begin(args: &Args, settings: String) -> Result<(Self, FisherSums)> {
        let path = args.out.with_added_extension("sums");
        let sums = match args.resume && path.exists() {
            true => read(&path, &settings)?,
            false => FisherSums::default(),
        };
        Ok((Self { path, settings, written: Instant::now(), took: Duration::ZERO }, sums))
    }

    /// Writes the sums, unless that would take more than a twentieth of the time.
    pub fn keep(&mut self, sums: &FisherSums) -> Result<()> {
        if self.written.elapsed() < 20 * self.took {
            return Ok(());
        }
        let begun = Instant::now();
        self.write(sums)?;
        (self.written, self.took) = (Instant::now(), begun.elapsed());
        Ok(())
    }

    fn write(&self, sums: &FisherSums) -> Result<()> {
        let bytes: Vec<Vec<u8>> =
            sums.of_parameters.iter().map(|sums| sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()).collect();
        let bad = |e: safetensors::SafeTensorError| Error::Argument(format!("{}: {e}", self.path.display()));
        let view = |bytes| TensorView::new(Dtype::F64, vec![<[u8]>::len(bytes) / 8], bytes).map_err(bad);
        let views = bytes.iter().enumerate().map(|(at, bytes)| Ok((at.to_string(), view(bytes)?)));
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata =
            [(SETTINGS.to_string(), self.settings.clone()), (EXAMPLES.to_string(), sums.examples.to_string())];
        let file = safetensors::serialize(views, Some(metadata.into())).map_err(bad)?;
        Ok(atomic::write_atomic(&self.path, |out| out.write_all(&file))?)
    }

    /// Removes the saved sums after success.
    pub fn end(self) {
        let _gone = fs::remove_file(&self.path);
    }
}

/// What a run with these settings left.
fn read(path: &PathBuf, settings: &str) -> Result<FisherSums> {
    let bad = |reason: String| Error::from(regrow_sparse_core::Error::format(path, reason));
    let file = fs::read(path).map_err(|e| regrow_sparse_core::Error::io(path, e))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|e| bad(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| bad(e.to_string()))?;
    let said = |key: &str| header.metadata().as_ref().and_then(|said| said.get(key)).map(String::as_str);
    if said(SETTINGS) != Some(settings) {
        return Err(bad("belongs to a run with other settings; remove it to start anew".into()));
    }
    let examples =
        said(EXAMPLES).and_then(|n| n.parse().ok()).ok_or_else(|| bad("does not say how far it is".into()))?;
    let sums = |at: usize| {
        let tensor = tensors.tensor(&at.to_string()).map_err(|e| bad(e.to_string()))?;
        Ok(tensor.data().as_chunks().0.iter().map(|sum| f64::from_le_bytes(*sum)).collect())
    };
    Ok(FisherSums { examples, of_parameters: (0..tensors.len()).map(sums).collect::<Result<_>>()? })
}
