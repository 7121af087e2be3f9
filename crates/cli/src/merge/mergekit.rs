//! Converts a mergekit configuration (YAML) to one of our recipes. Based on mergekit's `config.py` and
//! `merge_methods/`, commit a6e4028.

use regrow_merging::{ALL, MergeEntry};
use serde_json::{Map, Value as Json, json};

use super::recipe::check_keys;

const KEYS: [&str; 9] = [
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
];

/// The equivalent recipe, with mergekit's defaults written out if ours differ.
pub fn translated(json: &Json) -> Result<Json, String> {
    let table = json.as_object().ok_or("is not a configuration: it has no keys")?;
    if let Some(key) = ["modules", "chat_template"].iter().find(|key| table.contains_key(**key)) {
        return Err(format!("`{key}` of mergekit is not supported"));
    }
    check_keys(table, &KEYS, "the configuration")?;
    let method = find(text(table, "merge_method")?.ok_or("names no `merge_method`")?)?;
    let base = text(table, "base_model")?;
    let mut models = match (table.get("models"), table.get("slices")) {
        (Some(Json::Array(models)), None) => models.iter().map(model).collect::<Result<Vec<_>, _>>()?,
        (None, Some(Json::Array(slices))) => of_slices(slices)?,
        _ => return Err("must have either `models` or `slices`, a list".into()),
    };
    // If the base is among the models, it is the base again, except for an average, where it is one of them.
    if let Some(base) = base.filter(|_| method.info.name != "linear") {
        models.retain(|model| model["path"] != base);
    }
    let mut recipe = json!({ "method": method.info.name, "models": models, "parameters": parameters(method, table)? });
    let mut set = |key: &str, value: Option<&str>| value.map(|value| recipe[key] = value.into());
    set("base", base);
    set("dtype", text(table, "out_dtype")?.or(text(table, "dtype")?));
    set("tokenizer", tokenizer(table)?);
    Ok(recipe)
}

/// The method with this name in mergekit.
fn find(name: &str) -> Result<&'static MergeEntry, String> {
    let known = || ALL.iter().filter_map(|entry| entry.mergekit).collect::<Vec<_>>().join(", ");
    let unknown = || format!("mergekit's method `{name}` is not supported: use {}", known());
    ALL.iter().find(|entry| entry.mergekit == Some(name)).ok_or_else(unknown)
}

/// The parameters for all models. `rescale` is a word here: mergekit's restores the sum of magnitudes, by default if
/// entries are dropped at random.
fn parameters(method: &MergeEntry, table: &Map<String, Json>) -> Result<Map<String, Json>, String> {
    let mut parameters = match table.get("parameters") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(parameters)) => parameters.clone(),
        Some(_) => return Err("`parameters` must be a table".into()),
    };
    // It only controls how mergekit stores a mask in memory.
    parameters.remove("int8_mask");
    let random = method.info.params.iter().any(|p| p.name == "rescale" && p.default == "density");
    match parameters.get("rescale").cloned() {
        Some(Json::Bool(rescale)) => {
            parameters.insert("rescale".into(), if rescale { "l1" } else { "none" }.into());
        }
        None if random => {
            parameters.insert("rescale".into(), "l1".into());
        }
        _ => {}
    }
    if method.has("clamp") {
        parameters.insert("clamp".into(), false.into());
    }
    Ok(parameters)
}

fn model(json: &Json) -> Result<Json, String> {
    let table = json.as_object().ok_or("a model is not a table with `model`")?;
    check_keys(table, &["model", "parameters"], "a model")?;
    source(table)
}

fn source(table: &Map<String, Json>) -> Result<Json, String> {
    let path = text(table, "model")?.ok_or("a model has no `model`, its path")?;
    let mut ours = match table.get("parameters") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(parameters)) => parameters.clone(),
        Some(_) => return Err(format!("the parameters of {path} must be a table")),
    };
    ours.extend([("path".to_string(), path.into()), ("name".to_string(), path.into())]);
    Ok(ours.into())
}

/// The models of one slice that takes the same layers from each of them.
fn of_slices(slices: &[Json]) -> Result<Vec<Json>, String> {
    let [slice] = slices else {
        return Err("several `slices`, a model put together from layers of others, are not supported".into());
    };
    let slice = slice.as_object().ok_or("a slice is not a table with `sources`")?;
    check_keys(slice, &["sources"], "a slice")?;
    let sources = slice.get("sources").and_then(Json::as_array).ok_or("a slice has no `sources`")?;
    let range = |source: &Json| source.get("layer_range").cloned();
    let first = sources.first().and_then(range);
    let from_the_start = first.as_ref().and_then(|range| range[0].as_u64()) == Some(0);
    if !from_the_start || sources.iter().any(|source| range(source) != first) {
        return Err(
            "only slices that take all layers of every model are supported: the same `layer_range` from 0".into()
        );
    }
    let model = |json: &Json| {
        let table = json.as_object().ok_or("a source is not a table with `model`")?;
        check_keys(table, &["model", "layer_range", "parameters"], "a source")?;
        source(table)
    };
    sources.iter().map(model).collect()
}

/// How many layers a slice takes from each model: only slices of all layers are supported.
pub fn layers(json: &Json) -> Option<usize> {
    let end = &json["slices"][0]["sources"][0]["layer_range"][1];
    end.as_u64().map(|end| end as usize)
}

/// The source of the tokenizer: models with different vocabularies are rejected, so the union is the base's.
fn tokenizer(table: &Map<String, Json>) -> Result<Option<&str>, String> {
    let source = match table.get("tokenizer") {
        Some(Json::Object(tokenizer)) => {
            check_keys(tokenizer, &["source"], "the tokenizer")?;
            text(tokenizer, "source")?
        }
        _ => text(table, "tokenizer_source")?,
    };
    Ok(source.map(|source| if source == "union" { "base" } else { source }))
}

fn text<'a>(table: &'a Map<String, Json>, key: &str) -> Result<Option<&'a str>, String> {
    match table.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` must be a text")),
    }
}
