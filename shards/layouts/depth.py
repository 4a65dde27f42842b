"""What the depth maps of a data set are: how they are stored, and what their values mean."""

from dataclasses import dataclass

ENCODINGS = ("grey", "plasma", "magma")
POLARITIES = ("near-dark", "near-bright")
SCALINGS = ("absolute", "stretched")


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthFormat:
    """Kept in the manifest."""

    encoding: str = "grey"
    """grey, or the colour map of a picture that is turned back into grey."""

    polarity: str = "near-dark"
    """Whether near is dark or bright."""

    scaling: str = "absolute"
    """absolute: comparable between images; stretched: each image to its own full range."""

    def __post_init__(self) -> None:
        for name, known in (("encoding", ENCODINGS), ("polarity", POLARITIES),
                            ("scaling", SCALINGS)):  # fmt: skip
            if getattr(self, name) not in known:
                msg = f"depth {name} {getattr(self, name)!r} must be one of: {', '.join(known)}"
                raise ValueError(msg)
