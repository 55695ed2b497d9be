//! The tables, without a disk: each row on its own, all of what can be found against the document's
//! rules, and the document's verdicts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::Lsn;
use crate::format::Promise;
use crate::recovery::evidence::{DamagedSeal, Unusable};

const DOCUMENT: &str = include_str!("../../../docs/FORMAT.md");

/// X of what these tests make up, and the epoch of the chain's newest segment.
const AT: Position = Position { epoch: 7, block: 5 };
const TIP: u64 = AT.epoch;
const NEXT: Lsn = Lsn(40);

fn sound() -> Evidence {
    Evidence { at: AT, tip: TIP, next_lsn: NEXT, ..Evidence::of_nothing_wrong("dir".into()) }
}

fn with(set: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = sound();
    set(&mut evidence);
    evidence
}

/// As it is found when a file is opened.
fn found(kind: DamageKind, epoch: u64) -> Damage {
    let path = PathBuf::from("dir").join(segment_name(epoch));
    Damage { kind, path, offset: 4, first_lsn: Lsn::FIRST, last_lsn: None, proven: true, evidence: "as found".into() }
}

fn unusable(kind: DamageKind, behind_tip: bool) -> Option<Unusable> {
    Some(Unusable { damage: found(kind, if behind_tip { TIP + 1 } else { 2 }), behind_tip })
}

const PROMISE: Promise = Promise { position: Position { epoch: TIP, block: AT.block + 4 }, lsn: Lsn(43) };

/// A row of the document, what it tells of, and the file and byte that are to be named, if it is
/// damage.
type Sample = (u8, Evidence, Option<(u64, u64)>);

fn rows() -> Vec<Sample> {
    const BLOCK: u64 = 4096;
    let x = Some((TIP, u64::from(AT.block) * BLOCK));
    let log = Some((0, 0));
    vec![
        (1, with(|e| e.last = Last::Closed), None),
        (2, sound(), None),
        (3, with(|e| e.place = Place::Torn), None),
        (4, with(|e| e.written = true), None),
        (5, with(|e| e.last = Last::InUnit), None),
        (6, with(|e| e.promise = PROMISE), x),
        (6, with(|e| (e.promise, e.place) = (PROMISE, Place::Torn)), x),
        (6, with(|e| (e.promise, e.next_link) = (PROMISE, (TIP + 1, LinkFound::Absent))), Some((TIP + 1, BLOCK))),
        (6, with(|e| (e.tip, e.first_link) = (0, (1, LinkFound::Absent))), Some((1, BLOCK))),
        (7, with(|e| (e.promise, e.place) = (PROMISE, Place::Damaged("why"))), x),
        (7, with(|e| (e.promise, e.next_link) = (PROMISE, (TIP + 2, LinkFound::Broken("why")))), Some((TIP + 2, BLOCK))),
        (7, with(|e| (e.tip, e.first_link) = (0, (1, LinkFound::Broken("why")))), Some((1, BLOCK))),
        (8, with(|e| e.place = Place::Damaged("why")), x),
        (8, with(|e| e.next_link = (TIP + 1, LinkFound::Broken("why"))), Some((TIP + 1, BLOCK))),
        (8, with(|e| (e.last, e.next_link) = (Last::Closed, (TIP + 1, LinkFound::Broken("why")))), Some((TIP + 1, BLOCK))),
        (9, with(|e| e.unusable = unusable(DamageKind::Header, true)), Some((TIP + 1, 4))),
        (10, with(|e| e.front = Front::Lost { epoch: 3, last: Lsn(20) }), Some((3, 0))),
        (11, with(|e| e.front = Front::Lost { epoch: 1, last: Lsn(20) }), Some((1, 0))),
        (12, with(|e| e.gone = Some(TIP + 1)), Some((TIP + 1, 0))),
        (13, with(|e| e.no_segment = true), log),
        (14, with(|e| e.unusable = unusable(DamageKind::Foreign, true)), Some((TIP + 1, 4))),
        (15, with(|e| e.unusable = unusable(DamageKind::Misplaced, true)), Some((TIP + 1, 4))),
        // An older copy of a segment ends before its successor's LINK, which a promise covers.
        (16, with(|e| (e.tip, e.promise) = (TIP + 1, PROMISE)), x),
        (17, with(|e| e.length = Some(found(DamageKind::Size, TIP))), Some((TIP, 4))),
        (17, with(|e| e.unusable = unusable(DamageKind::Size, true)), Some((TIP + 1, 4))),
        // Garbled sectors are counted, and no part of what is judged: they are not written ones.
        (18, sound(), None),
        (19, with(|e| e.next_link = (TIP + 1, LinkFound::Absent)), None),
        (20, with(|e| e.seal = Some(DamagedSeal { at: Position::new(TIP, 15), inner: false })), Some((TIP, 15 * BLOCK))),
        (
            20,
            with(|e| (e.seal, e.written) = (Some(DamagedSeal { at: Position::new(TIP, 15), inner: true }), true)),
            Some((TIP, 15 * BLOCK)),
        ),
        (21, with(|e| e.identity = Some("why")), log),
        (22, with(|e| e.place = Place::Structure("why")), x),
        (22, with(|e| e.front = Front::Late { epoch: 2, last: Lsn(20) }), Some((2, BLOCK))),
        (22, with(|e| e.unusable = unusable(DamageKind::Structure, true)), Some((TIP + 1, 4))),
    ]
}

/// The row as which one is judged that is not told from others.
fn judged_as(row: u8) -> Vec<u8> {
    match row {
        11 => vec![10],
        16 => vec![6],
        18 | 19 => vec![2, 3, 4, 5],
        row => vec![row],
    }
}

#[test]
fn each_row_is_claimed_and_names_its_place() {
    let mut seen = BTreeSet::new();
    for (row, evidence, place) in rows() {
        seen.insert(row);
        let judged = evidence.judge().0;
        assert!(judged_as(row).contains(&(judged as u8)), "row {row}: {judged:?}");
        let (Verdict::Corruption(damage), Some((epoch, offset))) = (evidence.verdict(), place) else {
            assert_eq!(place, None, "row {row}");
            continue;
        };
        let name = if epoch == 0 { IDENTITY.to_owned() } else { segment_name(epoch) };
        assert_eq!((damage.path.clone(), damage.offset), (PathBuf::from("dir").join(name), offset), "row {row}");
        assert_eq!(damage.row(), judged as u8, "row {row}");
        assert_eq!(damage.first_lsn, NEXT, "row {row}");
        let last = match evidence.front {
            Front::Lost { last, .. } | Front::Late { last, .. } => Some(last),
            Front::Sound => evidence.is_promised().then_some(PROMISE.lsn),
        };
        assert_eq!(damage.last_lsn, last, "row {row}");
        assert!(!damage.evidence.is_empty(), "row {row}");
    }
    assert_eq!(seen, (1..=22).collect());
}

/// The rows of the document's table: number, what is found, verdict.
fn document() -> Vec<(u8, &'static str, &'static str)> {
    let lines = DOCUMENT.lines().skip_while(|line| !line.starts_with("| # | case |")).skip(2);
    let row = |line: &'static str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells[1].parse().unwrap(), cells[3], cells[4])
    };
    lines.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn the_document_has_these_rows_and_verdicts() {
    let document = document();
    assert_eq!(document.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=22).collect::<Vec<_>>());
    for (row, evidence, _) in rows() {
        let (_, found, text) = document[usize::from(row) - 1];
        match row {
            11 => assert_eq!(found, "the same"),
            16 => assert!(found.ends_with("row 6"), "{found}"),
            18 | 19 => assert!(text.starts_with("as rows 2 to "), "{text}"),
            _ => {}
        }
        let says = |words: &str| text.contains(words);
        let fits = match evidence.verdict() {
            Verdict::Created => false,
            Verdict::Clean => says("clean"),
            Verdict::Unclosed => says("unclosed") || says("as rows 2 to"),
            Verdict::TornTail => says("torn tail"),
            Verdict::Corruption(Damage { kind: DamageKind::Seal, proven, .. }) => {
                says(if proven { "proven for an inner segment" } else { "possible for the newest" })
            }
            Verdict::Corruption(damage) => says(if damage.proven { "corruption, proven" } else { "corruption, possible" }),
        };
        assert!(fits, "row {row}: {text}, but {:?}", evidence.verdict());
    }
}

type Found = fn(&Evidence) -> bool;

/// The document's column "what is found", in the order in which it says that rows are judged: the
/// first that fits is the verdict.
const FOUND: &[(u8, Found)] = &[
    (13, |e| e.no_segment),
    (9, |e| is_unusable(e, DamageKind::Header, true)),
    (14, |e| is_unusable(e, DamageKind::Foreign, true)),
    (15, |e| is_unusable(e, DamageKind::Misplaced, true)),
    (17, |e| is_unusable(e, DamageKind::Size, true)),
    (22, |e| is_unusable(e, DamageKind::Structure, true)),
    (10, |e| matches!(e.front, Front::Lost { .. })),
    (22, |e| matches!(e.front, Front::Late { .. })),
    (9, |e| is_unusable(e, DamageKind::Header, false)),
    (14, |e| is_unusable(e, DamageKind::Foreign, false)),
    (15, |e| is_unusable(e, DamageKind::Misplaced, false)),
    (17, |e| is_unusable(e, DamageKind::Size, false)),
    (22, |e| is_unusable(e, DamageKind::Structure, false)),
    (6, |e| e.first_link.1 == LinkFound::Absent),
    (7, |e| matches!(e.first_link.1, LinkFound::Broken(_))),
    (12, |e| e.gone.is_some()),
    (21, |e| e.identity.is_some()),
    (17, |e| e.length.is_some() && (e.at.epoch == e.tip || matches!(e.place, Place::Damaged(_)))),
    (22, |e| matches!(x(e), Place::Structure(_))),
    (6, |e| matches!(x(e), Place::Unwritten | Place::Torn) && e.promise.position > e.at),
    (7, |e| matches!(x(e), Place::Damaged(_)) && e.promise.position > e.at),
    (8, |e| matches!(x(e), Place::Damaged(_))),
    (20, |e| x(e) == Place::Unwritten && e.seal.is_some()),
    (4, |e| e.written),
    (3, |e| x(e) == Place::Torn),
    (5, |e| e.last == Last::InUnit),
    (1, |e| is_closed(e)),
    (2, |_| true),
];

fn is_unusable(e: &Evidence, kind: DamageKind, behind_tip: bool) -> bool {
    e.unusable.as_ref().is_some_and(|file| (file.damage.kind, file.behind_tip) == (kind, behind_tip))
}

/// A segment whose LINK a waiver gave up is not closed.
fn is_closed(e: &Evidence) -> bool {
    e.last == Last::Closed && !e.link_given_up
}

/// What is at X, which is the LINK behind the tip if the log had left that and there is anything
/// against the LINK.
fn x(e: &Evidence) -> Place {
    let promised = e.promise.position > e.at;
    match (e.place, e.next_link.1) {
        (Place::Unwritten | Place::Torn, LinkFound::Broken(why)) => Place::Damaged(why),
        (Place::Unwritten | Place::Torn, LinkFound::Absent) if promised => Place::Unwritten,
        (place, _) => place,
    }
}

/// What cannot be found, and why. The table has lines for it all the same.
const NEVER: &[(&str, Found)] = &[
    ("without segments, there is nothing wrong with one", |e| {
        let sound = (Front::Sound, LinkFound::Sound, false, false);
        let found = (e.front, e.first_link.1, e.unusable.is_some(), e.gone.is_some());
        e.no_segment && found != sound
    }),
    ("where there is no chain, every file is behind it", |e| {
        e.first_link.1 != LinkFound::Sound && e.unusable.as_ref().is_some_and(|file| !file.behind_tip)
    }),
    (
        "a segment that is newer than that of a seal has a LINK, which is written behind X; only the fast path does not look",
        |e| e.seal.is_some_and(|seal| seal.inner) && !e.written && e.last != Last::Closed,
    ),
    (
        "the seal of X's segment is sound if it says that the log had left it: a damaged one is of a newer segment, with a LINK behind X",
        |e| e.next_link.1 != LinkFound::Sound && e.seal.is_some() && !e.written,
    ),
];

/// All of these, each with all of the values.
fn vary<T: Clone>(all: &[Evidence], values: &[T], set: fn(&mut Evidence, T)) -> Vec<Evidence> {
    let with = |evidence: &Evidence, value: &T| {
        let mut evidence = evidence.clone();
        set(&mut evidence, value.clone());
        evidence
    };
    all.iter().flat_map(|evidence| values.iter().map(move |value| with(evidence, value))).collect()
}

const ANY: &[bool] = &[false, true];
const LINKS: &[LinkFound] = &[LinkFound::Sound, LinkFound::Absent, LinkFound::Broken("why")];

fn all_of_files(all: Vec<Evidence>) -> Vec<Evidence> {
    let kinds = [DamageKind::Header, DamageKind::Foreign, DamageKind::Misplaced, DamageKind::Size, DamageKind::Structure];
    let files = kinds.iter().flat_map(|&kind| [unusable(kind, true), unusable(kind, false)]).chain([None]);
    let last = Lsn(20);
    let all = vary(&all, ANY, |e, none| e.no_segment = none);
    let all = vary(&all, &files.collect::<Vec<_>>(), |e, file| e.unusable = file);
    let fronts = [Front::Sound, Front::Lost { epoch: 1, last }, Front::Late { epoch: 2, last }];
    let all = vary(&all, &fronts, |e, front| e.front = front);
    let all = vary(&all, LINKS, |e, link| e.first_link = (1, link));
    let all = vary(&all, ANY, |e, gone| e.gone = gone.then_some(TIP + 1));
    vary(&all, ANY, |e, damaged| e.identity = damaged.then_some("why"))
}

fn all_of_x() -> Vec<Evidence> {
    let places = [Place::Unwritten, Place::Torn, Place::Damaged("why"), Place::Structure("why")];
    let all = vary(&[sound()], &places, |e, place| e.place = place);
    let all = vary(&all, &[TIP, TIP + 1], |e, tip| e.tip = tip);
    let all = vary(&all, ANY, |e, wrong| e.length = wrong.then(|| found(DamageKind::Size, TIP)));
    let all = vary(&all, &[Promise::default(), PROMISE], |e, promise| e.promise = promise);
    let all = vary(&all, ANY, |e, written| e.written = written);
    let all = vary(&all, &[Last::Whole, Last::InUnit, Last::Closed], |e, last| e.last = last);
    let all = vary(&all, ANY, |e, given_up| e.link_given_up = given_up);
    let all = vary(&all, LINKS, |e, link| e.next_link = (TIP + 1, link));
    let seal = |inner| Some(DamagedSeal { at: Position::new(TIP, 15), inner });
    vary(&all, &[None, seal(false), seal(true)], |e, seal| e.seal = seal)
}

/// Exactly one line of the tables claims the evidence, and it is that of the row which the
/// document's rules give. Returns the row, unless such evidence is never found.
fn check(evidence: &Evidence) -> Option<u8> {
    let of_files = claims_on_files(evidence.file_facts());
    let of_x = claims_on_x(evidence.x_facts());
    assert_eq!((of_files.len(), of_x.len()), (1, 1), "{of_files:?} and {of_x:?} of {evidence:?}");
    let judged = evidence.judge();
    assert_eq!(judged, of_files[0].unwrap_or(of_x[0]));
    if NEVER.iter().any(|(_, never)| never(evidence)) {
        return None;
    }
    let expected = FOUND.iter().find(|(_, found)| found(evidence)).map(|&(row, _)| row);
    assert_eq!(Some(judged.0 as u8), expected, "{evidence:?}");
    expected
}

#[test]
fn one_line_claims_whatever_is_found_and_it_is_the_documents() {
    // Each row of X, with all that can be wrong with files; and all of X, with nothing wrong with
    // them.
    let of_x: Vec<_> = rows().into_iter().map(|row| row.1).filter(|e| judge_files(e.file_facts()).is_none()).collect();
    let all = [all_of_files(of_x), all_of_x()].concat();
    let rows: BTreeSet<_> = all.iter().filter_map(check).collect();
    let expected: BTreeSet<_> = (1..=22).flat_map(judged_as).collect();
    assert_eq!(rows, expected);
}

#[test]
fn what_is_never_found_is_a_part_of_what_is_tried() {
    let all = [all_of_files(vec![sound()]), all_of_x()].concat();
    for (why, never) in NEVER {
        assert!(all.iter().any(never), "{why}");
    }
}
