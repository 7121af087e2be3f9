//! Two tasks of two steps each, compared with the library mammoth on the same tensors.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use regrow_testing::assert_close;

use crate::params::ParameterVector;
use crate::prelude::*;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{LogitScope, Scenario};
use crate::testing::{Net, Toy, context, net};

#[derive(serde::Deserialize)]
struct Fixture {
    parameters: BTreeMap<String, Vec<Vec<f32>>>,
}

/// The parameters after both tasks. All four images of a task are one batch, and draws from memory take everything in
/// it, so that nothing is random.
fn trained(mut strategy: Box<dyn Strategy<Net>>, scope: LogitScope) -> Vec<Vec<f32>> {
    let (data, device) = (Toy::new(8, 4), regrow_device::current().autodiff());
    let stream = data.split(Scenario::Class, 2);
    let mut model = net(9, 6, 4, 7).train();
    for task in 0..2 {
        let at = |step: usize| {
            let context = context(&stream, scope, 16, &device);
            TaskContext { task, step, total_steps: 2, step_seed: step as u64, ..context }
        };
        let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
        model = strategy.begin_task(model, &at(0)).unwrap().train();
        let batch = stream.train(task);
        for step in 0..2 {
            let loss = strategy.losses(&model, &batch, &at(step)).unwrap().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let gradients = strategy.gradients(&model, gradients, &at(step)).unwrap();
            model = optimizer.step(0.1, model, gradients);
            model = strategy.after_step(model, &batch, &at(step)).unwrap();
        }
        model = strategy.end_task(model.valid(), &at(2)).unwrap().train();
    }
    ParameterVector::of(&model).to_host()
}

#[test]
fn two_tasks_end_where_mammoth_ends() {
    let fixture: Fixture = serde_json::from_str(include_str!("../tests/fixtures/mammoth.json")).unwrap();
    let all = LogitScope::All;
    let ewc = EwcConfig::new(40.0).with_gamma(Some(0.9)).with_fisher(FisherEstimate::Weighted);
    let si = SiConfig::new().with_c(5.0).with_xi(0.1).with_clip(Some(1.0));
    let cases: [(&str, Box<dyn Strategy<Net>>, LogitScope); 8] = [
        ("finetune", Box::new(FineTune), all),
        ("er", Box::new(ErConfig::new(16).init().unwrap()), all),
        ("derpp", Box::new(DerPpConfig::new(16).with_beta(0.7).init().unwrap()), all),
        ("ewc_on", Box::new(ewc.init().unwrap()), all),
        ("si", Box::new(si.init().unwrap()), all),
        ("lwf", Box::new(LwfConfig::new().with_alpha(0.5).init().unwrap()), LogitScope::Seen),
        ("icarl", Box::new(ICarlConfig::new(16).init().unwrap()), all),
        ("agem", Box::new(AGemConfig::new(16).init().unwrap()), all),
    ];
    assert_eq!(cases.len(), fixture.parameters.len());
    let roundoff = regrow_device::roundoff(&regrow_device::current());
    for (name, strategy, scope) in cases {
        let theirs = fixture.parameters[name].concat();
        assert_close(&trained(strategy, scope).concat(), &theirs, f64::from((4.0 * roundoff).max(2e-6)));
        // The method differs from fine-tuning.
        let plain = fixture.parameters["finetune"].concat();
        let differs = theirs.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(name == "finetune" || differs, "{name}");
    }
}
