//! Models of every family against transformers, and the perplexity of a trained one.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use regrow_checkpoint::Patch;
use regrow_device::current;
use regrow_inference::{Options, is_possible};
use regrow_lm::{Choice, Transformer, Words, batch, generate, generate_by, perplexity, sliding};
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{BlockModel, InputObserver, LayerRef, LayerSolver, LayerTarget, PrunedLayer, Walk};
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{Error, Pattern, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// The value at index `i` of tensor `name`: by rule, around 1 for the scales of norms.
fn value(name: &str, i: usize, scale: bool) -> f32 {
    let rule = (((i * 37 + 11 * name.len()) % 101) as f64 / 101.0 - 0.5) * 0.4;
    (if scale { rule + 1.0 } else { rule }) as f32
}

/// Writes the directory of a model of the fixture.
fn write(folder: &Path, model: &Value) {
    fs::write(folder.join("config.json"), model["config"].to_string()).unwrap();
    let shapes = model["shapes"].as_object().unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .iter()
        .map(|(name, shape)| {
            let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
            let scale = shape.len() == 1 && name.ends_with("weight");
            let values = (0..shape.iter().product()).flat_map(|i| value(name, i, scale).to_le_bytes()).collect();
            (name.clone(), shape, values)
        })
        .collect();
    let views = tensors.iter().map(|(n, s, b)| (n, TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Logits `[batch, tokens, vocab]`, of encoders the hidden states, block by block.
fn logits(decoder: &Transformer, ids: &[&[u32]]) -> Tensor<3> {
    let context = decoder.context(ids[0].len());
    let embedding = decoder.embedding().unwrap();
    let mut hidden = embedding.forward(batch(ids, decoder.device()));
    for index in 0..decoder.blocks() {
        let block = decoder.load(decoder.checkpoint(), index).unwrap();
        hidden = decoder.forward(&block, hidden, &context, &mut |_, _| {});
    }
    if decoder.config.encoder { hidden } else { decoder.head().unwrap().forward(hidden, &embedding) }
}

#[test]
fn logits_equal_those_of_transformers() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/families.json")).unwrap();
    let row =
        |row: &Value| -> Vec<u32> { row.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect() };
    let ids: Vec<Vec<u32>> = fixture["ids"].as_array().unwrap().iter().map(row).collect();
    let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let roundoff = regrow_device::roundoff(&regrow_device::current());
    for (name, model) in fixture["models"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), model);
        let decoder = Transformer::open(folder.path(), &regrow_device::current()).unwrap();
        let last = logits(&decoder, &ids).narrow(1, ids[0].len() - 2, 2);
        let ours: Vec<f32> = last.into_data().iter().collect();
        let theirs: Vec<f32> = model["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let largest = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= (8.0 * roundoff).max(1e-4) * largest, "{name}: {a} {b}");
        }
    }
}

/// Token by token, keys and values kept, layers dense or sparse: as from the whole text every time.
#[test]
fn a_text_goes_on_as_if_read_again_for_every_token() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/families.json")).unwrap();
    let greedy = Choice { temperature: 0.0, seed: 0 };
    // However fast they are.
    let always = Options { least: 0.0, margin: f64::INFINITY, ..Options::default() };
    for (name, model) in fixture["models"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), model);
        let decoder = Transformer::open(folder.path(), &current()).unwrap();
        if decoder.config.encoder {
            continue;
        }
        let mut text = vec![3, 1, 4, 1];
        for _ in 0..7 {
            let last = logits(&decoder, &[&text]).narrow(1, text.len() - 1, 1);
            text.push(last.argmax(2).into_data().iter::<i64>().next().unwrap() as u32);
        }
        let mut said = text[..4].to_vec();
        let mut add = |token| {
            said.push(token);
            Ok(())
        };
        generate(&decoder, &text[..4], 7, greedy, &mut add).unwrap();
        assert_eq!(said, text, "{name}");
        let (config, device) = (&decoder.config, decoder.device());
        let whole = decoder.whole().unwrap();
        let (sparse, verdicts) = whole.compress(batch(&[&text[..1]], device), config, &always).unwrap();
        let tried = if is_possible(device) { verdicts.len() } else { 0 };
        assert!(verdicts.iter().any(|v| v.layer == "head") && sparse.sparse() == tried, "{name}");
        said.truncate(4);
        let mut add = |token| {
            said.push(token);
            Ok(())
        };
        let asked = (&text[..4], 7, greedy);
        generate_by((&sparse.model, &mut sparse.layers()), config, device, asked, &mut add).unwrap();
        assert_eq!(said, text, "{name}, sparse");
    }
}

/// Prunes by what it saw of the inputs, until it dies.
struct Mortal {
    layers_left: Cell<usize>,
}

struct Sums(Vec<f32>, usize);

impl LayerSolver for Mortal {
    fn name(&self) -> &'static str {
        "mortal"
    }

    fn observe(&self, d_in: usize, _device: &Device) -> Box<dyn InputObserver> {
        let left = self.layers_left.get();
        self.layers_left.set(left.saturating_sub(1));
        Box::new(Sums(vec![0.0; d_in], left))
    }
}

impl InputObserver for Sums {
    fn add(&mut self, sequence: Tensor<2>) {
        let sums = sequence.abs().sum_dim(0).into_data();
        self.0.iter_mut().zip(sums.iter::<f32>()).for_each(|(a, s)| *a += s);
    }

    fn solve(&self, weight: &Weight, goal: &LayerTarget) -> Result<PrunedLayer> {
        if self.1 == 0 {
            return Err(Error::Argument("killed".into()));
        }
        let scores: Vec<f32> =
            weight.values.iter().enumerate().map(|(i, w)| w.abs() * self.0[i % self.0.len()]).collect();
        Ok(PrunedLayer { mask: goal.mask(weight, &scores)?, values: None })
    }
}

/// Prunes the model in `folder` to `out`; `Err` if it died, leaving what a killed process leaves.
fn prune(folder: &Path, out: &Path, inputs: usize) -> Result<()> {
    let decoder = Transformer::open(folder, &regrow_device::current())?;
    let solver = Mortal { layers_left: Cell::new(inputs) };
    let goal = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    let walk = Walk {
        model: &decoder,
        source: decoder.checkpoint(),
        context: decoder.context(5),
        solver: &solver,
        goal: &|_, _: &LayerRef| Some(goal),
        mend: None,
        tail: None,
    };
    let embedding = decoder.embedding()?;
    let hidden = [[1u32, 2, 3, 4, 5], [9, 8, 7, 6, 0]].map(|ids| embedding.forward(batch(&[&ids], decoder.device())));
    let mut patch = Patch::resume(decoder.checkpoint(), out, "half")?;
    match walk.prune(HiddenStates::in_memory(hidden.to_vec()), &mut patch, &mut |_| {}) {
        Ok(_) => Ok(patch.finish()?),
        Err(e) => {
            std::mem::forget(patch);
            Err(e)
        }
    }
}

#[test]
fn killed_between_blocks_and_resumed_is_as_if_never_killed() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/families.json")).unwrap();
    for name in ["llama", "gpt2"] {
        let folder = tempfile::tempdir().unwrap();
        let (model, whole, cut) = (folder.path().join("in"), folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&model).unwrap();
        write(&model, &fixture["models"][name]);
        prune(&model, &whole, usize::MAX).unwrap();
        // Four inputs in a block: it dies in the second.
        assert!(prune(&model, &cut, 5).unwrap_err().to_string().contains("killed"));
        assert!(!cut.exists() && folder.path().join("b.partial").exists());
        prune(&model, &cut, usize::MAX).unwrap();
        let file = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert_eq!(file(&whole), file(&cut), "{name}");
        assert_ne!(file(&whole), file(&model), "{name}");
        assert!(!folder.path().join("b.partial").exists());
    }
}

#[test]
fn a_checkpoint_that_is_not_what_its_config_says_is_refused() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/families.json")).unwrap();
    let says = |key: &str, to: Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut model = fixture["models"]["llama"].clone();
        model["config"][key] = to;
        write(folder.path(), &model);
        let opened = Transformer::open(folder.path(), &regrow_device::current());
        opened.and_then(|d| d.embedding()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(
        says("intermediate_size", 1_000_000_000_000u64.into()).contains("intermediate_size 1000000000000 is beyond")
    );
    assert!(says("intermediate_size", 1_000_000.into()).contains("config.json says [1000000, 16]"));
    assert!(says("num_hidden_layers", 3.into()).contains("model.layers.2.self_attn.q_proj.weight"));
    assert!(says("vocab_size", 30.into()).contains("config.json says [30, 16]"));
    assert!(says("model_type", "mamba".into()).contains("mamba"));
}

#[test]
fn the_shared_llama_has_its_published_perplexity() {
    let Some(data) = std::env::var_os("REGROW_DATA") else {
        println!("skipped: REGROW_DATA is not set");
        return;
    };
    let data = Path::new(&data);
    let folder = data.join("tiny-llama");
    let decoder = Transformer::open(&folder, &regrow_device::current()).unwrap();
    let text = fs::read_to_string(data.join("text/tinyshakespeare.txt")).unwrap();
    let tokens = Words::open(&folder, decoder.config.vocab).unwrap().encode(&text).unwrap();
    let windows = sliding(&tokens, 256, 256).unwrap();
    // The README's figure for the first forty windows.
    let found = perplexity(&decoder, &windows[..40], &mut |_, _| {}).unwrap();
    assert_eq!(found.tokens, 40 * 255);
    assert!((found.value() - 26.59).abs() < 0.01, "{}", found.value());
}
