"""What stands between encoded samples and uint8 batches: the one interface of both decoders.

Shapes: B samples, H = W = the stage's size in pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.error import LoaderError
from pipeline.source import BadSample, SampleSource
from pipeline.stills import DecodeError

OnDecoded = Callable[[int, Sequence[npt.NDArray[np.uint8]], Sequence[int]], None]
"""Takes where in the batch a chunk begins, its composites, masks and depth maps, and which of its
samples are bad and have no pixels. The memory is the batch's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The samples of one batch."""

    numbers: npt.NDArray[np.int64]
    """(B,) sample numbers."""

    num_counted: int
    """The first so many count; the others only keep the batch's shape static."""

    on_decoded: OnDecoded | None = None
    """A decoder whose threads do a batch chunk by chunk tells each chunk here, in that thread."""

    def weights(self, bad: Iterable[int]) -> npt.NDArray[np.float32]:
        """(B,) 1 for the samples that count, less the positions in `bad`."""
        weights = np.zeros(len(self.numbers), np.float32)
        weights[: self.num_counted] = 1
        for position in bad:
            weights[position] = 0
        return weights


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedBatch:
    """One batch as uint8, valid until the next one is asked for: its memory is used again."""

    composite: Tensor
    """(B, H, W, 3) uint8 RGB."""

    mask: Tensor
    """(B, H, W) uint8, as decoded and resized: not yet thresholded."""

    depth: Tensor
    """(B, H, W) uint8."""

    numbers: npt.NDArray[np.int64]
    """(B,) sample numbers."""

    weights: npt.NDArray[np.float32]
    """(B,) 0 for padding and for a bad sample, which shows another's pixels, or zeros if the batch
    has no good one; else 1."""

    bad: tuple[BadSample, ...]
    """The samples that were replaced."""


class Decoder(Protocol):
    """Decodes and resizes; `turbojpeg.py` with threads, `dali.py` with a DALI graph."""

    @property
    def name(self) -> str:
        """For configurations, checkpoints and results."""
        ...

    def stream(
        self, source: SampleSource, requests: Iterable[Request], *, size: int, exact: bool
    ) -> AbstractContextManager[Iterator[DecodedBatch]]:
        """Decode batches in order, some ahead, until the context is left.

        Args:
            source: Where the encoded samples come from.
            requests: The batches, none longer than the first.
            size: Side of the decoded images in pixels.
            exact: Decode in full before resizing. Otherwise a decoder that can may decode at a
                reduced scale no smaller than `size` (mean difference under 3 levels).
        """
        ...

    def decode_images(
        self, images: Sequence[bytes], *, size: int, names: Sequence[str] = ()
    ) -> Tensor:
        """Decode single images exactly, as (len(images), size, size, 3) uint8 RGB.

        Args:
            images: JPEG or PNG content, of any dimensions.
            size: Side of the result in pixels.
            names: What to call the images in an error; their positions unless given.

        Raises:
            LoaderError: One cannot be decoded; it is named.
        """
        ...


def first_good(request: Request, replaced: Iterable[int]) -> int | None:
    """Position of the sample that stands in for the replaced ones of a batch.

    None if nothing of the batch is good: it is then all zeros at weight 0. Where neighbours share a
    batch (a small batch, a windowed order) one vanished shard makes whole batches bad, which is no
    worse than as many bad samples elsewhere: the limit is the ledger's to keep.
    """
    good = np.setdiff1d(np.arange(len(request.numbers)), list(replaced))
    return int(good[0]) if good.size else None


def undecodable(names: Sequence[str], number: int, reason: DecodeError) -> LoaderError:
    """What `Decoder.decode_images` raises of its image `number`."""
    name = names[number] if names else f"image {number}"
    return LoaderError(f"{name}: {reason}; replace the file")
