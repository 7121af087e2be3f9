//! `regrow inspect`: the contents of a checkpoint and its sparsity.

use std::io::Write;
use std::path::PathBuf;

use regrow_checkpoint::atomic;
use regrow_checkpoint::{Checkpoint, Counts, Dtype, Entry};
use regrow_sparse_core::Mask;
use regrow_sparse_core::mask::pattern::conforms;
use regrow_sparse_core::model::report::{self, LayerReport};
use serde::Serialize;

use crate::error::Result;
use crate::source::locate;
use crate::text;

/// Show shape, type, sparsity and N:M pattern of every tensor
///
/// Zeros are counted in tensors of type F64, F32, F16 and BF16; the total's parameters are all their values, including
/// running means and the like. `2:4` is shown if every group of 4 along a row of the matrix [out, rest] has at most 2
/// nonzero values, likewise `4:8`. Packed matrices are shown unpacked, with the bytes that they take in the files.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  regrow inspect model.safetensors\n  regrow inspect MODEL_DIR --picture densities.svg"
)]
pub struct Args {
    /// A safetensors file, a Hugging Face directory, or a model's name on the hub (org/name)
    path: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long)]
    revision: Option<String>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Also write the density of every matrix as an image (SVG)
    #[arg(long)]
    picture: Option<PathBuf>,
}

/// Opens the checkpoint, examines every tensor, prints the report.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let path = locate(&args.path, args.revision.as_deref())?;
    let report = Report::of(&Checkpoint::open(&path)?)?;
    if let Some(path) = &args.picture {
        let svg = report.densities().svg();
        atomic::write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{}\n\n{}", report.table(), report.total.line())?;
    }
    Ok(())
}

/// The whole report; its fields are those of the JSON.
#[derive(Serialize)]
struct Report {
    path: String,
    tensors: Vec<Tensor>,
    total: Total,
}

/// One tensor. The optional fields are empty for types that are not floating-point.
#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    elements: usize,
    /// The size when unpacked.
    bytes: usize,
    /// `dense`, `bitmask` or `2:4`.
    storage: String,
    stored_bytes: usize,
    zeros: Option<usize>,
    sparsity: Option<f64>,
    /// `2:4` or `4:8`; empty if neither holds or nothing is zero.
    pattern: Option<&'static str>,
    nan: usize,
    infinite: usize,
}

/// Sums over all tensors; parameters are the elements of floating-point tensors.
#[derive(Serialize, Default)]
struct Total {
    tensors: usize,
    params: usize,
    nonzero: usize,
    sparsity: f64,
    bytes: usize,
    stored_bytes: usize,
    nan: usize,
    infinite: usize,
}

impl Report {
    fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let tensors = checkpoint.entries().iter().map(|entry| Tensor::of(checkpoint, entry));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let path = checkpoint.path().display().to_string();
        Ok(Self { path, total: Total::of(&tensors), tensors })
    }

    /// Of matrices and kernels only.
    fn densities(&self) -> report::Report {
        let matrices = self.tensors.iter().filter(|t| t.shape.len() >= 2);
        let layers = matrices.filter_map(|t| {
            let (name, shape) = (t.name.clone(), t.shape.clone());
            Some(LayerReport { name, shape, weights: t.elements, zeros: t.zeros?, ..LayerReport::default() })
        });
        report::Report::from_layers(layers.collect())
    }

    fn table(&self) -> String {
        let mut header = vec!["tensor", "type", "shape", "zeros", "sparsity", "N:M"];
        let mut rows: Vec<Vec<String>> = self.tensors.iter().map(Tensor::row).collect();
        let mut add = |names: &[&'static str], cells: &dyn Fn(&Tensor) -> Vec<String>| {
            header.extend(names);
            rows.iter_mut().zip(&self.tensors).for_each(|(row, tensor)| row.extend(cells(tensor)));
        };
        if self.total.stored_bytes != self.total.bytes {
            add(&["stored", "bytes"], &|t| vec![t.storage.clone(), text::grouped(t.stored_bytes)]);
        }
        if self.total.nan + self.total.infinite > 0 {
            add(&["NaN", "inf"], &|t| vec![t.nan.to_string(), t.infinite.to_string()]);
        }
        text::table(&header, 3, rows)
    }
}

impl Tensor {
    fn of(checkpoint: &Checkpoint, entry: &Entry) -> Result<Self> {
        let numeric = matches!(entry.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let counts = numeric.then(|| checkpoint.counts(&entry.name)).transpose()?;
        let zeros = counts.map(|counts| counts.zeros);
        let Counts { nan, infinite, .. } = counts.unwrap_or_default();
        let pattern = match zeros {
            Some(zeros) if zeros > 0 => pattern(checkpoint, entry)?,
            _ => None,
        };
        Ok(Self {
            name: entry.name.clone(),
            dtype: entry.dtype.to_string(),
            shape: entry.shape.clone(),
            elements: entry.elements(),
            bytes: entry.bytes(),
            storage: entry.storage().to_string(),
            stored_bytes: entry.stored_bytes(),
            zeros,
            sparsity: zeros.map(|zeros| fraction(zeros, entry.elements())),
            pattern,
            nan,
            infinite,
        })
    }

    fn row(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            text::one_line(&self.name),
            self.dtype.clone(),
            text::shape(&self.shape),
            or_dash(self.zeros.map(text::grouped)),
            or_dash(self.zeros.map(|zeros| text::percent(zeros, self.elements))),
            or_dash(self.pattern.map(str::to_string)),
        ]
    }
}

impl Total {
    fn of(tensors: &[Tensor]) -> Self {
        let mut total = Self { tensors: tensors.len(), ..Self::default() };
        for tensor in tensors {
            total.bytes += tensor.bytes;
            total.stored_bytes += tensor.stored_bytes;
            total.nan += tensor.nan;
            total.infinite += tensor.infinite;
            if let Some(zeros) = tensor.zeros {
                total.params += tensor.elements;
                total.nonzero += tensor.elements - zeros;
            }
        }
        total.sparsity = fraction(total.params - total.nonzero, total.params);
        total
    }

    fn line(&self) -> String {
        let zeros = self.params - self.nonzero;
        let mut line = format!(
            "{} tensors, {} parameters, {} nonzero, sparsity {}, {} bytes",
            text::grouped(self.tensors),
            text::grouped(self.params),
            text::grouped(self.nonzero),
            text::percent(zeros, self.params),
            text::grouped(self.bytes),
        );
        if self.stored_bytes != self.bytes {
            let part = text::percent(self.stored_bytes, self.bytes);
            line += &format!(", stored in {} ({part})", text::grouped(self.stored_bytes));
        }
        if self.nan + self.infinite > 0 {
            line += &format!(", {} NaN, {} infinite", text::grouped(self.nan), text::grouped(self.infinite));
        }
        line
    }
}

/// The strictest of the patterns that a tensor of two or more dimensions conforms to.
fn pattern(checkpoint: &Checkpoint, entry: &Entry) -> Result<Option<&'static str>> {
    if entry.shape.len() < 2 {
        return Ok(None);
    }
    // One bit per weight, so that an embedding of billions stays small.
    let mut words = vec![0u64; entry.elements().div_ceil(64)];
    let mut index = 0;
    checkpoint.for_each(&entry.name, |value| {
        words[index / 64] |= u64::from(value != 0.0) << (index % 64);
        index += 1;
    })?;
    let mask = Mask::from_words(entry.shape.clone(), words)?;
    let found = [(2, 4, "2:4"), (4, 8, "4:8")].into_iter().find(|(n, m, _)| conforms(&mask, *n, *m));
    Ok(found.map(|(_, _, name)| name))
}

fn fraction(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
