//! The state machine: what the entries make of the log. **No I/O**, no clock, no chance: the same
//! entries make the same state on every node.

use std::collections::{BTreeMap, VecDeque};

use openraft::EntryPayload;

use crate::raft::{Checkpoint, Entry, Item, Outcome, Session};

/// So many answers of a session are kept: how many of its calls may be under way at once.
pub(crate) const ANSWERS: usize = 64;

/// The state of the log. Records are not in it: they are read from the entries, and this says
/// where.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The first record that is kept.
    pub(crate) front: u64,
    /// The index that the next record gets.
    pub(crate) next: u64,
    /// The first record that this node can have: those before it are in no entry that it applied,
    /// or was sent.
    base: u64,
    sessions: BTreeMap<u64, Session>,
    pub(crate) places: Places,
}

impl Machine {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Machine {
        Machine {
            front: checkpoint.front.max(1),
            next: checkpoint.next.max(1),
            base: checkpoint.next.max(1),
            sessions: checkpoint.sessions.iter().cloned().collect(),
            places: Places::default(),
        }
    }

    /// Fills in what a checkpoint holds of this.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.front = self.front;
        checkpoint.next = self.next;
        bug!(ForgetSessions, return);
        checkpoint.sessions = self.sessions.iter().map(|(id, session)| (*id, session.clone())).collect();
    }

    /// The first record that this node can read.
    pub(crate) fn first(&self) -> u64 {
        self.front.max(self.base)
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What an entry changes, and what became of its items.
    pub(crate) fn apply(&mut self, index: u64, entry: &Entry) -> Vec<Outcome> {
        let EntryPayload::Normal(proposal) = &entry.payload else { return Vec::new() };
        let first = self.next;
        let mut without = Vec::new();
        let mut outcomes = Vec::with_capacity(proposal.items.len());
        for (n, item) in (0..).zip(&proposal.items) {
            let before = self.next;
            let outcome = self.item(index, item);
            if self.next == before && !item.records().is_empty() {
                without.push(n);
            }
            outcomes.push(outcome);
        }
        if self.next > first {
            self.places.push(first, index, proposal.bytes() as u64);
        }
        if !without.is_empty() {
            self.places.without.insert(index, without);
        }
        outcomes
    }

    fn item(&mut self, index: u64, item: &Item) -> Outcome {
        match item {
            Item::Append { records } => Outcome::Appended(self.append(records.len())),
            Item::Once { client, sequence, records } => {
                let Some(session) = self.sessions.get_mut(client) else { return Outcome::Expired };
                session.used = index;
                let at = session.answers.partition_point(|(before, _)| before < sequence);
                bug!(RepeatOnce, return Outcome::Appended(self.append(records.len())));
                match session.answers.get(at) {
                    Some((same, first)) if same == sequence => return Outcome::Before(*first),
                    _ if *sequence <= session.forgotten => return Outcome::Old(session.forgotten + 1),
                    _ => session.answers.insert(at, (*sequence, self.next)),
                }
                if session.answers.len() > ANSWERS {
                    session.forgotten = session.answers.pop_front().map_or(0, |(oldest, _)| oldest);
                }
                Outcome::Appended(self.append(records.len()))
            }
            Item::OpenSession { most } => {
                while self.sessions.len() >= (*most).max(1) as usize {
                    let longest = self.sessions.iter().min_by_key(|(id, session)| (session.used, **id)).map(|(id, _)| *id);
                    longest.and_then(|id| self.sessions.remove(&id));
                }
                // An entry may open several. No id is ever used again: ids grow with the entries.
                let id = self.sessions.last_key_value().map_or(0, |(last, _)| last + 1).max(index << 12);
                self.sessions.insert(id, Session { used: index, ..Session::default() });
                Outcome::Opened(id)
            }
            Item::CloseSession { client } => match self.sessions.remove(client) {
                Some(_) => Outcome::Closed,
                None => Outcome::Expired,
            },
            Item::TruncateFront { to } if *to > self.next => Outcome::Ahead(self.next),
            Item::TruncateFront { to } => {
                self.front = self.front.max(*to);
                Outcome::Front(self.front)
            }
        }
    }

    fn append(&mut self, records: usize) -> u64 {
        let first = self.next;
        bug!(
            ReuseIndex,
            if first & 15 == 0 && records == 1 {
                return first - 1;
            }
        );
        self.next += records as u64;
        first
    }
}

/// In which entry a record is. Sparse: not every entry is there, and who looks for a record counts
/// from the one before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// The first record of an entry, and its index.
    marks: VecDeque<(u64, u64)>,
    /// The items of entries that have records and appended none, for they had before.
    without: BTreeMap<u64, Vec<u32>>,
    /// Entries and bytes since the last mark.
    since: (u64, u64),
}

impl Places {
    /// So far are marks from each other: what a reader looks through in vain.
    const ENTRIES: u64 = 32;
    const BYTES: u64 = 64 << 10;

    fn push(&mut self, first: u64, entry: u64, bytes: u64) {
        if self.marks.is_empty() || self.since.0 >= Places::ENTRIES || self.since.1 >= Places::BYTES {
            self.marks.push_back((first, entry));
            self.since = (0, 0);
        }
        self.since = (self.since.0 + 1, self.since.1 + bytes);
    }

    /// Where to begin looking for a record: an entry, and its first record.
    pub(crate) fn find(&self, record: u64) -> Option<(u64, u64)> {
        let at = self.marks.partition_point(|(first, _)| *first <= record);
        let (first, entry) = *self.marks.get(at.checked_sub(1)?)?;
        Some((entry, first))
    }

    /// Whether an item of an entry appended its records.
    pub(crate) fn counts(&self, entry: u64, item: u32) -> bool {
        self.without.get(&entry).is_none_or(|without| !without.contains(&item))
    }

    /// Forgets what lies before a record that is kept.
    pub(crate) fn forget_before(&mut self, record: u64) {
        while self.marks.get(1).is_some_and(|(first, _)| *first <= record) {
            self.marks.pop_front();
        }
        if let Some((_, entry)) = self.marks.front() {
            self.without = self.without.split_off(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::raft::Proposal;

    fn entry(items: Vec<Item>) -> Entry {
        use openraft::entry::RaftEntry;
        let id = crate::raft::LogId::new(openraft::impls::leader_id_adv::LeaderId { term: 1, node_id: 1 }, 1);
        Entry::new(id, EntryPayload::Normal(Proposal { items }))
    }

    fn once(client: u64, sequence: u64, records: usize) -> Item {
        Item::Once { client, sequence, records: vec![Bytes::from_static(b"x"); records] }
    }

    fn machine() -> Machine {
        Machine::of(&Checkpoint::default())
    }

    #[test]
    fn a_retry_counts_once_and_gives_the_first_index() {
        let mut machine = machine();
        let Outcome::Opened(client) = machine.apply(1, &entry(vec![Item::OpenSession { most: 10 }]))[0] else { panic!() };
        assert_eq!(
            machine.apply(2, &entry(vec![once(client, 1, 3), once(client, 2, 1)])),
            [Outcome::Appended(1), Outcome::Appended(4)]
        );
        assert_eq!(
            machine.apply(3, &entry(vec![once(client, 1, 3), once(client, 3, 1)])),
            [Outcome::Before(1), Outcome::Appended(5)]
        );
        assert_eq!(machine.next, 6);
        assert!(!machine.places.counts(3, 0) && machine.places.counts(3, 1) && machine.places.counts(2, 0));
    }

    #[test]
    fn a_session_keeps_so_many_answers_and_says_what_it_no_longer_knows() {
        let mut machine = machine();
        let Outcome::Opened(client) = machine.apply(1, &entry(vec![Item::OpenSession { most: 10 }]))[0] else { panic!() };
        // Out of order, as calls that overtake each other come.
        for sequence in (2..=101).map(|n| n ^ 1) {
            assert!(matches!(machine.apply(2, &entry(vec![once(client, sequence, 1)]))[0], Outcome::Appended(_)), "{sequence}");
        }
        assert!(matches!(machine.apply(3, &entry(vec![once(client, 100, 1)]))[0], Outcome::Before(_)));
        assert!(matches!(machine.apply(3, &entry(vec![once(client, 2, 1)]))[0], Outcome::Old(38)));
        assert_eq!(machine.next, 101);
    }

    #[test]
    fn the_session_used_least_recently_expires_and_its_id_never_comes_back() {
        let mut machine = machine();
        let open = |machine: &mut Machine, index| match machine.apply(index, &entry(vec![Item::OpenSession { most: 2 }]))[0] {
            Outcome::Opened(id) => id,
            other => panic!("{other:?}"),
        };
        let (a, b) = (open(&mut machine, 1), open(&mut machine, 2));
        machine.apply(3, &entry(vec![once(a, 1, 1)]));
        let c = open(&mut machine, 4);
        assert_eq!(machine.apply(5, &entry(vec![once(b, 1, 1), once(a, 2, 1), once(c, 1, 1)]))[0], Outcome::Expired);
        assert_eq!(machine.sessions(), 2);
        let d = open(&mut machine, 6);
        assert!(a < b && b < c && c < d);
        machine.apply(7, &entry(vec![Item::CloseSession { client: d }]));
        assert!(open(&mut machine, 8) > d);
    }

    #[test]
    fn a_checkpoint_holds_all_of_the_state() {
        let mut machine = machine();
        machine.apply(1, &entry(vec![Item::OpenSession { most: 2 }, Item::OpenSession { most: 2 }]));
        machine.apply(2, &entry(vec![once(1 << 12, 1, 5), Item::TruncateFront { to: 4 }, Item::TruncateFront { to: 9 }]));
        let mut checkpoint = Checkpoint::default();
        machine.save(&mut checkpoint);
        let again: Checkpoint = crate::raft::unseal(&crate::raft::seal(&checkpoint).unwrap()).unwrap();
        let mut other = Machine::of(&again);
        assert_eq!((other.front, other.next, other.sessions()), (4, 6, 2));
        // Whoever begins with it has no entry with an earlier record, whatever the front is.
        assert_eq!((other.first(), machine.first()), (6, 4));
        let more = entry(vec![once(1 << 12, 1, 5), once(1 << 12, 2, 1)]);
        assert_eq!(other.apply(3, &more), machine.apply(3, &more));
    }

    #[test]
    fn places_are_sparse_and_lead_to_every_record() {
        let mut machine = machine();
        for index in 1..=1000 {
            machine.apply(index, &entry(vec![Item::Append { records: vec![Bytes::from_static(b"abc"); 3] }]));
        }
        assert!(machine.places.marks.len() < 40);
        for record in 1..=3000 {
            let (entry, first) = machine.places.find(record).unwrap();
            assert!(first <= record && (record - 1) / 3 + 1 < entry + Places::ENTRIES + 1 && first == (entry - 1) * 3 + 1);
        }
        machine.places.forget_before(1500);
        assert!(machine.places.find(1500).is_some() && machine.places.find(3).is_none());
    }

    #[test]
    fn what_is_damaged_is_no_checkpoint() {
        let mut bytes = crate::raft::seal(&Checkpoint::default()).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(crate::raft::unseal::<Checkpoint>(&bytes).is_err(), "{at}");
            bytes[at] ^= 1;
        }
        assert!(crate::raft::unseal::<Checkpoint>(&[]).is_err());
    }
}
