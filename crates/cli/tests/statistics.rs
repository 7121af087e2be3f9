//! `regrow statistics`, and merging by what it gathers.

mod common;

use std::fs;
use std::path::Path;

use regrow_checkpoint::{Checkpoint, Contents, Dtype, Plan, Planned, Writer};

use common::recipes::{models, recipe, values};
use common::{complaint, killed, regrow, stdout, text};

#[test]
fn fisher_information_and_second_moments_come_beside_the_models() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let statistics = |which: u64, scale: f32, gram: bool| {
        let name = "lm_head.weight".to_string();
        let shape = if gram { vec![8, 8] } else { vec![10, 8] };
        let out = dir.path().join(format!("s{which}{gram}.safetensors"));
        let plan = Plan::one("s", vec![Planned { name, dtype: Dtype::F32, shape }]).expect("a plan");
        let mut writer = Writer::create(plan, &out, &[], "").expect("begun");
        let entry = |i: usize| if !gram || i.is_multiple_of(9) { scale } else { 0.0 };
        let make = |t: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
            Ok(Contents::Values((0..t.elements()).map(entry).collect()))
        };
        writer.write(&make, &|_, _| ()).expect("written");
        writer.finish().expect("finished");
    };
    for (method, gram) in [("fisher", false), ("regmean", true)] {
        statistics(1, 3.0, gram);
        statistics(2, 1.0, gram);
        let model = |name: &str, n: u64| format!("{{ path = \"{name}\", statistics = \"s{n}{gram}.safetensors\" }}");
        let text_of = format!("method = \"{method}\"\nmodels = [{}, {}]\n", model("a", 1), model("b", 2));
        let toml = recipe(dir.path(), "r.toml", &text_of);
        let out = dir.path().join(method);
        stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
        let merged = Checkpoint::open(&out).expect("a checkpoint");
        for (name, share) in [("lm_head.weight", 0.75), ("model.embed_tokens.weight", 0.5)] {
            let expected =
                values(1, name, 80).into_iter().zip(values(2, name, 80)).map(|(a, b)| share * a + (1.0 - share) * b);
            for (ours, expected) in merged.read_f32(name).expect("read").iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-5, "{method} {name}: {ours} {expected}");
            }
        }
    }
}

#[test]
fn networks_are_merged_by_fisher_information_that_was_gathered() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name);
    let mut list = Vec::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let model = file(&format!("{name}.safetensors"));
        regrow_zoo::save(&regrow_zoo::Arch::MlpSmall.init(10, seed, &Default::default()), &model).expect("saved");
        let out = file(&format!("f{name}.safetensors"));
        let args = ["statistics", text(&model), "--kind", "fisher", "--arch", "mlp-small", "--dataset", "digits"];
        let said = stdout(&regrow(&[&args[..], &["--images", "12", "--out", text(&out)]].concat()));
        assert!(said.contains("parameters over 12 images"), "{said}");
        list.push(format!("{{ path = \"{name}.safetensors\", statistics = \"f{name}.safetensors\" }}"));
    }
    let toml = recipe(dir.path(), "r.toml", &format!("method = \"fisher\"\nmodels = [{}]\n", list.join(", ")));
    let out = file("merged.safetensors");
    stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
    let open = |name: &str| Checkpoint::open(file(name)).expect("a checkpoint");
    let [a, b, fa, fb, merged] =
        ["a.safetensors", "b.safetensors", "fa.safetensors", "fb.safetensors", "merged.safetensors"].map(open);
    let mut known = 0;
    for entry in a.entries() {
        let read = |of: &Checkpoint| of.read_f32(&entry.name).expect("read");
        assert_eq!(fa.entry(&entry.name).expect("gathered").shape, entry.shape);
        let (info, other) = (read(&fa), read(&fb));
        for (k, found) in read(&merged).iter().enumerate() {
            assert!(info[k] >= 0.0);
            known += usize::from(info[k] > 1e-5);
            let (f, g) = (f64::from(info[k]) + 1e-6, f64::from(other[k]) + 1e-6);
            let wanted = (f * f64::from(read(&a)[k]) + g * f64::from(read(&b)[k])) / (f + g);
            assert!((f64::from(*found) - wanted).abs() < 1e-5, "{} {k}: {found} {wanted}", entry.name);
            if entry.elements() > 500 {
                break;
            }
        }
    }
    assert!(known > 20, "{known}");
    let model = file("a.safetensors");
    let says = |more: &[&str]| {
        let args = ["statistics", text(&model), "--out"];
        let no = file("no.safetensors");
        let said = complaint(&[&args[..], &[text(&no)], more].concat());
        assert!(!no.exists(), "{said}");
        said
    };
    let images = ["--arch", "mlp-small", "--dataset", "digits"];
    assert!(says(&["--kind", "x"]).contains("unknown statistics `x`: use fisher, moments"));
    assert!(says(&["--kind", "fisher"]).contains("(--arch, --dataset)"));
    assert!(says(&["--kind", "moments"]).contains("(--calibration FILE)"));
    assert!(says(&[&["--kind", "fisher", "--images", "0"], &images[..]].concat()).contains("at least 1"));
    assert!(says(&["--kind", "fisher", "--arch", "mnist-cnn", "--dataset", "digits"]).contains("is no checkpoint of"));
    let out = dir.path().join("folder");
    let said =
        complaint(&[&["statistics", text(&model), "--out", text(&out), "--kind", "fisher"], &images[..]].concat());
    assert!(said.contains("ends in .safetensors"), "{said}");
}

#[test]
fn language_models_are_merged_by_second_moments_that_were_gathered() {
    let dir = tempfile::tempdir().expect("a folder");
    let corpus = dir.path().join("text.txt");
    fs::write(&corpus, "the old man saw a dog in town ".repeat(40)).expect("written");
    for (name, seed) in [("x", 1), ("y", 2)] {
        let model = dir.path().join(name);
        let sizes = regrow_lm::Sizes { vocab: 8, width: 16, layers: 2, heads: 2, inner: 24, context: 32 };
        sizes.create(&model, seed).expect("a model");
        common::tokenizer(&model, &["a", "man", "saw", "the", "old", "dog", "in", "town"]);
        let out = dir.path().join(format!("{name}.safetensors"));
        let args = ["statistics", text(&model), "--kind", "moments", "--calibration", text(&corpus)];
        let said = stdout(&regrow(&[&args[..], &["--samples", "4", "--window", "16", "--out", text(&out)]].concat()));
        assert!(said.starts_with("second moments of the inputs of ") && said.contains("over 64 tokens"), "{said}");
    }
    let text_of = "method = \"regmean\"\nmodels = [{ path = \"x\", statistics = \"x.safetensors\" }, { path = \"y\", \
                   statistics = \"y.safetensors\" }]\n";
    let toml = recipe(dir.path(), "r.toml", text_of);
    let out = dir.path().join("merged");
    stdout(&regrow(&["merge", text(&toml), "--out", text(&out)]));
    let open = |name: &str| Checkpoint::open(dir.path().join(name)).expect("a checkpoint");
    let [x, y, gx, gy, merged] = ["x", "y", "x.safetensors", "y.safetensors", "merged"].map(open);
    assert!(gx.entries().len() >= 14, "{}", gx.entries().len());
    for entry in gx.entries() {
        let shape = &merged.entry(&entry.name).expect("a layer").shape;
        let (rows, cols) = (shape[0], shape[1]);
        assert_eq!(entry.shape, [cols, cols], "{}", entry.name);
        let read = |of: &Checkpoint| of.read_f32(&entry.name).expect("read");
        // The normal equations: sum of (W - W_i) G_i is nothing, but for the ridge.
        let (w, parts) = (read(&merged), [(read(&x), read(&gx)), (read(&y), read(&gy))]);
        let size = parts.iter().map(|(_, g)| (0..cols).map(|j| g[j * cols + j]).sum::<f32>()).sum::<f32>();
        for r in 0..rows {
            for j in 0..cols {
                let pull = |(m, g): &(Vec<f32>, Vec<f32>)| -> f32 {
                    (0..cols).map(|k| (w[r * cols + k] - m[r * cols + k]) * g[k * cols + j]).sum()
                };
                let pull: f32 = parts.iter().map(pull).sum();
                assert!(pull.abs() < 1e-3 * size, "{} {r} {j}: {pull} {size}", entry.name);
            }
        }
    }
    let name = "model.norm.weight";
    let mean = |i: usize| (x.read_f32(name).expect("read")[i] + y.read_f32(name).expect("read")[i]) / 2.0;
    assert!(merged.read_f32(name).expect("read").iter().enumerate().all(|(i, v)| (v - mean(i)).abs() < 1e-6));
    let model = dir.path().join("x");
    let no = dir.path().join("no.safetensors");
    let args = ["statistics", text(&model), "--kind", "moments", "--calibration", text(&corpus), "--out", text(&no)];
    assert!(complaint(&[&args[..], &["--window", "99"]].concat()).contains("this model takes 2 to 32"));
    assert!(complaint(&[&args[..], &["--samples", "0"]].concat()).contains("--samples must be at least 1"));
}

#[test]
fn language_models_are_merged_by_fisher_information_that_was_gathered() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = common::tiny(dir.path());
    let corpus = dir.path().join("text.txt");
    fs::write(&corpus, "the old man saw a dog in town ".repeat(40)).expect("written");
    let gather = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let args =
            ["statistics", text(&model), "--kind", "fisher", "--calibration", text(&corpus), "--out", text(&out)];
        stdout(&regrow(&[&args[..], &["--window", "16"], more].concat()));
        Checkpoint::open(&out).expect("a checkpoint")
    };
    let (few, again) =
        (gather("few.safetensors", &["--samples", "8"]), gather("again.safetensors", &["--samples", "8"]));
    let source = Checkpoint::open(&model).expect("a checkpoint");
    assert_eq!(few.entries().len(), source.entries().len());
    let mut known = 0;
    for entry in source.entries() {
        assert_eq!(few.entry(&entry.name).expect("gathered").shape, entry.shape);
        let values = few.read_f32(&entry.name).expect("read");
        assert!(values.iter().all(|v| v.is_finite() && *v >= 0.0), "{}", entry.name);
        assert_eq!(values, again.read_f32(&entry.name).expect("read"), "{}", entry.name);
        known += values.iter().filter(|v| **v > 0.0).count();
    }
    assert!(known > 1000, "{known}");
    let other = gather("other.safetensors", &["--samples", "8", "--seed", "5"]);
    let head = "model.embed_tokens.weight";
    assert_ne!(few.read_f32(head).expect("read"), other.read_f32(head).expect("read"));
    // A model merged with itself stays what it is, whatever counts for how much.
    let one = |file: &str| format!("{{ path = \"tiny\", name = \"{file}\", statistics = \"{file}.safetensors\" }}");
    let text_of = format!("method = \"fisher\"\nmodels = [{}, {}]\n", one("few"), one("other"));
    let out = dir.path().join("merged");
    stdout(&regrow(&["merge", text(&recipe(dir.path(), "r.toml", &text_of)), "--out", text(&out)]));
    let (merged, own) = (Checkpoint::open(&out).expect("a checkpoint"), source.read_f32(head).expect("read"));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
    assert!(merged.read_f32(head).expect("read").iter().zip(&own).all(near));
}

#[test]
fn networks_are_merged_by_second_moments_that_were_gathered() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name);
    for (name, seed) in [("a", 1), ("b", 2)] {
        let model = file(&format!("{name}.safetensors"));
        regrow_zoo::save(&regrow_zoo::Arch::MlpSmall.init(10, seed, &Default::default()), &model).expect("saved");
        let out = file(&format!("m{name}.safetensors"));
        let args = ["statistics", text(&model), "--kind", "moments", "--arch", "mlp-small", "--dataset", "digits"];
        let said = stdout(&regrow(&[&args[..], &["--images", "200", "--out", text(&out)]].concat()));
        assert!(said.contains("layers over 200 images"), "{said}");
    }
    let model = |name: &str| format!("{{ path = \"{name}.safetensors\", statistics = \"m{name}.safetensors\" }}");
    let text_of = format!("method = \"regmean\"\nmodels = [{}, {}]\n", model("a"), model("b"));
    let out = file("merged.safetensors");
    stdout(&regrow(&["merge", text(&recipe(dir.path(), "r.toml", &text_of)), "--out", text(&out)]));
    let open = |name: &str| Checkpoint::open(file(name)).expect("a checkpoint");
    let [a, b, ga, gb, merged] =
        ["a.safetensors", "b.safetensors", "ma.safetensors", "mb.safetensors", "merged.safetensors"].map(open);
    for entry in ga.entries() {
        let shape = &a.entry(&entry.name).expect("a layer").shape;
        let (rows, cols) = (shape[0], shape[1]);
        assert_eq!(entry.shape, [cols, cols], "{}", entry.name);
        let read = |of: &Checkpoint| of.read_f32(&entry.name).expect("read");
        let (w, parts) = (read(&merged), [(read(&a), read(&ga)), (read(&b), read(&gb))]);
        let size = parts.iter().map(|(_, g)| (0..cols).map(|j| g[j * cols + j]).sum::<f32>()).sum::<f32>();
        for (r, j) in (0..rows.min(8)).flat_map(|r| (0..cols).map(move |j| (r, j))) {
            let pull = |(m, g): &(Vec<f32>, Vec<f32>)| -> f32 {
                (0..cols).map(|k| (w[r * cols + k] - m[r * cols + k]) * g[k * cols + j]).sum()
            };
            let pull: f32 = parts.iter().map(pull).sum();
            assert!(pull.abs() < 1e-4 * size, "{} {r} {j}: {pull} {size}", entry.name);
        }
    }
}

#[test]
fn a_run_that_was_killed_goes_on_with_what_it_has_summed() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = common::tiny(dir.path());
    let corpus = dir.path().join("text.txt");
    fs::write(&corpus, "the old man saw a dog in town ".repeat(2000)).expect("written");
    let (whole, out) = (dir.path().join("whole.safetensors"), dir.path().join("out.safetensors"));
    for kind in ["fisher", "moments"] {
        let args = |out: &Path, more: &[&str]| -> Vec<String> {
            let args = ["statistics", text(&model), "--kind", kind, "--calibration", text(&corpus), "--window", "16"];
            let last = ["--samples", "600", "--out", text(out)];
            [&args[..], &last[..], more].concat().into_iter().map(String::from).collect()
        };
        let run = |args: &[String]| regrow(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let said = stdout(&run(&args(&whole, &[])));
        // The first note of what is done: sums of some windows, or layers that are on the disk.
        let begun = || match kind {
            "fisher" => out.with_added_extension("sums").exists(),
            _ => fs::read_to_string(dir.path().join("out.safetensors.partial/regrow-progress.json"))
                .is_ok_and(|text| text.contains("\"tensors\":[0")),
        };
        let arguments = args(&out, &[]);
        assert!(killed(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &out, begun), "{kind}: too late");
        assert!(begun(), "{kind}");
        let other = args(&out, &["--resume", "--seed", "3"]);
        let says = complaint(&other.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(says.contains("other settings"), "{kind}: {says}");
        assert_eq!(stdout(&run(&args(&out, &["--resume"]))), said);
        assert!(fs::read(&out).expect("read") == fs::read(&whole).expect("read"), "{kind}");
        assert!(!begun(), "{kind}: nothing is left");
        fs::remove_file(&out).expect("removed");
        // There is nothing to resume: the run starts from the beginning.
        assert_eq!(stdout(&run(&args(&out, &["--resume"]))), said);
        [&out, &whole].into_iter().for_each(|file| fs::remove_file(file).expect("removed"));
    }
    let network = ["statistics", text(&model), "--kind", "moments", "--arch", "mlp-small", "--dataset", "digits"];
    let says = complaint(&[&network[..], &["--out", text(&out), "--resume"]].concat());
    assert!(says.contains("there is no --resume"), "{says}");
}

#[test]
fn sums_that_are_no_sums_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("a.safetensors");
    regrow_zoo::save(&regrow_zoo::Arch::MlpSmall.init(10, 1, &Default::default()), &model).expect("saved");
    let out = dir.path().join("f.safetensors");
    let args = ["statistics", text(&model), "--kind", "fisher", "--arch", "mlp-small", "--dataset", "digits"];
    for bytes in [&b""[..], b"no safetensors at all", b"\x02\0\0\0\0\0\0\0{}"] {
        fs::write(out.with_added_extension("sums"), bytes).expect("written");
        let says = complaint(&[&args[..], &["--images", "4", "--out", text(&out), "--resume"]].concat());
        assert!(says.contains("f.safetensors.sums"), "{says}");
        assert!(!out.exists());
    }
    // Without --resume it starts over and replaces the file.
    stdout(&regrow(&[&args[..], &["--images", "4", "--out", text(&out)]].concat()));
    assert!(out.exists() && !out.with_added_extension("sums").exists());
}
