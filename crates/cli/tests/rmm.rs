//! Adapters merged reversibly and reverted, models compressed, models merged one by one: as a user runs it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Contents, Dtype, Plan, Planned, Writer};
use regrow_lm::adapter::{Adapter, Draft, Factors, Kind, Module, Rest, Target};
use regrow_sparse_core::seed::mix;
use regrow_testing::assert_close;
use serde_json::{Value, json};
use tempfile::TempDir;

use common::{complaint, killed, regrow, stdout, text};

/// `n` numbers between -1 and 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n).map(|i| (mix(seed, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Name, kind and `[m, d]` of the adapted modules of a small network.
fn modules() -> Vec<(&'static str, Kind, [usize; 2])> {
    vec![
        ("conv", Kind::Convolution(vec![3, 3]), [6, 18]),
        ("embed", Kind::Embedding, [11, 8]),
        ("h.0.attn.q", Kind::Linear, [8, 8]),
        ("h.0.mlp.up", Kind::Linear, [12, 8]),
    ]
}

/// An adapter `dir/name` of rank `rank`, its head of its own.
fn adapter(dir: &Path, name: &str, rank: usize, seed: u64) -> PathBuf {
    let modules = modules().into_iter().map(|(n, kind, [m, d])| Module { name: n.into(), kind, shape: [m, rank, d] });
    let modules: Vec<Module> = modules.collect();
    let shapes: Vec<[usize; 3]> = modules.iter().map(|m| m.shape).collect();
    let head: Vec<u8> = numbers(8, seed).iter().flat_map(|v| v.to_le_bytes()).collect();
    let factors = move |i: usize| {
        let [m, r, d] = shapes[i];
        // Something in common, something of its own.
        let mixed = |n: usize, at: u64| {
            let common = numbers(n, 500 + 2 * i as u64 + at).into_iter();
            common.zip(numbers(n, seed * 100 + 2 * i as u64 + at)).map(|(c, o)| c + 0.3 * o).collect()
        };
        Ok(Factors { left: mixed(m * r, 0), right: mixed(r * d, 1) })
    };
    let draft = Draft {
        config: json!({ "peft_type": "LORA", "base_model_name_or_path": "somebody/base", "target_modules": ["q", "up"] }),
        dtype: Dtype::F32,
        modules,
        factors: Box::new(factors),
        rest: vec![Rest { name: "head.weight".into(), dtype: Dtype::F32, shape: vec![1, 8], bytes: head.into() }],
        beside: Vec::new(),
    };
    let out = dir.join(name);
    draft.write(&Target::new(&out), &|_, _| ()).expect("written");
    out
}

/// A checkpoint directory of the network; `seed` 0 is the base, others differ from it in everything but
/// the norm.
fn model(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let shapes: [(&str, &[usize]); 7] = [
        ("conv.weight", &[6, 2, 3, 3]),
        ("embed.weight", &[11, 8]),
        ("h.0.attn.q.weight", &[8, 8]),
        ("h.0.attn.q.bias", &[8]),
        ("h.0.mlp.up.weight", &[12, 8]),
        ("head.weight", &[1, 8]),
        ("norm.weight", &[8]),
    ];
    let planned = shapes.map(|(n, s)| Planned { name: n.into(), dtype: Dtype::F32, shape: s.to_vec() }).to_vec();
    let out = dir.join(name);
    let mut writer = Writer::create(Plan::sharded(planned, usize::MAX).expect("a plan"), &out, &[], "").expect("begun");
    writer.add("config.json", br#"{"architectures": ["XForSequenceClassification"]}"#).expect("written");
    let make = |tensor: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
        let of = |seed: u64| numbers(tensor.elements(), tensor.name.bytes().fold(seed, |s, b| mix(s, b.into())));
        let learnt = if seed == 0 || tensor.name == "norm.weight" { 0.0 } else { 0.2 };
        Ok(Contents::Values(of(0).iter().zip(of(seed)).map(|(b, o)| b + learnt * o).collect()))
    };
    writer.write(&make, &|_, _| ()).expect("written");
    writer.finish().expect("finished");
    out
}

/// The product of a module's factors.
fn product(adapter: &Adapter, index: usize) -> Vec<f64> {
    let [m, r, d] = adapter.modules().nth(index).expect("a module").shape;
    let Factors { left, right } = adapter.factors(index).expect("factors");
    let at = |i: usize| (0..r).map(|k| f64::from(left[i / d * r + k]) * f64::from(right[k * d + i % d])).sum();
    (0..m * d).map(at).collect()
}

/// The relative distance of the differences of two adapters.
fn distance(a: &Path, b: &Path) -> f64 {
    let (a, b) = (Adapter::open(a).expect("an adapter"), Adapter::open(b).expect("an adapter"));
    let names = |of: &Adapter| of.modules().map(|m| (m.name.clone(), m.kind.clone())).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    let (mut off, mut all) = (0.0, 0.0);
    for i in 0..a.modules().len() {
        for (x, y) in product(&a, i).iter().zip(product(&b, i)) {
            off += (x - y).powi(2);
            all += y.powi(2);
        }
    }
    (off / all).sqrt()
}

fn recipe(dir: &Path, text_of: &str) -> PathBuf {
    let path = dir.join("r.toml");
    fs::write(&path, text_of).expect("written");
    path
}

/// Three adapters, merged with these parameters.
fn merged(parameters: &str) -> (TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().expect("a folder");
    ["a", "b", "c"].iter().zip(1..).for_each(|(name, seed)| drop(adapter(dir.path(), name, 8, seed)));
    let toml = format!(
        "method = \"rmm\"\nmodels = [{{ path = \"a\" }}, {{ path = \"b\" }}, {{ path = \"c\" }}]\nparameters = {parameters}\n"
    );
    let (toml, out) = (recipe(dir.path(), &toml), dir.path().join("merged"));
    let said = stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
    (dir, out, said)
}

fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = list.map(|n| n.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn as_many_basis_models_as_adapters_give_every_adapter_back() {
    for parameters in [
        "{ basis = 3 }",
        "{ error = 0.0 }",
        "{ basis = 3, centred = true, align = \"procrustes\" }",
        "{ basis = 3, granularity = \"layer\" }",
        "{ basis = 3, granularity = \"product\" }",
    ] {
        let (dir, out, said) = merged(parameters);
        assert!(said.starts_with("3 basis models of 3 (by "), "{said}");
        for name in ["a", "b", "c"] {
            let back = dir.path().join(format!("{name}-back"));
            let said = stdout(&regrow(&["revert", text(&out), "--task", name, "--out", text(&back)]));
            assert_eq!(said, format!("{name}: 4 modules, relative error 0.0000\n"));
            assert!(distance(&back, &dir.path().join(name)) < 1e-5, "{parameters} {name}");
            let head =
                |of: &Path| Checkpoint::open(of).expect("open").read_f32("base_model.model.head.weight").expect("read");
            assert_eq!(head(&back), head(&dir.path().join(name)));
            assert_eq!(names(&back), ["adapter_config.json", "adapter_model.safetensors"]);
        }
    }
}

#[test]
fn fewer_say_what_they_lose_and_what_they_save() {
    let (dir, out, said) = merged("{ basis = 2 }");
    assert!(said.contains("2 basis models of 3 (by position): 1,738 of 1,896 numbers (91.67 %)"), "{said}");
    let json: Value =
        serde_json::from_str(&stdout(&regrow(&["revert", text(&out), "--report", "--json"]))).expect("JSON");
    let back = dir.path().join("back");
    stdout(&regrow(&["revert", text(&out), "--task", "b", "--out", text(&back)]));
    let (said, measured) =
        (json["tasks"][1]["relative_error"].as_f64().expect("a number"), distance(&back, &dir.path().join("b")));
    assert!(measured > 1e-3 && (said / measured - 1.0).abs() < 1e-4, "{said} {measured}");
    assert_eq!(json["layers"].as_array().expect("layers").len(), 4);
    let picture = dir.path().join("errors.svg");
    let table = stdout(&regrow(&["revert", text(&out), "--report", "--picture", text(&picture)]));
    assert!(table.contains("h.0.mlp.up") && table.contains("12x8") && table.contains("91.67 %"), "{table}");
    assert!(fs::read_to_string(picture).expect("read").matches("<polyline").count() == 3);
    // Within a budget.
    let (_dir, _out, said) = merged("{ storage = 0.5 }");
    assert!(said.starts_with("1 basis models of 3"), "{said}");
}

#[test]
fn what_is_merged_reversibly_carries_recipe_card_and_tokenizer_in_the_type_asked_for() {
    let (dir, whole, _) = merged("{ basis = 3 }");
    assert_eq!(names(&whole), ["README.md", "recipe.toml", "regrow-rmm.json", "regrow-rmm.safetensors"]);
    fs::write(dir.path().join("b/tokenizer.json"), "of b").expect("written");
    let toml = "method = \"rmm\"\nmodels = [{ path = \"a\" }, { path = \"b\" }, { path = \"c\" }]\nparameters = { basis = 3 }\n\
                dtype = \"float16\"\ntokenizer = \"b\"\n";
    let (toml_at, out) = (recipe(dir.path(), toml), dir.path().join("half"));
    let half = ["merge", text(&toml_at), "--out", text(&out)];
    stdout(&regrow(&half));
    let read = |file: &str| fs::read_to_string(out.join(file)).expect("read");
    assert_eq!((read("recipe.toml").as_str(), read("tokenizer.json").as_str()), (toml, "of b"));
    assert!(
        read("README.md").contains("by the method rmm: adapters merged reversibly")
            && read("README.md").contains("| c |")
    );
    let kept = Checkpoint::open(out.join("regrow-rmm.safetensors")).expect("open");
    assert!(kept.entries().iter().all(|e| (e.dtype == Dtype::F16) != e.name.starts_with("tasks/")));
    // What is lost by rounding is said, and is what is lost.
    let manifest: Value = serde_json::from_str(&read("regrow-rmm.json")).expect("JSON");
    assert_eq!(manifest["dtype"], "F16");
    for (task, name) in ["a", "b", "c"].into_iter().enumerate() {
        let back = dir.path().join(format!("back {name}"));
        stdout(&regrow(&["revert", text(&out), "--task", name, "--out", text(&back)]));
        assert_eq!(fs::read_to_string(back.join("tokenizer.json")).expect("read"), "of b");
        let (said, found) = (
            manifest["tasks"][task]["relative_error"].as_f64().expect("a number"),
            distance(&back, &dir.path().join(name)),
        );
        assert!(said > 1e-5 && said < 2e-3 && (found / said - 1.0).abs() < 0.05, "{name}: {said} {found}");
    }
    let file = dir.path().join("x.safetensors");
    assert!(complaint(&["merge", text(&toml_at), "--out", text(&file)]).contains("rmm writes a folder"));
    recipe(dir.path(), &toml.replace("tokenizer = \"b\"", "tokenizer = \"nobody\""));
    let no = dir.path().join("no");
    assert!(complaint(&["merge", text(&toml_at), "--out", text(&no)]).contains("or a model: a, b, c"));
    assert!(!no.exists());
}

#[test]
fn a_plan_shows_storage_and_does_nothing() {
    let (dir, _out, _) = merged("{ basis = 1 }");
    let (toml, other) = (dir.path().join("r.toml"), dir.path().join("other"));
    let said = stdout(&regrow(&["merge", text(&toml), "--out", text(&other), "--dry-run"]));
    assert!(said.starts_with("3 adapters of 4 modules, 1,896 numbers\n") && said.contains("45.83 %"), "{said}");
    assert!(!other.exists());
}

#[test]
fn a_task_in_its_base_is_the_base_with_its_adapter_added() {
    let (dir, out, _) = merged("{ basis = 3 }");
    let (base, target) = (model(dir.path(), "base", 0), dir.path().join("whole"));
    stdout(&regrow(&["revert", text(&out), "--task", "c", "--merged", text(&base), "--out", text(&target)]));
    let (base, whole) = (Checkpoint::open(&base).expect("open"), Checkpoint::open(&target).expect("open"));
    let adapter = Adapter::open(dir.path().join("c")).expect("an adapter");
    for (i, module) in adapter.modules().enumerate() {
        let name = format!("{}.weight", module.name);
        let (before, after) = (base.read_f32(&name).expect("read"), whole.read_f32(&name).expect("read"));
        for ((b, a), d) in before.iter().zip(&after).zip(product(&adapter, i)) {
            assert!((f64::from(a - b) - d).abs() < 1e-5, "{name}");
        }
    }
    assert_eq!(whole.read_f32("head.weight").expect("read"), numbers(8, 3));
    assert_eq!(whole.raw("norm.weight").expect("there"), base.raw("norm.weight").expect("there"));
    assert!(names(&target).contains(&"config.json".to_string()));
}

#[test]
fn a_compressed_model_in_its_base_is_the_model_as_far_as_its_rank_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (base, tuned) = (model(dir.path(), "base", 0), model(dir.path(), "tuned", 1));
    let mut errors = Vec::new();
    for rank in ["1", "2", "3"] {
        let out = dir.path().join(format!("rank{rank}"));
        let args = ["compress", text(&tuned), "--base", text(&base), "--rank", rank, "--out", text(&out)];
        let said = stdout(&regrow(&args));
        let error = said.split("relative error ").nth(1).and_then(|s| s.split(';').next()).expect("an error");
        errors.push(error.parse::<f64>().expect("a number"));
        assert!(said.starts_with("3 matrices as ") && said.contains("numbers stored whole"), "{said}");
        let adapter = Adapter::open(&out).expect("an adapter");
        assert_eq!(
            adapter.modules().map(|m| m.name.as_str()).collect::<Vec<_>>(),
            ["conv", "h.0.attn.q", "h.0.mlp.up"]
        );
        let config = adapter.config();
        assert_eq!((&config["bias"], &config["modules_to_save"]), (&json!("all"), &json!(["embed", "head"])));
        assert_eq!(
            (&config["r"], &config["task_type"]),
            (&json!(rank.parse::<usize>().expect("a number")), &Value::Null)
        );
        let whole = dir.path().join(format!("whole{rank}"));
        adapter
            .draft()
            .expect("a draft")
            .merge_into(&Checkpoint::open(&base).expect("open"), &Target::new(&whole), &|_, _| ())
            .expect("merged");
        let (whole, tuned) = (Checkpoint::open(&whole).expect("open"), Checkpoint::open(&tuned).expect("open"));
        for name in ["embed.weight", "head.weight", "h.0.attn.q.bias", "norm.weight"] {
            assert_eq!(whole.raw(name).expect("there"), tuned.raw(name).expect("there"), "{name}");
        }
        // What is lost is what was said.
        let (mut off, mut all) = (0.0, 0.0);
        for name in ["conv.weight", "h.0.attn.q.weight", "h.0.mlp.up.weight"] {
            let of = |c: &Checkpoint| c.read_f32(name).expect("read");
            let parent = Checkpoint::open(&base).expect("open").read_f32(name).expect("read");
            for ((w, t), b) in of(&whole).iter().zip(of(&tuned)).zip(parent) {
                off += f64::from(w - t).powi(2);
                all += f64::from(t - b).powi(2);
            }
        }
        assert!(
            ((off / all).sqrt() - errors[errors.len() - 1]).abs() < 1e-3,
            "{rank}: {} {errors:?}",
            (off / all).sqrt()
        );
    }
    assert!(errors[0] > errors[1] && errors[1] > errors[2], "{errors:?}");
}

#[test]
fn compressed_models_are_merged_and_reverted_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = model(dir.path(), "base", 0);
    for seed in [1, 2] {
        let (tuned, out) = (model(dir.path(), &format!("tuned{seed}"), seed), dir.path().join(format!("low{seed}")));
        stdout(&regrow(&["compress", text(&tuned), "--base", text(&base), "--rank", "2", "--out", text(&out)]));
    }
    let toml = "method = \"rmm\"\nmodels = [{ path = \"low1\" }, { path = \"low2\" }]\nparameters = { basis = 2 }\n";
    let (toml, out, back) = (recipe(dir.path(), toml), dir.path().join("merged"), dir.path().join("back"));
    stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
    stdout(&regrow(&["revert", text(&out), "--task", "low2", "--out", text(&back)]));
    assert!(distance(&back, &dir.path().join("low2")) < 1e-5);
    let bias = "base_model.model.h.0.attn.q.base_layer.bias";
    let read = |of: &str| Checkpoint::open(dir.path().join(of)).expect("open").read_f32(bias).expect("read");
    assert_eq!(read("back"), read("low2"));
}

/// A checkpoint directory of matrices whose difference to those of seed 0 has no low rank.
fn matrices(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let matrix = |i: usize| Planned { name: format!("h.{i:02}.weight"), dtype: Dtype::F32, shape: vec![300, 400] };
    let (plan, out) = (Plan::sharded((0..24).map(matrix).collect(), usize::MAX).expect("a plan"), dir.join(name));
    let mut writer = Writer::create(plan, &out, &[], "").expect("begun");
    let make = |tensor: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
        let of = |seed: u64| numbers(tensor.elements(), tensor.name.bytes().fold(seed, |s, b| mix(s, b.into())));
        let learnt = if seed == 0 { 0.0 } else { 0.2 };
        Ok(Contents::Values(of(0).iter().zip(of(seed)).map(|(b, o)| b + learnt * o).collect()))
    };
    writer.write(&make, &|_, _| ()).expect("written");
    writer.finish().expect("finished");
    out
}

#[test]
fn what_was_killed_goes_on_and_comes_out_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let (base, out) = (matrices(dir.path(), "base", 0), at("out"));
    let tuned = [1, 2].map(|seed| matrices(dir.path(), &format!("tuned{seed}"), seed));
    let toml = "method = \"rmm\"\nmodels = [{ path = \"low1\" }, { path = \"low2\" }]\n\
                parameters = { basis = 1, granularity = \"product\", rank = 40, align = \"balanced\" }\n";
    let toml = recipe(dir.path(), toml);
    let compress = |n: usize| ["compress", text(&tuned[n]), "--base", text(&base), "--rank", "80"].map(String::from);
    let commands: [(&str, Vec<String>, [&str; 2]); 4] = [
        ("low1", compress(0).to_vec(), ["--rank", "70"]),
        ("low2", compress(1).to_vec(), ["--ignore", "h.03"]),
        ("merged", ["merge", text(&toml)].map(String::from).to_vec(), ["--shard-size", "1MB"]),
        ("back", ["revert", text(&at("merged")), "--task", "low2"].map(String::from).to_vec(), ["--task", "low1"]),
    ];
    for (name, command, other) in commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        // What is given twice would be refused: the other value takes the place of the first.
        let place = command.iter().position(|argument| *argument == other[0]);
        let others = match place {
            Some(place) => [&command[..place], &other, &command[place + 2..]].concat(),
            None => [&command[..], &other].concat(),
        };
        let to = |command: &[&str], out: &Path, more: &[&str]| -> Vec<String> {
            [command, &["--out", text(out)], more].concat().into_iter().map(String::from).collect()
        };
        let strs = |args: &[String]| regrow(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let said = stdout(&strs(&to(&command, &at(name), &[])));
        let begun = || {
            let journal = fs::read_to_string(dir.path().join("out.partial/regrow-progress.json")).unwrap_or_default();
            journal.contains("\"tensors\":[") && !journal.contains("\"tensors\":[]")
        };
        let kill = || {
            let _old = fs::remove_dir_all(&out);
            let args = to(&command, &out, &[]);
            killed(&args.iter().map(String::as_str).collect::<Vec<_>>(), &out, begun) && begun()
        };
        assert!((0..20).any(|_| kill()), "{name}: always too late");
        let wrong = to(&others, &out, &["--resume"]);
        let says = complaint(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(says.contains("other settings"), "{name}: {says}");
        assert_eq!(stdout(&strs(&to(&command, &out, &["--resume"]))), said, "{name}");
        assert_eq!(names(&out), names(&at(name)));
        for file in names(&out).iter().filter(|file| *file != "README.md") {
            assert!(fs::read(out.join(file)).expect("read") == fs::read(at(name).join(file)).expect("read"), "{file}");
        }
        fs::remove_dir_all(&out).expect("removed");
        assert!(!dir.path().join("out.partial").exists(), "{name}: nothing is left");
    }
}

#[test]
fn models_that_arrive_one_by_one_are_merged_as_if_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = model(dir.path(), "base", 0);
    (1..=3).for_each(|seed| drop(model(dir.path(), &format!("m{seed}"), seed)));
    let run = |into: &str, models: &[usize], more: &[&str]| {
        let list: Vec<String> = models.iter().map(|m| format!("{{ path = \"m{m}\" }}")).collect();
        let toml = format!(
            "method = \"opcm\"\nbase = \"base\"\nmodels = [{}]\nparameters = {{ alpha = 0.4, convolutions = true }}\n",
            list.join(", ")
        );
        let (toml, into) = (recipe(dir.path(), &toml), dir.path().join(into));
        stdout(&regrow(&[&["merge", text(&toml), "--into", text(&into)], more].concat()))
    };
    let out = dir.path().join("out");
    let said = run("at-once", &[1, 2, 3], &["--out", text(&out)]);
    assert!(said.lines().count() == 3 && said.contains("m3: model 3, lambda "), "{said}");
    // Without a folder the same, in memory.
    let whole = dir.path().join("whole");
    let said = stdout(&regrow(&["merge", text(&dir.path().join("r.toml")), "--out", text(&whole)]));
    assert!(said.starts_with("3 models merged by opcm: "), "{said}");
    let (found, wanted) = (Checkpoint::open(&whole).expect("open"), Checkpoint::open(&out).expect("open"));
    for entry in wanted.entries() {
        let read = |of: &Checkpoint| of.read_f32(&entry.name).expect("read");
        assert_close(&read(&found), &read(&wanted), 1e-6);
    }
    (1..=3).for_each(|m| drop(run("one-by-one", &[m], &[])));
    let bytes = |of: &str| fs::read(dir.path().join(of).join("difference-0003.safetensors")).expect("read");
    assert_eq!(bytes("at-once"), bytes("one-by-one"));
    assert_eq!(names(&dir.path().join("one-by-one")), ["difference-0003.safetensors", "regrow-opcm.json"]);
    // The merged difference has the models' mean norm.
    let squares = |of: &Path| -> f64 {
        let (a, b) = (Checkpoint::open(of).expect("open"), Checkpoint::open(&base).expect("open"));
        let read = |c: &Checkpoint, n: &str| c.read_f32(n).expect("read");
        let names: Vec<String> = b.entries().iter().map(|e| e.name.clone()).collect();
        let of = |n: &String| read(&a, n).iter().zip(read(&b, n)).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        names.iter().map(of).sum()
    };
    let mean = (1..=3).map(|m| squares(&dir.path().join(format!("m{m}"))).sqrt()).sum::<f64>() / 3.0;
    assert!((squares(&out).sqrt() / mean - 1.0).abs() < 1e-4);
    // Recipe and card of all models, whichever run added them.
    let read = |of: &Path, file: &str| fs::read_to_string(of.join(file)).expect("read");
    assert_eq!(names(&out), ["README.md", "config.json", "model.safetensors", "recipe.toml"]);
    assert!(read(&out, "README.md").contains("by the method opcm: models merged as they arrive"));
    model(dir.path(), "m4", 4);
    let (last, again) = (dir.path().join("last"), dir.path().join("again"));
    run("one-by-one", &[4], &["--out", text(&last)]);
    let written = read(&last, "recipe.toml");
    assert!((1..=4).all(|m| written.contains(&format!("name = \"m{m}\""))), "{written}");
    let said = stdout(&regrow(&[
        "merge",
        text(&last.join("recipe.toml")),
        "--into",
        text(&dir.path().join("new state")),
        "--out",
        text(&again),
    ]));
    assert_eq!(said.lines().count(), 4);
    let weights = |of: &Path| fs::read(of.join("model.safetensors")).expect("read");
    assert_eq!(weights(&again), weights(&last));
    // An interrupted run resumes with the models that are not in it yet.
    let said = run("at-once", &[1, 2, 3, 4], &["--resume", "--out", text(&dir.path().join("resumed"))]);
    assert!(said.lines().count() == 1 && said.starts_with("m4: model 4"), "{said}");
    assert_eq!(weights(&dir.path().join("resumed")), weights(&last));
    recipe(
        dir.path(),
        "method = \"opcm\"\nbase = \"base\"\nmodels = [{ path = \"m3\" }]\nparameters = { alpha = 0.4, convolutions = true }\n",
    );
    let toml = text(&dir.path().join("r.toml")).to_string();
    let into = dir.path().join("one-by-one");
    assert!(complaint(&["merge", &toml, "--into", text(&into)]).contains("m3 has been merged into it"));
    recipe(
        dir.path(),
        "method = \"opcm\"\nbase = \"base\"\nmodels = [{ path = \"m1\" }]\nparameters = { alpha = 0.5 }\n",
    );
    assert!(complaint(&["merge", &toml, "--into", text(&into)]).contains("begun with alpha 0.4"));
    recipe(
        dir.path(),
        "method = \"opcm\"\nbase = \"base\"\nmodels = [{ path = \"m1\" }]\nparameters = { alpha = 1.5 }\n",
    );
    assert!(complaint(&["merge", &toml, "--into", text(&dir.path().join("new"))]).contains("[0, 1)"));
}

#[test]
fn what_cannot_be_merged_or_reverted_is_one_line() {
    let (dir, out, _) = merged("{ basis = 2 }");
    adapter(dir.path(), "wide", 3, 7);
    model(dir.path(), "whole", 1);
    let with = |models: &str, parameters: &str| {
        let toml = format!("method = \"rmm\"\nmodels = [{models}]\nparameters = {parameters}\n");
        let toml = recipe(dir.path(), &toml);
        complaint(&["merge", text(&toml), "--out", text(&dir.path().join("no"))])
    };
    let two = "{ path = \"a\" }, { path = \"b\" }";
    assert!(with("{ path = \"a\" }, { path = \"wide\" }", "{ basis = 1 }").contains("ranks 8 and 3"));
    assert!(with("{ path = \"a\" }, { path = \"whole\" }", "{ basis = 1 }").contains("regrow compress"));
    assert!(with(two, "{ basis = 3 }").contains("use 1 to 2"));
    assert!(with(two, "{ basis = 1, error = 0.1 }").contains("choose one"));
    assert!(with(two, "{ basis = 1.5 }").contains("whole number"));
    assert!(with(two, "{ base = 1 }").contains("did you mean `basis`?"));
    assert!(with(two, "{ basis = 1, granularity = \"row\" }").contains("position, layer, product"));
    assert!(with(two, "{ basis = 1, rank = 2 }").contains("only a basis by product"));
    assert!(with("", "{ basis = 1 }").contains("zero models"));
    // Other modules of the same base.
    let draft = Draft {
        config: json!({ "peft_type": "LORA", "base_model_name_or_path": "somebody/base", "target_modules": ["up"] }),
        dtype: Dtype::F32,
        modules: vec![Module { name: "h.0.mlp.up".into(), kind: Kind::Linear, shape: [12, 8, 8] }],
        factors: Box::new(|_| Ok(Factors { left: numbers(96, 1), right: numbers(64, 2) })),
        rest: Vec::new(),
        beside: Vec::new(),
    };
    draft.write(&Target::new(&dir.path().join("less")), &|_, _| ()).expect("written");
    let less = with("{ path = \"a\" }, { path = \"less\" }", "{ basis = 1 }");
    assert!(less.contains("adapt different modules: only one has conv"), "{less}");
    // Different bases, a factor cut short, NaN.
    let config = dir.path().join("b/adapter_config.json");
    let text_of = fs::read_to_string(&config).expect("read");
    fs::write(&config, text_of.replace("somebody/base", "somebody/else")).expect("written");
    assert!(with(two, "{ basis = 1 }").contains("different bases, base and else"));
    fs::write(&config, text_of.replace("\"LORA\"", "\"IA3\"")).expect("written");
    assert!(with(two, "{ basis = 1 }").contains("IA3"));
    fs::write(&config, &text_of).expect("written");
    let weights = dir.path().join("b/adapter_model.safetensors");
    let bytes = fs::read(&weights).expect("read");
    fs::write(&weights, &bytes[..bytes.len() - 5]).expect("written");
    assert!(with(two, "{ basis = 1 }").contains("cut short"));
    let mut broken = bytes.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, &broken).expect("written");
    assert!(with(two, "{ basis = 1 }").contains("NaN"));
    assert!(!dir.path().join("no").exists() && !dir.path().join("no.partial").exists());
    // Reverting.
    let no = dir.path().join("no");
    assert!(complaint(&["revert", text(&out), "--task", "z", "--out", text(&no)]).contains("no task `z`: use a, b, c"));
    assert!(
        complaint(&["revert", text(&dir.path().join("a")), "--task", "a", "--out", text(&no)])
            .contains("not made by RMM")
    );
    let other = dir.path().join("a");
    let args = ["revert", text(&out), "--task", "a", "--merged", text(&other), "--out", text(&no)];
    assert!(complaint(&args).contains("not the base of this adapter"));
    assert!(complaint(&["revert", text(&out), "--task", "a", "--out", text(&other)]).contains("not empty"));
    let (base, tuned) = (dir.path().join("whole"), model(dir.path(), "same", 1));
    let compress =
        |rank: &str| complaint(&["compress", text(&tuned), "--base", text(&base), "--rank", rank, "--out", text(&no)]);
    assert!(compress("2").contains("differ in no matrix"));
    assert!(compress("0").contains("rank 0"));
    assert!(!no.exists());
}

#[test]
fn a_base_that_is_not_the_parent_is_refused_or_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let (base, tuned) = (model(dir.path(), "base", 0), model(dir.path(), "tuned", 1));
    let out = |n: usize| dir.path().join(format!("out{n}"));
    let args = |base: &Path, model: &Path, to: &Path| {
        ["compress", text(model), "--base", text(base), "--rank", "2", "--out", text(to)].map(String::from)
    };
    let says = |base: &Path, model: &Path| {
        let args = args(base, model, &out(0));
        let said = complaint(&args.each_ref().map(String::as_str));
        assert!(!out(0).exists() && !dir.path().join("out0.partial").exists(), "{said}");
        said
    };
    // Other weights under the same names, weights that no fine-tuning gives, tensors that are missing or differ.
    type Change = dyn Fn(&str, Vec<f32>) -> Option<Vec<f32>> + Sync;
    let changed = |name: &str, change: &Change| {
        let parent = Checkpoint::open(&base).expect("open");
        let kept = |n: &str| change(n, parent.read_f32(n).expect("read"));
        let entries = parent.entries().iter().filter(|e| kept(&e.name).is_some());
        let planned = entries.map(|e| match kept(&e.name).map(|v| v.len()) {
            Some(n) if n != e.elements() => Planned { shape: vec![n], ..Planned::from(e) },
            _ => Planned::from(e),
        });
        let planned: Vec<Planned> = planned.collect();
        let to = dir.path().join(name);
        let mut writer =
            Writer::create(Plan::sharded(planned, usize::MAX).expect("a plan"), &to, &[], "").expect("begun");
        let make = |t: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
            Ok(Contents::Values(kept(&t.name).unwrap_or_default()))
        };
        writer.write(&make, &|_, _| ()).expect("written");
        writer.finish().expect("finished");
        to
    };
    let stranger = changed("stranger", &|name, values| Some(numbers(values.len(), 99 + name.len() as u64)));
    assert!(says(&stranger, &tuned).contains("does not look like the parent of"), "{}", says(&stranger, &tuned));
    let tiny = changed("tiny", &|_, values| Some(values.iter().map(|v| v / 10.0).collect()));
    assert!(says(&tiny, &tuned).contains("times its norm"));
    let args_of = args(&tiny, &tuned, &out(1));
    stdout(&regrow(&[&args_of.each_ref().map(String::as_str)[..], &["--any-base"]].concat()));
    let less = changed("less", &|name, values| (name != "h.0.attn.q.bias").then_some(values));
    assert!(says(&less, &tuned).contains("has no tensor \"h.0.attn.q.bias\": it is not the base"));
    let short =
        changed("short", &|name, values| Some(if name == "norm.weight" { values[1..].to_vec() } else { values }));
    assert!(says(&short, &tuned).contains("norm.weight is"));
    // The base may have more, which is said.
    let output = regrow(&args(&base, &less, &out(2)).each_ref().map(String::as_str));
    let noted = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        noted.contains("has 1 tensors that the model lacks, as h.0.attn.q.bias")
            && noted.contains("differ in no matrix"),
        "{noted}"
    );
    let toml = format!("method = \"opcm\"\nbase = {stranger:?}\nmodels = [{{ path = \"tuned\" }}]\n");
    let said = complaint(&["merge", text(&recipe(dir.path(), &toml)), "--into", text(&out(3))]);
    assert!(said.contains("does not look like the parent of tuned") && !out(3).exists(), "{said}");
}

#[test]
fn real_adapters_come_back() {
    let Ok(data) = std::env::var("REGROW_DATA") else { return eprintln!("skipped: REGROW_DATA is not set") };
    let lora = Path::new(&data).join("lora");
    if !lora.is_dir() {
        return eprintln!("skipped: {} has no lora", data);
    }
    let sets: [&[&str]; 3] = [
        &["convnext-lora/v1-2026-02", "convnext-lora/v1-2026-03", "convnext-lora/v2-2026-04"],
        &["gpt2-lora/tigrinya-1", "gpt2-lora/pseudo-to-code"],
        &["distilbert-lora/imdb", "distilbert-lora/emotion"],
    ];
    for set in sets {
        let dir = tempfile::tempdir().expect("a folder");
        let models: Vec<String> = set.iter().map(|m| format!("{{ path = {:?} }}", text(&lora.join(m)))).collect();
        let toml =
            format!("method = \"rmm\"\nmodels = [{}]\nparameters = {{ basis = {} }}\n", models.join(", "), set.len());
        let (toml, out) = (recipe(dir.path(), &toml), dir.path().join("merged"));
        stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
        for path in set {
            let name = path.rsplit('/').next().expect("a name");
            let back = dir.path().join(name);
            stdout(&regrow(&["revert", text(&out), "--task", name, "--out", text(&back)]));
            assert!(distance(&back, &lora.join(path)) < 1e-5, "{path}");
        }
    }
}
