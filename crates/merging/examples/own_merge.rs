//! A merge method of one's own: the median of the models, entry by entry.
//!
//! `cargo run --release -p regrow-merging --example own_merge`

use regrow_merging::prelude::*;

struct Median;

impl TensorMerge for Median {
    fn name(&self) -> &'static str {
        "median"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let of = |entry: usize| {
            let mut values: Vec<f32> = tensor.all().iter().map(|model| model.values[entry]).collect();
            values.sort_by(f32::total_cmp);
            values[values.len() / 2]
        };
        Ok((0..tensor.elements()).map(of).collect())
    }
}

fn main() -> Result<()> {
    // Two models that agree and one that went astray.
    let models = [("a", [1.0, 2.0, 3.0]), ("b", [1.1, 2.1, 2.9]), ("c", [9.0, -8.0, 40.0])];
    let models = models.each_ref().map(|(name, values)| Operand::new(name, values));
    let tensor = Operands::new("weight", &[3], None, &models)?;
    let methods: [Box<dyn TensorMerge>; 2] = [Box::new(Median), find("linear")?.tensor(&MergeParams::new(3))?];
    for method in methods {
        println!("{:8}{:?}", method.name(), method.merge(&tensor)?);
    }
    Ok(())
}
