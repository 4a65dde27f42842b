"""Which of the two images a network looks at, and in what order."""

import torch
from torch import Tensor

BACKGROUND_FIRST = "background + composite"
COMPOSITE_FIRST = "composite + background"
COMPOSITE_ALONE = "composite"


def joined(background: Tensor | None, composite: Tensor, *, inputs: str, network: str) -> Tensor:
    """The images a network looks at, concatenated along the channels.

    Args:
        background: (N, 3, H, W), or None for a network that looks at the composite alone.
        composite: (N, 3, H, W).
        inputs: One of this module's constants.
        network: The network's name, for the message.

    Returns:
        (N, 6, H, W), or (N, 3, H, W) of the composite alone.

    Raises:
        ValueError: The network needs a background and there is none.
    """
    if inputs == COMPOSITE_ALONE:
        return composite
    known = required(background, network=network)
    images = (known, composite) if inputs == BACKGROUND_FIRST else (composite, known)
    return torch.cat(images, dim=1)


def required(background: Tensor | None, *, network: str) -> Tensor:
    """The background, which the network cannot do without.

    Raises:
        ValueError: There is none.
    """
    if background is None:
        msg = f"network {network!r} needs the composite's background, and there is none; give one"
        raise ValueError(msg)
    return background
