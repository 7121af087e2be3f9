use super::*;
use crate::testing::Toy;

fn values(images: Tensor<4>) -> Vec<f32> {
    images.into_data().iter::<f32>().collect()
}

#[test]
fn classes_are_numbered_as_they_come_and_every_example_has_its_task() {
    let data = Toy::new(60, 6);
    let set: DataSet<'_> = (&data, &data, 6);
    for (scenario, classes, third) in
        [(Scenario::Task, 6, 4..6), (Scenario::Class, 6, 4..6), (Scenario::Domain, 2, 0..2)]
    {
        let stream = TaskStream::split_evenly(scenario, set, 3, Some(5)).unwrap();
        assert_eq!((stream.tasks(), stream.classes(), stream.classes_of(2)), (3, classes, third));
        let all: Vec<Example> = (0..3).flat_map(|t| stream.train(t)).collect();
        assert_eq!(all.len(), 60);
        assert!(all.iter().zip(stream.labels(&all)).all(|(e, l)| stream.classes_of(e.task).contains(&l)));
    }
    let order = |seed| {
        let stream = TaskStream::split_evenly(Scenario::Class, set, 3, seed).unwrap();
        values(stream.images(&stream.train(0), &regrow_device::current()))
    };
    assert_eq!(order(Some(5)), order(Some(5)));
    assert!((0..5).any(|seed| order(Some(seed)) != order(None)));
}

#[test]
fn scopes_and_candidates_by_hand() {
    let data = Toy::new(60, 6);
    let class = TaskStream::split_evenly(Scenario::Class, (&data, &data, 6), 3, None).unwrap();
    assert_eq!((class.candidates(0, 1), class.candidates(2, 1)), (0..4, 0..6));
    assert_eq!(class.in_scope(LogitScope::Task, 0, 1), 0..2);
    assert_eq!(class.in_scope(LogitScope::Seen, 0, 1), 0..4);
    assert_eq!(class.in_scope(LogitScope::All, 0, 1), 0..6);
    let task = TaskStream::split_evenly(Scenario::Task, (&data, &data, 6), 3, None).unwrap();
    assert_eq!(task.candidates(1, 2), 2..4);
    let domain = TaskStream::split_evenly(Scenario::Domain, (&data, &data, 6), 3, None).unwrap();
    assert_eq!((domain.candidates(1, 2), domain.in_scope(LogitScope::Seen, 0, 2)), (0..2, 0..2));
}

#[test]
fn transforms_keep_or_move_pixels_by_rule() {
    let data = Toy::new(6, 2);
    let set: DataSet<'_> = (&data, &data, 2);
    let device = regrow_device::current();
    let plain = data.images(&[0], &device);
    let stream = TaskStream::permuted(Scenario::Domain, set, 3, 1, true).unwrap();
    let show = |task| values(stream.images(&[Example { task, index: 0 }], &device));
    assert_eq!(show(0), values(plain.clone()));
    let mut sorted = [show(1), values(plain.clone())];
    assert_ne!(sorted[0], sorted[1]);
    sorted.iter_mut().for_each(|v| v.sort_by(f32::total_cmp));
    assert_eq!(sorted[0], sorted[1]);
    assert_ne!(show(1), show(2));
    // A quarter turn: the last column, top to bottom, becomes the first row.
    let turned = TaskStream::rotated(Scenario::Domain, set, &[0.0, 90.0]).unwrap();
    let show = |task| values(turned.images(&[Example { task, index: 0 }], &device));
    let before = values(plain);
    assert_eq!(show(0), before);
    let side = before.len().isqrt();
    let want: Vec<f32> = (0..side * side).map(|i| before[(i % side) * side + side - 1 - i / side]).collect();
    assert_eq!(show(1), want);
}

#[test]
fn images_of_several_tasks_keep_their_order() {
    let data = Toy::new(12, 2);
    let stream = TaskStream::permuted(Scenario::Domain, (&data, &data, 2), 2, 1, false).unwrap();
    let device = regrow_device::current();
    let mixed: Vec<Example> = [(1, 3), (0, 3), (1, 0), (0, 7)].map(|(task, index)| Example { task, index }).into();
    let one_by_one: Vec<f32> = mixed.iter().flat_map(|e| values(stream.images(&[*e], &device))).collect();
    assert_eq!(values(stream.images(&mixed, &device)), one_by_one);
}

#[test]
fn what_makes_no_stream_is_named() {
    let data = Toy::new(60, 6);
    let set: DataSet<'_> = (&data, &data, 6);
    let says = |stream: Result<TaskStream<'_>>| stream.err().expect("an error").to_string();
    let groups = [vec![0, 1], vec![1, 2]];
    assert!(says(TaskStream::split(Scenario::Class, set, &groups)).contains("class 1 is in two tasks"));
    assert!(TaskStream::split(Scenario::Domain, set, &groups).is_ok());
    assert!(says(TaskStream::split(Scenario::Task, set, &[vec![0], vec![9]])).contains("task 1 has no training"));
    assert!(says(TaskStream::split_evenly(Scenario::Task, set, 4, None)).contains("do not divide into 4 tasks"));
    assert!(says(TaskStream::split(Scenario::Task, set, &[])).contains("at least one task"));
    assert!(says(TaskStream::split(Scenario::Domain, set, &[vec![0], vec![1, 2]])).contains("same labels"));
    assert!(says(TaskStream::rotated(Scenario::Task, set, &[f64::NAN])).contains("no angle"));
    let empty = Toy::new(0, 6);
    assert!(says(TaskStream::permuted(Scenario::Domain, (&empty, &empty, 6), 2, 0, true)).contains("no examples"));
    let other = Toy::new(6, 2).with_side(5);
    assert!(says(TaskStream::sets(Scenario::Task, &[set, (&other, &other, 2)])).contains("one size"));
    assert!(says(Scenario::parse("life").map(|_| unreachable!())).contains("use task, class, domain"));
}
