//! Units that span frames: laid out under the log's lock, copied without it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Assembler, NeedSegments, Placement};
use crate::assemble::copying::Copier;
use crate::assemble::payload;
use crate::assemble::room::{FRAME_BLOCKS, Urgency, fresh_room};
use crate::files::segment::Segment;
use crate::format::{self, CONTINUED, CONTINUES, Control, Kind};

impl Assembler {
    /// Lays a unit out that spans frames, which hold nothing else.
    pub(super) fn lay_out(&mut self, placement: Placement<'_>) -> Result<Box<Copier>, NeedSegments> {
        let Placement { unit, spares, control, .. } = placement;
        let need = self.segments_for(unit.framed() as usize, unit.count(), spares);
        if spares.len() < need {
            return Err(NeedSegments(need));
        }
        let (mut flags, before) = (CONTINUES, self.placed.len());
        for record in unit.each().map(|parts| payload::sum(parts) as usize) {
            self.reserve_frame(5.min(4 + record), &mut flags, spares, control);
            let mut left = record;
            if let Some(building) = &mut self.building {
                building.header.payload_len += 4;
                building.header.records += 1;
                left -= building.reserve(left);
            }
            self.next.add(1, record);
            while left > 0 {
                self.reserve_frame(1, &mut flags, spares, control);
                if let Some(building) = &mut self.building {
                    let now = building.reserve(left);
                    building.header.head_len += now as u32;
                    left -= now;
                }
            }
        }
        self.close_frame(flags & CONTINUED);
        let mut copier = Box::new(Copier::new());
        for frame in self.placed.range_mut(before..).filter(|frame| frame.header.kind == Kind::Data) {
            frame.copying = Some(copier.lend(std::mem::take(&mut frame.buf), frame.header.payload_len));
        }
        Ok(copier)
    }

    /// Makes sure that a frame of a large unit is open with room for so many bytes.
    fn reserve_frame(&mut self, bytes: usize, flags: &mut u32, spares: &mut VecDeque<Arc<Segment>>, control: &Control) {
        if self.building.as_ref().is_some_and(|b| b.header.payload_len as usize + bytes <= b.max) {
            return;
        }
        if self.building.is_some() {
            self.close_frame(*flags);
            *flags |= CONTINUED;
        }
        if self.room(Urgency::Ordinary) == 0
            && let Some(spare) = spares.pop_front()
        {
            self.rotate(spare, control);
        }
        let room = self.room(Urgency::Ordinary);
        assert!(room > 0, "segments_for bounds what a large unit takes");
        let buf = self.free.pop().unwrap_or_default();
        self.open_frame(room, buf);
    }

    /// How many further segments a large unit takes. Each frame may waste the few bytes in which a
    /// length does not fit.
    fn segments_for(&self, bytes: usize, records: usize, spares: &VecDeque<Arc<Segment>>) -> usize {
        let capacity = |mut room: u32| {
            let mut sum = 0;
            while room > 0 {
                let blocks = room.min(FRAME_BLOCKS);
                sum += format::payload_max(blocks).saturating_sub(if records > 1 { 5 } else { 0 });
                room -= blocks;
            }
            sum
        };
        let mut left = bytes.saturating_sub(capacity(self.room(Urgency::Ordinary)));
        for (ready, spare) in spares.iter().enumerate() {
            if left == 0 {
                return ready;
            }
            left = left.saturating_sub(capacity(fresh_room(spare.blocks)));
        }
        spares.len() + left.div_ceil(capacity(fresh_room(self.segment_blocks)).max(1))
    }
}
