"""The log of a PostgreSQL in Backstay's stored format, as the files that a server asks its restore_command for; written from
section 11 of docs/format.md alone. Every byte has passed its frame's authentication and its span's digest."""

import json
import os
import re
import struct

from backstay_format import CONFLICT, CORRUPT, Container, Crc32c, Problem, UNSUPPORTED, keyed, reading

LOG = 4  # the kind of its objects
SPAN = re.compile(r"([0-9A-F]{16})-([0-9A-F]{16})")
PAGE, SPAN_MAX = 8192, 16 << 20


def shown(position):
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def parse(position):
    high, low = position["wal"]["lsn"].split("/")
    return position["wal"]["timeline"], int(high, 16) << 32 | int(low, 16)


class Lost(Exception):
    """Nothing is known any more before the page that begins here."""


class Records:
    """The form postgresql-records: gives every record in a span back what follows from the rest of it."""

    def __init__(self, start, content):
        self.start, self.content, self.transaction, self.previous = start, bytearray(content), 0, 0

    def unfolded(self):
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
    container = Container(repository, name, LOG, os.path.getsize(repository.path(name)))
    try:
        head = json.loads(container.frame(0))
        with reading(name):
            if head["format"] > 2 or head.get("form", "") not in ("", "bytes", "postgresql-records"):
                raise Problem(UNSUPPORTED, f"{name} has format {head['format']}, this reader knows 2")
            if (head["start"], head["end"]) != (start, end) or not 0 < end - start <= SPAN_MAX:
                raise ValueError("its head speaks of another span than its name")
            content = b"".join(container.frame(number) for number in range(1, head["content_frames"] + 1))
            if head.get("form") == "postgresql-records":
                content = Records(start, content).unfolded()
            if len(content) != end - start or keyed(repository.block_key, content).hex() != head["digest"]:
                raise ValueError("its digest is another one")
            return content
    finally:
        container.file.close()


def spans_of(repository, place, start):
    """The spans that reach behind `start`, without those that lie within others."""
    found = []
    for name in repository.names(place):
        if words := SPAN.fullmatch(name):
            span = int(words[1], 16), int(words[2], 16)
            found += [(span, f"{place}/{name}")] if span[1] > start else []
    reached = 0
    for span, name in sorted(found, key=lambda one: (one[0][0], -one[0][1])):
        if span[1] > reached:
            yield span, name
            reached = span[1]


class Segments:
    """The files of one timeline, which grow where spans belong."""

    def __init__(self, directory, timeline, size):
        self.directory, self.timeline, self.size, self.names = directory, timeline, size, set()

    def put(self, start, content, known_to):
        """`known_to`: up to there the bytes are there already, and must be the same."""
        at = start
        while at < start + len(content):
            number, offset = divmod(at, self.size)
            piece = content[at - start:][:self.size - offset]
            each = (1 << 32) // self.size
            name = f"{self.timeline}{number // each:08X}{number % each:08X}"
            path = os.path.join(self.directory, name)
            with open(path, "r+b" if name in self.names else "x+b") as file:
                os.fchmod(file.fileno(), 0o600)
                self.names.add(name)
                file.truncate(self.size)  # what is missing is zeros
                twice = max(0, min(known_to - at, len(piece)))
                if os.pread(file.fileno(), twice, offset) != piece[:twice]:
                    raise Problem(CORRUPT, f"two spans of timeline {self.timeline} say different things about {shown(at)}")
                file.seek(offset)
                file.write(piece)
            at += len(piece)


def write_log(repository, backup, directory, say, add):
    """Writes the log behind the start of a backup, of all timelines; `say` is told of each hole, `add` of bytes that
    are done. Returns (files, timeline, position): how many there are, and where the log of the last timeline ends."""
    with reading(f"the manifest of {backup.session}"):
        server = backup.record["facts"]["server"]
        size, lineage = server["wal_segment_size"], f"{int(server['system_identifier']):016X}"
        (_, begin), (own, held_to) = (parse(backup.record[key]) for key in ("start_position", "stop_position"))
        begin = begin // size * size
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise Problem(CONFLICT, f"{directory} is not an empty directory", "name another DIR")
    os.makedirs(directory, 0o700, exist_ok=True)
    place, files, last = f"{backup.instance}/log/{lineage}", 0, (None, 0)
    for timeline in repository.names(place):
        with reading(f"{place}/{timeline}"):
            number = int(timeline, 16)
        if os.path.exists(repository.path(f"{place}/{timeline}/history")):
            with open(os.path.join(directory, f"{timeline}.history"), "x") as file:
                file.write(repository.document(f"{place}/{timeline}/history")["history"])
        segments, known_to = Segments(directory, timeline, size), 0
        for (start, end), name in spans_of(repository, f"{place}/{timeline}", begin):
            there_to = known_to or (held_to if number == own else start)  # a backup holds the log that it needs itself
            if start > there_to:
                say(f"hole: of timeline {number} nothing is there from {shown(there_to)} to {shown(start)}")
            segments.put(start, read_span(repository, name, start, end), known_to)
            known_to = end
            add(end - start)
        files += len(segments.names)
        last = (number, known_to) if known_to else last
    return (files, *last)
