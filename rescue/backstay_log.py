"""The log of a PostgreSQL in Backstay's stored format (section 11 of docs/format.md), as the files that a server asks its
restore_command for. Every byte has passed its frame's authentication and its span's digest."""

import json
import os
import re
import struct
from collections import namedtuple

from backstay_format import CORRUPT, Container, Crc32c, INVALID, Problem, UNSUPPORTED, keyed, reading

LOG = 4  # the kind of its objects
SPAN = re.compile(r"([0-9A-F]{16})-([0-9A-F]{16})")
PAGE, SPAN_MAX = 8192, 16 << 20
Leg = namedtuple("Leg", "timeline begin end")  # one timeline on the way of a replay; the last has no end
FETCH = """#!/bin/sh
# restore_command = '"…/fetch" %f "%p"'. PostgreSQL takes 1 for the end of the log and opens, so that any other trouble is 126.
here=$(dirname "$0")
[ -r "$here/contents" ] || exit 126
grep -qxF -e "$1" "$here/contents"
case $? in 0) ;; 1) exit 1 ;; *) exit 126 ;; esac
cp "$here/$1" "$2" || exit 126
"""


def shown(position):
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def parse(lsn):
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Lost(Exception):
    """Where records can be looked for again."""


class Records:
    """The form postgresql-records: gives every record in a span back what follows from the rest of it."""

    def __init__(self, start, content):
        self.start, self.content, self.transaction, self.previous = start, bytearray(content), 0, 0

    def unfolded(self):
        if self.start + len(self.content) + 2 * PAGE >= 1 << 64:
            return bytes(self.content)
        page = self.page_from(0)
        while page < len(self.content):
            self.previous = 0
            try:
                self.records_from(page)
            except Lost as lost:
                page = lost.args[0]
        return bytes(self.content)

    def page_from(self, at):
        return at + -(self.start + at) % PAGE

    def header(self, page):
        """Where what is behind the header begins, and how many bytes of an older record go on there, None for none."""
        if page + 24 > len(self.content):
            raise Lost(len(self.content))
        info, address, rest = struct.unpack_from("<2xH4xQI", self.content, page)
        if address != self.start + page or (info & 1 and rest == 0):
            raise Lost(page + PAGE)
        return page + (40 if info & 2 else 24), rest if info & 1 else None

    def stretches(self, at, length):
        """Where so many bytes of a record lie, between the headers of pages."""
        found = []
        while True:
            end = min(self.page_from(at + 1), at + length)
            if end > len(self.content):
                raise Lost(len(self.content))
            found.append((at, end))
            length -= end - at
            if length == 0:
                return found
            at, rest = self.header(end)
            if rest != length:
                raise Lost(end)

    def records_from(self, page):
        at, rest = self.header(page)
        if rest is not None:
            at = self.stretches(at, rest)[-1][1]
        while True:
            at += -(self.start + at) % 8
            if (self.start + at) % PAGE == 0:
                page = at
                at, rest = self.header(page)
                if rest is not None:
                    raise Lost(page)
            if at + 4 > len(self.content):
                raise Lost(len(self.content))
            length, = struct.unpack_from("<I", self.content, at)
            if length < 24:
                raise Lost(self.page_from(at + 1))
            stretches = self.stretches(at, length)
            self.give_back(stretches)
            self.previous, at = self.start + at, stretches[-1][1]

    def give_back(self, stretches):
        record = b"".join(self.content[begin:end] for begin, end in stretches)
        length, transaction, previous, kind, crc = struct.unpack_from("<IIQII", record)
        transaction = (transaction + self.transaction) & 0xFFFFFFFF
        self.transaction = transaction or self.transaction
        summed = struct.pack("<IIQI", length, transaction, previous ^ self.previous, kind)
        crc_of = Crc32c()
        crc_of.update(record[24:] + summed)
        header = summed + struct.pack("<I", crc ^ crc_of.value())
        for begin, end in stretches:
            put, header = header[:end - begin], header[end - begin:]
            self.content[begin:begin + len(put)] = put


def read_span(repository, name, start, end):
    with reading(name):
        container = Container(repository, name, LOG, os.path.getsize(repository.path(name)))
    try:
        with reading(name):
            head = json.loads(container.frame(0))
            if head["format"] > 2:
                raise Problem(UNSUPPORTED, f"{name} has format {head['format']}, this reader knows 2")
            form = head.get("form", "bytes")
            if form not in ("bytes", "postgresql-records"):
                raise ValueError(f"its form is {form}")
            if (head["start"], head["end"]) != (start, end) or not 0 < end - start <= SPAN_MAX:
                raise ValueError("its head speaks of another span than its name")
            content = b"".join(container.frame(number) for number in range(1, head["content_frames"] + 1))
            if form == "postgresql-records":
                content = Records(start, content).unfolded()
            if len(content) != end - start or keyed(repository.block_key, content).hex() != head["digest"]:
                raise ValueError("its digest is another one")
            return content
    finally:
        container.file.close()


def joined(spans):
    """Where there is something, of spans that may touch and overlap."""
    found = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


class Log:
    """What a repository has of the log behind a backup, and the way of a replay over its timelines."""

    def __init__(self, repository, backup, timeline=None, to=None):
        self.repository, self.backup, self.to = repository, backup, 1 << 64
        if to is not None:
            if not re.fullmatch(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", to):
                raise Problem(INVALID, f"--to {to} is not a position such as 0/3000028")
            self.to = parse(to)
        if backup.record.get("engine", "postgresql") != "postgresql":
            raise Problem(UNSUPPORTED, f"{backup.session} is of {backup.record['engine']}, and only the log of PostgreSQL is written here",
                          "sections 11 and 12 of docs/format.md say how a stream is put together")
        with reading(f"the manifest of {backup.session}"):
            positions = [backup.record.get(key) for key in ("start_position", "stop_position")]
            if None in positions:
                raise Problem(INVALID, f"{backup.session} does not say which log it needs")
            facts = backup.record["facts"]
            self.size = facts["server"]["wal_segment_size"]
            self.place = f"{backup.instance}/log/{int(facts['server']['system_identifier']):016X}"
            own, stop = positions[1]["wal"]["timeline"], parse(positions[1]["wal"]["lsn"])
            from_standby = facts.get("from_standby", False)
        self.spans, self.histories = {}, {}
        for name in repository.names(self.place):
            if re.fullmatch(r"[0-9A-F]{8}", name):
                self.list_timeline(int(name, 16), f"{self.place}/{name}")
        self.target = timeline or max([own, *self.spans, *self.histories])
        self.legs = self.way(own, stop)
        first = self.legs[0]
        # The server began another segment at the end of a backup, unless that was one of a standby: its own log goes so far.
        floor, ceiling = stop // self.size * self.size, -(-stop // self.size) * self.size
        left_within = first.end is not None and first.end < ceiling
        self.legs[0] = first._replace(begin=floor if from_standby or left_within else ceiling)
        self.follow()

    def list_timeline(self, timeline, place):
        listed = self.repository.names(place)
        names = [(name, SPAN.fullmatch(name)) for name in listed]
        spans = [(int(words[1], 16), int(words[2], 16), f"{place}/{name}") for name, words in names if words]
        if spans:
            self.spans[timeline] = spans
        if "history" in listed:
            document = self.repository.document(f"{place}/history")
            with reading(f"{place}/history"):
                if document["format"] > 1:
                    raise Problem(UNSUPPORTED, f"{place}/history has format {document['format']}, this reader knows 1")
                lines = [line.split() for line in document["history"].splitlines()]
                switches = [(int(line[0]), parse(line[1])) for line in lines if line and not line[0].startswith("#")]
                self.histories[timeline] = switches, document["history"]

    def way(self, own, stop):
        """From the end of the backup to the timeline that is followed."""
        legs, at = [], stop
        if self.target != own:
            switches = self.histories.get(self.target, ([], ""))[0]
            behind = [number for number, (timeline, _) in enumerate(switches) if timeline == own]
            for timeline, switch in switches[behind[0]:] if behind else []:
                legs.append(Leg(timeline, at, switch))
                at = switch
            if not legs or any(leg.end < leg.begin for leg in legs):
                known = ", ".join(map(str, sorted({own, *self.spans, *self.histories})))
                raise Problem(INVALID, f"timeline {self.target} did not come from {own} behind {shown(stop)}, where "
                                       f"{self.backup.session} ends", f"--timeline N follows another one; there are: {known}")
        return [*legs, Leg(self.target, at, None)]

    def sources(self, number):
        """The parts of spans that hold log of a leg: its own, and what its neighbours have of the segment of a switch."""
        leg = self.legs[number]
        limits = [(leg.timeline, self.to if leg.end is None else leg.end)]
        limits += [(later.timeline, leg.end) for later in self.legs[number + 1:number + 2]]
        limits += [(before.timeline, before.end) for before in reversed(self.legs[:number])]
        low = leg.begin // self.size * self.size
        for timeline, high in limits:
            for start, stop, name in sorted(self.spans.get(timeline, []), key=lambda span: (span[0], -span[1])):
                first, last = max(start, low), min(stop, high, self.to)
                if first < last:
                    yield first, last, start, stop, name

    def follow(self):
        """How far the log is there on this way, and the hole that ends it before its end."""
        self.hole, self.reached = None, (self.legs[0].timeline, self.legs[0].begin)
        for number, leg in enumerate(self.legs):
            there = joined([part[:2] for part in self.sources(number)])
            around = [end for start, end in there if start <= leg.begin < end]
            end = around[0] if around else leg.begin
            self.last, self.reached = number, (leg.timeline, end)
            if end >= self.to:
                return
            beyond = [start for start, _ in there if start > end]
            later = [each.timeline for each in self.legs[number + 1:] if each.timeline in self.spans]
            if leg.end is None or end < leg.end:
                if beyond:
                    self.hole = f"of timeline {leg.timeline} nothing is there from {shown(end)} to {shown(beyond[0])}"
                elif later and leg.end is not None:
                    self.hole = f"of timeline {leg.timeline} nothing is there from {shown(end)} to {shown(leg.end)}"
                return

    def ends(self):
        """From where to where each leg is written, in bytes of whole segments."""
        for number in range(self.last + 1):
            leg = self.legs[number]
            end = self.reached[1] if number == self.last else leg.end
            if end > leg.begin // self.size * self.size:
                yield number, leg.begin // self.size * self.size, end

    @property
    def follows(self):
        """What recovery_target_timeline is to be: a timeline of which nothing is there would be asked for in vain."""
        return self.reached[0]

    def segments(self):
        return sum(-(-end // self.size) - begin // self.size for _, begin, end in self.ends())

    def write(self, directory, give, add):
        """Into a directory that is empty. What is there without the file `fetch` is not whole."""
        for number, begin, end in self.ends():
            files, done = Segments(directory, f"{self.legs[number].timeline:08X}", self.size, give), []
            for first, last, start, stop, name in self.sources(number):
                first, last = max(first, begin), min(last, end)
                if first >= last or any(low <= first and last <= high for low, high in done):
                    continue
                try:
                    content = read_span(self.repository, name, start, stop)[first - start:last - start]
                except Problem as problem:
                    problem.hint = problem.hint or f"--to {shown(start)} brings what lies before it, into another DIR"
                    raise
                files.put(first, content, done)
                done = joined([*done, (first, last)])
                add(last - first)
        for timeline, text in self.texts_of_histories().items():
            write_text(os.path.join(directory, f"{timeline:08X}.history"), text, 0o600, give)
        contents = "".join(name + "\n" for name in sorted(os.listdir(directory)))
        write_text(os.path.join(directory, "contents"), contents, 0o600, give)
        give(directory, 0o700)
        os.sync()
        write_text(os.path.join(directory, "fetch"), FETCH, 0o700, give)
        os.sync()

    def texts_of_histories(self):
        """Of all timelines: a server that is promoted takes the first number that nobody has. Where that of a
        timeline on the way is missing, the one that is followed says the same."""
        texts = {timeline: text for timeline, (_, text) in self.histories.items()}
        for leg in self.legs[1:]:
            before = [each for each in self.legs if each.timeline < leg.timeline]
            known = [line for line in self.histories.get(self.target, ([], ""))[0] if line[0] < before[0].timeline]
            lines = [*known, *((each.timeline, each.end) for each in before)]
            text = "".join(f"{number}\t{shown(switch)}\tno history was archived\n" for number, switch in lines)
            texts.setdefault(leg.timeline, text)
        return texts


def write_text(path, text, mode, give):
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
    give(path, mode)


class Segments:
    """The files of one timeline, which grow where parts of spans belong."""

    def __init__(self, directory, timeline, size, give):
        self.directory, self.timeline, self.size, self.give, self.names = directory, timeline, size, give, set()

    def put(self, start, content, done):
        """`done`: there the bytes are already, and must be the same."""
        at = start
        while at < start + len(content):
            number, offset = divmod(at, self.size)
            piece = content[at - start:][:self.size - offset]
            each = (1 << 32) // self.size
            name = f"{self.timeline}{number // each:08X}{number % each:08X}"
            path = os.path.join(self.directory, name)
            with open(path, "r+b" if name in self.names else "x+b") as file:
                if name not in self.names:
                    self.names.add(name)
                    self.give(path, 0o600)
                    file.truncate(self.size)  # what is missing is zeros
                for low, high in done:
                    low, high = max(low, at), min(high, at + len(piece))
                    if low < high and os.pread(file.fileno(), high - low, low % self.size) != piece[low - at:high - at]:
                        raise Problem(CORRUPT, f"two spans of timeline {self.timeline} say different things about {shown(low)}")
                file.seek(offset)
                file.write(piece)
            at += len(piece)
