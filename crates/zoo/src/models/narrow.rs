//! Layers with only some of their channels. Their parameters are trainable leaves again.

use burn::module::{Param, RunningState};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::{Device, Int, Tensor};

/// With only the outputs that are `kept`; `None` if none is.
pub fn linear_outputs(layer: Linear, kept: &[bool]) -> Option<Linear> {
    let device = layer.weight.val().device();
    let at = indices(kept, &device)?;
    Some(Linear {
        weight: layer.weight.map(|w| w.select(1, at.clone()).detach()),
        bias: layer.bias.map(|bias| bias.map(|b| b.select(0, at).detach())),
    })
}

/// With only the inputs that are `kept`; `None` if none is.
pub fn linear_inputs(layer: Linear, kept: &[bool]) -> Option<Linear> {
    let at = indices(kept, &layer.weight.val().device())?;
    Some(Linear { weight: layer.weight.map(|w| w.select(0, at).detach()), ..layer })
}

/// With only the output channels that are `kept`; `None` if none is.
pub fn conv_outputs(layer: Conv2d, kept: &[bool]) -> Option<Conv2d> {
    let at = indices(kept, &layer.weight.val().device())?;
    let bias = layer.bias.map(|bias: Param<Tensor<1>>| bias.map(|b| b.select(0, at.clone()).detach()));
    Some(Conv2d { weight: layer.weight.map(|w| w.select(0, at).detach()), bias, ..layer })
}

/// With only the input channels that are `kept`; `None` if none is.
pub fn conv_inputs(layer: Conv2d, kept: &[bool]) -> Option<Conv2d> {
    let at = indices(kept, &layer.weight.val().device())?;
    Some(Conv2d { weight: layer.weight.map(|w| w.select(1, at).detach()), ..layer })
}

/// With only the channels that are `kept`; `None` if none is.
pub fn norm(layer: BatchNorm, kept: &[bool]) -> Option<BatchNorm> {
    let at = indices(kept, &layer.gamma.val().device())?;
    let select = |t: Tensor<1>| t.select(0, at.clone()).detach();
    // Statistics may be on the device without gradients.
    let statistic = |state: RunningState<Tensor<1>>| -> Option<_> {
        let value = state.value_sync();
        let at = indices(kept, &value.device())?;
        Some(RunningState::new(value.select(0, at)))
    };
    Some(BatchNorm {
        running_mean: statistic(layer.running_mean)?,
        running_var: statistic(layer.running_var)?,
        gamma: layer.gamma.map(select),
        beta: layer.beta.map(select),
        ..layer
    })
}

fn indices(kept: &[bool], device: &Device) -> Option<Tensor<1, Int>> {
    let at: Vec<i64> = (0..kept.len()).filter(|i| kept[*i]).map(|i| i as i64).collect();
    (!at.is_empty()).then(|| Tensor::from_data(at.as_slice(), device))
}
