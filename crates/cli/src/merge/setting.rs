//! Values of parameters that may differ between tensors, as in mergekit.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Value as Json, json};

/// A number, `true` or `false`, or a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A word.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The value of a parameter in a recipe.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// The same everywhere.
    One(Scalar),
    /// Numbers from the first layer to the last, with interpolation between them.
    Gradient(Vec<f64>),
    /// The first value whose filter is part of the tensor's name; one without a filter always matches.
    Rules(Vec<(Option<String>, Setting)>),
}

impl Setting {
    /// From a number, `true`, a word, a list of numbers, or a list of `{ filter = "mlp", value = 0.5 }`.
    pub fn parse(json: &Json) -> Result<Self, String> {
        match json {
            Json::Bool(flag) => Ok(Self::One(Scalar::Flag(*flag))),
            Json::Number(number) => Ok(Self::One(Scalar::Number(number.as_f64().unwrap_or(f64::NAN)))),
            Json::String(text) => Ok(Self::One(Scalar::Text(text.clone()))),
            Json::Object(_) => Ok(Self::Rules(vec![rule(json)?])),
            Json::Array(list) if list.is_empty() => Err("an empty list".into()),
            Json::Array(list) if list.iter().all(Json::is_number) => {
                Ok(Self::Gradient(list.iter().filter_map(Json::as_f64).collect()))
            }
            Json::Array(list) => Ok(Self::Rules(list.iter().map(rule).collect::<Result<_, _>>()?)),
            Json::Null => Err("nothing".into()),
        }
    }

    /// In the form of a recipe.
    pub fn to_json(&self) -> Json {
        match self {
            Self::One(Scalar::Number(number)) => json!(number),
            Self::One(Scalar::Flag(flag)) => json!(flag),
            Self::One(Scalar::Text(text)) => json!(text),
            Self::Gradient(numbers) => json!(numbers),
            Self::Rules(rules) => rules
                .iter()
                .map(|(filter, setting)| match filter {
                    Some(filter) => json!({ "filter": filter, "value": setting.to_json() }),
                    None => json!({ "value": setting.to_json() }),
                })
                .collect(),
        }
    }

    /// The value for a tensor at `place`, from 0 for the first layer to 1 for the last; `None` if no filter matches.
    pub fn at(&self, tensor: &str, place: f64) -> Option<Scalar> {
        match self {
            Self::One(value) => Some(value.clone()),
            Self::Gradient(numbers) => {
                let scaled = place * (numbers.len() - 1) as f64;
                let lower = (scaled as usize).min(numbers.len() - 1);
                let upper = (lower + 1).min(numbers.len() - 1);
                let share = scaled - lower as f64;
                Some(Scalar::Number((1.0 - share) * numbers[lower] + share * numbers[upper]))
            }
            Self::Rules(rules) => {
                let fits = |filter: &Option<String>| filter.as_ref().is_none_or(|f| f == "*" || tensor.contains(f));
                rules.iter().filter(|(filter, _)| fits(filter)).find_map(|(_, setting)| setting.at(tensor, place))
            }
        }
    }
}

fn rule(json: &Json) -> Result<(Option<String>, Setting), String> {
    let table = json.as_object().ok_or("a list of neither numbers nor tables with `value` and `filter`")?;
    if let Some(other) = table.keys().find(|key| !["value", "filter"].contains(&key.as_str())) {
        return Err(format!("a table with `{other}`: only `value` and `filter` belong there"));
    }
    let filter = match table.get("filter") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) => Some(text.clone()),
        Some(_) => return Err("a `filter` that is no part of a name".into()),
    };
    Ok((filter, Setting::parse(table.get("value").ok_or("a table without `value`")?)?))
}

/// The position of each tensor's layer, from 0 for the first to 1 for the last, by the first number in its name;
/// tensors outside of layers are at 0, those of a single layer at 1.
pub fn places<'a>(names: impl Iterator<Item = &'a str> + Clone) -> HashMap<&'a str, f64> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (prefix, layer) in names.clone().filter_map(layer) {
        let last = last.entry(prefix).or_insert(layer);
        *last = layer.max(*last);
    }
    let place = |name| match layer(name).map(|(prefix, layer)| (layer, last[prefix])) {
        None => 0.0,
        Some((_, 0)) => 1.0,
        Some((layer, last)) => layer as f64 / last as f64,
    };
    names.map(|name| (name, place(name))).collect()
}

/// The largest number of layers found in the names.
pub fn layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.filter_map(layer).map(|(_, layer)| layer + 1).max().unwrap_or(0)
}

/// `model.layers.12.mlp.weight` is in layer 12 of `model.layers`.
fn layer(name: &str) -> Option<(&str, usize)> {
    let mut start = 0;
    for part in name.split('.') {
        if let Ok(number) = part.parse() {
            return Some((&name[..start], number));
        }
        start += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(json: Json, tensor: &str, place: f64) -> Option<f64> {
        match Setting::parse(&json).unwrap().at(tensor, place) {
            Some(Scalar::Number(number)) => Some(number),
            _ => None,
        }
    }

    #[test]
    fn gradients_are_interpolated_over_the_layers() {
        let at = |place| number(json!([0.0, 0.5, 0.3]), "x", place).unwrap();
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(at), [0.0, 0.25, 0.5, 0.3]);
        assert_eq!(number(json!([0.7]), "x", 0.5), Some(0.7));
    }

    #[test]
    fn the_first_filter_that_fits_decides() {
        let rules =
            json!([{"filter": "mlp", "value": 0.5}, {"filter": "attn", "value": [0, 1]}, {"filter": "*", "value": 3}]);
        assert_eq!(number(rules.clone(), "layers.0.mlp.w", 0.0), Some(0.5));
        assert_eq!(number(rules.clone(), "layers.0.attn.w", 0.25), Some(0.25));
        assert_eq!(number(rules, "norm", 0.0), Some(3.0));
        assert_eq!(number(json!([{"filter": "mlp", "value": 0.5}]), "norm", 0.0), None);
        assert_eq!(number(json!({"value": 0.5}), "norm", 0.0), Some(0.5));
    }

    #[test]
    fn written_as_it_was_read() {
        for json in [
            json!(0.5),
            json!(true),
            json!("l1"),
            json!([0.0, 1.0]),
            json!([{"filter": "a", "value": [0.0, 2.0]}, {"value": 1.0}]),
        ] {
            assert_eq!(Setting::parse(&json).unwrap().to_json(), json);
        }
    }

    #[test]
    fn places_come_from_the_names() {
        let names = ["model.embed", "model.layers.0.w", "model.layers.1.w", "model.layers.2.w", "head.0.w"];
        let places = places(names.into_iter());
        assert_eq!(names.map(|n| places[n]), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [json!([]), json!(null), json!([1, "a"]), json!({"valu": 1}), json!([{"filter": 3, "value": 1}])] {
            assert!(Setting::parse(&json).is_err(), "{json}");
        }
    }
}
