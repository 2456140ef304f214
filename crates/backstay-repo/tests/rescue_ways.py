"""Ways of the second reader over timelines, on a repository that is made up: every byte of a log is the number of
the timeline that wrote it, so that a byte of another life is seen. Run by rescue_ways.rs with the directory of the reader."""

import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

sys.path.insert(0, sys.argv[1])
import backstay_log
from backstay_format import Problem

S = 1 << 20  # a segment, unless a case says otherwise


def lsn(position):
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


class MadeUp:
    """`spans`: {timeline: [(start, end)]}; `switches`: {timeline: [(ancestor, where the next one goes on)]}."""

    def __init__(self, spans, switches=None, size=S):
        self.spans, self.switches, self.size = spans, switches or {}, size

    def names(self, place):
        parts = place.split("/")
        if len(parts) == 3:
            return sorted(f"{timeline:08X}" for timeline in {*self.spans, *self.switches}) + ["Thumbs.db"]
        timeline = int(parts[3], 16)
        found = [f"{start:016X}-{end:016X}" for start, end in self.spans.get(timeline, [])]
        return sorted(found + (["history"] if timeline in self.switches else []))

    def document(self, name):
        lines = self.switches[int(name.split("/")[3], 16)]
        return {"format": 1, "history": "# a comment\n" + "".join(f"{each}\t{lsn(at)}\tx\n" for each, at in lines)}

    def writer(self, timeline, position):
        return next((each for each, switch in self.switches.get(timeline, []) if position < switch), timeline)

    def read_span(self, name, start, end):
        timeline, content, at = int(name.split("/")[3], 16), b"", start
        edges = sorted({start, end, *(switch for _, switch in self.switches.get(timeline, []) if start < switch < end)})
        for low, high in zip(edges, edges[1:]):
            content += bytes([self.writer(timeline, low)]) * (high - low)
        return content

    def brought(self, stop, timeline=None, own=1, standby=False, to=None):
        position = {"wal": {"timeline": own, "lsn": lsn(stop)}}
        facts = {"server": {"wal_segment_size": self.size, "system_identifier": "7"}, "from_standby": standby}
        record = {"start_position": position, "stop_position": position, "facts": facts}
        backup = SimpleNamespace(session="s", instance="orders", record=record)
        return backstay_log.Log(self, backup, timeline, to)


backstay_log.read_span = MadeUp.read_span


def files(log):
    with tempfile.TemporaryDirectory() as directory:
        log.write(directory, lambda path, mode: os.chmod(path, mode), lambda count: None)
        return {name: open(os.path.join(directory, name), "rb").read() for name in os.listdir(directory)}


def shape(content):
    """Runs of equal bytes, in sixteenths of a segment."""
    runs, step = [], len(content) // 16
    for number in range(16):
        piece = content[number * step:(number + 1) * step]
        assert len(set(piece)) == 1, "a run ends within a sixteenth"
        if runs and runs[-1][0] == piece[0]:
            runs[-1][1] += 1
        else:
            runs.append([piece[0], 1])
    return [tuple(run) for run in runs]


def check(what, log, reached, follows, expected, hole=None):
    assert log.reached == reached, (what, log.reached)
    assert log.follows == follows, (what, log.follows)
    assert bool(log.hole) == bool(hole) and (not hole or hole in log.hole), (what, log.hole)
    found = files(log)
    segments = {name: shape(content) for name, content in found.items() if len(name) == 24}
    assert segments == expected, (what, segments)
    listed = found["contents"].decode().split()
    assert sorted(name for name in found if name not in ("contents", "fetch")) == listed, (what, listed)
    return found


def name(timeline, number, each=4096):
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


WHOLE = [(1, 16)]
one = MadeUp({1: [(3 * S, 7 * S), (6 * S, 8 * S), (8 * S, 8 * S + S // 2), (8 * S, 8 * S + S // 4)]})
check("the base has its own segment", one.brought(5 * S + 500), (1, 8 * S + S // 2), 1,
      {name(1, 6): WHOLE, name(1, 7): WHOLE, name(1, 8): [(1, 8), (0, 8)]})
check("one of a standby has not", one.brought(5 * S + 500, standby=True), (1, 8 * S + S // 2), 1,
      {name(1, 5): WHOLE, name(1, 6): WHOLE, name(1, 7): WHOLE, name(1, 8): [(1, 8), (0, 8)]})
check("no further than asked", one.brought(5 * S + 500, to=lsn(7 * S)), (1, 7 * S), 1, {name(1, 6): WHOLE})
holed = MadeUp({1: [(3 * S, 7 * S), (8 * S, 9 * S)]})
check("a hole", holed.brought(5 * S), (1, 7 * S), 1, {name(1, 5): WHOLE, name(1, 6): WHOLE}, hole="of timeline 1")
nothing = MadeUp({1: [(8 * S, 9 * S)]}).brought(5 * S)
assert nothing.hole and nothing.reached == (1, 5 * S), "a hole right behind the base"

half, quarter = 8 * S + S // 2, 8 * S + S // 4
two = MadeUp({1: [(3 * S, 12 * S)], 2: [(8 * S, 9 * S)]}, {2: [(1, half)]})
found = check("both lives, and the old one only to where it was left", two.brought(7 * S), (2, 9 * S), 2,
              {name(1, 7): WHOLE, name(1, 8): [(1, 8), (0, 8)], name(2, 8): [(1, 8), (2, 8)]})
assert "00000002.history" in found
found = check("the old life on purpose", two.brought(10 * S, timeline=1), (1, 12 * S), 1,
              {name(1, 10): WHOLE, name(1, 11): WHOLE})
assert "00000002.history" in found, "a promoted server would take a number that somebody has"
check("no further than asked, and short of the switch", two.brought(6 * S, to=lsn(7 * S)), (1, 7 * S), 1, {name(1, 6): WHOLE})
check("the base ends in the segment of the switch", two.brought(quarter), (2, 9 * S), 2,
      {name(1, 8): [(1, 8), (0, 8)], name(2, 8): [(1, 8), (2, 8)]})
unborn = MadeUp({1: [(3 * S, 12 * S)]}, {2: [(1, half)]})
check("nothing of the new life", unborn.brought(7 * S), (2, half), 2,
      {name(1, 7): WHOLE, name(1, 8): [(1, 8), (0, 8)], name(2, 8): [(1, 8), (0, 8)]})
late = MadeUp({1: [(3 * S, 12 * S)], 2: [(10 * S, 12 * S)]}, {2: [(1, half)]})
check("the new life begins behind a hole", late.brought(7 * S), (2, half), 2,
      {name(1, 7): WHOLE, name(1, 8): [(1, 8), (0, 8)], name(2, 8): [(1, 8), (0, 8)]}, hole="of timeline 2")
border = MadeUp({1: [(3 * S, 9 * S)], 2: [(8 * S, 9 * S)]}, {2: [(1, 8 * S)]})
check("a switch between two segments", border.brought(7 * S), (2, 9 * S), 2, {name(1, 7): WHOLE, name(2, 8): [(2, 16)]})
short = MadeUp({1: [(3 * S, 7 * S)], 2: [(8 * S, 9 * S)]}, {2: [(1, half)]})
check("the old life ends short of the switch", short.brought(6 * S), (1, 7 * S), 1, {name(1, 6): WHOLE}, hole="of timeline 1")

three = MadeUp({1: [(3 * S, 9 * S)], 2: [(quarter, half)], 3: [(half, 9 * S)]}, {2: [(1, quarter)], 3: [(1, quarter), (2, half)]})
check("two switches within a segment, of which each has only its own", three.brought(7 * S), (3, 9 * S), 3,
      {name(1, 7): WHOLE, name(1, 8): [(1, 4), (0, 12)], name(2, 8): [(1, 4), (2, 4), (0, 8)],
       name(3, 8): [(1, 4), (2, 4), (3, 8)]})
untold = MadeUp({1: [(3 * S, 9 * S)], 2: [(quarter, 9 * S)], 3: []}, {3: [(1, quarter), (2, 20 * S)]})
found = check("a history that is not there is that of who came later", untold.brought(7 * S), (2, 9 * S), 2,
              {name(1, 7): WHOLE, name(1, 8): [(1, 4), (0, 12)], name(2, 8): [(1, 4), (2, 12)]})
assert found["00000002.history"].startswith(b"1\t0/840000\t"), found["00000002.history"]

for timeline, own, stop in [(3, 2, 9 * S), (2, 1, 9 * S), (9, 1, 7 * S)]:
    try:
        MadeUp({1: [(3 * S, 9 * S)], 2: [(8 * S, 30 * S)]}, {2: [(1, half)], 3: [(1, half)]}).brought(stop, timeline, own)
        raise AssertionError(f"timeline {timeline} did not come from {own} behind {stop:X}")
    except Problem as problem:
        assert problem.code == 2 and "--timeline" in problem.hint, problem

large = MadeUp({1: [(n * S, n * S + 16 * S) for n in range(64 * 65, 64 * 67, 16)]}, size=64 * S)
check("segments of 64 MiB", large.brought(64 * 64 * S + 9), (1, 64 * 67 * S), 1,
      {name(1, 65, 64): WHOLE, name(1, 66, 64): WHOLE})

with tempfile.TemporaryDirectory() as directory:
    here, to = os.path.join(directory, "log with blanks"), os.path.join(directory, "RECOVERYXLOG")
    os.mkdir(here)
    one.brought(5 * S).write(here, lambda path, mode: os.chmod(path, mode), lambda count: None)
    fetch = lambda wanted, into=to: subprocess.run([os.path.join(here, "fetch"), wanted, into], capture_output=True).returncode
    assert fetch(name(1, 6)) == 0 and os.path.getsize(to) == S
    assert fetch(name(1, 9)) == 1 and fetch("00000002.history") == 1 and fetch(".*") == 1 and fetch("-e") == 1
    assert fetch(name(1, 6), os.path.join(directory, "nowhere", "x")) == 126
    os.remove(os.path.join(here, name(1, 6)))
    assert fetch(name(1, 6)) == 126, "it should be there"
    os.remove(os.path.join(here, "contents"))
    assert fetch(name(1, 9)) == 126, "nobody knows what should be there"
print("every way as it should be")
