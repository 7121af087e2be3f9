//! The result of pruning, layer by layer and in total: as a table, as JSON (it serializes), as SVG.

use std::fmt;

use serde::Serialize;

use crate::MaskSet;

/// One pruned layer, or all together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerReport {
    /// The parameter's path or tensor's name.
    pub name: String,
    /// PyTorch's shape; empty for the total.
    pub shape: Vec<usize>,
    /// Weights, kept and pruned.
    pub weights: usize,
    /// Weights pruned.
    pub zeros: usize,
    /// Multiplications and additions of one example in the dense layer; 0 if not known.
    pub dense_flops: usize,
    /// The same, counting kept weights only.
    pub sparse_flops: usize,
    /// Bytes of the dense weights in f32.
    pub dense_bytes: usize,
    /// Bytes of the kept weights in f32 and one bit per weight for the mask.
    pub sparse_bytes: usize,
}

impl LayerReport {
    /// Fraction of weights pruned.
    pub fn sparsity(&self) -> f64 {
        self.zeros as f64 / self.weights.max(1) as f64
    }
}

/// All layers that carry masks, and their sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Layer by layer, in model order.
    pub layers: Vec<LayerReport>,
    /// Their sum.
    pub total: LayerReport,
}

impl Report {
    /// For `masks`. `positions` returns the number of positions of one example a layer is applied to (the size of a
    /// convolution's output map, 1 for a linear layer, 0 if not known).
    pub fn new(masks: &MaskSet, positions: impl Fn(&str) -> usize) -> Self {
        let layers: Vec<LayerReport> = masks
            .iter()
            .map(|(name, mask)| {
                let (weights, kept) = (mask.len(), mask.kept());
                let flops = 2 * positions(name);
                LayerReport {
                    name: name.into(),
                    shape: mask.shape().to_vec(),
                    weights,
                    zeros: weights - kept,
                    dense_flops: weights * flops,
                    sparse_flops: kept * flops,
                    dense_bytes: weights * 4,
                    sparse_bytes: kept * 4 + weights.div_ceil(8),
                }
            })
            .collect();
        Self::from_layers(layers)
    }

    /// From layers that are counted already.
    pub fn from_layers(layers: Vec<LayerReport>) -> Self {
        let mut total = LayerReport { name: "total".into(), ..LayerReport::default() };
        for layer in &layers {
            total.weights += layer.weights;
            total.zeros += layer.zeros;
            total.dense_flops += layer.dense_flops;
            total.sparse_flops += layer.sparse_flops;
            total.dense_bytes += layer.dense_bytes;
            total.sparse_bytes += layer.sparse_bytes;
        }
        Self { layers, total }
    }

    /// One bar per layer, its length the density, as SVG.
    pub fn svg(&self) -> String {
        const BAR: usize = 18;
        let height = BAR * self.layers.len() + 40;
        // Bars start after the longest name, at seven pixels per letter.
        let left = 20 + 7 * self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0).max(34);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <text x=\"8\" y=\"20\">density per layer; in all {:.2} % of {} weights are zero</text>\n",
            left + 460,
            100.0 * self.total.sparsity(),
            self.total.weights
        );
        for (i, layer) in self.layers.iter().enumerate() {
            let y = 34 + i * BAR;
            let width = 360.0 * (1.0 - layer.sparsity());
            svg += &format!(
                "<text x=\"8\" y=\"{}\">{}</text><rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"12\" fill=\"#0072b2\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{:.2} %</text>\n",
                y + 11,
                escaped(&layer.name),
                6.0 + left as f64 + width,
                y + 11,
                100.0 * (1.0 - layer.sparsity())
            );
        }
        svg + "</svg>\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$}  {:>16}  {:>10}  {:>10}  {:>8}  {:>9}  {:>9}",
            "layer", "shape", "weights", "zeros", "sparsity", "MFLOP", "sparse"
        )?;
        for layer in self.layers.iter().chain([&self.total]) {
            let shape = layer.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            let mega =
                |flops: usize| if layer.dense_flops == 0 { "-".into() } else { format!("{:.2}", flops as f64 / 1e6) };
            let sparsity = format!("{:.2} %", 100.0 * layer.sparsity());
            writeln!(
                f,
                "{:width$}  {shape:>16}  {:>10}  {:>10}  {sparsity:>8}  {:>9}  {:>9}",
                layer.name,
                layer.weights,
                layer.zeros,
                mega(layer.dense_flops),
                mega(layer.sparse_flops)
            )?;
        }
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mask;

    fn report() -> Report {
        let mask = |shape: [usize; 2], kept: usize| Mask::from_fn(shape, move |i| i < kept);
        let masks =
            MaskSet::from_iter([("a.weight".to_string(), mask([4, 4], 4)), ("b.weight".to_string(), mask([2, 4], 6))]);
        Report::new(&masks, |name| if name.starts_with('a') { 10 } else { 1 })
    }

    #[test]
    fn sums_by_hand() {
        let total = report().total;
        assert_eq!((total.weights, total.zeros), (24, 14));
        assert_eq!((total.dense_flops, total.sparse_flops), (2 * 160 + 2 * 8, 2 * 40 + 2 * 6));
        assert_eq!((total.dense_bytes, total.sparse_bytes), (96, 16 + 2 + 24 + 1));
    }

    #[test]
    fn a_table_and_a_picture() {
        let text = report().to_string();
        assert!(text.contains("a.weight") && text.contains("75.00 %") && text.lines().count() == 4, "{text}");
        assert!(report().svg().contains("58.33 %"));
    }
}
