//! Which page leaves the pool: S3-FIFO (Yang et al., SOSP 2023). No I/O, no locks.
//!
//! New pages enter a small queue, and leave the pool from there unless they are used again. So a
//! scan passes through a tenth of the pool and leaves the rest alone. A page that is used again
//! moves to the main queue. A page that comes back soon after it left enters the main queue at
//! once.

use std::collections::VecDeque;

use crate::ids::PageMap;
use crate::page::PageId;

const USES_MAX: u8 = 3;

/// The frames of a shard, by number, in the order in which they may lose their page.
#[derive(Debug)]
pub(crate) struct Policy {
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    /// Uses of each frame since its page came, or since the frame was passed over.
    uses: Vec<u8>,
    /// Pages that left from the small queue, each with the number of its departure.
    ghosts: VecDeque<(PageId, u64)>,
    departed: PageMap<u64>,
    departures: u64,
}

/// A frame whose page may leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) frame: u32,
    from_small: bool,
}

impl Policy {
    pub(crate) fn new(frames: usize) -> Policy {
        Policy {
            small: VecDeque::with_capacity(frames),
            main: VecDeque::with_capacity(frames),
            uses: vec![0; frames],
            ghosts: VecDeque::with_capacity(frames),
            departed: PageMap::default(),
            departures: 0,
        }
    }

    /// Notes that a frame's page was used.
    pub(crate) fn touch(&mut self, frame: u32) {
        let uses = &mut self.uses[frame as usize];
        *uses = (*uses + 1).min(USES_MAX);
    }

    /// Notes that a page came into a frame.
    pub(crate) fn insert(&mut self, frame: u32, page: PageId) {
        self.uses[frame as usize] = 0;
        if self.departed.remove(&page).is_some() {
            self.main.push_back(frame);
        } else {
            self.small.push_back(frame);
        }
    }

    /// Takes the next frame whose page may leave out of the queues, of those that are not in use.
    /// The caller then calls [`gone`](Policy::gone) or [`keep`](Policy::keep).
    pub(crate) fn victim(&mut self, is_unused: impl Fn(u32) -> bool) -> Option<Victim> {
        let frames = self.uses.len();
        let tries = (usize::from(USES_MAX) + 1) * frames + 1;
        for attempt in 0..3 * tries {
            // If all frames of the queue whose turn it is are in use, it is the other queue's turn.
            let small_has_turn = match attempt / tries {
                0 => self.small.len() > frames / 10,
                1 => false,
                _ => true,
            } || self.main.is_empty();
            if small_has_turn && let Some(frame) = self.small.pop_front() {
                if self.uses[frame as usize] > 1 {
                    self.uses[frame as usize] = 0;
                    self.main.push_back(frame);
                } else if is_unused(frame) {
                    return Some(Victim { frame, from_small: true });
                } else {
                    self.small.push_back(frame);
                }
            } else if let Some(frame) = self.main.pop_front() {
                if self.uses[frame as usize] == 0 && is_unused(frame) {
                    return Some(Victim { frame, from_small: false });
                }
                self.uses[frame as usize] = self.uses[frame as usize].saturating_sub(1);
                self.main.push_back(frame);
            }
        }
        None
    }

    /// Puts a victim back, whose page stays: a thread uses it.
    pub(crate) fn keep(&mut self, victim: Victim) {
        self.main.push_back(victim.frame);
    }

    /// Notes that the page has left the victim.
    pub(crate) fn gone(&mut self, victim: Victim, page: PageId) {
        if !victim.from_small {
            return;
        }
        self.departures += 1;
        self.departed.insert(page, self.departures);
        self.ghosts.push_back((page, self.departures));
        if self.ghosts.len() > self.uses.len()
            && let Some((page, departure)) = self.ghosts.pop_front()
            && self.departed.get(&page) == Some(&departure)
        {
            self.departed.remove(&page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A pool without memory for pages: the policy alone.
    struct Model {
        policy: Policy,
        table: HashMap<u64, u32>,
        free: Vec<u32>,
        misses: u64,
    }

    impl Model {
        fn new(frames: usize) -> Model {
            Model { policy: Policy::new(frames), table: HashMap::new(), free: (0..frames as u32).collect(), misses: 0 }
        }

        fn get(&mut self, page: u64) {
            if let Some(&frame) = self.table.get(&page) {
                return self.policy.touch(frame);
            }
            self.misses += 1;
            let frame = self.free.pop().unwrap_or_else(|| {
                let victim = self.policy.victim(|_| true).unwrap();
                let old = *self.table.iter().find(|(_, f)| **f == victim.frame).unwrap().0;
                self.table.remove(&old);
                self.policy.gone(victim, PageId(old));
                victim.frame
            });
            self.table.insert(page, frame);
            self.policy.insert(frame, PageId(page));
        }
    }

    #[test]
    fn a_scan_does_not_drive_out_what_is_in_use() {
        let mut model = Model::new(100);
        for round in 0..10 {
            (0..80).for_each(|page| model.get(page));
            if round > 3 {
                (0..200).for_each(|i| model.get(1000 + round * 1000 + i));
            }
        }
        model.misses = 0;
        (0..80).for_each(|page| model.get(page));
        assert!(model.misses <= 2, "{} of 80 hot pages were driven out", model.misses);
    }

    #[test]
    fn frames_in_use_are_passed_over_and_none_is_lost() {
        let mut policy = Policy::new(10);
        (0..10).for_each(|f| policy.insert(f, PageId(u64::from(f) + 1)));
        assert!(policy.victim(|_| false).is_none());
        let mut seen: Vec<u32> = (0..9).map(|_| policy.victim(|f| f != 4).unwrap().frame).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert!(policy.victim(|f| f != 4).is_none());
        assert_eq!(policy.victim(|_| true).unwrap().frame, 4);
    }

    #[test]
    fn frames_in_use_in_one_queue_do_not_keep_those_of_the_other() {
        let mut policy = Policy::new(10);
        (0..10).for_each(|f| policy.insert(f, PageId(u64::from(f) + 1)));
        // The last five move to the main queue.
        (5..10).for_each(|f| (0..2).for_each(|_| policy.touch(f)));
        (0..5).for_each(|_| assert!(policy.victim(|f| f < 5).is_some()));
        (0..5).for_each(|f| policy.insert(f, PageId(20)));
        assert!(policy.victim(|f| f >= 5).is_some(), "those of the small queue are in use");
        assert!(policy.victim(|f| f < 5).is_some(), "those of the main queue are in use");
    }

    #[test]
    fn ghosts_are_bounded() {
        let mut model = Model::new(10);
        (0..10_000).for_each(|page| model.get(page));
        assert!(model.policy.ghosts.len() <= 10 && model.policy.departed.len() <= 10);
    }
}
