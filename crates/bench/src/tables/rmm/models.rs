//! Low-rank fine-tuned models: by LoRA, or truncated after training.

use burn::module::{Lora, Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use regrow_merging::LowRank;
use regrow_sparse_core::model::weight::transposed;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::{Net, drawn};

use super::RmmTable;
use crate::harness::tasks::Family;

/// `alpha / r` of LoRA.
const SCALE: f64 = 2.0;

/// The differences of a task's model, matrix by matrix.
pub type Child = Vec<LowRank>;

/// A fine-tuned model for each task, trained by LoRA of this rank.
pub fn by_lora(family: &Family<'_>, plan: &RmmTable, rank: usize, seed: u64) -> Result<Vec<Child>> {
    let one = |task: usize| {
        let seed = mix(seed, (1000 * rank + task) as u64);
        // The spread of PEFT's initialization, for the inputs of the first matrix.
        let spread = 1.0 / (3.0 * family.shapes[0][1] as f64).sqrt();
        let lora = Lora { init_std: Some(spread), ..Lora::new(rank, SCALE * rank as f64) };
        let adapted = drawn(seed, family.trainer.device, || family.parent.clone().apply_lora(lora));
        let net = family.learn(adapted, task, plan.models.plan.tune, plan.lora_rate, seed)?;
        factors(&net, rank, &family.shapes)
    };
    (0..family.tasks.len()).map(one).collect()
}

/// The differences of a fine-tuned model for each task, with all matrices trained.
pub fn whole(family: &Family<'_>, plan: &RmmTable, seed: u64) -> Result<Vec<Vec<Vec<f32>>>> {
    let one = |task: usize| {
        let net = family.learn(family.trainable(), task, plan.models.plan.tune, plan.rate, mix(seed, 1))?;
        Ok(family.differences(&net))
    };
    (0..family.tasks.len()).map(one).collect()
}

/// The same truncated to a rank.
pub fn by_svd(family: &Family<'_>, whole: &[Vec<Vec<f32>>], rank: usize) -> Result<Vec<Child>> {
    let matrix = |(values, shape): (&Vec<f32>, &Vec<usize>)| LowRank::approximate(values, [shape[0], shape[1]], rank);
    whole.iter().map(|child| child.iter().zip(&family.shapes).map(matrix).collect()).collect()
}

/// The factors that LoRA has left in `net`, in PyTorch's orientation.
fn factors(net: &Net, rank: usize, shapes: &[Vec<usize>]) -> Result<Child> {
    let mut found = Found::default();
    net.visit(&mut found);
    if found.a.len() != shapes.len() || found.b.len() != shapes.len() {
        return Err(Error::Argument(format!("{} matrices, {} adapters", shapes.len(), found.a.len())));
    }
    let one = |((a, b), shape): ((Vec<f32>, Vec<f32>), &Vec<usize>)| {
        let (output, input) = (shape[0], shape[1]);
        // Burn's weight is [in, out] and grows by scale * a b.
        let left = transposed(&b, rank, output).into_iter().map(|v| (SCALE * f64::from(v)) as f32).collect();
        LowRank::new(left, transposed(&a, input, rank), [output, rank, input])
    };
    found.a.into_iter().zip(found.b).zip(shapes).map(one).collect()
}

/// The factors of a traversal.
#[derive(Default)]
struct Found {
    path: Vec<String>,
    a: Vec<Vec<f32>>,
    b: Vec<Vec<f32>>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let inside = self.path.iter().any(|name| name == "lora");
        let values = || param.val().into_data().convert::<f32>().iter::<f32>().collect();
        match self.path.last().map(String::as_str) {
            Some("a") if inside => self.a.push(values()),
            Some("b") if inside => self.b.push(values()),
            _ => {}
        }
    }
}
