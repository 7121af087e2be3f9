//! What the table prunes: a model on disk, windows to calibrate and to retrain on, a text to measure.

use std::fs;
use std::path::{Path, PathBuf};

use burn::optim::AdamWConfig;
use burn::tensor::Device;
use regrow_checkpoint::Patch;
use regrow_lm::{Language, NextToken, Sizes, Transformer, Words, samples, windows};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_train::{Training, train};
use tempfile::TempDir;

use super::{Args, Plan};

/// The Llama that is trained on the spot: 3 blocks, 31,000 weights.
const SIZES: Sizes = Sizes { vocab: 16, width: 32, layers: 3, heads: 2, inner: 64, context: 32 };
/// Steps of its training at the quick scale.
pub const STEPS: usize = 500;
/// Windows in a step.
const BATCH: usize = 16;
/// Its highest learning rate.
const RATE: f64 = 5e-3;
/// Tokens of the made-up language to train on, and to measure.
const TOKENS: [usize; 2] = [200_000, 10_000];

/// A seed's model and texts.
pub struct ModelData {
    /// Where the model lies.
    pub folder: PathBuf,
    /// Tokens in a window.
    pub window: usize,
    /// Windows to calibrate on.
    pub calibration: Vec<Vec<u32>>,
    /// Windows to retrain on, none of them begins where another does.
    pub training: Vec<Vec<u32>>,
    /// The tokens measured.
    pub test: Vec<u32>,
    /// The least perplexity that is possible, where it is known.
    pub floor: Option<f64>,
    /// Holds what is removed in the end.
    pub place: TempDir,
}

impl ModelData {
    /// Opens the user's model, or trains one.
    ///
    /// # Errors
    /// A model or text that cannot be read, a text that is too short.
    pub fn new(args: &Args, plan: &Plan, seed: u64, device: &Device, say: &dyn Fn(String)) -> Result<Self> {
        let place = TempDir::new_in(&args.common.out).map_err(|e| Error::io(&args.common.out, e))?;
        match (&args.model, &args.calibration, &args.text) {
            (Some(model), Some(calibration), Some(text)) => {
                Self::of_user(plan, seed, device, (model, calibration, text), place)
            }
            _ => Self::of_language(plan, seed, device, place, say),
        }
    }

    fn of_user(
        plan: &Plan,
        seed: u64,
        device: &Device,
        (folder, calibration, text): (&Path, &Path, &Path),
        place: TempDir,
    ) -> Result<Self> {
        let config = Transformer::open(folder, device)?.config;
        let words = Words::open(folder, config.vocab)?;
        let read = |path: &Path| words.encode(&fs::read_to_string(path).map_err(|e| Error::io(path, e))?);
        let (seen, mut test) = (read(calibration)?, read(text)?);
        test.truncate(plan.tokens.unwrap_or(usize::MAX));
        let window = plan.window.unwrap_or(config.context.min(256));
        Self::cut(plan, seed, (folder.into(), window), &seen, test, (None, place))
    }

    fn of_language(plan: &Plan, seed: u64, device: &Device, place: TempDir, say: &dyn Fn(String)) -> Result<Self> {
        let language = Language::new(SIZES.vocab, mix(seed, 0))?;
        let seen = language.text(TOKENS[0], mix(seed, 1));
        let test = language.text(plan.tokens.unwrap_or(TOKENS[1]), mix(seed, 2));
        let window = plan.window.unwrap_or(SIZES.context);
        let (fresh, trained) = (place.path().join("fresh"), place.path().join("trained"));
        SIZES.create(&fresh, mix(seed, 3))?;
        let model = Transformer::open(&fresh, device)?;
        let problem = NextToken::new(&model.config, windows(&seen, window)?)?;
        let epochs = (plan.training * BATCH * window).div_ceil(seen.len()).max(1);
        let lr = LrSchedule::cosine(RATE).with_warmup(0.05);
        let settings = Training { epochs, batch: BATCH, lr, seed: mix(seed, 4) };
        let adam = AdamWConfig::new().with_weight_decay(0.01).build();
        let decoder = train(model.whole()?, adam, KeepMasks, &problem, &settings, None, &mut |at| {
            if at.step % 50 == 0 {
                say(format!("training the dense model, step {} of {}", at.step, at.total));
            }
        })?;
        let mut patch = Patch::create(model.checkpoint(), &trained, "")?;
        model.store(&decoder, &mut patch)?;
        patch.finish()?;
        Self::cut(plan, seed, (trained, window), &seen, test, (Some(language.floor()), place))
    }

    /// Cuts texts into windows.
    fn cut(
        plan: &Plan,
        seed: u64,
        (folder, window): (PathBuf, usize),
        seen: &[u32],
        test: Vec<u32>,
        (floor, place): (Option<f64>, TempDir),
    ) -> Result<Self> {
        let own = |windows: Vec<&[u32]>| windows.into_iter().map(<[u32]>::to_vec).collect();
        let calibration = own(samples(seen, plan.samples, window, Some(mix(seed, 5)))?);
        let training = own(windows(seen, window)?);
        Ok(Self { folder, window, calibration, training, test, floor, place })
    }
}
