//! Exercise 5: `guide/exercises/e5_verdict.rs`.

use foreword_guide::e5_verdict::{Place, Verdict, judge};

use Place::{Damaged, Unwritten};

const fn frame(promise: usize) -> Place {
    Place::Frame { promise }
}

const fn torn(promise: usize) -> Place {
    Place::Torn { promise }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 5: evidence")]
fn the_rows_of_the_table() {
    let proven = |place| Verdict::Corruption { place, proven: true };
    let possible = |place| Verdict::Corruption { place, proven: false };
    for (places, expected) in [
        (&[][..], Verdict::Complete(0)),
        (&[frame(0), frame(1), frame(2)], Verdict::Complete(3)),
        (&[frame(0), frame(1), Unwritten, Unwritten], Verdict::Complete(2)),
        // A tear, a hole: nothing behind says that it was durable.
        (&[frame(0), frame(1), torn(2), Unwritten], Verdict::TornTail(2)),
        (&[frame(0), frame(1), Unwritten, frame(2)], Verdict::TornTail(2)),
        (&[frame(0), frame(0), torn(1), frame(1), torn(1)], Verdict::TornTail(2)),
        (&[frame(0), Unwritten, Damaged], Verdict::TornTail(1)),
        // The same places, and a promise beyond them.
        (&[frame(0), Unwritten, frame(2)], proven(1)),
        (&[frame(0), torn(1), frame(2)], proven(1)),
        (&[frame(0), Unwritten, Unwritten, torn(3)], proven(1)),
        (&[frame(0), Damaged, frame(2)], proven(1)),
        // No crash does that; nothing says whether it was acknowledged.
        (&[frame(0), frame(1), Damaged], possible(2)),
        (&[frame(0), Damaged, frame(1)], possible(1)),
        (&[Damaged, Unwritten], possible(0)),
    ] {
        assert_eq!(judge(places), expected, "{places:?}");
    }
}

/// The groups of a run: how many frames each has. After each group is a flush, and its
/// acknowledgement.
const RUNS: [&[usize]; 5] = [&[1, 1, 1], &[2, 1], &[1, 3], &[3, 2], &[1, 1, 1, 2]];

/// What is on the disk if the power fails in the last group of these: the durable places, and how
/// many frames are on their way.
fn before_the_failure(groups: &[usize]) -> (Vec<Place>, usize) {
    let mut places: Vec<Place> = Vec::new();
    let (last, flushed) = groups.split_last().unwrap_or((&0, &[]));
    for frames in flushed {
        places.extend(vec![frame(places.len()); *frames]);
    }
    (places, *last)
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 5: evidence")]
fn no_crash_is_taken_for_corruption_and_no_acknowledged_frame_is_cut() {
    for run in RUNS {
        for groups in 1..=run.len() {
            let (durable, unflushed) = before_the_failure(&run[..groups]);
            // Of each frame under way: nothing, some sectors, or all.
            for state in 0..3usize.pow(unflushed as u32) {
                let mut places = durable.clone();
                for i in 0..unflushed {
                    places.push(match state / 3usize.pow(i as u32) % 3 {
                        0 => Unwritten,
                        1 => torn(durable.len()),
                        _ => frame(durable.len()),
                    });
                }
                match judge(&places) {
                    Verdict::Complete(end) | Verdict::TornTail(end) => assert!(end >= durable.len(), "{places:?}"),
                    wrong => panic!("{wrong:?} of {places:?}"),
                }
            }
        }
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 5: evidence")]
fn what_a_later_flush_has_promised_cannot_go_unnoticed() {
    for run in RUNS.into_iter().filter(|run| run.len() > 1) {
        let (mut places, last) = before_the_failure(run);
        let promised = places.len();
        places.extend(vec![frame(promised); last]);
        for at in 0..promised {
            for wrong in [Unwritten, torn(0), Damaged] {
                let mut places = places.clone();
                places[at] = wrong;
                assert_eq!(judge(&places), Verdict::Corruption { place: at, proven: true }, "{places:?}");
            }
        }
    }
}
