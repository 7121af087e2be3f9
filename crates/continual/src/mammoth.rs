//! Two tasks of two steps each, beside the library mammoth on the same tensors.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use regrow_train::Moment;

use crate::ewc::Fisher;
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::{LogitScope, Scenario};
use crate::testing::{Net, Toy, net};
use crate::{AGem, DerPp, Er, Ewc, FineTune, ICarl, Lwf, Si};

#[derive(serde::Deserialize)]
struct Fixture {
    parameters: BTreeMap<String, Vec<Vec<f32>>>,
}

/// The parameters after both tasks. All four images of a task are one batch, and draws from memory take
/// all there is, so that nothing depends on chance.
fn trained(mut strategy: Box<dyn Strategy<Net>>, scope: LogitScope) -> Vec<Vec<f32>> {
    let (data, device) = (Toy::new(8, 4), regrow_device::current().autodiff());
    let stream = data.split(Scenario::Class, 2);
    let mut model = net(9, 6, 4, 7).train();
    for task in 0..2 {
        let at = |step| {
            let moment = Moment { seed: step as u64, step, total: 2 };
            Stage { stream: &stream, task, scope, batch: 16, moment, device: &device }
        };
        let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
        model = strategy.begin(model, &at(0)).unwrap().train();
        let batch = stream.train(task);
        for step in 0..2 {
            let loss = strategy.losses(&model, &batch, &at(step)).unwrap().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let gradients = strategy.gradients(&model, gradients, &at(step)).unwrap();
            model = optimizer.step(0.1, model, gradients);
            model = strategy.stepped(model, &batch, &at(step)).unwrap();
        }
        model = strategy.end(model.valid(), &at(2)).unwrap().train();
    }
    Vector::of(&model).to_host()
}

#[test]
fn two_tasks_end_where_mammoth_ends() {
    let fixture: Fixture = serde_json::from_str(include_str!("../tests/fixtures/mammoth.json")).unwrap();
    let all = LogitScope::All;
    let ewc = Ewc::online(40.0, 0.9).unwrap().with_fisher(Fisher::Weighted);
    let si = Si::new(5.0, 0.1).unwrap().with_clipping(1.0).unwrap();
    let cases: [(&str, Box<dyn Strategy<Net>>, LogitScope); 8] = [
        ("finetune", Box::new(FineTune), all),
        ("er", Box::new(Er::new(16).unwrap()), all),
        ("derpp", Box::new(DerPp::new(16, 0.5, 0.7).unwrap()), all),
        ("ewc_on", Box::new(ewc), all),
        ("si", Box::new(si), all),
        ("lwf", Box::new(Lwf::new(0.5, 2.0).unwrap()), LogitScope::Seen),
        ("icarl", Box::new(ICarl::new(16).unwrap()), all),
        ("agem", Box::new(AGem::new(16).unwrap()), all),
    ];
    assert_eq!(cases.len(), fixture.parameters.len());
    let roundoff = regrow_device::roundoff(&regrow_device::current());
    for (name, strategy, scope) in cases {
        let (ours, theirs) = (trained(strategy, scope), &fixture.parameters[name]);
        for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            assert!((a - b).abs() < (4.0 * roundoff).max(2e-6), "{name}: {a} {b}");
        }
        // The method is not fine-tuning by another name.
        let plain = fixture.parameters["finetune"].iter().flatten();
        let apart = theirs.iter().flatten().zip(plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(name == "finetune" || apart > 1e-3, "{name}: {apart}");
    }
}
