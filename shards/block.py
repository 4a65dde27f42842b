"""Samples on their way from the archives into a tar, some at a time, in the tar's own memory.

A block is made where the disk will take it from. Members that keep their bytes are read straight to
their places in it (`shards.direct`). Whatever is not as usual (compressed, repaired, damaged) is
read and judged one by one (`shards.sample`), and takes its place in the order.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted

import numpy as np
import numpy.typing as npt

from shards.direct import DirectReader
from shards.imagery import MAX_SCANS, Header, ImageError, Pixels, check_codes, decode
from shards.index import CHANNELS, PARTS
from shards.jpeg_frames import num_scans
from shards.sample import (
    Image,
    Look,
    RejectedError,
    image_of,
    read_sample,
)
from shards.tar import BLOCK, headers
from shards.task import Facts, ShardTask

COMPONENTS = {"composite": "fgbg", "mask": "mask", "depth": "depth"}
"""What a part is called between key and extension in the tar."""

_USUAL_ENDS = tuple(f".{component}.jpg" for component in COMPONENTS.values())

Numbers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

_MEMBERS = len(PARTS) + 1  # and KEY.json


@dataclass(kw_only=True, slots=True)
class Block:
    """Some samples as they go into the tar; valid until they are appended to it."""

    data: memoryview
    """Members with headers and padding."""
    samples: list[int]
    """Numbers in the shard of those that are in it."""
    names: list[str]
    """Of the members in the tar, four for each sample."""
    offsets: Numbers
    """(samples, 4) of the members' first bytes from the beginning of `data`."""
    sizes: Numbers
    """(samples, 4) bytes."""
    crcs: Numbers
    """(samples, 4) CRC-32."""
    num_repaired: Sequence[int]
    """By part."""
    rejected: list[dict[str, str]]
    """The samples that are not in it, with the member to blame and the reason."""


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A block in the making."""

    samples: Numbers
    direct: Truths
    """(samples,) Which are read straight into the block; of the others `images` has the bytes."""
    images: dict[int, list[Image]]
    """By sample number; of the direct ones only those that were looked at closely."""
    decoded: set[int]
    """Direct samples that decode cleanly, and were counted if they are to be."""
    infos: list[bytes]
    sizes: Numbers
    headers_at: Numbers = field(init=False)
    """(samples, 4) numbers of the 512-byte blocks that hold the members' headers."""
    num_blocks: int = field(init=False)
    crcs: Numbers = field(init=False)

    def __post_init__(self) -> None:
        blocks = 1 + -(-self.sizes // BLOCK)
        ends = np.cumsum(blocks).reshape(self.sizes.shape)
        self.headers_at = ends - blocks
        self.num_blocks = int(ends[-1, -1]) if len(ends) else 0
        self.crcs = np.zeros_like(self.sizes)

    @property
    def begins(self) -> Numbers:
        """(samples, 4) of the members' first bytes."""
        return (self.headers_at + 1) * BLOCK


class BlockMaker:
    """Makes the blocks of a shard, one after the other.

    Args:
        task: The shard.
        reserve: Memory for a block of so many bytes; asked for again, the one before is forgotten.
        count: Takes each part's pixels of every sample that enters the statistics.
    """

    def __init__(
        self,
        task: ShardTask,
        reserve: Callable[[int], memoryview],
        count: Callable[[Sequence[Pixels]], None],
    ) -> None:
        self._task, self._reserve, self._count = task, reserve, count
        self._buffer = memoryview(b"")
        self._direct = DirectReader(task)
        self._usual = self._direct.usual()
        self._counted = np.zeros(len(task.samples), bool)
        self._counted[list(task.counted)] = True
        self._plain = [Header("jpg", *task.image_size, CHANNELS[part]) for part in PARTS]

    def make(self, first: int, end: int) -> Block:
        """The block of samples `first` to `end - 1`."""
        rejected: list[dict[str, str]] = []
        images: dict[int, list[Image]] = {}
        decoded: set[int] = set()
        samples = np.arange(first, end)
        while True:
            draft = self._draft(samples, images, decoded, rejected)
            samples, known = draft.samples, self._direct.archives_known
            failed = self._fill(draft)
            if not failed.any():
                return self._finished(draft, rejected)
            if self._direct.archives_known == known:  # else it is known only now where to read
                self._usual[samples[failed]] = False
                if 2 * failed.sum() > len(failed):  # and so it would be with the rest
                    self._usual[end:] = False

    def _draft(
        self,
        samples: Numbers,
        images: dict[int, list[Image]],
        decoded: set[int],
        rejected: list[dict[str, str]],
    ) -> _Draft:
        """Read what is not as usual, and give everything its place."""
        task, lost = self._task, []
        for number in samples[~self._usual[samples]].tolist():
            if number not in images:
                try:
                    found = read_sample(task, number, self._look_at(number))
                except RejectedError as error:
                    key = task.samples.keys[number]
                    line = {"key": key, "member": error.member, "reason": str(error)}
                    rejected.append(line)
                    lost.append(number)
                    continue
                images[number] = self._counted_in(number, found)
        samples = samples[~np.isin(samples, lost)] if lost else samples
        direct = self._usual[samples]
        sizes = np.empty((len(samples), _MEMBERS), np.int64)
        sizes[:, :-1] = task.samples.rows["size"][samples].astype(np.int64)
        for at in np.flatnonzero(~direct).tolist():
            sizes[at, :-1] = [len(image.data) for image in images[int(samples[at])]]
        infos = self._infos(samples)
        sizes[:, -1] = [len(content) for content in infos]
        return _Draft(
            samples=samples,
            direct=direct,
            images=images,
            decoded=decoded,
            infos=infos,
            sizes=sizes,
        )

    def _look_at(self, number: int) -> Look:
        """How closely a sample is looked at."""
        if self._counted[number]:
            return "pixels"
        return "codes" if self._task.check == "strict" else "header"

    def _counted_in(self, number: int, images: Sequence[Image]) -> list[Image]:
        """The images of a sample that will be in the block; their pixels are counted and let go."""
        if self._counted[number]:
            self._count([image.pixels for image in images if image.pixels is not None])
        return [image._replace(pixels=None) for image in images]

    def _infos(self, samples: Numbers) -> list[bytes]:
        task = self._task
        archives = [archive.name for archive in task.archives]
        numbers, size = task.samples.archives[samples, 0].tolist(), task.image_size
        names = [task.samples.names[len(PARTS) * number] for number in samples.tolist()]
        columns = zip(task.samples.facts(samples), numbers, names, strict=True)
        return [info(facts, archives[number], name, size) for facts, number, name in columns]

    def _fill(self, draft: _Draft) -> Truths:
        """Put every member in its place; returns which samples cannot stay as they were read."""
        self._buffer = view = self._reserve(draft.num_blocks * BLOCK)
        blocks = np.frombuffer(view, np.uint8).reshape(-1, BLOCK)
        # what follows a member up to the next header
        blocks[draft.headers_at + -(-draft.sizes // BLOCK)] = 0
        begins = draft.begins
        for at, content in zip(begins[:, -1].tolist(), draft.infos, strict=True):
            view[at : at + len(content)] = content
        draft.crcs[:, -1] = [zlib.crc32(content) for content in draft.infos]
        for at in np.flatnonzero(~draft.direct).tolist():
            images = draft.images[int(draft.samples[at])]
            for part, (image, begin) in enumerate(zip(images, begins[at].tolist(), strict=False)):
                view[begin : begin + len(image.data)] = image.data
                draft.crcs[at, part] = image.crc
        failed = np.zeros(len(draft.samples), bool)
        if draft.direct.any():
            failed[draft.direct] = self._fill_directly(draft)
        return failed

    def _fill_directly(self, draft: _Draft) -> Truths:
        """Read the members that keep their bytes; returns which samples are not as they should."""
        view, task, samples = self._buffer, self._task, draft.samples[draft.direct]
        rows, begins = task.samples.rows[samples], draft.begins[draft.direct, :-1]
        draft.crcs[draft.direct, :-1] = rows["crc"]
        sound, plain = self._direct.read(view, samples, begins)
        ends = begins + rows["size"].astype(np.int64)
        counted = self._counted[samples]
        if task.check == "headers":
            plain &= counted  # of the others each whole header is looked at; decoding does as much
        elif task.check == "strict":
            plain &= self._have_few_scans(begins, ends)
        whole = plain & (counted | (task.check == "strict"))
        for at in np.flatnonzero(sound & whole).tolist():
            parts = [
                view[begin:end]
                for begin, end in zip(begins[at].tolist(), ends[at].tolist(), strict=True)
            ]
            sound[at] = self._decodes(int(samples[at]), parts, draft.decoded)
        for at in np.flatnonzero(sound & ~plain).tolist():
            number = int(samples[at])
            if number not in draft.images:  # else it is here for the second time
                spans = zip(begins[at].tolist(), ends[at].tolist(), strict=True)
                images = self._look(number, [bytes(view[begin:end]) for begin, end in spans])
                if images is None:
                    sound[at] = False
                    continue
                draft.images[number] = images
            sound[at] = not any(image.is_repaired for image in draft.images[number])
        return ~sound

    def _have_few_scans(self, begins: Numbers, ends: Numbers) -> Truths:
        """Which samples' images can be decoded in a reasonable time; see `shards.imagery`."""
        used = np.frombuffer(self._buffer, np.uint8, int(ends.max()))
        scans = num_scans(used, begins.ravel(), ends.ravel()).reshape(begins.shape)
        few: Truths = scans.max(axis=1) <= MAX_SCANS
        return few

    def _decodes(self, number: int, parts: Sequence[memoryview], decoded: set[int]) -> bool:
        """Whether a plain sample's images decode cleanly; their pixels are made only to count."""
        if number in decoded:
            return True
        try:
            images = list(zip(parts, self._plain, strict=True))
            if self._counted[number]:
                self._count([decode(bytes(part), header, header.channels)
                             for part, header in images])  # fmt: skip
            else:
                for part, header in images:
                    check_codes(part, header.channels)
        except ImageError:
            return False
        decoded.add(number)
        return True

    def _look(self, number: int, contents: Sequence[bytes]) -> list[Image] | None:
        """Look at one sample closely; None if it is not fit to train on."""
        crcs = self._task.samples.rows["crc"][number].tolist()
        columns = zip(range(len(PARTS)), contents, crcs, strict=True)
        look = self._look_at(number)
        try:
            images = [image_of(self._task, *column, look) for column in columns]
        except ImageError:
            return None
        return self._counted_in(number, images)

    def _finished(self, draft: _Draft, rejected: list[dict[str, str]]) -> Block:
        task, samples = self._task, draft.samples.tolist()
        looked_at = [draft.images.get(number) for number in samples]
        names = [name for number, images in zip(samples, looked_at, strict=True)
                 for name in _names(task.samples.keys[number], images)]  # fmt: skip
        if names:
            blocks = np.frombuffer(self._buffer, np.uint8).reshape(-1, BLOCK)
            encoded = " ".join(names).encode("ascii", errors="replace").split(b" ")
            blocks[draft.headers_at.ravel()] = headers(encoded, draft.sizes.ravel())
        given = [images for images in looked_at if images is not None]
        return Block(
            data=self._buffer,
            samples=samples,
            names=names,
            offsets=draft.begins,
            sizes=draft.sizes,
            crcs=draft.crcs,
            num_repaired=[sum(images[part].is_repaired for images in given)
                          for part in range(len(PARTS))],
            rejected=rejected,
        )  # fmt: skip


def info(facts: Facts, archive: str, member: str, size: tuple[int, int]) -> bytes:
    """`KEY.json`, as `json.dumps` would write it in five times as long.

    Args:
        facts: What is known of the sample.
        archive: Name of the archive that holds its composite.
        member: Name of its composite there.
        size: Height and width.
    """
    _, background, background_number, foreground, _, mirrored = facts
    number = "null" if background is None else background_number
    return (
        f'{{"background": {_json(background)}, "background_number": {number}, '
        f'"foreground": {_json(foreground)}, "mirrored": {_JSON[mirrored]}, '
        f'"archive": {quoted(archive)}, "member": {quoted(member)}, '
        f'"size": [{size[0]}, {size[1]}]}}'
    ).encode()


_JSON = {None: "null", True: "true", False: "false"}


def _json(text: str | None) -> str:
    return "null" if text is None else quoted(text)


def _names(key: str, images: Sequence[Image] | None) -> tuple[str, str, str, str]:
    if images is None:
        composite, mask, depth = _USUAL_ENDS
        return key + composite, key + mask, key + depth, f"{key}.json"
    composite, mask, depth = (
        f"{key}.{component}.{image.header.kind}"
        for component, image in zip(COMPONENTS.values(), images, strict=True)
    )
    return composite, mask, depth, f"{key}.json"
