"""What the loader hands to the training step: one batch, on the device, ready for the network.

Shapes: N samples, H = W = the stage's size in pixels, 3 RGB channels. Tensors are channels-last.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Sets = tuple[int, ...]
"""Some of several sets, by their places among all of them: from 1, ascending. () is all."""


def sets_text(sets: Sets) -> str:
    """How a user writes them, such as 2+3; nothing for all."""
    return "+".join(map(str, sets))


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """N samples at one size."""

    background: Tensor | None
    """(N, 3, H, W) normalised RGB of the scene without the object; None if the set has none."""

    composite: Tensor
    """(N, 3, H, W) normalised RGB of the scene with the object."""

    mask: Tensor
    """(N, 1, H, W) float32, 0 or 1: (resized uint8 >= 128)."""

    depth: Tensor
    """(N, 1, H, W) float32 in [0, 1], as stored (near is dark in all reference sets)."""

    number: Tensor
    """(N,) int64 sample numbers within the split."""

    weight: Tensor
    """(N,) float32: 1 for a sample that counts, 0 for padding or for a replaced bad sample."""

    is_void: bool = False
    """Every weight is 0, so there is nothing to learn: known without asking the device."""

    def __len__(self) -> int:
        return len(self.number)


class BatchLoader(Protocol):
    """What the trainer needs of a loader; a test may hand it a list in these clothes."""

    @property
    def num_samples(self) -> int:
        """Samples in one epoch of training."""
        ...

    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> AbstractContextManager[Iterator[Batch]]:
        """Exactly `num_steps` global batches of the endless training stream.

        Args:
            size: Side of the square images in pixels.
            batch_size: Samples per global batch.
            start: Samples consumed before: the stream goes on with sample `start`.
            num_steps: How many batches follow.
        """
        ...

    def validate(self, *, size: int, batch_size: int) -> AbstractContextManager[Iterator[Batch]]:
        """Every validation sample once, in stored order; the last batch is padded at weight 0."""
        ...

    @property
    def num_bad_samples(self) -> int:
        """Samples found bad so far, each once, also before this run was resumed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the bad samples, as plain numbers and text."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know of the bad samples of a checkpoint, if it kept any: they count, but are not told."""
        ...


@runtime_checkable
class JointLoader(BatchLoader, Protocol):
    """A loader of several sets, of which a stage may draw from some."""

    @property
    def set_lengths(self) -> Sequence[int]:
        """Samples of each set in one epoch of training; a repeated one's count as often."""
        ...

    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int, sets: Sets = ()
    ) -> AbstractContextManager[Iterator[Batch]]:
        """See `BatchLoader.train`.

        Each choice of sets has an endless stream of its own, of which `start` counts samples.
        """
        ...
