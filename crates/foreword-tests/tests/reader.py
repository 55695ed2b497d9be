#!/usr/bin/env python3
"""An independent, strictly read-only reader of the foreword log format, version 2.

Written from docs/FORMAT.md alone, without a look at the Rust code. The tests run it on the
directories they make, to hold the library to the document: where the two disagree, one is wrong.

    python3 reader.py DIR...       (no writer may be alive)

Of each directory it prints `<lsn> <time> <bytes> <hex>` for each record that recovery would return: the time of its frame in
microseconds, how many bytes all records before it have, and its own (`-`: none). Then
`verdict: NAME row=N at=EPOCH:BLOCK`: clean, unclosed, torn-tail or corruption, the row of the
document's table, and the position X or that of the damage; or unsupported (row 0), if a HEADER names another version, or a
feature that a reader must know. It always walks the whole chain and
checks every frame on it. Before a verdict of corruption come the records read before the damage.
"""
import os
import re
import struct
import sys
from collections import namedtuple
from functools import lru_cache

BLOCK, SECTOR, MAX_BLOCKS = 4096, 512, 64
HEADER, LINK, DATA, MARK, SEAL = 1, 2, 3, 4, 5
CONTINUES, CONTINUED, CLOSED = 1, 2, 4
FLAGS = {HEADER: 0, LINK: 0, DATA: CONTINUES | CONTINUED, MARK: CLOSED, SEAL: 0}
VALID, UNWRITTEN, TORN, DAMAGED, WRONG = "valid", "unwritten", "torn", "damaged", "wrong"    # WRONG: row 22
LINK_FIELDS = 24    # before its control part
ZEROS = bytes(SECTOR)

Head = namedtuple("Head", "magic crc body kind flags size count head promise_block"
                          " promise_epoch promise_lsn first epoch time bytes")
HEAD = struct.Struct("<4sIIIIIIIQQQQQQ")    # kind and flags in one word
Record = namedtuple("Record", "lsn time before body")
Frame = namedtuple("Frame", "head blocks payload")
Link = namedtuple("Link", "epoch end first control")
Control = namedtuple("Control", "start waivers")
Waiver = namedtuple("Waiver", "begin end first last")


class Unsupported(Exception):
    """A segment that is not for this reader: no damage."""


class Corrupt(Exception):
    def __init__(self, row, at):
        super().__init__(row, at)
        self.row, self.at = row, at


# CRC-32C, four bytes a step: the tables of slicing-by-4, joined in pairs.

def _tables():
    one = []
    for c in range(256):
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        one.append(c)
    t = [one]
    for _ in range(3):
        t.append([one[c & 255] ^ c >> 8 for c in t[-1]])
    return one, [a ^ b for b in t[2] for a in t[3]], [a ^ b for b in t[0] for a in t[1]]


ONE, LOW, HIGH = _tables()


def crc(data, before=0):
    """The CRC of `data`, or of what has the CRC `before` followed by `data`."""
    c = before ^ 0xFFFFFFFF
    whole = len(data) & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        c ^= word
        c = LOW[c & 0xFFFF] ^ HIGH[c >> 16]
    for byte in data[whole:]:
        c = ONE[(c ^ byte) & 255] ^ c >> 8
    return c ^ 0xFFFFFFFF


@lru_cache(maxsize=1024)
def prefix(uuid, epoch):
    return crc(uuid + struct.pack("<Q", epoch))


def tag(uuid, epoch, sector, first):
    place = struct.pack("<Q", sector * 2 + first)
    return struct.pack("<II", epoch & 0xFFFFFFFF, crc(place, prefix(uuid, epoch)))


def header_len(kind):
    return 64 if kind == HEADER else 80


def layout(stop):
    """Where a frame whose payload ends at byte `stop` has its table entries, where they end, the frame's blocks."""
    at = (stop + 7) // 8 * 8
    entries = []
    for _ in range(at // SECTOR):
        at += 8 if at % SECTOR == 504 else 0
        entries.append(at)
        at += 8
    return entries, at, -(-at // BLOCK)


class Segment:
    def __init__(self, epoch, uuid, data):
        self.epoch, self.uuid, self.data = epoch, uuid, data
        self.last = len(data) // BLOCK - 1      # the SEAL's block
        self.defect = None                      # (row, position): what is wrong with the file as such
        self.places = {}

    def sector(self, i):
        return self.data[i * SECTOR:(i + 1) * SECTOR]

    def tagged(self, i, first):
        return self.sector(i)[504:] == tag(self.uuid, self.epoch, i, first)

    def written(self, i):
        return self.tagged(i, 0) or self.tagged(i, 1)

    def unwritten(self, i):
        sector = self.sector(i)
        if sector == ZEROS:
            return True
        if len(sector) < SECTOR or self.written(i):
            return False
        low = struct.unpack_from("<I", sector, 504)[0]
        older = self.epoch - 1 - (self.epoch - 1 - low) % (1 << 32)
        return older > 0 and sector[504:] in [tag(self.uuid, older, i, first) for first in (0, 1)]

    def header_at(self, block):
        """The header of the frame that begins at the block, if there is a valid one."""
        raw = self.data[block * BLOCK:block * BLOCK + 80]
        if len(self.data) < (block + 1) * BLOCK or raw[:4] != b"FWRD":
            return None
        raw = raw[:header_len(raw[12])]
        fields = list(HEAD.unpack(raw.ljust(80, b"\0")))
        fields[3:4] = fields[3] & 255, fields[3] >> 8
        head = Head(*fields)
        own = crc(struct.pack("<Q", block) + raw[8:], prefix(self.uuid, self.epoch))
        good = head.crc == own and head.epoch == self.epoch and self.tagged(block * 8, 1)
        good = good and max(head.first + head.count, head.promise_lsn, head.bytes) < 1 << 63
        return head if good else None

    def promise_at(self, block):
        """The promise of the header at the block; a LINK that promises itself must be whole."""
        head = self.header_at(block)
        promise = (head.promise_epoch, head.promise_block) if head else (0, 0)
        return promise if promise <= (self.epoch, block) or self.place(block)[0] == VALID else (0, 0)

    def place(self, block):
        """(state, frame) of the place; a torn frame comes without payload."""
        if block not in self.places:
            self.places[block] = self._place(block)
        return self.places[block]

    def _place(self, block):
        if self.unwritten(block * 8):
            return UNWRITTEN, None
        head = self.header_at(block)
        if head is None:
            return DAMAGED, None
        if head.size > MAX_BLOCKS * BLOCK:
            return WRONG, None
        start = header_len(head.kind)
        stop = start + head.size
        entries, end, blocks = layout(stop)
        limit = self.last + 1 if block in (0, self.last) else self.last
        if blocks > MAX_BLOCKS or block + blocks > limit:
            return WRONG, None
        raw = self.data[block * BLOCK:(block + blocks) * BLOCK]
        sectors = range(block * 8, (block + blocks) * 8)
        if crc(raw[start:]) != head.body:
            torn = any(self.unwritten(i) for i in sectors)
            return (TORN, Frame(head, blocks, None)) if torn else (DAMAGED, None)
        if not all(self.tagged(i, 0) for i in sectors[1:]):
            return WRONG, None
        whole = bytearray(raw)
        for i in range(len(raw) // SECTOR):
            at = i * SECTOR + 504
            whole[at:at + 8] = raw[entries[i]:entries[i] + 8] if i < len(entries) else bytes(8)
        table = entries[0] if entries else end
        if any(whole[stop:table]) or any(whole[end:]):
            return WRONG, None
        kinds = {self.last: (SEAL,), 0: (HEADER,), 1: (LINK,)}.get(block, (DATA, MARK))
        if head.kind not in kinds or head.flags & ~FLAGS[head.kind]:
            return WRONG, None
        if head.kind != DATA and (head.count or head.head):
            return WRONG, None
        return VALID, Frame(head, blocks, bytes(whole[start:stop]))

    def link(self):
        """The LINK, if the segment is active."""
        if self.last < 2:
            return None
        if self.place(1)[0] == WRONG:
            raise Corrupt(22, (self.epoch, 1))
        if self.place(1)[0] != VALID:
            return None
        frame, at = self.place(1)[1], (self.epoch, 1)
        if len(frame.payload) < LINK_FIELDS:
            raise Corrupt(22, at)
        epoch, end, _generation, _cut = struct.unpack_from("<QIIQ", frame.payload)
        if epoch >= self.epoch:
            raise Corrupt(22, at)
        return Link(epoch, end, frame.head.first, control_part(frame.payload[LINK_FIELDS:], at))

    def seal(self):
        """(state, end) of the SEAL's place."""
        state, frame = self.place(self.last) if self.last > 1 else (DAMAGED, None)
        if state == WRONG:
            raise Corrupt(22, (self.epoch, self.last))
        if state != VALID:
            return state, None
        if len(frame.payload) < 8:
            raise Corrupt(22, (self.epoch, self.last))
        end, zero = struct.unpack_from("<II", frame.payload)
        if zero or end > self.last:
            raise Corrupt(22, (self.epoch, self.last))
        return VALID, end


def control_part(raw, at):
    """The control part at the beginning of the bytes; what lies behind it is for later readers."""
    try:
        start, holds, waivers, _generation = struct.unpack_from("<QHHI", raw)
        good = start >= 1 and holds <= 32 and waivers <= 32
        pos = 16
        for _ in range(holds if good else 0):
            size = struct.unpack_from("<QB", raw, pos)[1]
            name = raw[pos + 9:pos + 9 + size]
            name.decode()
            good = good and 1 <= size <= 64 and len(name) == size
            pos += 9 + size
        found = []
        for _ in range(waivers if good else 0):
            e1, e2, b1, b2, first, last = struct.unpack_from("<QQIIQQ", raw, pos)
            found.append(Waiver((e1, b1), (e2, b2), first, last))
            good = good and (e1, b1) < (e2, b2) and first <= last + 1
            pos += 40
    except (struct.error, UnicodeDecodeError):
        good = False
    if not good or pos > len(raw):
        raise Corrupt(22, at)
    return Control(start, found)


class Reader:
    def __init__(self, segments, has_log):
        self.segs, self.has_log, self.actives = segments, has_log, []
        self.control = Control(0, [])
        self.restart()

    def restart(self):
        self.records, self.expected = [], None
        self.unit, self.need = None, 0    # of the unit under way: its records; bytes its last one lacks
        self.closed, self.promise = False, (0, 0)
        self.led_on = False               # X is the LINK of the file behind the newest segment

    def waiver(self, at):
        """The waiver that gives up a position."""
        return next((w for w in self.control.waivers if w.begin <= at < w.end), None)

    def way_in(self, epoch):
        """The waiver that leads from elsewhere into a segment."""
        return next((w for w in self.control.waivers if w.begin[0] < epoch == w.end[0]), None)

    # The verdict at a position X.

    def behind(self, at, after):
        """Is there a promise beyond the position; is a sector from `after` on (one of that segment) written; the promise."""
        promise, written = self.promise, False
        for epoch, seg in self.segs.items():
            if epoch < at[0]:
                continue
            here, stop = epoch == at[0], min(seg.last + 1, len(seg.data) // BLOCK)
            for block in range(at[1] if here else 1, stop):
                promise = max(promise, seg.promise_at(block))
            stop = min(stop, seg.last) if here else stop    # X's own SEAL is not "written behind X"
            sectors = range(after if here else 8, stop * 8)
            written = written or any(seg.written(i) for i in sectors)
        return promise > at, written, promise

    def judge(self, at):
        """(name, row, at), where X is the position."""
        seg = self.segs[at[0]]
        # The SEAL's block is no place for a frame: a segment that is full ends before it.
        state, frame = seg.place(at[1]) if at[1] < seg.last else (UNWRITTEN, None)
        if state == WRONG:
            raise Corrupt(22, at)
        promised, written, _promise = self.behind(at, at[1] * 8 + (frame.blocks * 8 if frame else 1))
        if state == DAMAGED:
            raise Corrupt(7 if promised else 8, at)
        if promised:
            raise Corrupt(6, at)
        if state == UNWRITTEN:
            for epoch in sorted(e for e in self.actives if e >= at[0]):
                if self.segs[epoch].seal()[0] == DAMAGED:
                    raise Corrupt(20, (epoch, self.segs[epoch].last))
        if written:
            return "torn-tail", 4, at
        if state == TORN:
            return "torn-tail", 3, at
        if self.unit is not None:
            return "torn-tail", 5, at
        return ("clean", 1, at) if self.closed else ("unclosed", 2, at)

    # The chain, backwards, then its frames, forwards.

    def run(self):
        for epoch in sorted(self.segs, reverse=True):
            seg = self.segs[epoch]
            if (seg.defect is None or seg.defect[0] == 17) and seg.link():
                self.actives.append(epoch)
        self.control = self.last_control(self.segs[self.actives[0]]) if self.actives else Control(0, [])
        lost, below = None, 1 << 64
        for epoch, seg in sorted(self.segs.items(), reverse=True):
            if seg.defect and epoch not in self.actives and not self.waiver((epoch, 1)):
                lost, below = seg.defect, epoch
        while True:
            top = next((e for e in self.actives if e < below), None)
            self.restart()
            self.control = self.last_control(self.segs[top]) if top else Control(0, [])
            if top is None:
                if lost:
                    raise Corrupt(*lost)
                at = min(self.segs), 1
                if not self.has_log:            # nothing but prepared segments
                    return self.judge(at)
                raise Corrupt(7 if self.segs[at[0]].place(1)[0] == DAMAGED else 6, at)
            chain, broken, missing = self.trace(top)
            if missing and self.dropped[0] > self.control.start:
                # Gone, and only a LINK or MARK behind X says why: that was durable.
                control, self.control = self.control, self.control._replace(start=self.dropped[0])
                again = self.trace(top)
                if again[1] is None and again[2] is None:
                    (chain, broken, missing), self.promise = again, self.dropped[1]
                else:
                    self.control = control
            if missing:
                lost, below = lost or missing, chain[0][0]
            elif broken is not None:
                below = broken
            else:
                break
        verdict, damage, tip = None, None, chain[-1][0]
        try:
            verdict = self.walk(chain)
        except Corrupt as found:
            damage = found
        if lost is None and not self.led_on and self.segs[tip].seal()[0] == VALID and tip + 1 not in self.segs:
            lost = 12, (tip + 1, 0)
        if lost:
            raise Corrupt(*lost)
        if damage:
            raise damage
        return verdict

    def last_control(self, seg):
        control, block = seg.link().control, 1
        while block < seg.last and seg.place(block)[0] == VALID:
            frame = seg.place(block)[1]
            if frame.head.kind == MARK:
                control = control_part(frame.payload, (seg.epoch, block))
            block += frame.blocks
        # Behind damage, all that counts is how far the start has risen.
        broken = seg.epoch, block
        damaged, promise = block < seg.last and seg.place(block)[0] in (DAMAGED, WRONG), (0, 0)
        self.dropped = own = 0, (0, 0)    # the highest start behind, and where it is named
        for epoch, seg in self.segs.items():
            if epoch < broken[0] or seg.defect and seg.defect[0] != 17:
                continue
            block = block if epoch == broken[0] else 1
            for at in range(block, min(seg.last + 1, len(seg.data) // BLOCK)):
                head = seg.header_at(at)
                promise = max(promise, seg.promise_at(at))
                if head and head.kind in (LINK, MARK) and seg.place(at)[0] == VALID:
                    payload = seg.place(at)[1].payload
                    start = control_part(payload[LINK_FIELDS if head.kind == LINK else 0:], (epoch, at)).start
                    self.dropped = max(self.dropped, (start, (epoch, at)), key=lambda found: found[0])
            if epoch == broken[0]:
                own, self.dropped = self.dropped, own
        if not (own[0] > control.start and self.has_left(broken, promise)):
            self.dropped = max(own, self.dropped, key=lambda found: found[0])
        if damaged or promise > broken:
            control = control._replace(start=max(control.start, self.dropped[0]))
        return control

    def has_left(self, at, promise):
        """Is X, in the newest segment of the chain, the LINK of the next file?"""
        state, end = self.segs[at[0]].seal()
        after = min((epoch for epoch in self.segs if epoch > at[0]), default=None)
        if state != VALID or end > at[1] or after is None or self.segs[after].defect:
            return False
        return promise > (after, 1) or self.segs[after].place(1)[0] == DAMAGED and promise <= at

    def trace(self, epoch):
        """[(epoch, end)] from the oldest on (the newest has no end); an epoch whose LINK is not there; the damage, if a segment is lost."""
        chain, start = [(epoch, None)], self.control.start
        while True:
            waiver = self.way_in(epoch)
            link = self.segs[epoch].link() if epoch in self.actives else None
            if waiver:
                (before, end), first = waiver.begin, waiver.first
            elif link:
                before, end, first = link[:3]
            elif epoch in self.segs:
                return chain, epoch, None
            else:
                row = 10 if min(self.segs) < epoch else 11
                return chain[-2::-1], None, (row, (epoch, 0))
            if before == 0:
                self.expected = 1
            if before == 0 or first <= start:
                begun = self.begun(epoch)
                return (chain, begun, None) if begun else (chain[::-1], None, None)
            if before in self.segs and not 1 <= end <= self.segs[before].last:
                raise Corrupt(22, (epoch, 1))
            epoch = before
            chain.append((epoch, end))

    def begun(self, epoch):
        """The first segment of a fork that did not come to its end, if the LINKs lead back to one."""
        while epoch in self.actives and not self.way_in(epoch):
            before = self.segs[epoch].link()[0]
            if before in self.segs and before not in self.actives and not self.way_in(before):
                return before if self.segs[epoch].promise_at(1) <= (before, 1) else None
            epoch = before
        return None

    def walk(self, chain):
        index, block = 0, 1
        way_in = self.way_in(chain[0][0])
        if way_in:
            block, self.expected = way_in.end[1], way_in.last + 1
        loose = self.expected is None   # what came before is not there: it cannot be compared with
        while True:
            epoch, end = chain[index]
            seg, at = self.segs.get(epoch), (epoch, block)
            waiver = next((w for w in self.control.waivers if w.begin == at), None)
            if waiver and self.unit is None:
                if self.expected is not None and waiver.last + 1 < self.expected:
                    raise Corrupt(22, at)
                self.closed = False
                self.expected, loose = waiver.last + 1, True
                while chain[index][0] < waiver.end[0]:
                    index += 1
                    if index == len(chain):
                        raise Corrupt(22, at)
                block = max(1, waiver.end[1]) if chain[index][0] == waiver.end[0] else 1
                continue
            if seg is None:
                raise Corrupt(10, at)
            if end is not None and block >= end:
                index, block = index + 1, 1
                continue
            frame = None
            if block < seg.last:
                state, frame = seg.place(block)
                frame = frame if state == VALID else None
            if frame is None:
                return self.ended(seg, block, end)
            head = frame.head
            if end is not None and block + frame.blocks > end:
                raise Corrupt(22, at)
            if self.expected is None:
                self.expected = head.first
            if head.first != self.expected:
                raise Corrupt(22, at)
            promised = self.segs.get(head.promise_epoch)
            if promised is not None and head.promise_block > promised.last:
                raise Corrupt(22, at)
            self.promise = max(self.promise, (head.promise_epoch, head.promise_block))
            self.closed = False
            if head.kind == DATA:
                self.data(frame, loose, at)
            elif head.kind == MARK:
                if self.unit is not None:
                    raise Corrupt(22, at)
                control_part(frame.payload, at)    # which must be one
                self.closed = bool(head.flags & CLOSED)
            block += frame.blocks
            loose = loose and head.kind == LINK     # a LINK may stand amid a unit

    def ended(self, seg, block, end):
        """The walk has come to where no valid frame is. A SEAL for no later an end leads on to the next file, or, if
        that is not there, to the one that has superseded it, unless a promise lies between."""
        state = seg.place(block)[0] if block < seg.last else UNWRITTEN
        if seg.defect and (end is None or state == DAMAGED):
            raise Corrupt(*seg.defect)
        sealed, later = seg.seal(), [epoch for epoch in self.segs if epoch > seg.epoch]
        if end is None and state != DAMAGED and sealed[0] == VALID and sealed[1] <= block and later:
            link, at = (min(later), 1), (seg.epoch, block)
            promise = self.behind(at, block * 8 + 1)[2]
            between = at < promise <= link and link[0] > seg.epoch + 1
            self.led_on = not between and (self.segs[link[0]].place(1)[0] == DAMAGED or promise > at)
            if self.led_on:
                return self.judge(link)
        return self.judge((seg.epoch, block))

    def data(self, frame, loose, at):
        head, payload, bad = frame.head, frame.payload, Corrupt(22, at)
        more, known = head.flags & CONTINUES, self.unit is not None
        if bool(head.flags & CONTINUED) != known and not (loose and not known):
            raise bad
        if not known:
            self.unit = []
            self.need = None if head.flags & CONTINUED else 0   # None: nobody can know
        if head.head > len(payload):
            raise bad
        if self.need is not None:
            if head.head != min(self.need, len(payload)):
                raise bad
            if self.need:
                self.unit[-1].body.extend(payload[:head.head])
            self.need -= head.head
        pos, lsn, before = head.head, head.first, head.bytes
        if pos < len(payload):
            self.need = 0
        while pos < len(payload):
            if len(payload) - pos < 4:
                raise bad
            size = struct.unpack_from("<I", payload, pos)[0]
            if size >= 1 << 30:
                raise bad
            body = payload[pos + 4:pos + 4 + size]
            self.unit.append(Record(lsn, head.time, before, bytearray(body)))
            self.need = size - len(body)
            pos, lsn, before = pos + 4 + len(body), lsn + 1, before + size
        if lsn - head.first != head.count or (self.need and not more):
            raise bad
        self.expected = lsn
        if not more:
            self.records += self.unit
            self.unit, self.need = None, 0


# The directory.

def check_header(seg, name_epoch, uuid):
    """The defect of a segment file, as (row, position)."""
    data, at = seg.data, (name_epoch, 0)
    if len(data) < BLOCK:
        return 17, at
    own = own_header(data)
    if own is None:
        return 9, at
    version, blocks, its_uuid, epoch, features = own
    if version != 2 or features:
        raise Unsupported(name_epoch)
    if its_uuid != uuid:
        return 14, at
    if epoch != name_epoch:
        return 15, at
    if not 16 <= blocks <= 1 << 20:
        return 22, at
    seg.last = blocks - 1
    if len(data) != blocks * BLOCK:
        return 17, (name_epoch, min(len(data) // BLOCK, blocks))
    return None


def own_header(data):
    """(version, segment_blocks, uuid, epoch, features) of a HEADER that is valid by what it says of itself."""
    if len(data) < BLOCK:
        return None
    version, blocks, uuid = struct.unpack_from("<II16s", data, 64)
    epoch = struct.unpack_from("<Q", data, 56)[0]
    state, frame = Segment(epoch, uuid, data[:BLOCK]).place(0)
    # (The first version's ended before the features.)
    if state != VALID or len(frame.payload) < (40 if version == 1 else 48):
        return None
    return version, blocks, uuid, epoch, struct.unpack_from("<I", frame.payload.ljust(48, b"\0"), 40)[0]


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def open_log(directory):
    names = os.listdir(directory)
    files = {int(n[:20]): read(os.path.join(directory, n))
             for n in sorted(names) if re.fullmatch(r"[0-9]{20}\.seg", n) and int(n[:20]) < 1 << 55}
    owners = {e: own[2] for e, own in ((e, own_header(d)) for e, d in files.items()) if own}
    uuid = owners[max(owners)] if owners else bytes(16)
    identity = None
    if "LOG" in names:
        text = rb"foreword log format 2\nuuid (%s)\n" % b"-".join(b"[0-9a-f]{%d}" % n for n in (8, 4, 4, 4, 12))
        match = re.fullmatch(text, read(os.path.join(directory, "LOG")))
        if not files:
            raise Corrupt(13, (0, 0))
        named = bytes.fromhex(match.group(1).decode().replace("-", "")) if match else None
        if named is None or (owners and named not in owners.values()):
            identity = Corrupt(21, (0, 0))
        else:
            uuid = named
    segments = {}
    for epoch, data in files.items():
        if epoch == 0:
            raise Corrupt(15, (epoch, 0))
        segments[epoch] = Segment(epoch, uuid, data)
        segments[epoch].defect = check_header(segments[epoch], epoch, uuid)
    return segments, "LOG" in names, identity


def says(path):
    """What is to be printed of a directory."""
    reader = None
    try:
        segments, has_log, identity = open_log(path)
        reader = Reader(segments, has_log)
        name, row, at = reader.run() if segments else ("unclosed", 2, (0, 0))
        if identity:
            raise identity
    except Corrupt as damage:
        name, row, at = "corruption", damage.row, damage.at
    except Unsupported as segment:
        name, row, at = "unsupported", 0, (segment.args[0], 0)
    lines = ["%d %d %d %s" % (lsn, time, before, body.hex() or "-")
             for lsn, time, before, body in (reader.records if reader else []) if lsn >= reader.control.start]
    return lines + ["verdict: %s row=%d at=%d:%d" % (name, row, *at)]


def main():
    dirs = sys.argv[1:]
    if not dirs or not all(map(os.path.isdir, dirs)):
        print("usage: reader.py DIR...", file=sys.stderr)
        return 1
    for path in dirs:
        print("\n".join(says(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
