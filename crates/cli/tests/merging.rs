//! `regrow merge` as a user runs it, on directories made here, and beside mergekit.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regrow_checkpoint::{Checkpoint, Dtype};
use safetensors::SafeTensors;

use common::recipes::{TIES, list, matrices, model_with, models, recipe, shapes, values};
use common::{complaint, regrow, stdout, text};

#[test]
fn a_plan_then_a_model_with_card_recipe_and_tokenizer() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let toml = recipe(dir.path(), "r.toml", &format!("{TIES}dtype = \"float16\"\ntokenizer = \"b\"\n"));
    let out = dir.path().join("merged");
    let args = ["merge", text(&toml), "--out", text(&out), "--shard-size", "2KB"];
    let said = stdout(&regrow(&[&args[..], &["--dry-run"]].concat()));
    assert!(said.starts_with("ties: task vectors trimmed"), "{said}");
    assert!(said.contains("30 tensors, 3,312 bytes in 2 files\n") && said.contains(" bytes of memory "), "{said}");
    assert!(!out.exists());
    let said = stdout(&regrow(&args));
    assert!(said.starts_with("2 models merged by ties: 30 tensors, 3,312 bytes in 2 files, "), "{said}");
    let merged = Checkpoint::open(&out).expect("a checkpoint");
    assert!(merged.entries().iter().all(|entry| entry.dtype == Dtype::F16));
    let read = |name: &str| fs::read_to_string(out.join(name)).expect("read");
    assert!(
        read("README.md").contains("/a | weight 0.5, density 0.3 |")
            || read("README.md").contains("| density 0.3, weight 0.5 |")
    );
    assert!(read("README.md").starts_with("---\nbase_model:\n- \"") && read("README.md").contains("arXiv 2306.01708"));
    assert!(read("recipe.toml").starts_with(TIES));
    assert_eq!(read("tokenizer.json"), "of 2");
    assert!(read("config.json").contains("\"torch_dtype\": \"float16\""));
    assert_eq!(list(dir.path()), ["a", "b", "base", "c", "merged", "r.toml"]);
}

#[test]
fn a_packed_lead_gives_a_dense_model_that_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let sparse = |name: &str, values: &mut Vec<f32>| {
        if name.contains("proj") {
            values.chunks_mut(4).for_each(|four| four[..2].fill(0.0));
        }
    };
    model_with(dir.path(), 0, Dtype::F32, sparse);
    model_with(dir.path(), 1, Dtype::F32, sparse);
    let packed = dir.path().join("packed");
    let base = dir.path().join("base");
    stdout(&regrow(&["convert", text(&base), "--format", "bitmask", "--out", text(&packed)]));
    let read = |dir: &Path| fs::read_to_string(dir.join("config.json")).expect("read");
    assert!(read(&packed).contains("quantization_config"));
    for (dtype, said) in
        [("", "\"torch_dtype\": \"float32\""), ("dtype = \"float16\"\n", "\"torch_dtype\": \"float16\"")]
    {
        let text_of = format!("method = \"linear\"\nmodels = [{{ path = \"packed\" }}, {{ path = \"a\" }}]\n{dtype}");
        let toml = recipe(dir.path(), "r.toml", &text_of);
        let out = dir.path().join(format!("out{}", dtype.len()));
        stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
        assert!(!read(&out).contains("quantization_config") && read(&out).contains(said), "{}", read(&out));
        let merged = Checkpoint::open(&out).expect("a checkpoint");
        assert!(!merged.is_packed());
        let kept = merged.read_f32("model.norm.weight").expect("read");
        let mean = values(0, "model.norm.weight", 8).into_iter().zip(values(1, "model.norm.weight", 8));
        assert!(mean.zip(kept).all(|((a, b), mean)| ((a + b) / 2.0 - mean).abs() < 1e-3));
    }
}

#[test]
fn task_vectors_are_trimmed_as_a_whole_where_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let changed = |scope: &str| -> Vec<usize> {
        let text_of = format!(
            "method = \"ties\"\nbase = \"base\"\nmodels = [{{ path = \"a\", density = 0.3 }}]\nparameters = {{ scope = \"{scope}\" }}\n"
        );
        let toml = recipe(dir.path(), "r.toml", &text_of);
        let out = dir.path().join(scope);
        stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
        let merged = Checkpoint::open(&out).expect("a checkpoint");
        let of = |(name, shape): (String, Vec<usize>)| {
            let base = values(0, &name, shape.iter().product());
            merged.read_f32(&name).expect("read").iter().zip(base).filter(|(new, old)| *new != old).count()
        };
        shapes().into_iter().map(of).collect()
    };
    let (each, whole) = (changed("tensor"), changed("model"));
    assert!(
        each.iter().zip(shapes()).all(|(n, (_, shape))| *n == (0.3 * shape.iter().product::<usize>() as f64) as usize)
    );
    assert_eq!(whole.iter().sum::<usize>(), (0.3 * 1656.0) as usize);
    assert_ne!(each, whole);
}

#[test]
fn files_become_a_file_that_carries_its_recipe() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let text_of = "method = \"linear\"\nmodels = [{ path = \"a/model.safetensors\", name = \"a\" }, { path = \"b/model.safetensors\", name = \"b\" }]\n";
    let toml = recipe(dir.path(), "r.toml", text_of);
    let out = dir.path().join("out.safetensors");
    stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
    let merged = Checkpoint::open(&out).expect("a checkpoint");
    assert_eq!(merged.metadata().next().expect("a file")["regrow_recipe"], text_of);
    let name = "lm_head.weight";
    let mean = values(1, name, 80).into_iter().zip(values(2, name, 80)).map(|(a, b)| (a + b) / 2.0);
    assert_eq!(merged.read_f32(name).expect("read"), mean.collect::<Vec<_>>());
    let folder = dir.path().join("out");
    assert!(complaint(&["merge", text(&toml), "--out", text(&folder)]).contains("ends in .safetensors"));
}

/// Fixture `mergekit.safetensors`: mergekit 0.1.5 (`mergekit-yaml`, CPU) on the configurations below and the
/// models that [`values`] makes; each tensor under the configuration's name.
const MERGEKIT: [(&str, &str); 9] = [
    (
        "linear",
        "models:\n  - model: a\n    parameters:\n      weight: 1.0\n  - model: b\n    parameters:\n      weight: 0.3\n  \
         - model: c\n    parameters:\n      weight: 0.5\nmerge_method: linear\ndtype: float32\n",
    ),
    (
        "slerp",
        "slices:\n  - sources:\n      - model: a\n        layer_range: [0, 3]\n      - model: b\n        layer_range: [0, 3]\n\
         merge_method: slerp\nbase_model: a\nparameters:\n  t:\n    - filter: self_attn\n      value: [0, 0.5, 0.3, 0.7, 1]\n    \
         - filter: mlp\n      value: [1, 0.5, 0.7, 0.3, 0]\n    - value: 0.5 # fallback for rest of tensors\ndtype: float32\n",
    ),
    (
        "task_arithmetic",
        "models:\n  - model: a\n    parameters:\n      weight: 0.6\n  - model: b\n    parameters:\n      weight: [0.2, 0.8]\n\
         merge_method: task_arithmetic\nbase_model: base\nparameters:\n  lambda: 0.9\ndtype: float32\n",
    ),
    (
        "ties",
        "models:\n  - model: a\n    parameters:\n      density: [1, 0.7, 0.2] # density gradient\n      weight: 1.0\n  \
         - model: b\n    parameters:\n      density: 0.5\n      weight: [0.1, 0.3, 0.7, 1] # weight gradient\n  - model: c\n    \
         parameters:\n      density: 0.33\n      weight:\n        - filter: mlp\n          value: 0.5\n        - value: 0.25\n\
         merge_method: ties\nbase_model: base\nparameters:\n  normalize: true\n  int8_mask: true\ndtype: float32\n",
    ),
    (
        "ties_sum",
        "models:\n  - model: base\n  - model: a\n    parameters: {weight: 0.5, density: 0.4}\n  - model: b\n    \
         parameters: {weight: -0.5, density: 0.6}\n  - model: c\n    parameters: {weight: 1.0, density: 0.8}\n\
         merge_method: ties\nbase_model: base\nparameters: {normalize: false, lambda: 1.3, rescale: true}\ndtype: float32\n",
    ),
    (
        "model_stock",
        "models:\n  - model: a\n  - model: b\n  - model: c\nmerge_method: model_stock\nbase_model: base\ndtype: float32\n",
    ),
    (
        "model_stock_rows",
        "models:\n  - model: a\n  - model: b\nmerge_method: model_stock\nbase_model: base\n\
         parameters: {filter_wise: true}\ndtype: float32\n",
    ),
    (
        "breadcrumbs_ties",
        "models:\n  - model: a\n    parameters: {weight: 0.7, density: 0.5, gamma: 0.2}\n  - model: b\n    \
         parameters: {weight: 0.4, density: 0.6, gamma: 0.15}\n  - model: c\n    \
         parameters: {weight: 0.3, density: 0.3, gamma: 0.2}\nmerge_method: breadcrumbs_ties\nbase_model: base\n\
         dtype: float32\n",
    ),
    (
        "half",
        "models:\n  - model: a\n    parameters: {weight: 0.5}\n  - model: b\n    parameters: {weight: 0.5}\n\
         merge_method: linear\ndtype: float32\nout_dtype: float16\n",
    ),
];

#[test]
fn mergekit_s_configurations_give_mergekit_s_models() {
    let fixture = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mergekit.safetensors"));
    let fixture = fixture.expect("the fixture");
    let fixture = SafeTensors::deserialize(&fixture).expect("tensors");
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    for (name, configuration) in MERGEKIT {
        let yaml = recipe(dir.path(), &format!("{name}.yml"), configuration);
        let out = dir.path().join(format!("out {name}"));
        stdout(&regrow(&["merge", text(&yaml), "--out", text(&out)]));
        let merged = Checkpoint::open(&out).expect("a checkpoint");
        assert_eq!(fs::read_to_string(out.join("mergekit_config.yml")).expect("read"), configuration);
        let half = name == "half";
        for (tensor, _) in shapes() {
            let view = fixture.tensor(&format!("{name}/{tensor}")).expect("in the fixture");
            let entry = merged.entry(&tensor).expect("in the result");
            assert_eq!(entry.shape, view.shape());
            assert_eq!(entry.dtype == Dtype::F16, half);
            let theirs: Vec<f32> = match half {
                true => view.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
                false => view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            };
            let within = if half { 1e-3 } else { 1e-6 };
            for (ours, theirs) in merged.read_f32(&tensor).expect("read").iter().zip(theirs) {
                assert!((ours - theirs).abs() <= within, "{name} {tensor}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn a_killed_merge_goes_on_with_no_shard_twice_and_none_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    matrices(dir.path(), 24, 512, usize::MAX);
    let toml = recipe(dir.path(), "r.toml", "method = \"linear\"\nmodels = [{ path = \"a\" }, { path = \"b\" }]\n");
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    let merge = |out: &Path, more: &[&str]| -> Vec<String> {
        let args = ["merge", text(&toml), "--shard-size", "1MB", "--out", text(out)];
        args.iter().chain(more).map(ToString::to_string).collect()
    };
    let run = |args: Vec<String>| stdout(&regrow(&args.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(run(merge(&whole, &[])).contains("in 24 files"));
    let journal = dir.path().join("out.partial/regrow-progress.json");
    let mut running = Command::new(env!("CARGO_BIN_EXE_regrow"))
        .args(merge(&out, &[]))
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    while !fs::read_to_string(&journal).is_ok_and(|text| text.contains("model-00002-of")) && !out.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().expect("killed");
    running.wait().expect("gone");
    assert!(!out.exists(), "killed in time");
    let first = dir.path().join("out.partial/model-00001-of-00024.safetensors");
    let written = fs::metadata(&first).and_then(|m| m.modified()).expect("the first shard");
    let other =
        recipe(dir.path(), "other.toml", "method = \"linear\"\nmodels = [{ path = \"b\" }, { path = \"a\" }]\n");
    let says = complaint(&["merge", text(&other), "--shard-size", "1MB", "--out", text(&out), "--resume"]);
    assert!(says.contains("other settings"), "{says}");
    assert!(run(merge(&out, &["--resume"])).contains("in 24 files"));
    assert_eq!(list(&out), list(&whole));
    for name in list(&whole).iter().filter(|name| name.ends_with("safetensors") || name.ends_with("index.json")) {
        assert!(fs::read(out.join(name)).expect("read") == fs::read(whole.join(name)).expect("read"), "{name}");
    }
    let shard = out.join("model-00001-of-00024.safetensors");
    assert_eq!(fs::metadata(shard).and_then(|m| m.modified()).expect("the first shard"), written);
}

#[test]
fn masked_models_keep_their_mask_or_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let masked = |which, every: usize| {
        model_with(dir.path(), which, Dtype::F32, |name, values| {
            if name.contains("proj") {
                values.iter_mut().step_by(every).for_each(|v| *v = 0.0);
            }
        })
    };
    [(0, 1000), (1, 2), (2, 2), (3, 3)].iter().for_each(|(which, every)| drop(masked(*which, *every)));
    let zeros = |method: &str, more: &str, out: &str| {
        let text_of = format!(
            "method = \"{method}\"\nbase = \"base\"\nmodels = [{{ path = \"a\" }}, {{ path = \"b\" }}]\n{more}\n"
        );
        let toml = recipe(dir.path(), "r.toml", &text_of);
        let out = dir.path().join(out);
        stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
        let merged = Checkpoint::open(&out).expect("a checkpoint");
        merged.counts("model.layers.1.mlp.up_proj.weight").expect("counted").zeros
    };
    assert_eq!(zeros("linear", "masks = \"same\"", "1"), 48);
    assert_eq!(zeros("sms", "", "5"), 48);
    assert!(zeros("task-arithmetic", "parameters = { weight = 0.3 }", "2") < 5);
    assert_eq!(zeros("task-arithmetic", "masks = \"keep\"\nparameters = { weight = 0.3 }", "3"), 48);
    let toml = recipe(
        dir.path(),
        "r.toml",
        "method = \"linear\"\nmasks = \"same\"\nmodels = [{ path = \"a\" }, { path = \"c\" }]\n",
    );
    let says = complaint(&["merge", text(&toml), "--out", text(&dir.path().join("4"))]);
    assert!(says.contains("a and c have different masks"), "{says}");
    assert!(!dir.path().join("4").exists() && !dir.path().join("4.partial").exists());
}

#[test]
fn coefficients_are_chosen_on_validation_data_and_a_killed_search_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name);
    // Two networks with random weights; the loss on images decides how much of each.
    for (name, seed) in [("a.safetensors", 1), ("b.safetensors", 2)] {
        regrow_zoo::save(&regrow_zoo::Arch::MlpSmall.init(10, seed, &Default::default()), file(name)).expect("saved");
    }
    let toml = recipe(
        dir.path(),
        "r.toml",
        "method = \"task-arithmetic\"\nbase = \"a.safetensors\"\nmodels = [{ path = \"b.safetensors\", name = \"b\" }]\n",
    );
    let best = file("best.toml");
    let args =
        ["tune", text(&toml), "--arch", "mlp-small", "--dataset", "digits", "--images", "100", "--out", text(&best)];
    let tune = |more: &[&str]| regrow(&[&args[..], more].concat());
    let said = stdout(&tune(&["--evaluations", "12"]));
    let loss = |said: &str| -> Vec<f64> {
        let numbers = said.split_whitespace().filter_map(|word| word.trim_end_matches([',', ':']).parse().ok());
        numbers.collect()
    };
    let [weight, found, first] = loss(&said)[..] else { panic!("{said}") };
    assert!(said.starts_with("weight ") && found <= first && (0.0..=1.0).contains(&weight), "{said}");
    let written = fs::read_to_string(&best).expect("the recipe");
    // Weights at random are others on other devices: the search may end before it has had all it may.
    let merges = written.strip_prefix("# weight chosen in ").and_then(|rest| rest.split_once(" merges, loss "));
    assert!(merges.is_some_and(|(n, _)| (3..=12).contains(&n.parse().unwrap_or(0))), "{written}");
    assert_eq!(list(dir.path()), ["a.safetensors", "b.safetensors", "best.toml", "r.toml"]);
    stdout(&regrow(&["merge", text(&best), "--any-base", "--out", text(&file("out.safetensors"))]));
    // What an interrupted search has measured is not measured again.
    let journal = file("best.toml.progress.json");
    let mut running = Command::new(env!("CARGO_BIN_EXE_regrow"))
        .args(args)
        .args(["--evaluations", "2000", "--solver", "particle-swarm"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    while !journal.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().expect("killed");
    running.wait().expect("gone");
    let says = complaint(&[&args[..], &["--resume"]].concat());
    assert!(says.contains("other settings"), "{says}");
    stdout(&tune(&["--evaluations", "20", "--solver", "particle-swarm", "--resume"]));
    assert!(!journal.exists());
    assert!(complaint(&[&args[..], &["--over", "density"]].concat()).contains("the parameters of task-arithmetic are"));
    assert!(complaint(&[&args[..], &["--solver", "x"]].concat()).contains("nelder-mead, particle-swarm, greedy-soup"));
    // A greedy soup: models are in it or not, the best of them always.
    let toml = "method = \"linear\"\nmodels = [{ path = \"a.safetensors\", name = \"a\" }, { path = \"b.safetensors\", name = \"b\" }]\n";
    recipe(dir.path(), "r.toml", toml);
    let soup = file("soup.toml");
    let args =
        ["tune", args[1], "--arch", "mlp-small", "--dataset", "digits", "--images", "100", "--solver", "greedy-soup"];
    let said = stdout(&regrow(&[&args[..], &["--out", text(&soup)]].concat()));
    let [a, b, found, first] = loss(&said)[..] else { panic!("{said}") };
    assert!([a, b].iter().all(|w| *w == 0.0 || *w == 1.0) && a + b >= 1.0 && found <= first, "{said}");
    assert!(fs::read_to_string(&soup).expect("the recipe").starts_with("# weight chosen in 3 merges"));
    let says = |more: &[&str]| complaint(&[&args[..], &["--out", text(&file("no.toml"))], more].concat());
    assert!(says(&["--evaluations", "2"]).contains("takes 3 merges, not 2"));
    assert!(says(&["--over", "normalize"]).contains("by their weight, not by normalize"));
}
