//! The model card of a merged model: its parents and its recipe.

use std::path::Path;

use regrow_merging::MethodInfo;

use super::recipe::Recipe;
use super::setting::Setting;

/// The recipe's file name in the merged directory.
pub fn recipe_name(path: &Path) -> &'static str {
    match path.extension() {
        Some(e) if e == "yaml" || e == "yml" => "mergekit_config.yml",
        _ => "recipe.toml",
    }
}

/// `README.md` of the merged model.
pub fn card(recipe: &Recipe, method: &MethodInfo, out: &Path) -> String {
    let parents: Vec<String> = recipe
        .base
        .iter()
        .chain(recipe.models.iter().map(|m| &m.path))
        .map(|path| path.display().to_string())
        .collect();
    let quoted: String = parents.iter().map(|parent| format!("- {parent:?}\n")).collect();
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let language = if recipe_name(&recipe.path).ends_with("yml") { "yaml" } else { "toml" };
    format!(
        "---\nbase_model:\n{quoted}tags:\n- merge\n- regrow\n---\n\n# {name}\n\nMade by `regrow merge` {} from the models \
         below by the method {}: {} ({}).\n\n{}\nThe recipe:\n\n```{language}\n{}\n```\n",
        env!("CARGO_PKG_VERSION"),
        method.name,
        method.summary,
        method.paper,
        table(recipe),
        recipe.text.trim_end()
    )
}

fn table(recipe: &Recipe) -> String {
    let mut rows = "| model | path | parameters |\n| --- | --- | --- |\n".to_string();
    if let Some(base) = &recipe.base {
        rows += &format!("| (base) | {} | |\n", cell(&base.display().to_string()));
    }
    for model in &recipe.models {
        let parameters: Vec<String> = model.parameters.iter().map(|(name, s)| format!("{name} {}", shown(s))).collect();
        let path = cell(&model.path.display().to_string());
        rows += &format!("| {} | {path} | {} |\n", cell(&model.name), cell(&parameters.join(", ")));
    }
    rows
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn shown(setting: &Setting) -> String {
    match setting {
        Setting::One(scalar) => scalar.to_string(),
        Setting::Gradient(numbers) => format!("{numbers:?} by layer"),
        Setting::Rules(_) => "by name".into(),
    }
}
