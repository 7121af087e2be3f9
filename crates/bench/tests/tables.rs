//! Every table as a user runs it, small, and on bad input.

use std::path::Path;
use std::process::{Command, Output};

use regrow_bench::harness::paper::Paper;

fn bench(args: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(args).arg("--out").arg(out).env_remove("REGROW_DATA").output().expect("the binary runs")
}

const SMALL: [&str; 9] = ["sms", "--seeds", "2", "--sparsity", "0.9", "--m", "2", "--epochs", "5"];

/// Rows without their wall times.
fn rows(out: &Path, table: &str) -> Vec<serde_json::Value> {
    let json = std::fs::read_to_string(out.join(format!("{table}.json"))).expect("the JSON file");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["table"], table);
    assert!(!json["claims"].as_array().expect("claims").is_empty());
    let mut rows = json["rows"].as_array().expect("rows").clone();
    rows.iter_mut().for_each(|row| row["seconds"] = serde_json::Value::Null);
    rows
}

#[test]
fn sms_writes_its_table_and_repeats_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let output = bench(&SMALL, &first);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| SMS, uniform ") && said.contains("SMS beats its best candidate"), "{said}");
    assert!(std::fs::read_to_string(first.join("sms.svg")).expect("sms.svg").contains("<svg"));
    let rows = rows(&first, "sms");
    assert_eq!(rows.len() % 2, 0, "two seeds");
    // A learned network, not a guess.
    assert!(rows.iter().all(|row| row["value"].as_f64().is_some_and(|a| a > 50.0 && a <= 100.0)));
    assert!(bench(&[&SMALL[..], &["--parallel", "1"]].concat(), &second).status.success());
    assert_eq!(rows, self::rows(&second, "sms"), "the same seeds, the same figures, whatever runs side by side");
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let complaint = |args: &[&str], out: &Path| {
        let output = bench(args, out);
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{args:?}: {text}");
        text
    };
    let out = dir.path().join("out");
    assert!(complaint(&["sms", "--m", "0"], &out).contains("at least one candidate"));
    assert!(complaint(&["sms", "--seeds", "0"], &out).contains("at least one seed"));
    assert!(complaint(&["sms", "--sparsity", "1.5"], &out).contains("1.5"));
    assert!(complaint(&["sms", "--dataset", "imagenet"], &out).contains("imagenet"));
    assert!(complaint(&["sms", "--dataset", "mnist"], &out).contains("--data"));
    assert!(complaint(&["sms", "--dataset", "mnist", "--data", "/no/such/folder"], &out).contains("/no/such/folder"));
    complaint(&["sms", "--arch", "resnet20"], &out);
    assert!(complaint(&["sms", "--seedz", "3"], &out).contains("--seeds"));
    assert!(complaint(&["pruning", "--learning-rate", "-1"], &out).contains("-1"));
    complaint(&["sms"], &file.join("below-a-file"));
    complaint(&["continual", "--memory", "0"], &out);
    // A script whose tasks would be refused is none.
    complaint(&["pruning", "--slurm", "--epochs", "3"], &out);
    assert!(!out.exists());
}

#[test]
fn merge_shows_every_method_by_where_the_models_come_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = bench(&["merge", "--seeds", "2", "--epochs", "3", "--parent-epochs", "3"], dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(
        said.contains("| ties ") && said.contains("two tasks, two parents") && said.contains("TIES beats"),
        "{said}"
    );
    let rows = rows(dir.path(), "merge");
    let of = |method: &str, seed: u64| {
        let row = rows.iter().find(|row| row["method"] == method && row["seed"] == seed).expect("a row");
        row["value"].as_f64().expect("a number")
    };
    // Half the classes each: alone a little over a half, together more; copies of one task lose nothing.
    for seed in [0, 1] {
        assert!(of("linear | one task, one parent", seed) > 80.0);
        assert!(of("ensemble | two tasks, one parent", seed) > of("worst model | two tasks, one parent", seed));
        // Each knows which of its weights its own half needs.
        for method in ["fisher", "regmean"] {
            let merged = of(&format!("{method} | two tasks, one parent"), seed);
            assert!(merged > of("worst model | two tasks, one parent", seed), "{method}");
        }
    }
    // Two seeds, three subjects; SLERP takes two models only, so that it is in two of them.
    let methods = 5 + regrow_merging::tensor_methods().count() - 1;
    assert_eq!(rows.len(), 2 * (3 * methods - 1));
    let output = bench(&["merge", "--networks", "mnist"], dir.path());
    assert!(String::from_utf8_lossy(&output.stderr).contains("use lora, mnist-cnn, resnet-cifar10"));
}

const FEW: [&str; 9] =
    ["pruning", "--seeds", "2", "--sparsity", "0.8,0.9", "--epochs", "4", "--method", "GMP,GraNet,SynFlow,ISS-P"];

#[test]
fn pruning_compares_methods_and_resumes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, cut) = (dir.path().join("a"), dir.path().join("b"));
    let output = bench(&FEW, &whole);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| SynFlow ") && said.contains("GraNet beats GMP"), "{said}");
    let rows = rows(&whole, "pruning");
    assert_eq!(rows.len(), 2 * (1 + 4 * 2));
    let dense = |row: &serde_json::Value| row["method"] == "dense";
    let flops = |row: &serde_json::Value| row["flops"].as_u64().expect("FLOPs");
    let most = rows.iter().find(|row| dense(row)).map(flops).expect("the dense network");
    assert!(rows.iter().all(|row| dense(row) || flops(row) * 4 < most));
    // What an interrupted run leaves: its plan and half of the rows.
    let json = std::fs::read_to_string(whole.join("pruning.json")).expect("pruning.json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let half = json["rows"].as_array().expect("rows")[..9].to_vec();
    std::fs::create_dir(&cut).expect("a folder");
    let cells = serde_json::json!({ "plan": json["settings"], "rows": half });
    std::fs::write(cut.join("pruning.cells.json"), cells.to_string()).expect("written");
    assert!(bench(&[&FEW[..], &["--resume"]].concat(), &cut).status.success());
    assert_eq!(self::rows(&cut, "pruning"), rows);
    assert!(!cut.join("pruning.cells.json").exists());
}

#[test]
fn bad_settings_of_the_pruning_table_are_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    for (args, says) in [
        (vec!["pruning", "--method", "magic"], "unknown pruning method `magic`"),
        (vec!["pruning", "--sparsity", "1"], "outside [0, 1)"),
        (vec!["pruning", "--epochs", "3"], "four epochs"),
        (vec!["pruning", "--dataset", "imagenet"], "unknown data set"),
        (vec!["pruning", "--arch", "mlp"], "mlp wants"),
    ] {
        let output = bench(&args, dir.path());
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

#[test]
fn polarization_spares_flops_and_narrow_networks_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["polarization", "--seeds", "2", "--epochs", "6", "--sparsity", "0.5"];
    let output = bench(&args, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("50 % fewer FLOPs") && said.contains("undecided"), "{said}");
    let rows = rows(dir.path(), "polarization");
    let flops = |row: &serde_json::Value| row["flops"].as_u64().expect("FLOPs") as f64;
    let most = rows.iter().map(flops).fold(0.0, f64::max);
    let spared: Vec<&serde_json::Value> = rows.iter().filter(|row| row["method"] != "dense").collect();
    assert_eq!(spared.len(), 2 * 5);
    assert!(spared.iter().all(|row| (0.2..0.8).contains(&(flops(row) / most))), "{spared:?}");
    let refused = bench(&["polarization", "--arch", "mlp-small"], dir.path());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("need residual blocks"));
    let narrow = ["pruning", "--seeds", "1", "--sparsity", "0.9", "--epochs", "4"];
    let methods = ["--method", "SynFlow shuffled,PreCrop,PreCrop by SynFlow,narrow evenly"];
    let output = bench(&[&narrow[..], &methods].concat(), dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rd_compares_budgets_and_refuses_bad_settings() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["rd", "--seeds", "2", "--epochs", "3", "--retrain", "1", "--amounts", "5", "--sparsity", "0.5,0.9"];
    let output = bench(&args, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| RD, retrained ") && said.contains("Means of the sum of distortions"), "{said}");
    assert_eq!(rows(dir.path(), "rd").len(), 2 * (1 + 2 * 5 * 2));
    for (args, says) in [
        (vec!["rd", "--amounts", "0"], "at least one amount"),
        (vec!["rd", "--most", "1.5"], "no fraction of a layer"),
        (vec!["rd", "--most", "0.6", "--epochs", "1", "--sparsity", "0.9"], "no choice of these amounts"),
        (vec!["rd", "--checkpoint", "/nonexistent.safetensors"], "/nonexistent.safetensors"),
        (vec!["rd", "--epochs", "0"], "at least one epoch"),
    ] {
        let output = bench(&args, dir.path());
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

const STREAM: [&str; 9] = [
    "continual",
    "--seeds",
    "2",
    "--epochs",
    "2",
    "--memory",
    "40",
    "--strategy",
    "fine-tune,joint,SI,ER,DER++,iCaRL,WA,PackNet,DST-CL",
];

#[test]
fn continual_compares_strategies_in_three_scenarios() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = bench(&STREAM, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("class-incremental; losses see classes seen so far"), "{said}");
    assert!(said.contains("| DER++ ") && said.contains("DER++ beats ER") && said.contains("BWT"), "{said}");
    // Of nine, WA is for one scenario, PackNet and DST-CL for another, iCaRL for two.
    assert_eq!(rows(dir.path(), "continual").len(), 2 * (5 * 3 + 1 + 2 + 2));
    let picture = std::fs::read_to_string(dir.path().join("continual-matrix.svg")).expect("the matrices");
    assert!(picture.contains("ER, domain") && picture.contains("WA, task: does not fit"));
    assert!(
        std::fs::read_to_string(dir.path().join("continual.svg")).expect("continual.svg").contains("tasks trained")
    );
    for (args, says) in [
        (vec!["continual", "--strategy", "magic"], "unknown strategy `magic`: use fine-tune, joint"),
        (vec!["continual", "--stream", "life"], "use permuted-mnist, split-digits"),
        (vec!["continual", "--scenario", "life"], "use task, class, domain"),
        (vec!["continual", "--epochs", "0"], "at least one epoch"),
        (
            vec!["continual", "--strategy", "ER", "--memory", "9", "--scenario", "class"],
            "9 is smaller than the 10 classes",
        ),
        (vec!["continual", "--strategy", "EWC", "--ewc=-1"], "`lambda` cannot be `-1`"),
        (vec!["continual", "--stream", "split-mnist"], "--data"),
    ] {
        let output = bench(&args, &dir.path().join("bad"));
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

#[test]
fn continual_killed_and_resumed_has_the_same_matrices() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, cut) = (dir.path().join("a"), dir.path().join("b"));
    let args = ["continual", "--seeds", "1", "--scenario", "class", "--strategy", "ER,DER++", "--epochs", "30"];
    assert!(bench(&args, &whole).status.success());
    let saved = [&args[..], &["--checkpoint-every", "7"]].concat();
    let mut running = Command::new(env!("CARGO_BIN_EXE_bench"));
    running.args(&saved).arg("--out").arg(&cut).env_remove("REGROW_DATA");
    running.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut running = running.spawn().expect("the binary runs");
    // In the middle of the stream: a task is done, steps of the next are saved.
    let run = cut.join("continual.runs/0-DER++-class");
    let steps = |task: &str| run.join(task).exists() && run.join("steps").read_dir().is_ok_and(|d| d.count() > 0);
    let patience = std::time::Instant::now();
    while !["task-1", "task-2", "task-3"].iter().any(|task| steps(task)) {
        assert!(running.try_wait().expect("its state").is_none(), "it ended before it could be killed");
        assert!(patience.elapsed().as_secs() < 300, "nothing was saved");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    running.kill().expect("killed");
    running.wait().expect("dead");
    assert!(!cut.join("continual.json").exists());
    let resumed = bench(&[&saved[..], &["--resume"]].concat(), &cut);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let timeless = |folder: &Path| {
        let mut rows = rows(folder, "continual");
        rows.iter_mut().for_each(|row| row["findings"]["ms per step"] = serde_json::Value::Null);
        rows
    };
    assert_eq!(timeless(&cut), timeless(&whole));
}

#[test]
fn clr_keeps_an_anchor_and_forgets_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, cut) = (dir.path().join("a"), dir.path().join("b"));
    let args = ["clr", "--seeds", "1", "--anchor-epochs", "2", "--epochs", "2", "--train-images", "200"];
    let output = bench(&args, &whole);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| norms only ") && said.contains("CLR beats PackNet") && said.contains("less than 0.6 %"));
    let timeless = |folder: &Path| {
        let mut rows = rows(folder, "clr");
        rows.iter_mut().for_each(|row| row["findings"]["ms per step"] = serde_json::Value::Null);
        rows
    };
    let rows = timeless(&whole);
    let finding = |method: &str, name: &str| {
        let row = rows.iter().find(|row| row["method"] == method).expect("a row");
        row["findings"][name].as_f64().expect("a number")
    };
    for method in ["PackNet", "norms only", "CLR", "separate"] {
        assert_eq!(finding(method, "forgetting"), 0.0, "{method}");
    }
    // Kernels of nine numbers and four numbers of a norm for each of 112 channels.
    assert_eq!(finding("norms only", "numbers added per task"), 4.0 * 112.0);
    assert_eq!(finding("CLR", "numbers added per task"), 13.0 * 112.0);
    assert_eq!(finding("separate", "added per task, percent"), 100.0);
    assert_eq!(finding("fine-tune", "numbers added per task"), 0.0);
    let matrices = std::fs::read_to_string(whole.join("clr-matrix.svg")).expect("the matrices");
    assert!(matrices.contains("PackNet") && whole.join("clr.svg").exists());
    // Interrupted after two of five cells.
    let json = std::fs::read_to_string(whole.join("clr.json")).expect("clr.json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    std::fs::create_dir(&cut).expect("a folder");
    let part = serde_json::json!({ "plan": json["settings"], "rows": json["rows"].as_array().expect("rows")[..2] });
    std::fs::write(cut.join("clr.cells.json"), part.to_string()).expect("written");
    assert!(bench(&[&args[..], &["--resume"]].concat(), &cut).status.success());
    assert_eq!(timeless(&cut), rows);
    for (args, says) in [
        (vec!["clr", "--method", "magic"], "unknown method `magic`: use fine-tune, PackNet"),
        (vec!["clr", "--stream", "life"], "use digits, mnist"),
        (vec!["clr", "--stream", "mnist"], "--data"),
        (vec!["clr", "--epochs", "0"], "at least one epoch"),
        (vec!["clr", "--learning-rate", "0"], "no learning rate"),
    ] {
        let said = String::from_utf8(bench(&args, dir.path()).stderr).expect("text");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

#[test]
fn reweighting_weighs_examples_and_sources() {
    let dir = tempfile::tempdir().expect("a folder");
    let squares = ["reweighting", "--part", "squares", "--seeds", "2", "--rates", "1,2", "--most", "400"];
    let output = bench(&squares, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let steps = rows(dir.path(), "reweighting");
    let of = |method: &str| -> f64 {
        let found = steps.iter().filter(|row| row["method"] == method);
        found.map(|row| row["value"].as_f64().expect("steps")).sum()
    };
    assert!(of("linear-upper, r 0.4") < of("uniform") && of("uniform") < of("extremes, r 0.4"));
    let language = ["reweighting", "--part", "language", "--seeds", "1", "--steps", "100"];
    let output = bench(&language, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| sources: ScaleBiO ") && said.contains("ScaleBiO's weights: first language"), "{said}");
    let rows = rows(dir.path(), "reweighting-language");
    assert_eq!(rows.len(), 6 + 4);
    let row = |method: &str| rows.iter().find(|row| row["method"] == method).expect("a row");
    // Sixteen tokens: a model that has learned nothing has 16, none has less than 3.03.
    let perplexity = |method: &str| row(method)["value"].as_f64().expect("a number");
    assert!(rows.iter().all(|row| row["value"].as_f64().is_some_and(|p| p > 3.0 && p < 16.5)), "{rows:?}");
    assert!(perplexity("sources: clean only") < 15.0);
    assert!(perplexity("sources: ScaleBiO") < perplexity("sources: proportional"));
    for row in &rows {
        let weights = row["findings"].as_object().expect("findings").iter().filter(|(k, _)| k.starts_with("weight"));
        let sum: f64 = weights.map(|(_, w)| w.as_f64().expect("a weight")).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{row}");
    }
    let weight = |method: &str, source: &str| row(method)["findings"][format!("weight of {source}")].as_f64();
    assert_eq!(weight("sources: uniform", "first language"), Some(0.2));
    assert_eq!(weight("sources: proportional", "first language, noisy"), Some(0.25));
    assert_eq!(weight("sources: clean only", "first language, scrambled"), Some(0.0));
    assert!(weight("sources: ScaleBiO", "first language, scrambled") < Some(0.2));
    for (args, says) in [
        (vec!["reweighting", "--rates", "0"], "learning rates above 0"),
        (vec!["reweighting", "--steps", "0"], "at least one step"),
        (vec!["reweighting", "--noise", "0", "--part", "language"], "no share of tokens"),
        (vec!["reweighting", "--alpha", "0"], "`alpha` cannot be `0`"),
        (vec!["reweighting", "--part", "language", "--texts", "real"], "--data"),
    ] {
        let output = bench(&args, &dir.path().join("bad"));
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

#[test]
fn rmm_merges_low_rank_models_reversibly() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["rmm", "--seeds", "2", "--epochs", "5", "--tune", "4", "--rank", "4", "--count", "3"];
    let output = bench(&args, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| TIES, factors ") && said.contains("RMM with 2 basis models beats the average"), "{said}");
    let rows = rows(dir.path(), "rmm");
    // By LoRA the parent, own models, 2 x 4 merged ones, 6 x 3 reversible ones; by SVD 1 + 4 more.
    assert_eq!(rows.len(), 2 * (2 * (2 + 8 + 18) + 5));
    let of = |method: &str| -> Vec<f64> {
        rows.iter().filter(|r| r["method"] == method).filter_map(|r| r["value"].as_f64()).collect()
    };
    // As many basis models as tasks: nothing is lost.
    assert_eq!((of("RMM, 3"), of("own model").len()), (of("own model"), 4));
    for (args, says) in [
        (vec!["rmm", "--rank", "0"], "none of them 0"),
        (vec!["rmm", "--count", "9"], "use 2 to 8"),
        (vec!["rmm", "--arch", "mlp-residual"], "without LoRA"),
        (vec!["rmm", "--dataset", "mnist"], "--data"),
        (vec!["rmm", "--tune", "0"], "at least one epoch"),
        (vec!["rmm", "--images", "0"], "no images"),
    ] {
        let output = bench(&args, dir.path());
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains(says), "{said}");
    }
}

#[test]
fn opcm_merges_models_as_they_arrive_and_resumes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, cut) = (dir.path().join("a"), dir.path().join("b"));
    let args = ["opcm", "--seeds", "2", "--epochs", "4", "--tune", "2", "--count", "3", "--orders", "2"];
    let output = bench(&args, &whole);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| OPCM without projection ") && said.contains("over orders"), "{said}");
    let rows = rows(&whole, "opcm");
    assert_eq!(rows.len(), 2 * 2 * 8);
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(whole.join("opcm.json")).expect("read")).expect("JSON");
    std::fs::create_dir(&cut).expect("a folder");
    let half = json["rows"].as_array().expect("rows")[..16].to_vec();
    let cells = serde_json::json!({ "plan": json["settings"], "rows": half });
    std::fs::write(cut.join("opcm.cells.json"), cells.to_string()).expect("written");
    assert!(bench(&[&args[..], &["--resume"]].concat(), &cut).status.success());
    assert_eq!(self::rows(&cut, "opcm"), rows);
    for (args, says) in
        [(vec!["opcm", "--alpha", "1"], "[0, 1)"), (vec!["opcm", "--orders", "0"], "at least one order")]
    {
        let said = String::from_utf8(bench(&args, dir.path()).stderr).expect("text");
        assert!(said.starts_with("error: ") && said.contains(says), "{said}");
    }
}

#[test]
fn the_report_gathers_what_there_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let report = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.current_dir(dir.path()).arg("report").args(args).output().expect("the binary runs")
    };
    let empty = report(&[]);
    let said = String::from_utf8(empty.stderr).expect("text");
    assert!(!empty.status.success() && said.starts_with("error: no result of a table was found"), "{said}");
    let papers = concat!(env!("CARGO_MANIFEST_DIR"), "/../../papers");
    std::fs::write(dir.path().join("other.json"), "{}").expect("written");
    let output = report(&[papers, ".", "--out", "page.html"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(dir.path().join("page.html")).expect("the page");
    for part in ["<!doctype html>", "sms: mlp-small on digits", "GraNet beats GMP", "density of each layer", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    // Every result stands beside what its paper published, where it published something.
    let sections = page.split("<section id=").skip(1).collect::<Vec<_>>();
    assert!(sections.len() > 30, "{}", sections.len());
    for table in regrow_bench::tables::ALL {
        let paper = Paper::parse(table.info.paper).expect("its figures");
        let own = sections.iter().filter(|s| s.contains(&format!("<h2>{}", table.info.name))).collect::<Vec<_>>();
        assert!(!own.is_empty(), "{} has no result", table.info.name);
        for section in own.iter().filter(|_| paper.has_figures()) {
            assert!(section.contains("<h3>Published</h3>"), "{}", table.info.name);
            // Every result has a table of numbers.
            assert!(section.contains(" ± "), "{}", table.info.name);
        }
    }
    // Self-contained: nothing is fetched.
    assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("@import"));
    assert!(!report(&["/nonexistent"]).status.success());
    let output = report(&[papers, "--markdown", "pages"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for table in regrow_bench::tables::ALL {
        let page = dir.path().join("pages").join(format!("{}.md", table.info.name));
        let page = std::fs::read_to_string(page).expect(table.info.name);
        assert!(page.starts_with("# ") && page.contains("| method |") && page.contains("## Published"), "{page}");
    }
}

#[test]
fn every_command_has_an_example_in_its_help_and_a_line_in_the_list() {
    let said = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("the binary runs");
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let (list, help) = (said(&["list"]), said(&["--help"]));
    for name in regrow_bench::tables::ALL.iter().map(|table| table.info.name).chain(["report"]) {
        assert!(list.lines().any(|line| line.starts_with(&format!("{name} "))) && help.contains(name), "{name}");
        let help = said(&[name, "--help"]);
        assert!(help.contains(&format!("bench {name}")) && help.contains("Example"), "{name}: {help}");
    }
}

#[test]
fn llm_prunes_and_retrains_a_model_trained_on_the_spot() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = ["llm", "--seeds", "1", "--sparsity", "0.6", "--pattern", "2:4", "--form", "mask-lora,norms"];
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let output = bench(&[&small[..], &["--tokens", "2000"]].concat(), &first);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| SparseGPT, OWL, mask-lora ") && said.contains("least perplexity"), "{said}");
    let rows = rows(&first, "llm");
    // Dense; of 3 methods with and without OWL at 2 goals those pruned and retrained; norms after magnitude.
    assert_eq!(rows.len(), 1 + 3 * 2 * 2 * 2 + 2);
    let value = |method: &str, sparsity: f64| {
        let of = |row: &&serde_json::Value| row["method"] == method && row["sparsity"] == sparsity;
        rows.iter().find(of).and_then(|row| row["value"].as_f64()).expect("a value")
    };
    // The language has a least perplexity of 3.03; one that has learned nothing has 16.
    assert!((3.0..8.0).contains(&value("dense", 0.0)), "{}", value("dense", 0.0));
    assert!(value("magnitude", 0.6) > 1.1 * value("dense", 0.0));
    assert!(value("magnitude, mask-lora", 0.6) < value("magnitude", 0.6));
    let files = std::fs::read_dir(&first).expect("a folder").count();
    assert_eq!(files, 2, "the models are gone");
    let complaint = |more: &[&str]| {
        let output = bench(&[&["llm"], more].concat(), &second);
        assert!(!output.status.success(), "{more:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(complaint(&["--method", "magic"]).contains("sparsegpt"));
    assert!(complaint(&["--pattern", "rows"]).contains("N:M"));
    assert!(complaint(&["--form", "lora"]).contains("mask-lora"));
    assert!(complaint(&["--lr", "0"]).contains("above zero"));
    assert!(complaint(&["--model", "/no/such", "--calibration", "a", "--text", "b"]).contains("/no/such"));
}
