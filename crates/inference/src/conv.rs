//! A convolution with few weights, without unfolding its windows.
//!
//! Padded and split by stride into phases, an image is one row of numbers in which every weight of a kernel has a
//! position at a fixed distance from its output's: output `[o, y, x]` is the sum over kept weights of `w *
//! image[distance(w) + y * width + x]`. So a kept weight is one vector multiplication for all adjacent outputs of a
//! channel, and a zero costs nothing (direct sparse convolution, Park et al., arXiv 1608.01409).

use std::fmt;
use std::sync::Arc;

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::SimdLevel;
use crate::aligned::Aligned;
use crate::kernel::{LANES, spread};
use crate::linear::numbers;
use crate::{Error, Result};

/// This many outputs are computed together.
const TILE: usize = 4 * LANES;

/// A convolution `[out, in, height, width]` on the CPU, in f32; without gradients.
#[derive(Clone)]
pub struct SparseConv2d {
    shape: [usize; 4],
    stride: [usize; 2],
    padding: [usize; 2],
    /// Where each output channel's weights start, and where the last ends.
    begins: Arc<[usize]>,
    /// Channel, row and column of each kept weight.
    places: Arc<[[u16; 3]]>,
    values: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
    level: SimdLevel,
}

/// The layout of an image of one size.
struct Plan {
    /// Rows and columns of the outputs.
    out: [usize; 2],
    /// Rows and columns of a phase.
    phase: [usize; 2],
    /// The distance of each kept weight.
    offsets: Vec<u32>,
    /// Numbers in a laid-out image, including those that the last tile reads past the end.
    len: usize,
}

impl SparseConv2d {
    /// From a Burn layer with its mask applied.
    ///
    /// # Errors
    /// Groups, dilation, padding that differs between the two sides, weights that are not finite.
    pub fn of(layer: &Conv2d) -> Result<Self> {
        let refused = |what: &str| Err(Error::Argument(format!("a convolution with {what} has no sparse form here")));
        let padding = match &layer.padding {
            PaddingConfig2d::Valid => [0, 0],
            PaddingConfig2d::Explicit(top, left, bottom, right) if top == bottom && left == right => [*top, *left],
            _ => return refused("uneven padding"),
        };
        if layer.groups != 1 {
            return refused("groups");
        }
        if layer.dilation != [1, 1] {
            return refused("dilation");
        }
        let weight = layer.weight.val();
        let shape = weight.dims();
        let bias = layer.bias.as_ref().map(|bias| numbers(bias.val().into_data())).transpose()?;
        Self::new(shape, &numbers(weight.into_data())?, bias, layer.stride, padding)
    }

    fn new(
        shape: [usize; 4],
        weights: &[f32],
        bias: Option<Vec<f32>>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Result<Self> {
        let [_, channels, height, width] = shape;
        if let Some(bad) = weights.iter().find(|w| !w.is_finite()) {
            return Err(Error::Argument(format!("a weight is {bad}")));
        }
        if channels.max(height).max(width) > usize::from(u16::MAX) {
            return Err(Error::Argument(format!("a convolution of shape {shape:?} has no sparse form here")));
        }
        let (mut begins, mut places, mut values) = (vec![0], Vec::new(), Vec::new());
        for kernel in weights.chunks((channels * height * width).max(1)) {
            for (i, value) in kernel.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                places.push([i / (height * width), i / width % height, i % width].map(|p| p as u16));
                values.push(*value);
            }
            begins.push(values.len());
        }
        let (bias, level) = (bias.map(Arc::from), SimdLevel::best());
        let (begins, places, values) = (begins.into(), places.into(), values.into());
        Ok(Self { shape, stride, padding, begins, places, values, bias, level })
    }

    /// With these instructions instead of the fastest.
    pub fn with_level(self, level: SimdLevel) -> Self {
        Self { level, ..self }
    }

    /// `[out, in, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Weights that are not zero.
    pub fn kept(&self) -> usize {
        self.values.len()
    }

    /// The outputs `[batch, out, ..]` of images `[batch, in, height, width]` of f32, on their device.
    ///
    /// # Panics
    /// If images have other channels or are smaller than the kernel, as Burn's layers do.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let ([batch, channels, height, width], device) = (images.dims(), images.device());
        assert_eq!(channels, self.shape[1], "the images' channels are not the layer's");
        let plan = self.plan([height, width]);
        let size = self.shape[0] * plan.out[0] * plan.out[1];
        let mut out = vec![0.0; batch * size];
        let images = images.into_data().convert::<f32>();
        let images = images.as_slice::<f32>().unwrap_or_default();
        let pairs = images.par_chunks((channels * height * width).max(1)).zip(out.par_chunks_mut(size.max(1)));
        pairs.for_each_init(
            || Room::new(&plan),
            |room, (image, out)| {
                self.lay_out(image, [height, width], &plan, &mut room.image);
                self.convolve(&plan, room, out);
            },
        );
        Tensor::from_data(TensorData::new(out, [batch, self.shape[0], plan.out[0], plan.out[1]]), &device)
    }

    fn plan(&self, image: [usize; 2]) -> Plan {
        let [_, channels, ..] = self.shape;
        let kernel = [self.shape[2], self.shape[3]];
        let padded = [0, 1].map(|d| image[d] + 2 * self.padding[d]);
        assert!((0..2).all(|d| padded[d] >= kernel[d]), "the images are smaller than the kernel");
        let out = [0, 1].map(|d| (padded[d] - kernel[d]) / self.stride[d] + 1);
        let phase = [0, 1].map(|d| padded[d].div_ceil(self.stride[d]));
        let size = phase[0] * phase[1];
        let phases = self.stride[0] * self.stride[1];
        let offset = |place: &[u16; 3]| {
            let [channel, row, column] = place.map(usize::from);
            let phase_of = row % self.stride[0] * self.stride[1] + column % self.stride[1];
            let within = row / self.stride[0] * phase[1] + column / self.stride[1];
            ((channel * phases + phase_of) * size + within) as u32
        };
        let offsets: Vec<u32> = self.places.iter().map(offset).collect();
        // A tile may start at any output and reads on from the farthest weight.
        let reach = offsets.iter().max().map_or(0, |o| *o as usize) + out[0] * phase[1] + TILE;
        Plan { out, phase, offsets, len: reach.max(channels * phases * size) }
    }

    /// Puts an image into its phases; padding stays zero.
    fn lay_out(&self, image: &[f32], [height, width]: [usize; 2], plan: &Plan, to: &mut [f32]) {
        let size = plan.phase[0] * plan.phase[1];
        let [down, across] = self.stride;
        for (i, row) in image.chunks_exact(width).enumerate() {
            let (channel, y) = (i / height, i % height + self.padding[0]);
            let first = (channel * down * across + y % down * across) * size + y / down * plan.phase[1];
            if across == 1 {
                to[first + self.padding[1]..][..width].copy_from_slice(row);
                continue;
            }
            for (x, value) in row.iter().enumerate() {
                let x = x + self.padding[1];
                to[first + x % across * size + x / across] = *value;
            }
        }
    }

    /// All channels of one image.
    fn convolve(&self, plan: &Plan, room: &mut Room, out: &mut [f32]) {
        let [rows, columns] = plan.out;
        let positions = rows * plan.phase[1];
        for (channel, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
            let range = self.begins[channel]..self.begins[channel + 1];
            let (offsets, values) = (&plan.offsets[range.clone()], &self.values[range]);
            let mut at = 0;
            while at < positions {
                // The last tile is no larger than necessary.
                let left = (positions - at).min(TILE).next_multiple_of(LANES).next_power_of_two();
                let sums = &mut room.sums[at..][..left];
                sums.fill(0.0);
                spread(self.level, offsets, values, &room.image[at..], sums);
                at += left;
            }
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[channel]);
            for (out, sums) in out.chunks_exact_mut(columns).zip(room.sums.chunks(plan.phase[1])) {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum + bias);
            }
        }
    }
}

/// Buffers for processing one image.
struct Room {
    image: Aligned,
    sums: Aligned,
}

impl Room {
    fn new(plan: &Plan) -> Self {
        let positions = plan.out[0] * plan.phase[1];
        Self { image: Aligned::zeros(plan.len), sums: Aligned::zeros(positions.next_multiple_of(TILE)) }
    }
}

impl fmt::Debug for SparseConv2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SparseConv2d({:?}, {} kept)", self.shape, self.kept())
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::Distribution;

    use super::*;
    use regrow_device::current;
    use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
    use regrow_sparse_core::{Mask, MaskSet};

    fn masked(config: &Conv2dConfig, every: usize) -> Conv2d {
        let layer = config.init(&current());
        let shape = layer.weight.dims();
        let mask = Mask::from_fn(shape, |i| i % every == 0);
        let masks: MaskSet = [("weight".to_string(), mask)].into_iter().collect();
        apply_masks(layer, &masks, Gradient::Masked, Base::Zeroed).unwrap()
    }

    #[test]
    fn as_burn_has_it_for_all_strides_paddings_and_instructions() {
        for (channels, kernel, stride, padding, image) in [
            ([3, 5], [3, 3], [1, 1], [1, 1], [32, 32]),
            ([4, 7], [3, 3], [2, 2], [1, 1], [9, 12]),
            ([2, 3], [5, 3], [1, 2], [0, 2], [8, 7]),
            ([1, 1], [1, 1], [1, 1], [0, 0], [1, 1]),
            ([3, 2], [2, 4], [3, 3], [2, 0], [11, 10]),
        ] {
            let config = Conv2dConfig::new(channels, kernel)
                .with_stride(stride)
                .with_padding(PaddingConfig2d::Explicit(padding[0], padding[1], padding[0], padding[1]));
            for every in [1, 3, 100] {
                let layer = masked(&config, every);
                let images =
                    Tensor::<4>::random([3, channels[0], image[0], image[1]], Distribution::Default, &current());
                let expected = layer.forward(images.clone());
                let sparse = SparseConv2d::of(&layer).unwrap();
                for level in SimdLevel::all() {
                    let out = sparse.clone().with_level(level).forward(images.clone());
                    assert_eq!(out.dims(), expected.dims());
                    let (out, expected) = (out.into_data(), expected.to_data());
                    let pairs = out.iter::<f32>().zip(expected.iter::<f32>());
                    let worst = pairs.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
                    assert!(worst < 1e-5, "{sparse:?} {level}: {worst}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_sparse_form_is_refused() {
        let says =
            |config: Conv2dConfig| SparseConv2d::of(&config.init(&current())).map(|_| ()).unwrap_err().to_string();
        let config = Conv2dConfig::new([4, 4], [3, 3]);
        assert!(says(config.clone().with_groups(2)).contains("groups"));
        assert!(says(config.clone().with_dilation([2, 2])).contains("dilation"));
        assert!(says(config.clone().with_padding(PaddingConfig2d::Explicit(1, 0, 0, 0))).contains("uneven padding"));
        let mut layer = config.init(&current());
        layer.weight = layer.weight.map(|w| w * f32::NAN);
        assert!(SparseConv2d::of(&layer).unwrap_err().to_string().contains("NaN"));
    }
}
