//! Reweighting on a small language model: weights of windows by their losses (arXiv 2502.06733) on two clean texts and
//! a noisy one in equal shares, and ScaleBiO's weights (arXiv 2406.19976) of five sources, three of them noisy and
//! long, compared with equal weights and weights by length.
//!
//! ScaleBiO learns its weights while it trains two models, on batches with the same number of windows of each source.
//! Then, as for all other weights, one model is trained from scratch on windows of sources sampled by the weights. The
//! measure is the perplexity of held-out text of the clean sources.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use indicatif::ProgressBar;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_lm::{Config, Decoder, NextToken, Transformer, Window, perplexity_of, windows};
use regrow_reweighting::{
    BatchSources, FixedWeights, LossBased, LossBasedConfig, LossShape, SampleWeighter, ScaleBiO, ScaleBiOConfig,
    SourceWeighter, loss_factors,
};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_train::{Problem, StepContext, Training, TrainingTask, train_with_hooks};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::texts::{Corpus, Source};
use super::{Args, Texts};
use crate::harness::paper::Paper;
use crate::harness::picture::Line;
use crate::harness::record::{Measure, Record, mean_finding, mean_std, spread, values};
use crate::harness::render::{self, Outcome};
use crate::harness::row_store::RowStore;
use crate::harness::settings::Scale;
use crate::harness::trainer;

/// Everything that determines this part's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `made-up` or `real`.
    dataset: String,
    /// Steps of each training.
    steps: usize,
    /// Windows in a step of the first three sources together.
    batch: usize,
    /// Windows of each of the five sources in a step.
    of_each: usize,
    /// Highest learning rate of the models.
    learning_rate: f64,
    /// Share of a noisy text's tokens that are replaced.
    noise: f64,
    /// ScaleBiO's penalty.
    alpha: f64,
    /// Learning rate of its weights.
    source_rate: f64,
    /// Seeds: the first, and how many.
    seeds: (u64, u64),
}

impl Plan {
    /// The requested settings.
    ///
    /// # Errors
    /// If they are impossible.
    pub fn new(args: &Args) -> Result<Self> {
        let (full, real) = (args.common.scale == Scale::Full, args.texts == Texts::Real);
        let steps = match (real, full) {
            (false, false) => 300,
            (false, true) | (true, false) => 1500,
            (true, true) => 20_000,
        };
        let plan = Self {
            dataset: if real { "real" } else { "made-up" }.into(),
            steps: args.steps.unwrap_or(steps),
            batch: 15,
            of_each: 4,
            learning_rate: if real { 3e-3 } else { 5e-3 },
            noise: args.noise,
            alpha: args.alpha,
            source_rate: args.source_rate,
            seeds: (args.common.first_seed, args.common.seeds),
        };
        plan.scalebio(SOURCES).init()?;
        match plan.steps {
            0 => Err(Error::Argument("the language model needs at least one step (--steps)".into())),
            _ => Ok(plan),
        }
    }

    fn scalebio(&self, sources: usize) -> ScaleBiOConfig {
        ScaleBiOConfig::new(sources).with_alpha(self.alpha).with_learning_rate(self.source_rate)
    }
}

/// Number of sources, and of those on which examples are weighted.
const SOURCES: usize = 5;
const MIXED: usize = 3;
/// Windows of the validation set in a step.
const HELD: usize = 8;
/// The prefix of a finding: nats per token on a source.
const LOSS: &str = "loss on ";
/// The prefix of a finding: the weight of a source.
const WEIGHT: &str = "weight of ";

/// How a row's weights are determined.
#[derive(Clone, Copy)]
enum Way {
    Samples(LossShape, f64),
    Uniform,
    Proportional,
    ScaleBiO,
    Clean,
}

/// The rows.
fn ways() -> Vec<(String, Way)> {
    let shapes = [
        (LossShape::Uniform, 1.0),
        (LossShape::LinearUpper, 1.0),
        (LossShape::LinearUpper, 0.4),
        (LossShape::Quadratic, 0.4),
        (LossShape::Upper, 0.4),
        (LossShape::Extremes, 0.4),
    ];
    let name = |shape: LossShape, r: f64| match shape {
        LossShape::Uniform => "samples: uniform".to_string(),
        _ => format!("samples: {}, r {r}", shape.name()),
    };
    let samples = shapes.into_iter().map(|(shape, r)| (name(shape, r), Way::Samples(shape, r)));
    let sources = [
        ("uniform", Way::Uniform),
        ("proportional", Way::Proportional),
        ("ScaleBiO", Way::ScaleBiO),
        ("clean only", Way::Clean),
    ];
    samples.chain(sources.map(|(name, way)| (format!("sources: {name}"), way))).collect()
}

/// Runs this part of the table.
///
/// # Errors
/// Texts that are missing, an output folder that cannot be written.
pub fn run(args: &Args, plan: &Plan) -> Result<()> {
    let out = &args.common.out;
    let (started, device) = (Instant::now(), regrow_device::current());
    let mut store = RowStore::open(out, "reweighting-language", plan, args.common.resume)?;
    let bar = trainer::progress(0);
    // ScaleBiO trains two models before the one that is measured.
    bar.set_length(plan.seeds.1 * (ways().len() as u64 + 2));
    let tell = trainer::teller(&bar);
    let pool = trainer::pool(args.common.parallel, &tell);
    for seed in plan.seeds.0..plan.seeds.0 + plan.seeds.1 {
        let done = |name: &String| store.rows.iter().any(|r| r.seed == seed && r.method == *name);
        let open: Vec<(String, Way)> = ways().into_iter().filter(|(name, _)| !done(name)).collect();
        if open.is_empty() {
            continue;
        }
        bar.set_message(format!("(trainings; seed {seed})"));
        let corpus = match args.texts {
            Texts::MadeUp => Corpus::made_up(plan.noise, mix(seed, 1))?,
            Texts::Real => Corpus::real(args.folder().as_deref(), plan.noise, mix(seed, 1))?,
        };
        let start = Start::new(&corpus, out, seed)?;
        store.fill(plan, &pool, open.len(), |device, i| {
            Ok(vec![Run::new(plan, &corpus, &start, seed, device)?.row(&open[i], &bar)?])
        })?;
    }
    bar.finish_and_clear();
    let rows = store.finish()?;
    print(plan, &rows, out, &device, started.elapsed().as_secs_f64())
}

/// A seed's new model on disk, from which every training starts.
struct Start(TempDir);

impl Start {
    fn new(corpus: &Corpus, out: &Path, seed: u64) -> Result<Self> {
        let place = TempDir::new_in(out).map_err(|e| Error::io(out, e))?;
        corpus.sizes.create(place.path(), mix(seed, 2))?;
        Ok(Self(place))
    }
}

/// A seed's texts and new model on the device of one training.
struct Run<'a> {
    plan: &'a Plan,
    corpus: &'a Corpus,
    config: Config,
    start: Decoder,
    device: &'a Device,
    seed: u64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, corpus: &'a Corpus, start: &Start, seed: u64, device: &'a Device) -> Result<Self> {
        let model = Transformer::open(start.0.path(), device)?;
        let start = model.whole()?;
        Ok(Self { plan, corpus, config: model.config.clone(), start, device, seed })
    }

    fn row(&self, (name, way): &(String, Way), bar: &ProgressBar) -> Result<Record> {
        let started = Instant::now();
        let sizes: Vec<usize> = self.corpus.sources.iter().map(|s| s.train.len()).collect();
        let clean: Vec<f64> = self.corpus.sources.iter().map(|s| if s.clean { 1.0 } else { 0.0 }).collect();
        let (model, weights) = match way {
            Way::Samples(shape, r) => self.by_losses(*shape, *r)?,
            Way::Uniform => self.by_sources(&FixedWeights::uniform(sizes.len())?)?,
            Way::Proportional => self.by_sources(&FixedWeights::proportional(&sizes)?)?,
            Way::Clean => self.by_sources(&FixedWeights::given(&clean)?)?,
            Way::ScaleBiO => {
                let mut bilevel = self.plan.scalebio(sizes.len()).init()?;
                self.bilevel(&mut bilevel)?;
                bar.inc(2);
                self.by_sources(&FixedWeights::given(bilevel.weights())?)?
            }
        };
        bar.inc(1);
        let losses = self.corpus.sources.iter().map(|s| self.loss(&model, s)).collect::<Result<Vec<f64>>>()?;
        let of_clean: Vec<f64> = losses.iter().zip(&clean).filter(|(_, c)| **c > 0.0).map(|(l, _)| *l).collect();
        let named = |start: &str, values: &[f64]| -> Vec<(String, f64)> {
            let names = self.corpus.sources.iter().map(|s| format!("{start}{}", s.name));
            names.zip(values.iter().copied()).collect()
        };
        let findings = named(LOSS, &losses).into_iter().chain(named(WEIGHT, &weights)).collect();
        let value = mean_std(&of_clean).0.exp();
        Ok(Record { findings, ..Record::new(name, 0.0, self.seed, value, started.elapsed().as_secs_f64()) })
    }

    /// Nats per token of the source's unseen text.
    fn loss(&self, model: &Decoder, source: &Source) -> Result<f64> {
        let cut = windows(&source.test, self.config.context)?;
        let windows: Vec<Window<'_>> =
            cut.into_iter().map(|tokens| Window { tokens, scored: tokens.len() - 1 }).collect();
        Ok(perplexity_of(model, &self.config, &windows, self.device)?.value().ln())
    }

    /// The learning rate of every training.
    fn lr(&self) -> LrSchedule {
        LrSchedule::cosine(self.plan.learning_rate).with_warmup(0.05)
    }

    /// Trains on the first sources in equal shares, with windows weighted by their losses; also returns each source's
    /// mean weight.
    fn by_losses(&self, shape: LossShape, temperature: f64) -> Result<(Decoder, Vec<f64>)> {
        let plan = self.plan;
        let sources = &self.corpus.sources[..MIXED];
        let cut = sources.iter().map(|s| windows(&s.train, self.config.context)).collect::<Result<Vec<_>>>()?;
        let count = cut.iter().map(Vec::len).min().unwrap_or(0);
        let all = cut.iter().flat_map(|w| w[..count].to_vec()).collect();
        let problem = NextToken::new(&self.config, all)?;
        let weighter = LossBasedConfig::new().with_shape(shape).with_temperature(temperature);
        let mut mixed = Mixed {
            problem,
            count,
            tokens: self.config.context - 1,
            weighter: weighter.with_warm_up(plan.steps / 20).init()?,
            sums: [0.0; MIXED],
        };
        let epochs = (plan.steps * plan.batch).div_ceil(count * MIXED);
        let settings = Training { epochs, batch: plan.batch, lr: self.lr(), seed: mix(self.seed, 3) };
        let adam = AdamWConfig::new().with_weight_decay(0.01).build();
        let model = train_with_hooks(self.start.clone(), adam, KeepMasks, &mut mixed, &settings, None, &mut |_| {})?;
        let sum: f64 = mixed.sums.iter().sum();
        Ok((model, mixed.sums.iter().map(|s| s / sum).collect()))
    }

    /// Trains on windows of sources sampled by `weights`.
    fn by_sources(&self, weights: &FixedWeights) -> Result<(Decoder, Vec<f64>)> {
        let (pool, device, lr) = (Pool::new(self)?, self.device.clone().autodiff(), self.lr());
        let (mut model, mut optimizer) = (self.start.clone().train(), adam());
        for step in 0..self.plan.steps {
            let moment = self.moment(5, step);
            let batch = pool.drawn(weights.weights(), self.plan.of_each * SOURCES, moment.seed);
            let loss = pool.train.losses(&model, &batch, moment, &device).mean();
            model = descend(model, &mut optimizer, loss, lr.at(step, moment.total));
        }
        Ok((model.valid(), weights.weights().to_vec()))
    }

    /// Learns weights of sources: trains one model on all of them by their weights, and one that also follows the
    /// validation set.
    fn bilevel(&self, scalebio: &mut ScaleBiO) -> Result<()> {
        let (pool, device, lr) = (Pool::new(self)?, self.device.clone().autodiff(), self.lr());
        let (mut u, mut of_u) = (self.start.clone().train(), adam());
        let (mut w, mut of_w) = (u.clone(), adam());
        for step in 0..self.plan.steps {
            let moment = self.moment(4, step);
            let (batch, of) = pool.of_each(self.plan.of_each, moment.seed);
            let held = random(0..pool.held.len(), HELD, mix(moment.seed, 1));
            let (sources, rate) = (BatchSources::new(&of, SOURCES)?, lr.at(step, moment.total));
            let factors = tensor(sources.factors(scalebio.weights())?, &device);
            let by_u = pool.train.losses(&u, &batch, moment, &device);
            let by_w = pool.train.losses(&w, &batch, moment, &device);
            let held = pool.held.losses(&w, &held, moment, &device).mean();
            let means = sources.mean_losses(&host(&by_w), &host(&by_u))?;
            u = descend(u, &mut of_u, (by_u * factors.clone()).mean(), rate);
            w = descend(w, &mut of_w, (by_w * factors).mean() * scalebio.alpha() + held, rate);
            scalebio.update(&means)?;
        }
        Ok(())
    }

    fn moment(&self, purpose: u64, step: usize) -> StepContext {
        StepContext { seed: mix(mix(self.seed, purpose), step as u64), step, total: self.plan.steps }
    }
}

fn adam() -> ModuleOptimizer {
    AdamWConfig::new().with_weight_decay(5e-4).build().into()
}

fn descend(model: Decoder, optimizer: &mut ModuleOptimizer, loss: Tensor<1>, rate: f64) -> Decoder {
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    optimizer.step(rate, model, gradients)
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

fn host(losses: &Tensor<1>) -> Vec<f64> {
    losses.clone().inner().into_data().convert::<f32>().iter::<f32>().map(f64::from).collect()
}

/// `count` numbers from `range`, possibly with repetition.
fn random(range: Range<usize>, count: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(range.clone())).collect()
}

/// Windows of all sources, and those of the validation set.
struct Pool<'a> {
    train: NextToken<'a>,
    /// Which windows belong to each source.
    ranges: Vec<Range<usize>>,
    held: NextToken<'a>,
}

impl<'a> Pool<'a> {
    fn new(run: &'a Run<'_>) -> Result<Self> {
        let Run { corpus, config, .. } = run;
        let cut = |text: &'a Vec<u32>| windows(text, config.context);
        let parts = corpus.sources.iter().map(|s| cut(&s.train)).collect::<Result<Vec<_>>>()?;
        let mut end = 0;
        let range = |part: &Vec<&[u32]>| {
            end += part.len();
            end - part.len()..end
        };
        let ranges = parts.iter().map(range).collect();
        let held = corpus.sources.iter().filter(|s| s.clean).map(|s| cut(&s.held)).collect::<Result<Vec<_>>>()?;
        let (train, held) = (NextToken::new(config, parts.concat())?, NextToken::new(config, held.concat())?);
        Ok(Self { train, ranges, held })
    }

    /// The same number of windows of each source, and the source of each.
    fn of_each(&self, count: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let one = |(i, range): (usize, &Range<usize>)| random(range.clone(), count, mix(seed, 10 + i as u64));
        let batch = self.ranges.iter().enumerate().flat_map(one).collect();
        (batch, (0..self.ranges.len()).flat_map(|source| vec![source; count]).collect())
    }

    /// Windows of sources sampled by `weights`.
    fn drawn(&self, weights: &[f64], count: usize, seed: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut one = |_| {
            let mut chance: f64 = rng.random();
            let of = weights.iter().position(|p| {
                chance -= p;
                chance < 0.0
            });
            // Rounding may leave a little past the last.
            let heaviest = || (0..weights.len()).fold(0, |best, i| if weights[i] > weights[best] { i } else { best });
            rng.random_range(self.ranges[of.unwrap_or_else(heaviest)].clone())
        };
        (0..count).map(&mut one).collect()
    }
}

/// Windows of several sources, the same number of each, weighted by their losses.
struct Mixed<'a> {
    problem: NextToken<'a>,
    /// Windows of each source.
    count: usize,
    /// Tokens predicted in each.
    tokens: usize,
    weighter: LossBased,
    /// The sum of the weights of each source's windows so far.
    sums: [f64; MIXED],
}

impl TrainingTask<Decoder> for Mixed<'_> {
    fn len(&self) -> usize {
        self.count * MIXED
    }

    fn losses(&mut self, model: &Decoder, batch: &[usize], moment: StepContext, device: &Device) -> Result<Tensor<1>> {
        let losses = self.problem.losses(model, batch, moment, device);
        let weights = self.weighter.weigh(&host(&losses))?;
        batch.iter().zip(&weights).for_each(|(i, weight)| self.sums[i / self.count] += weight);
        Ok(losses * tensor(loss_factors(&weights, &vec![self.tokens; batch.len()])?, device))
    }
}

/// Prints this part, and writes `reweighting-language.json` and `.svg` to `out`.
fn print(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    println!("{}", describe(plan));
    println!(
        "Perplexity of unseen text of the clean sources (exp of their mean loss), and nats per token on each source;\n\
         mean and standard deviation over {} seeds.\n",
        plan.seeds.1
    );
    let names = sources(rows);
    let heads = std::iter::once("perplexity".to_string()).chain(names.iter().map(|(name, _)| name.clone())).collect();
    let finding = |method: &str, name: &str| {
        let of = rows.iter().filter(|r| r.method == method);
        spread(&of.filter_map(|r| Some((r.seed, *r.findings.get(name)?))).collect::<Vec<_>>())
    };
    let cell = |method: &str, column: usize| match column {
        0 => spread(&values(rows, method, 0.0, 1)),
        _ => finding(method, &format!("{LOSS}{}", names[column - 1].0)),
    };
    let noisy = |method: &str| {
        let of = names.iter().filter(|(_, clean)| !clean);
        let found: Vec<f64> =
            of.filter_map(|(name, _)| mean_finding(rows, method, 0.0, &format!("{WEIGHT}{name}"))).collect();
        format!("{:.3}", found.iter().sum::<f64>())
    };
    let seconds_of = |method: &str| render::mean_of(rows, method, 0.0, |r| Some(r.seconds));
    let more: [render::Column<'_>; 2] = [("weight of noisy", &noisy), ("seconds", &seconds_of)];
    let methods: Vec<String> = ways().into_iter().map(|(name, _)| name).collect();
    println!("{}\n", render::by_column(methods.iter().map(String::as_str), heads, &cell, &more));
    let line = |method: &String| {
        let point = |(i, (name, _)): (usize, &(String, bool))| {
            let of = rows.iter().filter(|r| r.method == *method);
            let found: Vec<f64> = of.filter_map(|r| r.findings.get(&format!("{LOSS}{name}")).copied()).collect();
            let (mean, std) = mean_std(&found);
            ((i + 1) as f64, mean, std)
        };
        Line { name: method.clone(), points: names.iter().enumerate().map(point).collect() }
    };
    let lines: Vec<Line> = methods.iter().filter(|m| m.starts_with("sources")).map(line).collect();
    let paper = Paper::parse(super::INFO.paper)?;
    let (measure, claims, notes) = (Measure::Perplexity, &paper.claims[..], &found(rows, &names));
    let table = "reweighting-language";
    let outcome = Outcome { table, measure, plan, rows, claims, notes, device, seconds };
    outcome.close_over(
        out,
        "Reweighting: loss on each source, by the weights of sources",
        ("source", measure.axis()),
        &lines,
    )
}

/// The sources by name, and whether they are clean, in their order.
fn sources(rows: &[Record]) -> Vec<(String, bool)> {
    let names = rows.iter().flat_map(|r| r.findings.keys()).filter_map(|key| key.strip_prefix(LOSS));
    let mut names: Vec<(String, bool)> = names.map(|name| (name.to_string(), !name.contains(", "))).collect();
    names.sort_by_key(|(name, clean)| (!clean, name.clone()));
    names.dedup();
    names
}

/// ScaleBiO's result, in words.
fn found(rows: &[Record], names: &[(String, bool)]) -> Vec<String> {
    let rows: Vec<&Record> = rows.iter().filter(|r| r.method == "sources: ScaleBiO").collect();
    let weight = |row: &Record, name: &str| row.findings.get(&format!("{WEIGHT}{name}")).copied().unwrap_or(0.0);
    let one = |(name, _): &(String, bool)| {
        let (mean, std) = mean_std(&rows.iter().map(|r| weight(r, name)).collect::<Vec<_>>());
        format!("{name} {mean:.3} ± {std:.3}")
    };
    let told = |row: &&&Record| {
        let of = |clean: bool| names.iter().filter(move |(_, c)| *c == clean).map(|(name, _)| weight(row, name));
        of(true).fold(f64::MAX, f64::min) > of(false).fold(0.0, f64::max)
    };
    let right = rows.iter().filter(told).count();
    vec![
        format!("ScaleBiO's weights: {}", names.iter().map(one).collect::<Vec<_>>().join(", ")),
        format!("every noisy source weighs less than every clean one in {right} of {} seeds", rows.len()),
    ]
}

fn describe(plan: &Plan) -> String {
    let Plan { dataset, steps, batch, of_each, learning_rate, noise, alpha, source_rate, .. } = plan;
    let texts = match dataset.as_str() {
        "real" => "Shakespeare and WikiText-2 as bytes; a Llama of 2 blocks, 64 wide, windows of 64",
        _ => "two made-up languages of 16 tokens; a Llama of 2 blocks, 32 wide, windows of 32",
    };
    format!(
        "Language model: {texts}; noisy: {:.0} % of the tokens replaced by others of the text, scrambled: all; noisy \
         sources are twice as long. {steps} steps of AdamW, learning rate {learning_rate} along a cosine; samples: {batch} \
         windows of two clean sources and a noisy one in equal shares; sources: {} windows of five sources; ScaleBiO: \
         alpha {alpha}, Adam of rate {source_rate}, {of_each} windows of each source and {HELD} of the validation set",
        100.0 * noise,
        of_each * SOURCES,
    )
}
