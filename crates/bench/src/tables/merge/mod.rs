//! What merging does to models of one and of different starting points, under every method.
//!
//! Networks are trained here from one parent: copies of one task, and a task each (halves of the classes); and from
//! separate parents. If available, published networks are added: MNIST CNNs from one start and from two, ResNet-20s.
//! `rows` measures. Real adapters are measured by `adapters`.

mod adapters;
mod models;
mod rows;

use std::path::PathBuf;

use regrow_zoo::Arch;

use crate::harness::dense::Images;
use crate::harness::images;
use crate::harness::picture::Line;
use crate::harness::prelude::*;
use crate::harness::record::mean_std;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "merge",
    summary: "Merging methods on models of one and of different starting points",
    example: "bench merge --seeds 5 --data DIR --networks lora,mnist-cnn,resnet-cifar10",
    paper: include_str!("../../../published/merge.toml"),
    measure: Measure::Accuracy,
};

/// Options of the table.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct MergeTable {
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    dataset: String,
    /// The network that is trained here
    #[arg(long, default_value = "mlp-small")]
    arch: String,
    /// Epochs of training a parent
    #[arg(long, default_value_t = 5)]
    parent_epochs: usize,
    /// Epochs of fine-tuning each model
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Examples per step.
    #[arg(skip)]
    batch: usize,
    /// Folders below --data with networks of others: lora, mnist-cnn, resnet-cifar10
    #[arg(long, value_delimiter = ',')]
    networks: Vec<String>,
    /// Test images to count on for these, evenly spaced
    #[arg(long, default_value_t = 2000)]
    images: usize,
    /// The first seed.
    #[arg(skip)]
    #[serde(skip)]
    first_seed: u64,
}

/// The data of the networks that are trained here, and the folder with those of others.
pub struct Data {
    images: Images,
    folder: Option<PathBuf>,
}

impl Table for MergeTable {
    type Data = Data;

    fn check(&mut self, common: &Common) -> Result<()> {
        let some = self.parent_epochs.min(self.epochs).min(self.images) > 0;
        ensure(some, "the table needs at least one epoch of each training and one test image")?;
        self.batch = if self.dataset == "digits" { 64 } else { 128 };
        self.first_seed = common.first_seed;
        models::check(&self.networks)
    }

    fn open(&self, folder: Option<&Path>) -> Result<Data> {
        let arch = Arch::parse(&self.arch)?;
        let set = images::open(&self.dataset, arch, folder)?;
        Ok(Data { images: Images { arch, set }, folder: folder.map(Path::to_path_buf) })
    }

    fn epochs(&self, _data: &Data) -> usize {
        2 * self.parent_epochs + 6 * self.epochs
    }

    fn rows(&self, _setting: &Setting, seed: u64, context: &Context<'_, Data>) -> Result<Vec<Record>> {
        let Data { images: Images { arch, set }, folder } = context.data;
        let trained = models::trained(self, *arch, set, seed, context.device, context.bar)?;
        // Nothing about the networks of others is drawn at random.
        let others = match seed == self.first_seed {
            true => models::of_others(self, folder.as_deref(), context.device)?,
            false => Vec::new(),
        };
        let mut rows = Vec::new();
        for set in trained.iter().chain(&others) {
            context.say(format_args!("seed {seed}: {}", set.name));
            rows.extend(rows::rows(set, seed, context.device)?);
        }
        if let Some(folder) = folder.as_ref().filter(|_| self.networks.iter().any(|n| n == models::ADAPTERS)) {
            rows.extend(adapters::rows(&folder.join(models::ADAPTERS), seed)?);
        }
        Ok(rows)
    }

    fn describe(&self, _data: &Data) -> String {
        let Self { arch, dataset, parent_epochs, epochs, .. } = self;
        format!(
            "{arch} on {dataset}, parents trained for {parent_epochs} epochs, models for {epochs} more; lambda of 0.3, 0.5, \
             0.7 and 1 by the loss on a tenth of the training images"
        )
    }

    fn view(&self, _data: &Data, rows: &[Record]) -> Result<View> {
        let parts = || rows.iter().filter_map(|r| r.method.split_once(" | "));
        let (methods, settings) = (unique(parts().map(|(m, _)| m)), unique(parts().map(|(_, setting)| setting)));
        let found = |method: &str, setting: &str| -> Vec<&Record> {
            rows.iter().filter(|r| r.method.split_once(" | ") == Some((method, setting))).collect()
        };
        let cell = |method: &str, column: usize| view::over_seeds(&found(method, settings[column]), |r| Some(r.value));
        let heads = settings.iter().map(ToString::to_string).collect();
        let table = crate::harness::render::by_column(methods.iter().copied(), heads, &cell, &[]);
        let point = |method: &str, column: usize| {
            let values: Vec<f64> = found(method, settings[column]).iter().map(|r| r.value).collect();
            (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (column as f64 + 1.0, mean, std))
        };
        let line = |method: &&str| Line {
            name: method.to_string(),
            points: (0..settings.len()).filter_map(|column| point(method, column)).collect(),
        };
        let caption = "Test accuracy in percent, mean and standard deviation over seeds.\nOf adapters: 100 times the mean \
                       cosine of the merged difference with each adapter's.";
        let view = View {
            sections: vec![(caption.into(), table)],
            notes: vec![format!("In the picture: {}", numbered(&settings))],
            title: "Merging methods, by where the models come from".into(),
            ..View::default()
        };
        Ok(view.over("where the models come from", methods.iter().map(line).collect()))
    }
}

fn unique<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    words.for_each(|word| {
        if !found.contains(&word) {
            found.push(word);
        }
    });
    found
}

/// `1 first, 2 second`.
fn numbered(words: &[&str]) -> String {
    words.iter().enumerate().map(|(i, word)| format!("{} {word}", i + 1)).collect::<Vec<_>>().join("; ")
}
