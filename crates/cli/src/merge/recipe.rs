//! What to merge and how: a recipe in TOML, or a mergekit configuration in YAML.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regrow_checkpoint::Dtype;
use regrow_merging::{ALL, Masks, MergeEntry, MergeParams, Params};
use serde_json::{Map, Value as Json};

use super::mergekit;
use super::setting::Setting;
use crate::error::{Error, Result};

/// A parsed recipe. [`Recipe::check`] checks the names of its parameters.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
    /// The method's name, with hyphens.
    pub method: String,
    /// The models' common parent.
    pub base: Option<PathBuf>,
    /// The models to merge.
    pub models: Vec<Model>,
    /// Parameters for all models.
    pub parameters: BTreeMap<String, Setting>,
    /// The type of the result.
    pub dtype: Option<Dtype>,
    /// The tokenizer to copy: a model's name, `base`, or a directory.
    pub tokenizer: Option<String>,
    /// How zeros are treated.
    pub masks: Masks,
    /// How many layers the models must have, if the recipe specifies it.
    pub layers: Option<usize>,
}

/// One of the models.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in messages.
    pub name: String,
    /// A file or directory.
    pub path: PathBuf,
    /// A file of statistics, for methods that need them.
    pub statistics: Option<PathBuf>,
    /// Its own parameters.
    pub parameters: BTreeMap<String, Setting>,
}

const KEYS: [&str; 7] = ["method", "base", "models", "parameters", "dtype", "tokenizer", "masks"];
const MODEL_KEYS: [&str; 3] = ["path", "name", "statistics"];

impl Recipe {
    /// Reads a file; `.yaml` and `.yml` are mergekit's format.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| regrow_sparse_core::Error::io(path, e))?;
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let recipe = if yaml { Self::from_yaml(path, text) } else { Self::from_toml(path, text) };
        recipe.map_err(|reason| Error::Argument(format!("{}: {reason}", path.display())))
    }

    fn from_toml(path: &Path, text: String) -> Result<Self, String> {
        let json = toml::from_str::<Json>(&text).map_err(|e| toml_error(&e, &text))?;
        Self::from_json(path, text, &json)
    }

    fn from_yaml(path: &Path, text: String) -> Result<Self, String> {
        let json = serde_saphyr::from_str::<Json>(&text).map_err(|e| first_line(&e.to_string()))?;
        let layers = mergekit::layers(&json);
        Ok(Self { layers, ..Self::from_json(path, text, &mergekit::translated(&json)?)? })
    }

    fn from_json(path: &Path, text: String, json: &Json) -> Result<Self, String> {
        let table = json.as_object().ok_or("is not a recipe: it has no keys")?;
        check_keys(table, &KEYS, "the recipe")?;
        let method = string(table, "method")?.ok_or("names no `method`")?.replace('_', "-");
        let models: Vec<Model> = match table.get("models") {
            None => return Err("names no `models`".into()),
            Some(Json::Array(models)) if models.is_empty() => return Err("`models` is empty: zero models".into()),
            Some(Json::Array(models)) => models.iter().enumerate().map(|(i, m)| Model::from_json(path, i, m)).collect(),
            Some(_) => Err("`models` must be a list of tables with a `path` each".into()),
        }?;
        if let Some(twice) = models.iter().enumerate().find(|(i, m)| models[..*i].iter().any(|o| o.name == m.name)) {
            return Err(format!("two models are named {:?}: give them names of their own (`name`)", twice.1.name));
        }
        let parameters = match table.get("parameters") {
            None => BTreeMap::new(),
            Some(Json::Object(parameters)) => settings(parameters.iter())?,
            Some(_) => return Err("`parameters` must be a table".into()),
        };
        Ok(Self {
            method,
            base: string(table, "base")?.map(|base| beside(path, base)),
            models,
            parameters,
            dtype: string(table, "dtype")?.map(dtype).transpose()?,
            tokenizer: string(table, "tokenizer")?.map(str::to_string),
            masks: string(table, "masks")?.map_or(Ok(Masks::default()), masks)?,
            path: path.to_path_buf(),
            text,
            layers: None,
        })
    }

    /// Rejects parameters that the method does not have; the message suggests the nearest.
    pub fn check(&self, method: &MergeEntry) -> Result<()> {
        let says = |reason| Error::Argument(format!("{}: {reason}", self.path.display()));
        let own = [&MODEL_KEYS[..], method.per_model].concat();
        for key in self.parameters.keys() {
            unknown(key, &method.info.param_names(), &format!("the parameters of {}", self.method))
                .map_or(Ok(()), |r| Err(says(r)))?;
        }
        for model in &self.models {
            let place = format!("the model {:?} ({})", model.name, self.method);
            let wrong = model.parameters.keys().find_map(|key| unknown(key, &own, &place));
            wrong.map_or(Ok(()), |reason| Err(says(reason)))?;
        }
        Ok(())
    }

    /// The recipe in TOML, with absolute paths.
    pub fn to_toml(&self) -> Result<String> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        let table = |settings: &BTreeMap<String, Setting>| -> Map<String, Json> {
            settings.iter().map(|(name, setting)| (name.clone(), setting.to_json())).collect()
        };
        let model = |model: &Model| {
            let mut own = table(&model.parameters);
            own.insert("path".into(), absolute(&model.path).into());
            own.insert("name".into(), model.name.clone().into());
            own.extend(model.statistics.iter().map(|path| ("statistics".into(), absolute(path).into())));
            Json::Object(own)
        };
        let mut recipe = Map::new();
        recipe.insert("method".into(), self.method.clone().into());
        recipe.extend(self.base.iter().map(|base| ("base".into(), absolute(base).into())));
        recipe.extend(self.dtype.iter().map(|dtype| ("dtype".into(), dtype.to_string().to_lowercase().into())));
        recipe.extend(self.tokenizer.iter().map(|source| ("tokenizer".into(), source.clone().into())));
        let masks = Masks::WORDS.iter().filter(|(_, masks)| *masks == self.masks && self.masks != Masks::Ignore);
        recipe.extend(masks.map(|(word, _)| ("masks".into(), (*word).into())));
        recipe.insert("parameters".into(), table(&self.parameters).into());
        recipe.insert("models".into(), self.models.iter().map(model).collect());
        toml::to_string(&recipe).map_err(|e| Error::Argument(format!("the recipe cannot be written: {e}")))
    }

    /// The parameters for a tensor whose layer is at `place`.
    pub fn params(&self, tensor: &str, place: f64) -> MergeParams {
        let at = |settings: &BTreeMap<String, Setting>| {
            let values = settings.iter().filter_map(|(name, setting)| Some((name, setting.at(tensor, place)?)));
            values.fold(Params::new(0), |params, (name, value)| params.set(name, value))
        };
        MergeParams { shared: at(&self.parameters), models: self.models.iter().map(|m| at(&m.parameters)).collect() }
    }

    /// The path itself, if it exists, else relative to the recipe's folder.
    pub fn beside(&self, path: &str) -> PathBuf {
        beside(&self.path, path)
    }
}

impl Model {
    fn from_json(recipe: &Path, index: usize, json: &Json) -> Result<Self, String> {
        let place = format!("models[{index}]");
        let table = json.as_object().ok_or(format!("{place} is not a table with a `path`"))?;
        let path = string(table, "path")?.ok_or_else(|| {
            let wrong = table.keys().find_map(|key| unknown(key, &model_keys(), &place));
            wrong.unwrap_or_else(|| format!("{place} has no `path`"))
        })?;
        let name = match string(table, "name")? {
            Some(name) => name.to_string(),
            None => path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).to_string(),
        };
        Ok(Self {
            name,
            path: beside(recipe, path),
            statistics: string(table, "statistics")?.map(|path| beside(recipe, path)),
            parameters: settings(table.iter().filter(|(key, _)| !MODEL_KEYS.contains(&key.as_str())))?,
        })
    }
}

/// Keys that a model has with any method.
fn model_keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = ALL.iter().flat_map(|method| method.per_model).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    [&MODEL_KEYS[..], &keys].concat()
}

fn settings<'a>(entries: impl Iterator<Item = (&'a String, &'a Json)>) -> Result<BTreeMap<String, Setting>, String> {
    let setting = |(key, json): (&String, &Json)| match Setting::parse(json) {
        Ok(setting) => Ok((key.clone(), setting)),
        Err(reason) => Err(format!("`{key}` is {reason}")),
    };
    entries.map(setting).collect()
}

/// The path itself, if it exists, else relative to the recipe's folder.
fn beside(recipe: &Path, path: &str) -> PathBuf {
    let own = PathBuf::from(path);
    let near = recipe.parent().map(|folder| folder.join(&own)).filter(|near| !own.exists() && near.exists());
    near.unwrap_or(own)
}

fn string<'a>(table: &'a Map<String, Json>, key: &str) -> Result<Option<&'a str>, String> {
    match table.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` must be a text in quotes")),
    }
}

fn dtype(name: &str) -> Result<Dtype, String> {
    match name {
        "float32" | "f32" => Ok(Dtype::F32),
        "float16" | "f16" => Ok(Dtype::F16),
        "bfloat16" | "bf16" => Ok(Dtype::BF16),
        other => Err(format!("unknown dtype `{other}`: use float32, float16, bfloat16")),
    }
}

fn masks(name: &str) -> Result<Masks, String> {
    let found = Masks::WORDS.iter().find(|(word, _)| *word == name).map(|(_, masks)| *masks);
    found.ok_or_else(|| format!("unknown masks `{name}`: use ignore, keep, same"))
}

/// Rejects keys that are not in `known`.
pub fn check_keys(table: &Map<String, Json>, known: &[&str], place: &str) -> Result<(), String> {
    table.keys().find_map(|key| unknown(key, known, place)).map_or(Ok(()), Err)
}

/// The error for `key`, if it is not in `known`.
fn unknown(key: &str, known: &[&str], place: &str) -> Option<String> {
    if known.contains(&key) {
        return None;
    }
    let near = known.iter().max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
    let near = near.filter(|near| strsim::jaro_winkler(key, near) > 0.7);
    let hint = near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
    Some(format!("unknown key `{key}` in {place}{hint} (known: {})", known.join(", ")))
}

fn toml_error(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("line {line}: {}", first_line(error.message()))
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use regrow_merging::find;

    use super::*;

    fn read(name: &str, text: &str) -> Result<Recipe> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Recipe::read(&path)
    }

    fn toml(text: &str) -> Result<Recipe> {
        read("recipe.toml", text)
    }

    const LEAST: &str = r#"
        method = "ties"
        base = "path/to/base"
        models = [{ path = "path/to/a", name = "a", weight = 0.5, density = 0.3 }, { path = "path/to/b", name = "b" }]
        parameters = { lambda = 1.0, normalize = true }
        dtype = "float16"
    "#;

    #[test]
    fn the_least_recipe() {
        let recipe = toml(LEAST).unwrap();
        recipe.check(find("ties").unwrap()).unwrap();
        assert_eq!((recipe.method.as_str(), recipe.dtype), ("ties", Some(Dtype::F16)));
        assert_eq!(recipe.models[1].path, Path::new("path/to/b"));
        let params = find("ties").unwrap().complete(&recipe.params("w", 0.0)).unwrap();
        assert_eq!(params.each("weight").unwrap(), [0.5, 1.0].into());
        assert_eq!(params.each("density").unwrap(), [0.3, 1.0].into());
        assert!(params.flag("normalize").unwrap());
    }

    #[test]
    fn written_as_it_was_read() {
        let text = LEAST.replace("weight = 0.5", "weight = [{ filter = \"mlp\", value = 0.5 }, { value = 0.1 }]")
            + "masks = \"keep\"\n";
        let recipe = toml(&text).unwrap();
        let again = toml(&recipe.to_toml().unwrap()).unwrap();
        assert_eq!((again.dtype, again.masks, again.method.as_str()), (Some(Dtype::F16), Masks::Keep, "ties"));
        assert_eq!(again.params("mlp.w", 0.0), recipe.params("mlp.w", 0.0));
        assert!(again.models[0].path.is_absolute() && again.models[0].path.ends_with("path/to/a"));
    }

    #[test]
    fn parameters_by_layer_and_by_pattern() {
        let recipe = toml(
            r#"
            method = "task_arithmetic"
            [parameters]
            lambda = [0.0, 1.0]
            [[models]]
            path = "a"
            weight = [{ filter = "mlp", value = 0.25 }, { value = 2 }]
        "#,
        )
        .unwrap();
        assert_eq!(recipe.method, "task-arithmetic");
        let of = |tensor: &str, place| {
            let params = recipe.params(tensor, place);
            (params.number("lambda").unwrap(), params.models[0].real("weight").unwrap())
        };
        assert_eq!((of("mlp.w", 0.5), of("w", 1.0)), ((0.5, 0.25), (1.0, 2.0)));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let says = |text: &str| {
            let recipe = toml(text);
            let checked = recipe.and_then(|r| r.check(find("ties")?));
            checked.unwrap_err().to_string()
        };
        assert!(
            says(&LEAST.replace("dtype", "dtpye")).contains("unknown key `dtpye` in the recipe, did you mean `dtype`?")
        );
        assert!(
            says(&LEAST.replace("density", "densty"))
                .contains("`densty` in the model \"a\" (ties), did you mean `density`?")
        );
        assert!(says(&LEAST.replace("lambda", "lamda")).contains("did you mean `lambda`?"));
        assert!(says(&LEAST.replace("path = \"path/to/b\"", "pth = \"b\"")).contains("did you mean `path`?"));
        assert!(says(&LEAST.replace("float16", "half")).contains("use float32, float16, bfloat16"));
        assert!(says(&LEAST.replace("\"b\"", "\"a\"")).contains("two models are named \"a\""));
        assert!(says("method = \"ties\"\nmodels = []").contains("zero models"));
        assert!(says("method = \"ties\"").contains("names no `models`"));
        assert!(says("models = [{ path = \"a\" }]").contains("names no `method`"));
        assert!(says("method = \"ties\"\nmodels = [").contains("line 2: "));
        assert!(says(&LEAST.replace("0.3", "[]")).contains("`density` is an empty list"));
    }

    #[test]
    fn a_mergekit_configuration_is_taken_as_it_is() {
        let recipe = read(
            "config.yml",
            "models:\n  - model: org/base\n  - model: org/a\n    parameters:\n      density: [1, 0.7, 0.1] # gradient\n      \
             weight: 1.0\n  - model: org/b\n    parameters:\n      density: 0.33\n      weight:\n        - filter: mlp\n          \
             value: 0.5\n        - value: 0\nmerge_method: ties\nbase_model: org/base\nparameters:\n  normalize: true\n  \
             int8_mask: true\ndtype: float16\n",
        )
        .unwrap();
        recipe.check(find("ties").unwrap()).unwrap();
        assert_eq!(recipe.base.as_deref(), Some(Path::new("org/base")));
        assert_eq!(recipe.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["org/a", "org/b"]);
        assert_eq!(recipe.params("layers.1.mlp.w", 0.5).each("weight").unwrap(), [1.0, 0.5].into());
        assert_eq!(recipe.params("layers.1.w", 0.5).each("density").unwrap(), [0.7, 0.33].into());
    }

    #[test]
    fn mergekit_s_defaults_come_with_its_configurations() {
        let dare =
            "merge_method: dare_linear\nbase_model: b\nmodels:\n- model: a\n  parameters: {weight: 1, density: 0.5}\n";
        let recipe = read("c.yaml", dare).unwrap();
        assert_eq!(recipe.method, "dare");
        assert_eq!(recipe.params("w", 0.0).shared.text("rescale").unwrap(), "l1");
        let off = read("c.yaml", &format!("{dare}parameters: {{rescale: false}}\n")).unwrap();
        assert_eq!(off.params("w", 0.0).shared.text("rescale").unwrap(), "none");
        let slices = "slices:\n- sources:\n  - {model: org/x, layer_range: [0, 40]}\n  - {model: org/y, layer_range: [0, 40]}\n\
                      merge_method: slerp\nbase_model: org/x\nparameters:\n  t: 0.5\n";
        let recipe = read("c.yaml", slices).unwrap();
        assert_eq!((recipe.models.len(), recipe.base.as_deref()), (1, Some(Path::new("org/x"))));
        let says = |text: &str| read("c.yaml", text).unwrap_err().to_string();
        assert!(says(&slices.replacen("[0, 40]", "[0, 32]", 1)).contains("layer_range"));
        assert!(says(&dare.replace("dare_linear", "passthrough")).contains("passthrough"));
        assert!(says(&dare.replace("base_model", "base_modl")).contains("did you mean `base_model`?"));
        assert!(says("a: [").contains("c.yaml"));
    }
}
