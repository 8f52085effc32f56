"""Reads a live or abandoned instance's memory, written from shm/LAYOUT.md alone: no code of the project is used, so that
page and code cannot be wrong together."""

import dataclasses
import hashlib
import pathlib
import struct

MASK = (1 << 64) - 1
EMPTY, ACTIVE, DISABLED, REVOKED, DEAD, ELSEWHERE = range(6)
NEVER = (1 << 33) - 1
FOREIGN_DOMAIN = 0x9E3779B97F4A7C15

# XXH3's default secret, its first 56 bytes (doc/xxhash_spec.md of xxHash).
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
)


def xxh3_64(data, seed):
    """XXH3-64 of 9 to 16 bytes."""
    assert 9 <= len(data) <= 16
    word = lambda source, at: struct.unpack_from("<Q", source, at)[0]
    low = word(data, 0) ^ ((word(SECRET, 24) ^ word(SECRET, 32)) + seed & MASK)
    high = word(data, len(data) - 8) ^ ((word(SECRET, 40) ^ word(SECRET, 48)) - seed & MASK)
    product = low * high
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    acc = len(data) + swapped + high + ((product & MASK) ^ (product >> 64)) & MASK
    acc ^= acc >> 37
    acc = acc * 0x165667919E3779F9 & MASK
    return acc ^ (acc >> 32)


@dataclasses.dataclass
class Row:
    index: int
    digest20: bytes
    state: int
    expires: int
    environment: str
    id: str
    owner: str
    name: str
    metadata: str
    created: int
    foreign: bool


@dataclasses.dataclass
class Denial:
    time_ns: int
    code: int
    slot: int | None
    key_id: str | None
    key_mark: bytes | None
    address: bytes | None
    pid: int


class Table:
    def __init__(self, path, generation):
        self.bytes = pathlib.Path(path).read_bytes()
        read = lambda form, at: struct.unpack_from("<" + form, self.bytes, at)[0]
        assert self.bytes[:8] == b"keytabl1" and read("I", 8) == 4 and read("I", 12) == 1024
        assert read("Q", 16) == len(self.bytes) and read("Q", 24) == generation
        self.uid = self.bytes[40:56]
        self.slots_at, self.slot_count, self.stride = read("Q", 56), read("Q", 64), read("I", 72)
        assert (self.stride, read("I", 76), read("I", 80), read("I", 84)) == (32, 0, 16, 24)
        self.hash_seed, self.probe_lines_max = read("Q", 96), read("I", 104)
        self.details_at, self.details_bytes = read("Q", 144), read("Q", 152)
        seeds_at, self.seed_count = read("Q", 160), read("Q", 168)
        assert self.seed_count * 32 == self.slot_count
        self.seeds = self.bytes[seeds_at : seeds_at + self.seed_count]
        self.live, self.dead, self.foreign, self.details_used = struct.unpack_from("<4Q", self.bytes, 176)
        names = (self.bytes[256 + 16 * i : 272 + 16 * i] for i in range(16))
        self.environments = [name.rstrip(b"\0").decode() for name in names]

    def slot(self, index):
        """digest and tag, detail, meta"""
        at = self.slots_at + index * self.stride
        return self.bytes[at : at + 20], *struct.unpack_from("<IQ", self.bytes, at + 20)

    def row(self, index):
        digest20, detail, meta = self.slot(index)
        assert detail != 0 and detail * 8 < self.details_used
        at = self.details_at + detail * 8
        owner_at, created, form_and_len, name_len, id_len = struct.unpack_from("<IIHBB", self.bytes, at)
        metadata_len = form_and_len & 0x7FFF
        text = self.bytes[at + 12 : at + 12 + id_len + name_len + metadata_len]
        owner = b""
        if owner_at != 0:
            start = self.details_at + owner_at * 8
            owner = self.bytes[start + 8 : start + 8 + struct.unpack_from("<I", self.bytes, start)[0]]
        return Row(
            index=index, digest20=digest20, state=meta >> 61, expires=meta >> 28 & NEVER,
            environment=self.environments[meta >> 1 & 15], id=text[:id_len].decode(), owner=owner.decode(),
            name=text[id_len : id_len + name_len].decode(), metadata=text[id_len + name_len :].decode(),
            created=created, foreign=form_and_len >> 15 == 1,
        )  # fmt: skip

    def rows(self):
        return [self.row(index) for index in range(self.slot_count) if self.slot(index)[2] >> 61 not in (EMPTY, DEAD)]

    def find(self, presented, foreign=False):
        """The slot's index by the presented key, or None; and how many lines were looked at."""
        sha256 = hashlib.sha256(presented).digest()
        if foreign:
            key_hash = xxh3_64(sha256[:16], self.hash_seed ^ FOREIGN_DOMAIN)
        else:
            key_hash = xxh3_64(presented[-46:-34], self.hash_seed)
        group = key_hash * self.seed_count >> 64
        multiplier = 0xD6E8FEB86659FD93 + self.seeds[group] * 0x9E3779B97F4A7C16
        line = group * 16 + ((key_hash * multiplier & MASK) >> 60)
        half = key_hash & 1
        for lines in range(1, self.probe_lines_max + 1):
            for index in (line * 2 + half, line * 2 + (half ^ 1)):
                digest20, _, meta = self.slot(index)
                if meta >> 61 == EMPTY:
                    return None, lines
                if digest20 == sha256[:20]:
                    return index, lines
            line = (line + 1) % (self.slot_count // 2)
        return None, self.probe_lines_max


class Cells:
    def __init__(self, path, table):
        self.bytes = pathlib.Path(path).read_bytes()
        read = lambda form, at: struct.unpack_from("<" + form, self.bytes, at)[0]
        assert self.bytes[:8] == b"keycell1" and self.bytes[40:56] == table.uid
        assert read("Q", 16) == len(self.bytes) and read("Q", 64) == table.slot_count
        self.cells_at, self.stride, self.shards, self.shard_stride = read("Q", 56), read("I", 72), read("I", 76), read("Q", 80)
        self.allowed_at, self.denied_at = read("I", 88), read("I", 92)
        self.totals_shards, self.totals_at = read("I", 132), read("Q", 136)
        ring_at, self.ring_count = read("Q", 160), read("Q", 168)
        self.begun = read("Q", ring_at)
        self.room = struct.unpack_from("<16q", self.bytes, ring_at + 64)
        self.open, self.read = read("Q", ring_at + 192), read("Q", ring_at + 200)
        self.told = struct.unpack_from("<16Q", self.bytes, ring_at + 208)
        self.entries_at = ring_at + 384
        assert self.entries_at + self.ring_count * 128 <= len(self.bytes)

    def counts(self, index):
        """(allowed, denied) of a slot"""
        cells = [self.cells_at + shard * self.shard_stride + index * self.stride for shard in range(self.shards)]
        total = lambda offset: sum(struct.unpack_from("<Q", self.bytes, cell + offset)[0] for cell in cells)
        return total(self.allowed_at), total(self.denied_at)

    def code(self, number):
        """How often a verdict code was answered."""
        return sum(
            struct.unpack_from("<Q", self.bytes, self.totals_at + shard * 128 + number * 8)[0]
            for shard in range(self.totals_shards)
        )


    def denial(self, number):
        """The entry of that number; None when it is not whole."""
        words = struct.unpack_from("<16Q", self.bytes, self.entries_at + number % self.ring_count * 128)
        if {word >> 32 for word in words} != {number // self.ring_count + 1}:
            return None
        entry = struct.pack("<16I", *(word & 0xFFFFFFFF for word in words))
        time_ns, slot, key_id, pid, address, code, parts, mark = struct.unpack_from("<QQ12sI16sBB2s", entry, 0)
        return Denial(
            time_ns=time_ns, code=code, slot=slot if parts & 1 else None, key_id=key_id.decode() if parts & 2 else None,
            key_mark=mark if parts & 4 else None, address=address if parts & 8 else None, pid=pid,
        )  # fmt: skip


class Instance:
    """One look at an instance's directory."""

    def __init__(self, directory):
        control = (pathlib.Path(directory) / "control").read_bytes()
        assert len(control) == 4096 and control[:8] == b"keyctrl1"
        self.state = struct.unpack_from("<I", control, 12)[0]
        current_next = struct.unpack_from("<Q", control, 48)[0]
        self.current, self.next = current_next >> 32, current_next & 0xFFFFFFFF
        self.position = struct.unpack_from("<Q", control, 88)[0]
        self.fingerprint = control[96:104]
        self.table = Table(pathlib.Path(directory) / f"table.{self.current}", self.current)
        self.cells = Cells(pathlib.Path(directory) / f"cells.{self.current}", self.table)
