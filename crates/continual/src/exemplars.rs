//! Exemplars chosen by herding, as in iCaRL: shared by methods that use them.

use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;

use crate::buffer::herding;
use crate::memory::Memory;
use crate::strategy::TaskContext;
use crate::stream::Example;

/// Images per batch when features are read.
const BATCH: usize = 512;

/// Features `[examples][dim]` of unit length by `model` (in validation mode), row after row, and `dim`.
pub(crate) fn features<M: Headed>(model: &M, examples: &[Example], at: &TaskContext<'_>) -> (Vec<f32>, usize) {
    let plain = at.device.clone().inner();
    let mut dim = 0;
    let rows = examples.chunks(BATCH).flat_map(|batch| {
        let features = unit(model.features(at.stream.images(batch, &plain)));
        dim = features.dims()[1];
        features.into_data().iter::<f32>().collect::<Vec<_>>()
    });
    let rows = rows.collect();
    (rows, dim)
}

/// Rows of length 1; a row of zeros stays.
pub(crate) fn unit(rows: Tensor<2>) -> Tensor<2> {
    let length = rows.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    rows / length
}

/// Ends a task: equal quotas for all classes seen, old ones reduced to their best exemplars, new ones herded by the
/// features of `model` (in validation mode).
///
/// # Errors
/// If the memory is smaller than the number of classes, or a feature is not finite.
pub(crate) fn herd<M: Headed>(memory: &mut Memory, model: &M, at: &TaskContext<'_>) -> Result<()> {
    let quota = memory.quota(at.stream.seen(at.task).end)?;
    memory.shrink(quota);
    let all = at.stream.train(at.task);
    let labels = at.stream.labels(&all);
    for class in at.stream.classes_of(at.task) {
        let of_class = all.iter().zip(&labels).filter(|(_, label)| **label == class).map(|(example, _)| *example);
        let of_class: Vec<Example> = of_class.collect();
        let (rows, dim) = features(model, &of_class, at);
        let chosen = herding(&rows, dim, quota)?;
        memory.replace(class, chosen.into_iter().map(|i| (of_class[i], Vec::new())));
    }
    Ok(())
}

/// For each class the mean of its exemplars' features, of unit length, `[classes][dim]`; zeros for a
/// class without exemplars.
pub(crate) fn means<M: Headed>(memory: &Memory, model: &M, at: &TaskContext<'_>) -> Vec<f32> {
    let classes = at.stream.classes();
    let examples: Vec<Example> = memory.kept().iter().map(|k| k.item.0).collect();
    let (rows, dim) = features(model, &examples, at);
    let mut means = vec![0.0f64; classes * dim];
    for (row, kept) in rows.chunks(dim.max(1)).zip(memory.kept()) {
        means[kept.label * dim..(kept.label + 1) * dim].iter_mut().zip(row).for_each(|(m, z)| *m += f64::from(*z));
    }
    for mean in means.chunks_mut(dim.max(1)) {
        let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(1e-12);
        mean.iter_mut().for_each(|m| *m /= length);
    }
    means.into_iter().map(|m| m as f32).collect()
}

/// Minus the squared distance of each row of `features` (of unit length) to each of `means`, up to a constant; very low
/// for a class whose mean is zero.
pub(crate) fn nearness(features: Tensor<2>, means: &[f32]) -> Tensor<2> {
    let dim = features.dims()[1];
    let classes = means.len() / dim.max(1);
    let squares: Vec<f32> = means.chunks(dim.max(1)).map(|m| m.iter().map(|v| v * v).sum()).collect();
    let away: Vec<f32> = squares.iter().map(|s| if *s > 0.0 { -s } else { -1e9 }).collect();
    let device = features.device();
    let means = Tensor::<2>::from_data(TensorData::new(means.to_vec(), [classes, dim]), &device);
    features.matmul(means.transpose()) * 2.0 + Tensor::<2>::from_data(TensorData::new(away, [1, classes]), &device)
}
