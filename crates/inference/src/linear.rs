//! A linear layer with few weights, multiplied in its stored form.

use std::fmt;
use std::sync::Arc;

use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::bits::Bits;
use crate::csr::Csr;
#[cfg(feature = "kernels")]
use crate::cube::OnDevice;
use crate::kernel::{Number, WORD};
use crate::product::multiply;
use crate::rows::{Part, Rows};
use crate::{Error, Result};
use crate::{Packing, SimdLevel};
#[cfg(feature = "kernels")]
use regrow_device::has_kernels;
use regrow_sparse_core::model::weight::transposed;

/// `y = W x + b` with a sparse `W`, `[d_out, d_in]`, on the CPU, or on the device it was [put](SparseLinear::on);
/// without gradients.
///
/// ```
/// use regrow_checkpoint::Dtype;
/// use regrow_inference::{Packing, SparseLinear};
///
/// let weights = [0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 3.0];
/// let layer = SparseLinear::new([2, 4], &weights, Packing::Bitmask, Dtype::F32)?;
/// let mut out = [0.0; 2];
/// layer.multiply(&[1.0, 10.0, 100.0, 1000.0], &mut out)?;
/// assert_eq!(out, [20.0, 3001.0]);
/// # Ok::<(), regrow_sparse_core::Error>(())
/// ```
#[derive(Clone)]
pub struct SparseLinear {
    shape: [usize; 2],
    packing: Packing,
    matrix: Arc<Matrix>,
    bias: Option<Arc<[f32]>>,
    level: SimdLevel,
    #[cfg(feature = "kernels")]
    placed: Option<Arc<OnDevice>>,
}

/// The weights, by form and type.
enum Matrix {
    CsrF32(Csr<f32>),
    CsrF16(Csr<f16>),
    CsrBf16(Csr<bf16>),
    BitsF32(Bits<f32>),
    BitsF16(Bits<f16>),
    BitsBf16(Bits<bf16>),
}

/// `$body` with `$rows` bound to the form.
macro_rules! each {
    ($matrix:expr, $rows:ident => $body:expr) => {
        match $matrix {
            Matrix::CsrF32($rows) => $body,
            Matrix::CsrF16($rows) => $body,
            Matrix::CsrBf16($rows) => $body,
            Matrix::BitsF32($rows) => $body,
            Matrix::BitsF16($rows) => $body,
            Matrix::BitsBf16($rows) => $body,
        }
    };
}

impl SparseLinear {
    /// From the weights, row-major `[d_out, d_in]`; the nonzero ones are kept, as `dtype`: F32, F16 or BF16, to which
    /// they are rounded. Sums are in f32 for all types.
    ///
    /// # Errors
    /// Another number of weights than the shape has, one that is not finite or beyond the type's range, another type,
    /// N:M if a row keeps more.
    pub fn new(shape: [usize; 2], weights: &[f32], packing: Packing, dtype: Dtype) -> Result<Self> {
        check(shape, weights, dtype)?;
        let matrix = match (packing, dtype) {
            (Packing::Csr, Dtype::F16) => Matrix::CsrF16(Csr::new(shape, weights)),
            (Packing::Csr, Dtype::BF16) => Matrix::CsrBf16(Csr::new(shape, weights)),
            (Packing::Csr, _) => Matrix::CsrF32(Csr::new(shape, weights)),
            (packing, Dtype::F16) => Matrix::BitsF16(bits(shape, weights, packing)?),
            (packing, Dtype::BF16) => Matrix::BitsBf16(bits(shape, weights, packing)?),
            (packing, _) => Matrix::BitsF32(bits(shape, weights, packing)?),
        };
        Ok(Self {
            shape,
            packing,
            matrix: Arc::new(matrix),
            bias: None,
            level: SimdLevel::best(),
            #[cfg(feature = "kernels")]
            placed: None,
        })
    }

    /// From a Burn layer with its mask applied.
    ///
    /// # Errors
    /// As [`SparseLinear::new`].
    pub fn of(layer: &Linear, packing: Packing, dtype: Dtype) -> Result<Self> {
        let weight = layer.weight.val();
        let [d_in, d_out] = weight.dims();
        let weights = transposed(&numbers(weight.into_data())?, d_in, d_out);
        let sparse = Self::new([d_out, d_in], &weights, packing, dtype)?;
        match &layer.bias {
            Some(bias) => sparse.with_bias(numbers(bias.val().into_data())?),
            None => Ok(sparse),
        }
    }

    /// Adds a bias to every output.
    ///
    /// # Errors
    /// A bias of another length than the outputs.
    pub fn with_bias(self, bias: Vec<f32>) -> Result<Self> {
        if bias.len() != self.shape[0] {
            return Err(Error::Argument(format!("{} biases for {} outputs", bias.len(), self.shape[0])));
        }
        let biased = Self { bias: Some(bias.into()), ..self };
        #[cfg(feature = "kernels")]
        if let Some(device) = biased.placed.as_ref().map(|placed| placed.device()) {
            return Ok(biased.on(&device));
        }
        Ok(biased)
    }

    /// With these instructions instead of the fastest.
    pub fn with_level(self, level: SimdLevel) -> Self {
        Self { level, ..self }
    }

    /// Copied to `device` if a kernel there can multiply it: the device [has kernels](regrow_device::has_kernels), and
    /// the matrix is a bitmask or N:M of no more than half a million rows.
    pub fn on(self, device: &Device) -> Self {
        #[cfg(feature = "kernels")]
        if has_kernels(device) && self.packing != Packing::Csr {
            let placed = OnDevice::new(self.shape, &self.to_dense(), self.bias.as_deref(), self.dtype(), device);
            return Self { placed: placed.map(Arc::new), ..self };
        }
        let _ = device;
        self
    }

    /// `[d_out, d_in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// How it is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The type its values are stored as.
    pub fn dtype(&self) -> Dtype {
        fn of<R: Rows>(_: &R) -> Dtype {
            R::Number::DTYPE
        }
        each!(&*self.matrix, rows => of(rows))
    }

    /// The number of values stored; in N:M some may be zero.
    pub fn kept(&self) -> usize {
        each!(&*self.matrix, rows => rows.kept())
    }

    /// Bytes of its weights: what a product with one input reads.
    pub fn bytes(&self) -> usize {
        each!(&*self.matrix, rows => rows.bytes())
    }

    /// The weights, row-major `[d_out, d_in]`, including zeros.
    pub fn to_dense(&self) -> Vec<f32> {
        let [d_out, d_in] = self.shape;
        let (mut dense, mut padded) = (Vec::with_capacity(d_out * d_in), vec![0.0; d_in.next_multiple_of(WORD)]);
        each!(&*self.matrix, rows => for row in 0..d_out {
            rows.expand(self.level, &Part { row, columns: 0..d_in, at: rows.begin(row) }, &mut padded);
            dense.extend_from_slice(&padded[..d_in]);
        });
        dense
    }

    /// The outputs, `[batch, d_out]`, of inputs `x`, `[batch, d_in]`, both row-major. An input that is not finite may
    /// turn zeros into NaN, as in a dense product, or be skipped with them.
    ///
    /// # Errors
    /// Lengths that do not match one batch.
    pub fn multiply(&self, x: &[f32], out: &mut [f32]) -> Result<()> {
        let [d_out, d_in] = self.shape;
        let batch = x.len().checked_div(d_in).unwrap_or(out.len() / d_out.max(1));
        if x.len() != batch * d_in || out.len() != batch * d_out {
            let (x, out) = (x.len(), out.len());
            return Err(Error::Argument(format!("{x} inputs and {out} outputs for a layer from {d_in} to {d_out}")));
        }
        each!(&*self.matrix, rows => multiply(rows, self.shape, self.level, x, out));
        if let Some(bias) = &self.bias {
            for out in out.chunks_mut(d_out.max(1)) {
                out.iter_mut().zip(bias.iter()).for_each(|(out, bias)| *out += bias);
            }
        }
        Ok(())
    }

    /// The outputs `[.., d_out]` of `x`, `[.., d_in]`, of f32, on its device. If that is neither the CPU nor the device
    /// the layer was [put](SparseLinear::on), data is copied there and back: [`compress`](crate::compress) will not
    /// choose that.
    ///
    /// # Panics
    /// If the last dimension is not `d_in`, as Burn's layers do.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (device, mut shape) = (x.device(), x.dims());
        let [d_out, d_in] = self.shape;
        assert_eq!(shape[D - 1], d_in, "the input's last dimension is not the layer's");
        shape[D - 1] = d_out;
        #[cfg(feature = "kernels")]
        if let Some(placed) = self.placed.as_ref().filter(|placed| placed.device() == device) {
            let batch = shape[..D - 1].iter().product();
            return placed.forward(x.cast(burn::tensor::DType::F32).reshape([batch, d_in])).reshape(shape);
        }
        let x = x.into_data().convert::<f32>();
        let mut out = vec![0.0; shape.iter().product()];
        let multiplied = x.as_slice::<f32>().map(|x| self.multiply(x, &mut out));
        assert!(matches!(multiplied, Ok(Ok(()))), "inputs of f32 and outputs have the layer's shapes");
        Tensor::from_data(TensorData::new(out, shape), &device)
    }
}

impl fmt::Debug for SparseLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d_out, d_in] = self.shape;
        write!(f, "SparseLinear({d_out}x{d_in}, {}, {}, {} kept)", self.packing, self.dtype(), self.kept())
    }
}

fn bits<N: Number>(shape: [usize; 2], weights: &[f32], packing: Packing) -> Result<Bits<N>> {
    match packing {
        Packing::NofM { n, m } => Bits::n_of_m(shape, weights, n, m),
        Packing::Csr | Packing::Bitmask => Ok(Bits::new(shape, weights)),
    }
}

fn check([rows, cols]: [usize; 2], weights: &[f32], dtype: Dtype) -> Result<()> {
    if weights.len() != rows * cols {
        return Err(Error::Argument(format!("{} weights for a matrix of {rows}x{cols}", weights.len())));
    }
    let largest = match dtype {
        Dtype::F32 => f32::MAX,
        Dtype::F16 => f16::MAX.to_f32(),
        Dtype::BF16 => bf16::MAX.to_f32(),
        other => return Err(Error::Argument(format!("weights cannot be {other} here: use F32, F16, BF16"))),
    };
    // NaN fails the comparison too.
    match weights.iter().position(|w| !matches!(w.abs().partial_cmp(&largest), Some(o) if o.is_le())) {
        None => Ok(()),
        Some(at) => {
            let (row, col, value) = (at / cols, at % cols, weights[at]);
            Err(Error::Argument(format!(
                "the weight in row {row}, column {col} is {value}, which {dtype} does not hold"
            )))
        }
    }
}

/// The values of a parameter.
pub(super) fn numbers(data: TensorData) -> Result<Vec<f32>> {
    data.try_into_vec_as::<f32>().map_err(|e| Error::Argument(format!("weights cannot be read: {e:?}")))
}
