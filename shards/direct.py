"""Members read straight to their places in a block of a tar, and compared with the directory.

The zip's own header before a member falls into the 512 bytes that are reserved for the tar's,
where it is looked at and will be written over. What numpy can ask of all members at once is not
asked of each: a member costs one `pread` and one CRC.
"""

import os
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.archive import MAX_MEMBER_BYTES, STORED, MemberError, ZipArchive
from shards.directory import ENCRYPTED, LOCAL
from shards.index import CHANNELS, PARTS
from shards.jpeg_frames import are_plain
from shards.members import Rows
from shards.tar import BLOCK
from shards.task import ShardTask

Numbers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

_CHANNELS = np.array([CHANNELS[part] for part in PARTS])
_BIG = 0xFFFFFFFF
_LOCAL = np.dtype([
    ("signature", "<u4"), ("needs", "<u2"), ("flags", "<u2"), ("method", "<u2"), ("time", "<u4"),
    ("crc", "<u4"), ("stored_size", "<u4"), ("size", "<u4"), ("name", "<u2"), ("extra", "<u2"),
])  # fmt: skip
_SIGNATURE = int.from_bytes(b"PK\3\4", "little")


class _Placed(NamedTuple):
    """The members of the samples that are read directly: columns of (samples, 3)."""

    rows: Rows
    archives: Numbers
    names: list[bytes]
    """One after the other."""
    name_bytes: Numbers
    starts: Numbers
    """Where in the block the zip's own headers come to lie, before the members' first bytes."""
    begins: Numbers
    ends: Numbers


class DirectReader:
    """Reads the samples of a shard whose members keep their bytes.

    Args:
        task: The shard.
    """

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        names = [name.encode() for name in task.samples.names]
        self._names = [names[at : at + len(PARTS)] for at in range(0, len(names), len(PARTS))]
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        self._name_bytes = lengths.reshape(-1, len(PARTS))
        self._is_ascii = np.fromiter(map(str.isascii, task.samples.names), bool, len(names))
        self._extra = np.zeros(len(task.archives), np.int64)
        """Length of the extra field in each archive's local headers: that of the first one seen."""
        self._has_extra = np.zeros(len(task.archives), bool)

    def usual(self) -> Truths:
        """(samples,) Which have nothing in their members' rows that asks for a closer look."""
        task = self._task
        rows = task.samples.rows
        sizes = rows["size"]
        members = (rows["method"] == STORED) & ~rows["encrypted"] & (sizes == rows["stored_size"])
        members &= (sizes > 0) & (sizes <= MAX_MEMBER_BYTES)
        members &= self._is_ascii.reshape(members.shape)
        members &= self._name_bytes <= BLOCK - LOCAL.size - 128  # some room for an extra field
        zips = [isinstance(archive, ZipArchive) for archive in task.archives]
        members &= np.array(zips)[task.samples.archives]
        usual: Truths = members.all(axis=1)
        return usual & (not task.depth.is_picture)

    @property
    def archives_known(self) -> int:
        """Of how many archives the local headers' length is known."""
        return int(self._has_extra.sum())

    def read(self, buffer: memoryview, samples: Numbers, begins: Numbers) -> tuple[Truths, Truths]:
        """Read members to their places.

        Args:
            buffer: Where to.
            samples: (N,) numbers in the shard.
            begins: (N, 3) where each member's first byte belongs; the 512 bytes before it are free.

        Returns:
            (N,) whether all three are what the directory says, and whether they are JPEGs of the
            set's size, grey where they should be.
        """
        members = self._placed(samples, begins)
        true = self._fill(buffer, members) & self._agree(buffer, members)
        return np.logical_and.reduce(true, axis=1), self._are_plain(buffer, members)

    def _placed(self, samples: Numbers, begins: Numbers) -> _Placed:
        rows, archives = (self._task.samples.rows[samples], self._task.samples.archives[samples])
        names = [name for number in samples.tolist() for name in self._names[number]]
        name_bytes = self._name_bytes[samples]
        starts = begins - (LOCAL.size + name_bytes + self._extra[archives])
        starts = np.maximum(starts, begins - BLOCK)  # a longer header is not found there, and fails
        ends = begins + rows["size"].astype(np.int64)
        return _Placed(rows, archives, names, name_bytes, starts, begins, ends)

    def _fill(self, view: memoryview, members: _Placed) -> Truths:
        """Read from the members' local headers on; returns which are whole and match their CRC."""
        nothing = np.zeros(members.starts.shape, bool)
        descriptors = {}
        columns = (members.archives, members.rows["offset"], members.starts, members.begins,
                   members.ends)  # fmt: skip
        sizes, crcs = [], []
        try:
            for number in {*members.archives.ravel().tolist()}:
                archive = self._task.archives[number]
                assert isinstance(archive, ZipArchive)
                descriptors[number] = archive.descriptor()
            for archive_number, offset, start, begin, end in zip(
                *(column.ravel().tolist() for column in columns), strict=True
            ):
                file = descriptors[archive_number]
                sizes.append(os.preadv(file, [view[start:end]], offset))
                crcs.append(zlib.crc32(view[begin:end]))  # now: it is still in the core's cache
        except (OSError, MemberError):
            return nothing  # reading one by one tells which
        whole = np.array(sizes).reshape(nothing.shape) == members.ends - members.starts
        true: Truths = whole & (np.array(crcs).reshape(nothing.shape) == members.rows["crc"])
        return true

    def _agree(self, buffer: memoryview, members: _Placed) -> Truths:
        """Whether members' own headers say what the directory says; see `shards.archive`."""
        everywhere: npt.NDArray[np.void] = np.ndarray(
            len(buffer) - _LOCAL.itemsize + 1, _LOCAL, buffer, strides=(1,)
        )
        local, rows = everywhere[members.starts], members.rows
        same = np.full(local.shape, fill_value=True)
        same &= (local["signature"] == _SIGNATURE) & (local["method"] == rows["method"])
        same &= local["flags"] & ENCRYPTED == 0
        same &= (local["crc"] == rows["crc"]) | (local["crc"] == 0)
        for name in ("size", "stored_size"):
            same &= (local[name] == rows[name]) | (local[name] == 0) | (local[name] == _BIG)
        same &= local["name"] == members.name_bytes
        starts = members.starts + LOCAL.size
        spans = zip(starts.ravel().tolist(), (starts + members.name_bytes).ravel().tolist(),
                    strict=True)  # fmt: skip
        found = [buffer[start:end] for start, end in spans]
        if b"".join(found) != b"".join(members.names):  # compared at once as long as all agree
            pairs = zip(found, members.names, strict=True)
            each = np.array([bytes(name) == expected for name, expected in pairs])
            same &= each.reshape(same.shape)
        self._learn(members.archives[same], local["extra"][same])
        fits = members.begins - members.starts == LOCAL.size + members.name_bytes + local["extra"]
        return same & fits

    def _learn(self, archives: Numbers, extra: Numbers) -> None:
        new = ~self._has_extra[archives]
        if new.any():
            # backwards: of several values for one archive the first stays
            self._extra[archives[new][::-1]] = extra[new][::-1]
            self._has_extra[archives] = True

    def _are_plain(self, buffer: memoryview, members: _Placed) -> Truths:
        """Which samples' images are JPEGs of the set's size, grey where they should be."""
        plain = are_plain(
            np.frombuffer(buffer, np.uint8),
            members.begins.ravel(),
            members.ends.ravel(),
            self._task.image_size,
            np.broadcast_to(_CHANNELS, members.begins.shape).ravel(),
        )
        return np.logical_and.reduce(plain.reshape(-1, len(PARTS)), axis=1)
