"""Which image sizes a network can take."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeRule:
    """What the side of a network's images must be, in pixels."""

    least: int
    """The smallest side: below it the coarsest features would have no pixel, or too few to pad."""

    multiple: int = 1
    """The side is a multiple of this."""

    least_alone: int
    """The smallest side at which batches of one image can train: at a smaller one the coarsest
    features are a single pixel, and BatchNorm needs two values of each channel."""

    def allows(self, size: int) -> bool:
        """Whether images of this side can be taken, in some batch."""
        return size >= self.least and size % self.multiple == 0

    def nearest(self, size: int) -> tuple[int, ...]:
        """The allowed sides next to one that is not: the one below, if any, and the one above."""
        below = size // self.multiple * self.multiple
        if below < self.least:
            return (-(-self.least // self.multiple) * self.multiple,)
        return (below, below + self.multiple)

    def text(self) -> str:
        """The rule in a few words, such as "a multiple of 32 px and at least 64"."""
        if self.multiple == 1:
            return f"at least {self.least} px"
        more = f" and at least {self.least}" if self.least > self.multiple else ""
        return f"a multiple of {self.multiple} px{more}"
