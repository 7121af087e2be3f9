//! A sparse matrix times inputs on devices that compile CubeCL's kernels: CUDA, WGPU, Vulkan.
//!
//! ```text
//! y[b, r] = bias[r] + sum over c with bit (r, c) set of w[r, c] x[b, c]
//! ```
//!
//! A row is bits, 32 to a word, and its kept values one after the other. `starts` gives the first value of each word;
//! within a word a value's position is the number of set bits below its own. So each thread finds its value
//! independently: the threads of a row take one column each of every word, and bits, values and inputs are read
//! contiguously. For `n` weights, `kept` of them nonzero, `w` bytes each, a product with few inputs reads `w kept + n /
//! 4` bytes.
//!
//! One kernel serves a bitmask and N:M. For CSR a value's column would have to be read instead of a bit, which takes
//! fewer bytes only if less than an eighth is kept.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DType, Dispatch, Shape, TensorMetadata, backend_extension};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, cubecl};
use cubecl::prelude::*;
use half::{bf16, f16};
use safetensors::Dtype;

/// Columns of a word, and threads of a row.
const WORD: usize = 32;
/// Rows per group of threads.
const ROWS: usize = 8;
/// The maximum number of inputs for one read of a weight.
const INPUTS: usize = 8;
/// The maximum number of groups along a grid dimension that every device supports: half a million rows, and as many
/// inputs at once.
const GROUPS: usize = 65_535;

/// Kept weights and their positions, on a device.
#[derive(Clone, Debug)]
pub(super) struct OnDevice {
    words: Tensor<1, Int>,
    starts: Tensor<1, Int>,
    values: Tensor<1, Int>,
    bias: Tensor<1>,
    form: Form,
}

impl OnDevice {
    /// The nonzero values of `dense`, `[rows, cols]`, as `dtype`; `None` if it is larger than a kernel can count.
    pub(super) fn new(
        [rows, cols]: [usize; 2],
        dense: &[f32],
        bias: Option<&[f32]>,
        dtype: Dtype,
        device: &Device,
    ) -> Option<Self> {
        let form = Form::of(dtype)?;
        if rows == 0 || cols == 0 || rows > GROUPS * ROWS || u32::try_from(dense.len()).is_err() {
            return None;
        }
        let (mut words, mut starts, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for word in dense.chunks(cols).flat_map(|row| row.chunks(WORD)) {
            starts.push(kept.len() as u32);
            words.push(word.iter().rev().fold(0u32, |bits, w| (bits << 1) | u32::from(*w != 0.0)));
            kept.extend(word.iter().filter(|w| **w != 0.0));
        }
        let integers = |numbers: Vec<u32>| {
            let numbers: Vec<i32> = numbers.into_iter().map(|n| n as i32).collect();
            let length = numbers.len();
            Tensor::from_data(TensorData::new(numbers, [length]), (device, DType::I32))
        };
        let bias = bias.map_or_else(|| vec![0.0; rows], <[f32]>::to_vec);
        Some(Self {
            words: integers(words),
            starts: integers(starts),
            values: integers(form.stored(&kept)),
            bias: Tensor::from_data(TensorData::new(bias, [rows]), (device, DType::F32)),
            form,
        })
    }

    /// Where it is.
    pub(super) fn device(&self) -> Device {
        self.bias.device()
    }

    /// The outputs, `[batch, rows]`, of `x`, `[batch, cols]`, of f32.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let ([batch, cols], rows) = (x.dims(), self.bias.dims()[0]);
        if batch == 0 {
            return Tensor::zeros([0, rows], &x.device());
        }
        let most = (GROUPS * INPUTS).min(u32::MAX as usize / rows.max(cols)).max(1);
        if batch > most {
            return Tensor::cat(x.split(most, 0).into_iter().map(|x| self.forward(x)).collect(), 0);
        }
        let [words, starts, values] = [&self.words, &self.starts, &self.values].map(|t| t.clone().into_dispatch());
        let bias = self.bias.clone().into_dispatch();
        Tensor::from_dispatch(Dispatch::sparse_product(x.into_dispatch(), bias, words, starts, values, self.form))
    }
}

/// The type values are stored as: two 16-bit values share a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// 32 bits.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// IEEE's half precision.
    F16,
}

impl Form {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// Values packed into words, at least one.
    fn stored(self, values: &[f32]) -> Vec<u32> {
        let pairs = |narrow: fn(f32) -> u16| {
            let pair = |two: &[f32]| two.iter().rev().fold(0, |word, v| (word << 16) | u32::from(narrow(*v)));
            values.chunks(2).map(pair).collect::<Vec<_>>()
        };
        let mut words = match self {
            Self::F32 => values.iter().map(|v| v.to_bits()).collect(),
            Self::Bf16 => pairs(|v| bf16::from_f32(v).to_bits()),
            Self::F16 => pairs(|v| f16::from_f32(v).to_bits()),
        };
        if words.is_empty() {
            words.push(0);
        }
        words
    }
}

/// Device operations in addition to Burn's own.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait Sparse: Backend {
    /// The outputs `[batch, rows]` of `x`, `[batch, cols]`: see the head of this file.
    #[fusion(dtype = x, shape = outputs(x, bias))]
    fn sparse_product(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        words: IntTensor<Self>,
        starts: IntTensor<Self>,
        values: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self>;
}

fn outputs(x: &Shape, bias: &Shape) -> Shape {
    Shape::from(vec![x[0], bias[0]])
}

impl Sparse for CubeBackend {
    fn sparse_product(
        x: CubeTensor,
        bias: CubeTensor,
        words: CubeTensor,
        starts: CubeTensor,
        values: CubeTensor,
        form: Form,
    ) -> CubeTensor {
        let [x, bias, words, starts, values] = [x, bias, words, starts, values].map(into_contiguous);
        let shape = outputs(&x.shape(), &bias.shape());
        let (batch, rows, cols) = (shape[0], shape[1], x.shape()[1]);
        let (client, device) = (x.client.clone(), x.device.clone());
        let room = client.empty(shape.num_elements() * size_of::<f32>());
        let out = CubeTensor::new_contiguous(client.clone(), device, shape, room, DType::F32);
        let inputs = batch.next_power_of_two().min(INPUTS);
        let groups = CubeCount::Static(rows.div_ceil(ROWS) as u32, batch.div_ceil(inputs) as u32, 1);
        product::launch(
            &client,
            groups,
            CubeDim::new_2d(WORD as u32, ROWS as u32),
            x.into_buffer_arg(),
            bias.into_buffer_arg(),
            words.into_buffer_arg(),
            starts.into_buffer_arg(),
            values.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            cols,
            batch,
            inputs,
            form,
        );
        out
    }
}

/// A group computes [`ROWS`] rows for some `inputs`; its threads along x have a column each of every word.
#[cube(launch)]
fn product(
    x: &[f32],
    bias: &[f32],
    words: &[u32],
    starts: &[u32],
    values: &[u32],
    out: &mut [f32],
    rows: usize,
    cols: usize,
    batch: usize,
    #[comptime] inputs: usize,
    #[comptime] form: Form,
) {
    let bit = UNIT_POS_X;
    let row = CUBE_POS_X as usize * ROWS + UNIT_POS_Y as usize;
    let first = CUBE_POS_Y as usize * inputs;
    let mut sums = Array::<f32>::new(inputs);
    #[unroll]
    for b in 0..inputs {
        sums[b] = 0.0;
    }
    if row < rows {
        let across = cols.div_ceil(WORD);
        for i in 0..across {
            let word = words[row * across + i];
            if (word >> bit) & 1 == 1 {
                let below = word & ((1u32 << bit) - 1);
                let weight = value(values, (starts[row * across + i] + below.count_ones()) as usize, form);
                let column = i * WORD + bit as usize;
                #[unroll]
                for b in 0..inputs {
                    // Past the last input its neighbour is multiplied once more, and not written.
                    sums[b] += weight * x[min(first + b, batch - 1) * cols + column];
                }
            }
        }
    }
    let mut shared = Shared::new_slice(WORD * ROWS);
    let at = UNIT_POS as usize;
    #[unroll]
    for b in 0..inputs {
        shared[at] = sums[b];
        sync_cube();
        #[unroll]
        for halving in 0..5u32 {
            let half = 16u32 >> halving;
            if bit < half {
                shared[at] += shared[at + half as usize];
            }
            sync_cube();
        }
        if bit == 0 && row < rows && first + b < batch {
            out[(first + b) * rows + row] = shared[at] + bias[row];
        }
        sync_cube();
    }
}

/// The value of that number, widened.
#[cube]
fn value(values: &[u32], at: usize, #[comptime] form: Form) -> f32 {
    match comptime!(form) {
        Form::F32 => f32::reinterpret(values[at]),
        Form::Bf16 => f32::reinterpret(half_word(values, at) << 16),
        Form::F16 => wide(half_word(values, at)),
    }
}

/// Half of a word: the lower one comes first.
#[cube]
fn half_word(values: &[u32], at: usize) -> u32 {
    (values[at / 2] >> (16 * (at % 2) as u32)) & 0xffff
}

/// An f16, given as bits, converted to f32: its exponent has another bias, and subnormals have no leading one.
#[cube]
fn wide(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    let rest = bits & 0x7fff;
    let mut magnitude = f32::cast_from(rest) * 5.960_464_5e-8;
    if rest >= 0x400 {
        magnitude = f32::reinterpret((rest << 13) + 0x3800_0000);
    }
    f32::reinterpret(u32::reinterpret(magnitude) | sign)
}
