//! What a disk was asked, in order, and what a power failure could have left of it.

use fastrand::Rng;

use crate::image::Image;

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// The same of a disk of larger sectors.
pub(crate) const LARGE_SECTOR: usize = 4096;

/// What a write puts there.
pub(crate) enum Data {
    Bytes(Box<[u8]>),
    /// So many zeros: also of blocks that were given back to the disk.
    Zeros(usize),
}

struct Write {
    offset: u64,
    data: Data,
    /// The event by which it was answered.
    answered: Option<usize>,
}

impl Write {
    fn len(&self) -> usize {
        match &self.data {
            Data::Bytes(bytes) => bytes.len(),
            Data::Zeros(len) => *len,
        }
    }

    fn sectors(&self) -> usize {
        self.len().div_ceil(SECTOR)
    }

    fn apply(&self, image: &mut Image) {
        match &self.data {
            Data::Bytes(bytes) => image.write(self.offset, bytes),
            Data::Zeros(len) => image.zero(self.offset, *len),
        }
    }

    /// The sectors, each with which of the disk's larger ones it lies in.
    fn sectors_in(&self, larger: usize) -> impl Iterator<Item = (usize, u64)> {
        (0..self.sectors()).map(move |sector| (sector, (self.offset + (sector * SECTOR) as u64) / larger as u64))
    }

    fn apply_sector(&self, image: &mut Image, sector: usize) {
        let range = sector * SECTOR..self.len().min((sector + 1) * SECTOR);
        let offset = self.offset + range.start as u64;
        match &self.data {
            Data::Bytes(bytes) => image.write(offset, &bytes[range]),
            Data::Zeros(_) => image.zero(offset, range.len()),
        }
    }
}

enum Event {
    /// A write was asked for. From here on it may be on the disk, any of its sectors without the
    /// others.
    Write(Write),
    /// A write was answered. It may still be only in the disk's cache.
    Answered,
    /// A flush was answered that was asked when there were so many events: what was answered before
    /// them is on the disk.
    Flush { asked: usize },
    /// Something that the disk's user said.
    Note(String),
}

/// A power failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// After so many events.
    pub(crate) point: usize,
    /// So many of the last flushes before it a lying disk only said it had done.
    pub(crate) lies: usize,
    /// What the disk writes whole: [`SECTOR`], or more.
    pub(crate) torn: usize,
    /// Decides what is kept of what was not flushed.
    pub(crate) seed: u64,
}

/// What became of a disk in a power failure.
pub(crate) struct State {
    pub(crate) image: Image,
    /// How many sectors were written and not flushed.
    pub(crate) pending: usize,
}

/// Everything that was asked of a disk. The power may have failed after any number of its events:
/// at any *point*.
pub(crate) struct Recording {
    base: Image,
    events: Vec<Event>,
    /// The base with the writes among so many first events, all of them flushed: where the next
    /// state starts from.
    settled: (usize, Image),
}

impl Recording {
    pub(crate) fn new(base: Image) -> Recording {
        Recording { settled: (0, base.clone()), base, events: Vec::new() }
    }

    /// A write is asked for: the event's number, by which it is to be
    /// [answered](Recording::answer).
    pub(crate) fn write(&mut self, offset: u64, data: Data) -> usize {
        self.events.push(Event::Write(Write { offset, data, answered: None }));
        self.events.len() - 1
    }

    pub(crate) fn answer(&mut self, write: usize) {
        let now = self.events.len();
        if let Some(Event::Write(write)) = self.events.get_mut(write) {
            write.answered = Some(now);
            self.events.push(Event::Answered);
        }
    }

    /// How many events there are: a flush that is asked now covers what was answered in them.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// A flush is answered that was asked when there were so many events.
    pub(crate) fn flush(&mut self, asked: usize) {
        self.events.push(Event::Flush { asked });
    }

    pub(crate) fn note(&mut self, note: &str) {
        self.events.push(Event::Note(note.to_owned()));
    }

    /// The notes, each with the first point at which it had been made.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (usize, &str)> {
        self.events.iter().enumerate().filter_map(|(i, event)| match event {
            Event::Note(note) => Some((i + 1, &**note)),
            _ => None,
        })
    }

    /// How many sectors are pending at each point.
    pub(crate) fn pending_by_point(&self) -> Vec<usize> {
        let mut pending: Vec<&Write> = Vec::new();
        let mut sectors = 0;
        let mut by_point = vec![0];
        for event in &self.events {
            match event {
                Event::Write(write) => {
                    pending.push(write);
                    sectors += write.sectors();
                }
                Event::Flush { asked } => {
                    pending.retain(|write| !covered(write, *asked));
                    sectors = pending.iter().map(|write| write.sectors()).sum();
                }
                Event::Answered | Event::Note(_) => {}
            }
            by_point.push(sectors);
        }
        by_point
    }

    /// A disk as a power failure at a point could have left it: all that was flushed, and what
    /// chance keeps of the rest. Points in ascending order are fastest.
    pub(crate) fn state(&mut self, failure: &Failure) -> State {
        let &Failure { point, lies, torn, seed } = failure;
        let events = &self.events[..point.min(self.events.len())];
        let flushes =
            events.iter().rev().filter_map(|event| if let Event::Flush { asked } = event { Some(*asked) } else { None });
        let flushed = flushes.skip(lies).max().unwrap_or(0);
        let writes = || {
            events
                .iter()
                .enumerate()
                .filter_map(|(i, event)| if let Event::Write(write) = event { Some((i, write)) } else { None })
        };
        let first_pending = writes().find(|(_, write)| !covered(write, flushed)).map_or(events.len(), |(i, _)| i);
        if self.settled.0 > first_pending {
            self.settled = (0, self.base.clone());
        }
        let settled = self.settled.0;
        writes().filter(|(i, _)| (settled..first_pending).contains(i)).for_each(|(_, write)| write.apply(&mut self.settled.1));
        self.settled.0 = first_pending;

        let pending: Vec<&Write> = writes().map(|(_, write)| write).filter(|write| !covered(write, flushed)).collect();
        let mut keeps = draw(pending.len(), Rng::with_seed(seed));
        let mut state = State { image: self.settled.1.clone(), pending: 0 };
        // In the order in which they were asked for: of several writes of a sector, the last that
        // is kept is what is there.
        let mut number = 0;
        for (_, write) in writes().filter(|(i, _)| *i >= first_pending) {
            if covered(write, flushed) {
                write.apply(&mut state.image);
                continue;
            }
            state.pending += write.sectors();
            let (mut decided, mut keep) = (None, false);
            for (sector, larger) in write.sectors_in(torn) {
                if decided != Some(larger) {
                    (decided, keep) = (Some(larger), keeps(number));
                }
                if keep {
                    write.apply_sector(&mut state.image, sector);
                }
            }
            number += 1;
        }
        state
    }
}

/// Whether a flush covers a write that was asked when there were so many events.
fn covered(write: &Write, asked: usize) -> bool {
    write.answered.is_some_and(|answered| answered < asked)
}

/// What is kept of so many writes, by one of several ways in which disks lose things: says of each
/// sector of a write (they are asked one after the other) whether it is.
fn draw(writes: usize, mut rng: Rng) -> Box<dyn FnMut(usize) -> bool> {
    let likely = [0.1, 0.5, 0.9][rng.usize(..3)];
    match rng.u32(..10) {
        0 => Box::new(|_| false),
        1 => Box::new(|_| true),
        // Each sector for itself.
        2..=4 => Box::new(move |_| rng.f64() < likely),
        // Whole writes, in any order.
        5 | 6 => {
            let keep: Vec<bool> = (0..writes).map(|_| rng.f64() < likely).collect();
            Box::new(move |write| keep[write])
        }
        // In order, up to one that is torn.
        7 | 8 => {
            let torn = rng.usize(..=writes);
            Box::new(move |write| write < torn || write == torn && rng.f64() < likely)
        }
        // All but one, or parts of it.
        _ => {
            let lost = rng.usize(..=writes);
            let torn = rng.bool();
            Box::new(move |write| write != lost || torn && rng.bool())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 64 << 10;

    fn write(recording: &mut Recording, sector: u64, sectors: usize, byte: u8) -> usize {
        recording.write(sector * SECTOR as u64, Data::Bytes(vec![byte; sectors * SECTOR].into()))
    }

    fn written(recording: &mut Recording, sector: u64, sectors: usize, byte: u8) {
        let number = write(recording, sector, sectors, byte);
        recording.answer(number);
    }

    fn flush(recording: &mut Recording) {
        recording.flush(recording.len());
    }

    /// The first byte of each sector, in each of many states.
    fn states(recording: &mut Recording, point: usize, lies: usize) -> Vec<Vec<u8>> {
        let of = |seed| {
            let image = recording.state(&Failure { point, lies, torn: SECTOR, seed }).image;
            let bytes = image.read(0, DISK as usize);
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|&b| b == sector[0])), "a sector is whole");
            bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
        };
        (0..300).map(of).collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_in_every_mixture() {
        let mut recording = Recording::new(Image::new(DISK));
        written(&mut recording, 3, 10, 1);
        flush(&mut recording);
        written(&mut recording, 5, 2, 2);
        written(&mut recording, 6, 1, 3);
        let point = recording.len();
        assert_eq!(recording.pending_by_point()[point], 3);
        let seen = states(&mut recording, point, 0);
        for sectors in &seen {
            let expected = |i: usize| if (3..13).contains(&i) && !(5..7).contains(&i) { 1 } else { 0 };
            assert!((0..128).filter(|i| !(5..7).contains(i)).all(|i| sectors[i] == expected(i)), "{sectors:?}");
        }
        for (fifth, sixth) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)] {
            assert!(seen.iter().any(|s| (s[5], s[6]) == (fifth, sixth)), "{fifth} and {sixth} are never seen");
        }
        assert!(seen.iter().all(|s| [1, 2].contains(&s[5]) && [1, 2, 3].contains(&s[6])));
    }

    #[test]
    fn a_flush_covers_what_was_answered_before_it_was_asked() {
        let mut recording = Recording::new(Image::new(DISK));
        let under_way = write(&mut recording, 0, 1, 1);
        written(&mut recording, 1, 1, 2);
        let asked = recording.len();
        written(&mut recording, 2, 1, 3);
        recording.answer(under_way);
        recording.flush(asked);
        let point = recording.len();
        let seen = states(&mut recording, point, 0);
        assert!(seen.iter().all(|s| s[1] == 2));
        for sector in [0, 2] {
            assert!(seen.iter().any(|s| s[sector] == 0) && seen.iter().any(|s| s[sector] != 0), "sector {sector} is open");
        }
        assert_eq!(recording.pending_by_point()[point], 2);
        // Before the flush was answered, nothing was sure.
        assert!(states(&mut recording, point - 1, 0).iter().any(|s| s[1] == 0));
    }

    #[test]
    fn a_lying_disk_loses_what_was_flushed() {
        let mut recording = Recording::new(Image::new(DISK));
        for sector in 0..4 {
            written(&mut recording, sector, 1, 9);
            flush(&mut recording);
        }
        let point = recording.len();
        assert!(states(&mut recording, point, 0).iter().all(|s| s[..4] == [9; 4]));
        let lied = states(&mut recording, point, 2);
        assert!(lied.iter().all(|s| s[..2] == [9; 2]) && lied.iter().any(|s| s[2] == 0) && lied.iter().any(|s| s[3] == 0));
        assert!(states(&mut recording, point, 4).iter().any(|s| s[..4] == [0; 4]));
    }

    #[test]
    fn large_sectors_are_whole() {
        let mut recording = Recording::new(Image::new(DISK));
        written(&mut recording, 4, 24, 1);
        let point = recording.len();
        let mut mixed = 0;
        for seed in 0..300 {
            let bytes = recording.state(&Failure { point, lies: 0, torn: LARGE_SECTOR, seed }).image.read(0, DISK as usize);
            let kept: Vec<bool> = (4..28).map(|sector| bytes[sector * SECTOR] == 1).collect();
            // The write begins and ends in the middle of one.
            let whole = [&kept[..4], &kept[4..12], &kept[12..20], &kept[20..]];
            assert!(whole.iter().all(|large| large.iter().all(|k| *k == large[0])), "{kept:?}");
            mixed += usize::from(whole.iter().any(|large| large[0]) && whole.iter().any(|large| !large[0]));
        }
        assert!(mixed > 50, "{mixed}");
    }

    #[test]
    fn a_state_is_the_same_from_wherever_it_is_rebuilt() {
        let mut rng = Rng::with_seed(7);
        let mut recording = Recording::new(Image::new(DISK));
        let mut open = Vec::new();
        for byte in 1..=200 {
            open.push(if byte % 10 == 0 {
                recording.write(rng.u64(..96) * SECTOR as u64, Data::Zeros(rng.usize(1..20) * SECTOR))
            } else {
                write(&mut recording, rng.u64(..100), rng.usize(1..20), byte)
            });
            if rng.bool() {
                recording.answer(open.swap_remove(rng.usize(..open.len())));
            }
            if rng.u8(..8) == 0 {
                flush(&mut recording);
            }
        }
        let mut state =
            |point| recording.state(&Failure { point, lies: 0, torn: SECTOR, seed: point as u64 }).image.read(0, DISK as usize);
        let end = 300;
        let ascending: Vec<_> = (0..end).map(&mut state).collect();
        let descending: Vec<_> = (0..end).rev().map(&mut state).collect();
        assert!(ascending.iter().eq(descending.iter().rev()));
    }

    #[test]
    fn notes_lie_between_the_writes() {
        let mut recording = Recording::new(Image::new(DISK));
        recording.note("first");
        written(&mut recording, 0, 1, 1);
        recording.note("second");
        assert_eq!(recording.notes().collect::<Vec<_>>(), [(1, "first"), (4, "second")]);
    }
}
