//! The image transforms of tasks.

use std::f64::consts::PI;

use burn::tensor::{Int, Tensor, TensorData};

/// A task's image transform.
#[derive(Clone, Debug)]
pub(super) enum Transform {
    None,
    /// Output pixel `i` is input pixel `order[i]`.
    Permute(Vec<i64>),
    /// Output pixel `i` is the sum of four input pixels, weighted.
    Sample([(Vec<i64>, Vec<f32>); 4]),
}

impl Transform {
    /// The transformed images.
    pub(super) fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        let dims = images.dims();
        let device = images.device();
        let picked = |pixels: &Tensor<2>, order: &Vec<i64>| {
            let order = Tensor::<1, Int>::from_data(TensorData::new(order.clone(), [order.len()]), &device);
            pixels.clone().select(1, order)
        };
        match self {
            Self::None => images,
            Self::Permute(order) => picked(&images.flatten::<2>(1, 3), order).reshape(dims),
            Self::Sample(corners) => {
                let pixels = images.flatten::<2>(1, 3);
                let one = |(order, weights): &(Vec<i64>, Vec<f32>)| {
                    let weights = TensorData::new(weights.clone(), [1, weights.len()]);
                    picked(&pixels, order) * Tensor::<2>::from_data(weights, &device)
                };
                let [a, b, c, d] = corners;
                (one(a) + one(b) + one(c) + one(d)).reshape(dims)
            }
        }
    }
}

/// For each output pixel four input pixels and their weights.
pub(super) fn rotation(degrees: f64, [c, h, w]: [usize; 3]) -> [(Vec<i64>, Vec<f32>); 4] {
    let (sin, cos) = (degrees * PI / 180.0).sin_cos();
    let (middle_y, middle_x) = ((h as f64 - 1.0) / 2.0, (w as f64 - 1.0) / 2.0);
    let mut corners: [(Vec<i64>, Vec<f32>); 4] = Default::default();
    for i in 0..c * h * w {
        let (plane, y, x) = (i / (h * w), (i / w % h) as f64 - middle_y, (i % w) as f64 - middle_x);
        // Rows grow downward: the source position of the pixel, rotated back.
        let (from_y, from_x) = (middle_y + cos * y + sin * x, middle_x - sin * y + cos * x);
        // Multiples of a quarter turn hit pixels exactly.
        let snapped = |v: f64| if (v - v.round()).abs() < 1e-9 { v.round() } else { v };
        let (from_y, from_x) = (snapped(from_y), snapped(from_x));
        let (part_y, part_x) = (from_y - from_y.floor(), from_x - from_x.floor());
        for (k, corner) in corners.iter_mut().enumerate() {
            let (down, right) = (k / 2, k % 2);
            let at = |v: f64, more: usize, len: usize| (v.floor() + more as f64).clamp(0.0, len as f64 - 1.0) as usize;
            let share = |part: f64, more: usize| if more == 1 { part } else { 1.0 - part };
            corner.0.push((plane * h * w + at(from_y, down, h) * w + at(from_x, right, w)) as i64);
            corner.1.push((share(part_y, down) * share(part_x, right)) as f32);
        }
    }
    corners
}
