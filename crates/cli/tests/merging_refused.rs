//! What `regrow merge` refuses, each in one line.

mod common;

use std::fs;
use std::process::Command;

use regrow_checkpoint::Dtype;

use common::recipes::{TIES, matrices, model_with, models, numbers, recipe};
use common::{complaint, regrow, stdout, text};

#[test]
fn bad_recipes_are_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let out = dir.path().join("out");
    let says = |text_of: &str| {
        let toml = recipe(dir.path(), "r.toml", text_of);
        let said = complaint(&["merge", text(&toml), "--out", text(&out)]);
        assert!(!out.exists() && !dir.path().join("out.partial").exists(), "{said}");
        said
    };
    assert!(
        says(&TIES.replace("ties", "tiess")).contains("unknown merge `tiess` (did you mean `ties`?): use breadcrumbs")
    );
    assert!(says(&TIES.replace("density", "densty")).contains("did you mean `density`?"));
    assert!(says("method = \"linear\"\nmodels = []\n").contains("zero models"));
    assert!(says(&TIES.replace("base = \"base\"", "")).contains("ties needs a `base`"));
    assert!(says(&TIES.replace("\"b\"", "\"nowhere\"")).contains("nowhere: "));
    assert!(says(&TIES.replace("0.3", "1.3")).contains("ties: `density` cannot be `1.3` ([0, 1])"));
    let two = "models = [{ path = \"a\" }, { path = \"b\" }]\n";
    let sum = says(&format!("method = \"linear\"\nparameters = {{ normalize = false }}\n{two}"));
    assert!(sum.contains("add up to 2, not to 1"), "{sum}");
    assert!(says(&format!("method = \"slerp\"\n{two}")).contains("slerp needs `t`"));
    assert!(says(&format!("method = \"slerp\"\nparameters = {{ t = 2 }}\n{two}")).contains("[0, 1]"));
    let three = "models = [{ path = \"a\" }, { path = \"b\" }, { path = \"c\" }]\nparameters = { t = 0.5 }\n";
    assert!(says(&format!("method = \"slerp\"\n{three}")).contains("at most 2 models, the recipe has 3"));
    let one = "method = \"model-stock\"\nbase = \"base\"\nmodels = [{ path = \"a\" }]\n";
    assert!(says(one).contains("at least 2 models"));
    let alone = "method = \"slerp\"\nparameters = { t = 0.5 }\nmodels = [{ path = \"a\" }]\n";
    assert!(says(alone).contains("slerp needs 2 models, or a `base` and 1, the recipe has 1"));
    let tokenizer = format!("method = \"linear\"\ntokenizer = \"nobody\"\n{two}");
    assert!(says(&tokenizer).contains("it may be base, a directory, or a model: a, b"));
    assert!(complaint(&["merge", text(&dir.path().join("no.toml")), "--out", text(&out)]).contains("no.toml: "));
    let yaml =
        recipe(dir.path(), "r.yml", "merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: [0, 2]}\n");
    let said = complaint(&["merge", text(&yaml), "--out", text(&out)]);
    assert!(said.contains("takes 2 layers, the models have 3"), "{said}");
    let toml = recipe(dir.path(), "r.toml", TIES);
    assert!(complaint(&["merge", text(&toml), "--out", text(&dir.path().join("a"))]).contains("input itself"));
    assert!(complaint(&["merge", text(&toml), "--out", text(dir.path())]).contains("not empty"));
}

#[test]
fn models_that_cannot_be_merged_are_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    models(dir.path());
    let out = dir.path().join("out");
    let says = || {
        let toml = recipe(dir.path(), "r.toml", TIES);
        let said = complaint(&["merge", text(&toml), "--out", text(&out)]);
        assert!(!out.exists() && !dir.path().join("out.partial").exists(), "{said}");
        said
    };
    let again = |dtype, change: &(dyn Fn(&str, &mut Vec<f32>) + Sync)| {
        fs::remove_dir_all(dir.path().join("b")).expect("removed");
        model_with(dir.path(), 2, dtype, change);
    };
    again(Dtype::F32, &|name, values| {
        if name == "lm_head.weight" {
            values[3] = 1e30;
        }
    });
    // NaN written past the writer, which refuses it.
    let file = dir.path().join("b/model.safetensors");
    let mut bytes = fs::read(&file).expect("read");
    let place = bytes.windows(4).position(|b| b == 1e30f32.to_le_bytes()).expect("the value");
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, &bytes).expect("written");
    let said = says();
    assert!(said.contains("b: tensor \"lm_head.weight\" holds 1 values that are NaN"), "{said}");
    fs::write(&file, &bytes[..bytes.len() - 5]).expect("written");
    assert!(says().contains("cut short"));
    again(Dtype::BF16, &|_, _| ());
    let said = says();
    assert!(said.contains("is F32 in the base, BF16 in b: say which type"), "{said}");
    // Independent weights under the same names: the base is no parent of theirs.
    again(Dtype::F32, &|name, values| *values = numbers(values.len(), 77 + name.len() as u64));
    let said = says();
    assert!(said.contains("does not look like the parent of b"), "{said}");
    let toml = recipe(dir.path(), "r.toml", TIES);
    stdout(&regrow(&["merge", text(&toml), "--out", text(&dir.path().join("all the same")), "--any-base"]));
    fs::write(dir.path().join("b/adapter_config.json"), "{}").expect("written");
    assert!(says().contains("is an adapter"));
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_and_a_shard_cut_short_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    matrices(dir.path(), 6, 64, 40_000);
    let toml = recipe(dir.path(), "r.toml", "method = \"linear\"\nmodels = [{ path = \"a\" }, { path = \"b\" }]\n");
    let out = dir.path().join("out");
    let args = ["merge", text(&toml), "--out", text(&out)];
    let said = common::refused(&common::on_a_full_disk(&mut Command::new("sh"), &args));
    assert!(said.contains("out.partial") && !out.exists() && !dir.path().join("out.partial").exists(), "{said}");
    let shard = dir.path().join("b/model-00002-of-00003.safetensors");
    let bytes = fs::read(&shard).expect("read");
    fs::write(&shard, &bytes[..bytes.len() - 7]).expect("written");
    let said = complaint(&args);
    assert!(said.contains("model-00002-of-00003.safetensors") && said.contains("cut short") && !out.exists(), "{said}");
    fs::remove_file(&shard).expect("removed");
    assert!(complaint(&args).contains("model-00002-of-00003.safetensors"));
}
