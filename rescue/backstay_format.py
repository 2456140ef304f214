"""The second reader of Backstay's stored format, written from docs/format.md alone. It opens objects for reading only.

Every byte it hands out has passed its frame's authentication, its block's hash and its file's digest, and its CRC-32C
where there is one. Its memory does not grow with a backup but for a line per object. backstay-rescue.py drives it."""

import base64
import contextlib
import json
import os
import re
import struct
from array import array
from collections import OrderedDict, namedtuple

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

INVALID, NOT_FOUND, CONFLICT, DENIED, UNAVAILABLE, UNSUPPORTED, CORRUPT = 2, 3, 4, 5, 6, 7, 8
PACK, MAP, DOCUMENT = 1, 2, 3  # kinds of objects
SECTION, LEAF, ROOT = 1, 2, 3  # kinds of map frames
FILE, DIRECTORY, SYMLINK = 0, 1, 2  # kinds of entries
HEADER, TRAILER, TAG, TABLE_FRAME = 48, 16, 16, 0xFFFFFFFF
SESSION, INSTANCE = re.compile(r"\d{8}T\d{6}Z-[0-9a-z]{4}"), re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
LENGTH_MAX = 1 << 28  # a length beyond it is damage, refused before memory is asked for


class Problem(Exception):
    """What a person is told in one line, and the exit code that goes with it."""

    def __init__(self, code, text, hint=None):
        super().__init__(text)
        self.code, self.hint = code, hint


@contextlib.contextmanager
def reading(what):
    """Bytes that make no sense are damage, never a traceback."""
    try:
        yield
    except InvalidTag:
        raise Problem(CORRUPT, f"{what} does not pass its authentication") from None
    except (FileNotFoundError, NotADirectoryError):
        raise Problem(CORRUPT, f"{what} is missing") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, struct.error,
            zstandard.ZstdError) as error:
        raise Problem(CORRUPT, f"{what} makes no sense: {error}") from None


def derive(context, material):
    return blake3(material, derive_key_context="backstay 2026-11 " + context).digest()


def keyed(key, data, length=16):
    return blake3(data, key=key).digest(length)


def transform(columns, register):
    """Multiplies the 32 columns of a linear operator with a CRC register."""
    result = 0
    for column in columns:
        result ^= column if register & 1 else 0
        register >>= 1
    return result


LANE = 256
TABLE = list(range(256))
for _ in range(8):
    TABLE = [entry >> 1 ^ (0x82F63B78 if entry & 1 else 0) for entry in TABLE]
PLANES = [bytes(entry >> shift & 255 for entry in TABLE) for shift in (0, 8, 16, 24)]
ZEROS = [[(TABLE[1 << bit] if bit < 8 else 1 << bit - 8) for bit in range(32)]]  # ZEROS[k]: append 2^k zero bytes
for _ in range(63):
    ZEROS.append([transform(ZEROS[-1], column) for column in ZEROS[-1]])
JOIN = [[transform(ZEROS[8], byte << shift) for byte in range(256)] for shift in (0, 8, 16, 24)]  # append one lane


class Crc32c:
    """CRC-32C in plain Python at some 80 MB/s: many lanes of the data advance together, each byte of their registers
    forming a plane in which bytes.translate looks up the table, and are joined by the operator "append zeros"."""

    def __init__(self):
        self.register, self.pending = 0xFFFFFFFF, bytearray()

    def update(self, data):
        self.pending += data
        if len(self.pending) >= 1 << 20:
            self.value()

    def zeros(self, count):
        if count < 1 << 16:
            return self.update(bytes(count))
        self.value()
        for power in range(count.bit_length()):
            if count >> power & 1:
                self.register = transform(ZEROS[power], self.register)

    def value(self):
        data, register, number = self.pending, self.register, int.from_bytes
        lanes, a, b, c, d = len(data) // LANE, 0, 0, 0, 0
        body, rest = bytes(data[:lanes * LANE]), data[lanes * LANE:]
        for at in range(LANE if lanes else 0):
            index = (a ^ number(body[at::LANE], "little")).to_bytes(lanes, "little")
            looked_up = [number(index.translate(plane), "little") for plane in PLANES]
            a, b, c, d = looked_up[0] ^ b, looked_up[1] ^ c, looked_up[2] ^ d, looked_up[3]
        j0, j1, j2, j3 = JOIN
        for w, x, y, z in zip(*(plane.to_bytes(lanes, "little") for plane in (a, b, c, d))):
            register = (j0[register & 255] ^ j1[register >> 8 & 255] ^ j2[register >> 16 & 255] ^ j3[register >> 24]
                        ^ (w | x << 8 | y << 16 | z << 24))
        for byte in rest:
            register = TABLE[(register ^ byte) & 255] ^ register >> 8
        self.register, self.pending = register, bytearray()
        return register ^ 0xFFFFFFFF


class Cursor:
    """Reads the numbers of section 1 out of bytes."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than ten bytes")

    def take(self, count):
        piece = self.data[self.at:self.at + count]
        if len(piece) != count:
            raise ValueError("it ends in the middle")
        self.at += count
        return piece

    def text(self):
        return self.take(self.varint()).decode()


class Recent(OrderedDict):
    """The values used last."""

    def __init__(self, size, make, drop=lambda value: None):
        super().__init__()
        self.size, self.make, self.drop = size, make, drop

    def of(self, key):
        if key not in self:
            self[key] = self.make(key)
            if len(self) > self.size:
                self.drop(self.popitem(last=False)[1])
        self.move_to_end(key)
        return self[key]


def argon2id(secret, kdf):
    salt, memory, rounds, lanes = kdf["salt"], kdf["memory_kib"], kdf["iterations"], kdf["parallelism"]
    salt = base64.b64decode(salt)
    with contextlib.suppress(ImportError):
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        return Argon2id(salt=salt, length=32, iterations=rounds, lanes=lanes, memory_cost=memory).derive(secret)
    with contextlib.suppress(ImportError):
        from argon2.low_level import Type, hash_secret_raw
        return hash_secret_raw(secret, salt, rounds, memory, lanes, 32, Type.ID, 0x13)
    raise Problem(UNSUPPORTED, "this Python has no Argon2id", "pip install argon2-cffi")


class Repository:
    """backstay.json, the keyring, and whatever is opened by name."""

    def __init__(self, directory, key_file, passphrase_file):
        self.directory, self.decompressor = directory, zstandard.ZstdDecompressor()
        if not os.path.exists(self.path("backstay.json")):
            raise Problem(NOT_FOUND, f"{directory} is not a repository: it has no backstay.json", "--repository DIR")
        with reading("backstay.json"):
            about = json.loads(self.whole("backstay.json"))
            if about["format"] > 1 or about["requires"]:
                raise Problem(UNSUPPORTED, f"the repository has format {about['format']} and requires {about['requires']}, "
                                           "this reader knows format 1 without additions")
            self.id = bytes.fromhex(about["repository"])
            if about["cipher"] == "none":
                self.generations = {1: derive("unencrypted keyring", self.id)}
                hash_key = derive("unencrypted hash key", self.id)
            else:
                self.generations, hash_key = self.unlock(key_file, passphrase_file)
            mac = about.pop("mac")
            compact = json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
            if keyed(derive("description mac", hash_key), compact, 32).hex() != mac:
                raise ValueError("its mac is another one: it was altered")
        self.block_key = derive("block hash", hash_key)

    def path(self, name):
        return os.path.join(self.directory, *name.split("/"))

    def whole(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def names(self, place):
        try:
            found = os.listdir(self.path(place))
        except (FileNotFoundError, NotADirectoryError):  # anything else is no absence
            return []
        return sorted(name for name in found if not name.startswith("."))

    def unlock(self, key_file, passphrase_file):
        kind = "key-file" if key_file else "passphrase"
        if not key_file and not passphrase_file:
            raise Problem(DENIED, "the repository is encrypted", "--key FILE or --passphrase-file FILE")
        try:
            with open(key_file or passphrase_file, "rb") as file:
                secret = file.read(65536).rstrip(b"\r\n")
        except OSError as error:
            raise Problem(DENIED, f"the secret cannot be read: {error}") from None
        if key_file:
            words = re.fullmatch(rb"backstay-key-1 ([A-Za-z0-9+/]{43}=)\s*", secret)
            if not words:
                raise Problem(DENIED, f"{key_file} is not a key file: one line, backstay-key-1 and 32 bytes in base64")
            secret = derive("key file", base64.b64decode(words[1]))
        rings, unreadable = [], None
        for name in self.names("keys"):
            try:
                with reading(f"keys/{name}"):
                    slot = json.loads(self.whole(f"keys/{name}"))
                    if slot["format"] != 1 or slot["kind"] != kind:
                        continue
                    wrapping = secret if key_file else argon2id(secret, slot["kdf"])
                    nonce, wrapped = base64.b64decode(slot["nonce"]), base64.b64decode(slot["wrapped"])
                    aad = b"backstay keyring" + self.id + slot["slot"].encode()
                    try:
                        ring = json.loads(AESGCM(wrapping).decrypt(nonce, wrapped, aad))
                    except InvalidTag:
                        continue
                    generations = {each["number"]: base64.b64decode(each["key"]) for each in ring["generations"]}
                    rings.append((len(generations), generations, base64.b64decode(ring["hash_key"])))
            except Problem as problem:
                if problem.code != CORRUPT:
                    raise
                unreadable = problem
        if rings:
            return max(rings, key=lambda ring: ring[0])[1:]
        raise unreadable or Problem(DENIED, f"{key_file or passphrase_file} opens no slot of kind {kind} under keys/")

    def object_key(self, name, header, kind):
        magic, version, found, cipher, generation = struct.unpack_from("<4sBBBxI", header)
        if version > 1 and magic == b"BSTY":
            raise Problem(UNSUPPORTED, f"{name} has format {version}, this reader knows 1")
        if (magic, version, found) != (b"BSTY", 1, kind) or cipher > 1 or generation not in self.generations:
            raise Problem(CORRUPT, f"{name} has a header of another kind, cipher or key generation")
        key = derive("object key", self.generations[generation] + header[16:HEADER])
        return AESGCM(key) if cipher else key, header + self.id + struct.pack("<H", len(name)) + name.encode()

    def unseal(self, what, key, aad, number, raw_length, codec, stored):
        aad += struct.pack("<IIB", number, raw_length, codec)
        with reading(what):
            if raw_length > LENGTH_MAX or codec > 1:
                raise ValueError(f"length {raw_length}, codec {codec}")
            if isinstance(key, AESGCM):
                data = key.decrypt(struct.pack("<I8x", number), bytes(stored), aad)
            else:
                data = stored[:-TAG]
                if keyed(key, aad + data) != stored[-TAG:]:
                    raise InvalidTag
            if codec == 1:
                if zstandard.frame_content_size(data) not in (-1, raw_length):
                    raise ValueError("its length is another one")
                data = self.decompressor.decompress(data, max_output_size=raw_length)
            if len(data) != raw_length:
                raise ValueError("its length is another one")
            return data

    def document(self, name):
        with reading(name):
            data = self.whole(name)
            key, aad = self.object_key(name, data[:HEADER], DOCUMENT)
            raw_length, codec, rest = struct.unpack_from("<IB3s", data, HEADER)
            if any(rest):
                raise ValueError("its reserved bytes are not zero")
            return json.loads(self.unseal(name, key, aad, 0, raw_length, codec, data[HEADER + 8:]))

    def sessions(self, instance=None):
        """Every (instance, session) that has a manifest or a tombstone, newest first."""
        instances = [instance] if instance else self.names("")
        found = [(session, name) for name in instances if INSTANCE.fullmatch(name)
                 for session in self.names(f"{name}/backups") if SESSION.fullmatch(session)]
        return [(name, session) for session, name in sorted(found, reverse=True)]


class Container:
    """An open pack or map, and its frame table."""

    def __init__(self, repository, name, kind, size):
        self.repository, self.name, self.file = repository, name, open(repository.path(name), "rb")
        found = os.fstat(self.file.fileno()).st_size
        if found != size:
            raise ValueError(f"it has {found} bytes, the manifest says {size}")
        self.key, self.aad = repository.object_key(name, self.read(0, HEADER), kind)
        stored, raw, count, end = struct.unpack("<III4s", self.read(max(0, size - TRAILER), TRAILER))
        begin = size - TRAILER - stored
        if end != b"BSTE" or begin < HEADER:
            raise ValueError("it does not end as it should")
        table = Cursor(repository.unseal(name, self.key, self.aad, TABLE_FRAME, raw, 1, self.read(begin, stored)))
        self.offsets, self.shapes = array("Q", [HEADER]), array("Q")
        for _ in range(count):
            self.offsets.append(self.offsets[-1] + table.varint())
            self.shapes.append(table.varint())
        if self.offsets[-1] != begin:
            raise ValueError("its frames do not fill it")

    def read(self, offset, length):
        data = os.pread(self.file.fileno(), length, offset)
        if len(data) != length:
            raise ValueError("it ends in the middle")
        return data

    def frame(self, number):
        what = f"frame {number} of {self.name}"
        with reading(what):
            stored = self.read(self.offsets[number], self.offsets[number + 1] - self.offsets[number])
            raw_length, codec = self.shapes[number] >> 1, self.shapes[number] & 1
            return self.repository.unseal(what, self.key, self.aad, number, raw_length, codec, stored)


MapFrame = namedtuple("MapFrame", "kind sessions payload")
Level = namedtuple("Level", "session object frame offset runs blocks")
Run = namedtuple("Run", "start end place hashes")  # place: session, pack, frame, offset; None for zeros
Entry = namedtuple("Entry", "path kind mode uid gid modified target size unit crc digest levels")


class Backup:
    """A backup: its manifest, its table of files, and what is in each file."""

    def __init__(self, repository, instance, session):
        self.repository, self.instance, self.session, self.objects = repository, instance, session, {}
        with reading(f"{instance}/backups/{session}"):
            self.manifest = repository.document(f"{instance}/backups/{session}")
            if self.manifest["format"] > 1:
                raise Problem(UNSUPPORTED, f"backup {session} has format {self.manifest['format']}, this reader knows 1")
            self.dead = "tombstone" in self.manifest
            self.record = self.manifest.get("record")
            for group in [] if self.dead else self.manifest["objects"]:
                self.objects.update({(PACK, group["session"], pack[0]): pack[1] for pack in group["packs"]})
                self.objects.update({(MAP, group["session"], number): size for number, size in group["maps"]})
            if not self.dead and (self.record["id"], self.record["instance"]) != (session, instance):
                raise ValueError("it describes another backup")
        self.containers = Recent(32, self.open, lambda container: container.file.close())
        self.pack_frames = Recent(64, lambda at: self.containers.of((PACK, at[0], at[1])).frame(at[2]))
        self.map_frames = Recent(64, self.open_map_frame)

    def name_of(self, key):
        kind, session, number = key
        return f"{self.instance}/packs/{session}-{number:06}" if kind == PACK else f"{self.instance}/maps/{session}/{number:06}"

    def open(self, key):
        with reading(self.name_of(key)):
            if key not in self.objects or not SESSION.fullmatch(key[1]):
                raise ValueError("the maps name it, and the manifest does not list it")
            return Container(self.repository, self.name_of(key), key[0], self.objects[key])

    def open_map_frame(self, at):
        raw = self.containers.of((MAP, at[0], at[1])).frame(at[2])
        with reading(f"frame {at[2]} of {self.name_of((MAP, at[0], at[1]))}"):
            cursor = Cursor(raw, 1)
            sessions = [cursor.text() for _ in range(cursor.varint())]
            return MapFrame(raw[0], sessions, raw[cursor.at:])

    def entries(self):
        """Every entry of the table of files, in ascending order of paths."""
        last = b""
        for number, frame in self.manifest["root"]:
            root = self.map_frames.of((self.session, number, frame))
            with reading(f"root frame {frame} of {self.name_of((MAP, self.session, number))}"):
                cursor, leaves = Cursor(root.payload), []
                for _ in range(cursor.varint() if root.kind == ROOT else 1 << 64):
                    cursor.text()
                    leaves.append((root.sessions[cursor.varint()], cursor.varint(), cursor.varint()))
                    cursor.take(16)
                    cursor.varint()
            for place in leaves:
                leaf = self.map_frames.of(place)
                with reading(f"leaf frame {place[2]} of {self.name_of((MAP, *place[:2]))}"):
                    entries = list(parse_leaf(leaf, last))
                    last = entries[-1].path.encode()
                yield from entries

    def runs(self, level):
        """The runs of one section, through all frames that it lies in."""
        number, frame, block, covered = level.object, level.frame, 0, 0
        section = self.map_frames.of((level.session, number, frame))
        cursor = Cursor(section.payload, level.offset)
        for _ in range(level.runs):
            while section.kind != SECTION or cursor.at >= len(section.payload):
                frame += 1
                if frame >= len(self.containers.of((MAP, level.session, number)).shapes):
                    number, frame = number + 1, 0
                section = self.map_frames.of((level.session, number, frame))
                cursor = Cursor(section.payload)
            with reading(f"section frame {frame} of {self.name_of((MAP, level.session, number))}"):
                block += cursor.varint()
                shape = cursor.varint()
                count, place, hashes = shape >> 1, None, None
                if not shape & 1:
                    place = section.sessions[cursor.varint()], cursor.varint(), cursor.varint(), cursor.varint()
                    hashes = cursor.take(16 * count)
            yield Run(block, block + count, place, hashes)
            block, covered = block + count, covered + count
        if covered != level.blocks:
            raise Problem(CORRUPT, f"a section of {level.session} covers {covered} blocks, its leaf says {level.blocks}")

    def overlay(self, entry):
        """Pieces (first block, end, run) that cover the file; of several levels the newest wins."""
        block, total = 0, -(-entry.size // entry.unit)
        sections = [self.runs(level) for level in entry.levels]
        heads = [next(section, None) for section in sections]
        while block < total:
            end, found = total, None
            for index, section in enumerate(sections):
                while heads[index] and heads[index].end <= block:
                    heads[index] = next(section, None)
                if heads[index] and heads[index].start <= block:
                    end, found = min(end, heads[index].end), heads[index]
                    break
                end = min(end, heads[index].start) if heads[index] else end
            if not found:
                raise Problem(CORRUPT, f"no level covers block {block}")
            yield block, end, found
            block = end

    def content(self, entry, with_crc, report):
        """Yields (offset, bytes) of all that is not zero; `report` is told of damage, and may raise."""
        key, unit, problems = self.repository.block_key, entry.unit, []
        digest, crc = blake3(key=key), Crc32c() if with_crc and entry.crc is not None else None
        try:
            for first, end, run in self.overlay(entry):
                begin, stop = first * unit, min(end * unit, entry.size)
                if run.place is None:
                    for at in range(first, end, 65536):
                        digest.update(bytes(16 * min(end - at, 65536)))
                    if crc:
                        crc.zeros(stop - begin)
                    continue
                try:
                    at = run.place[3] + (first - run.start) * unit
                    piece = self.pack_frames.of(run.place[:3])[at:at + stop - begin]
                    hashes = run.hashes[16 * (first - run.start):16 * (end - run.start)]
                    for index in range(end - first):
                        if keyed(key, piece[index * unit:(index + 1) * unit]) != hashes[16 * index:16 * index + 16]:
                            raise Problem(CORRUPT, f"the hash of block {first + index} is another one")
                except Problem as problem:
                    problems.append(problem)
                    report(f"{entry.path}, bytes {begin} to {stop}: {problem}")
                    continue
                digest.update(hashes)
                if crc:
                    crc.update(piece)
                yield begin, piece
            if not problems and digest.digest(16) != entry.digest:
                raise Problem(CORRUPT, "its digest is another one")
            if not problems and crc and crc.value() != entry.crc:
                raise Problem(CORRUPT, "its CRC-32C is another one")
        except Problem as problem:
            report(f"{entry.path}: {problem}")


def parse_leaf(leaf, last):
    if leaf.kind != LEAF:
        raise ValueError("it is not a leaf")
    cursor, path = Cursor(leaf.payload), b""
    for _ in range(cursor.varint()):
        path = path[:cursor.varint()] + cursor.take(cursor.varint())
        if path <= last or {b"", b".", b".."} & set(path.split(b"/")) or b"\0" in path:
            raise ValueError(f"the path {path!r} is out of order or leaves the directory")
        last, kind = path, cursor.take(1)[0]
        mode, uid, gid, modified = (cursor.varint() for _ in range(4))
        modified = modified >> 1 ^ -(modified & 1)
        target, size, unit, crc, digest, levels = None, 0, 1, None, None, []
        if kind == SYMLINK:
            target = cursor.text()
        elif kind == FILE:
            size, unit = cursor.varint(), max(1, cursor.varint())
            if cursor.take(1)[0] & 1:
                crc, = struct.unpack("<I", cursor.take(4))
            digest = cursor.take(16)
            levels = [Level(leaf.sessions[cursor.varint()], *(cursor.varint() for _ in range(5)))
                      for _ in range(cursor.varint())]
        elif kind != DIRECTORY:
            raise ValueError(f"kind {kind} of {path!r} is unknown")
        yield Entry(path.decode(), kind, mode, uid, gid, modified, target, size, unit, crc, digest, levels)
