//! Pages against a model: random entries come, change and go, and pages are cut and joined.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LEN: usize = 4064;

type Model = BTreeMap<Vec<u8>, OwnedValue>;

fn page(level: u8, low: &[u8], high: Option<&[u8]>, entries: &[(Vec<u8>, Value<'_>)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, value)| (Key(b"", key), *value)).collect();
    built(&Plan { level, next: Some(PageId(9)), low, high, entries })
}

fn built(plan: &Plan<'_>) -> Vec<u8> {
    let bytes = plan.bytes().unwrap();
    let (mut page, heap) = plan.build(LEN).unwrap();
    assert_eq!(bytes, page.len() + heap.len());
    page.resize(LEN - heap.len(), 0);
    page.extend(heap);
    page
}

fn contents(bytes: &[u8]) -> Model {
    let node = Node::new(bytes).unwrap();
    (0..node.count()).map(|at| (node.key(at).unwrap(), node.cell(at).unwrap().value.to_owned())).collect()
}

/// The bytes that no entry takes are those that `room` says, and all of them can be had.
fn check(bytes: &[u8], model: &Model) {
    let node = Node::new(bytes).unwrap();
    assert_eq!(contents(bytes), *model);
    let cells: usize = (0..node.count()).map(|at| SLOT + node.cell(at).unwrap().bytes()).sum();
    assert_eq!(node.room(), LEN - node.slot(0) - cells);
    assert!(bytes[node.slot(node.count())..node.heap].iter().all(|&byte| byte == 0), "zeros lie between");
    for (at, key) in model.keys().enumerate() {
        assert_eq!(node.search(key).unwrap(), Ok(at));
    }
}

fn step() -> impl Strategy<Value = (u8, u16, usize, bool)> {
    (0u8..10, 0u16..60, prop_oneof![0usize..40, 0usize..900], any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_come_change_and_go(steps in prop::collection::vec(step(), 1..200), is_bounded in any::<bool>()) {
        let high = is_bounded.then_some(&b"key:8"[..]);
        let mut bytes = page(0, b"key:0", high, &[]);
        let mut model = Model::new();
        for (what, key, len, is_long) in steps {
            let key = format!("key:{key:02}").into_bytes();
            let value = OwnedValue { bytes: vec![what; len], is_long };
            let node = Node::new(&bytes).unwrap();
            prop_assert_eq!(node.prefix(), if is_bounded { &b"key:"[..] } else { &b""[..] });
            let rest = key[node.prefix().len()..].to_vec();
            let room = node.room();
            match node.search(&key).unwrap() {
                Ok(at) if what < 4 => {
                    remove(&mut bytes, at).unwrap();
                    model.remove(&key);
                }
                Ok(at) => {
                    let before = bytes.clone();
                    let fits = room + model[&key].bytes.len() >= len;
                    let done = replace(&mut bytes, at, value.borrow());
                    prop_assert_eq!(done.is_ok(), fits);
                    if fits { _ = model.insert(key, value) } else { prop_assert_eq!(&before, &bytes) }
                }
                Err(at) => {
                    let fits = room >= entry_bytes(rest.len(), len);
                    prop_assert_eq!(insert(&mut bytes, at, &rest, value.borrow()).is_ok(), fits);
                    if fits { _ = model.insert(key, value) }
                }
            }
            check(&bytes, &model);
        }
        // Cut in two, and joined again.
        let node = Node::new(&bytes).unwrap();
        let keep = node.count() / 2;
        if keep > 0 {
            let separator = node.key(keep).unwrap();
            let part = |from, to, low, high| {
                built(&Plan::of(&[Source { node, from, to }], 0, None, low, high).unwrap())
            };
            let (left, right) = (part(0, keep, node.low(), Some(&separator)), part(keep, node.count(), &separator, node.high()));
            let all: Model = contents(&left).into_iter().chain(contents(&right)).collect();
            prop_assert_eq!(&all, &model);
            let (left, right) = (Node::new(&left).unwrap(), Node::new(&right).unwrap());
            let both = [left, right].map(|node| Source { node, from: 0, to: node.count() });
            let plan = Plan::of(&both, 0, None, left.low(), right.high()).unwrap();
            check(&built(&plan), &model);
        }
    }

    /// Whatever the bytes are, reading and changing them gives an answer.
    #[test]
    fn damaged_pages_are_faults(flips in prop::collection::vec((0usize..400, any::<u8>()), 1..8), at in 0usize..6) {
        let value = Value { bytes: &[7; 30], is_long: false };
        let entries: Vec<_> = (0..5).map(|i| (format!("key:{i}").into_bytes(), value)).collect();
        let mut bytes = page(0, b"key:", Some(b"key:9"), &entries);
        let places = bytes.len();
        for (place, byte) in flips {
            bytes[if place < 200 { place % 60 } else { places - 1 - place % 200 }] = byte;
        }
        if let Ok(node) = Node::new(&bytes) {
            let _ = (node.room(), node.next(), node.level(), node.search(b"key:3"), node.key(at), node.child(at));
            let _ = (node.way(Seek::Key(b"key:3")), node.way(Seek::Before(b"key:3")), node.way(Seek::Last));
            let _ = Plan::of(&[Source { node, from: 0, to: node.count() }], 0, None, b"", None).map(|plan| plan.build(LEN));
        }
        let _ = replace(&mut bytes.clone(), at, Value { bytes: &[1; 200], is_long: false });
        let _ = remove(&mut bytes.clone(), at);
        let _ = insert(&mut bytes, at, b"3a", Value { bytes: &[2; 900], is_long: false });
    }
}

#[test]
fn a_search_goes_down_to_the_child_that_has_the_keys() {
    let children: Vec<[u8; 8]> = (10..14u64).map(u64::to_le_bytes).collect();
    let keys: [&[u8]; 4] = [b"a", b"f", b"m", b"t"];
    let entries = keys.iter().zip(&children).map(|(key, child)| (key.to_vec(), Value { bytes: child, is_long: false }));
    let bytes = page(1, b"a", None, &entries.collect::<Vec<_>>());
    let node = Node::new(&bytes).unwrap();
    let way = |seek| node.child(node.way(seek).unwrap()).unwrap().0;
    let by_key = [("a", 10), ("e", 10), ("f", 11), ("l", 11), ("m", 12), ("z", 13)];
    by_key.iter().for_each(|(key, child)| assert_eq!(way(Seek::Key(key.as_bytes())), *child, "{key}"));
    let before = [("b", 10), ("f", 10), ("g", 11), ("m", 11), ("t", 12), ("z", 13)];
    before.iter().for_each(|(key, child)| assert_eq!(way(Seek::Before(key.as_bytes())), *child, "before {key}"));
    assert_eq!(way(Seek::Last), 13);
    assert_eq!(node.key(0).unwrap(), b"a");
}
