"""What many JPEGs in one buffer say of themselves, read at once by numpy.

libjpeg takes 1.5 us to tell one image's size; here the segments of all images are walked together,
at 0.3 us an image. Only what every decoder agrees on is recognised: 8 bits, one or three
components, baseline or progressive, usual chroma subsampling, whole segments up to the first scan.
Of the rest nothing is said; whoever asks looks at those one by one.
"""

import numpy as np
import numpy.typing as npt

Buffer = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

_MAX_SEGMENTS = 24
"""Before the first scan; encoders write six to twelve."""

_FRAME_BYTES = 20
"""Of a frame header with three components, its marker included."""

_SCAN = 0xDA
_SOS = int.from_bytes(b"\xff\xda", "little")

_FRAMES = np.zeros(256, bool)
_FRAMES[[0xC0, 0xC1, 0xC2]] = True
_SKIPPED = np.zeros(256, bool)
_SKIPPED[[*range(0xE0, 0xF0), 0xC4, 0xDB, 0xDD, 0xFE]] = True  # APPn, DHT, DQT, DRI, COM
_SAMPLINGS = np.zeros(256, bool)
_SAMPLINGS[[0x11, 0x21, 0x12, 0x22, 0x41]] = True


def are_plain(
    buffer: Buffer, begins: Numbers, ends: Numbers, size: tuple[int, int], channels: Numbers
) -> Truths:
    """Which images are JPEGs of a size and number of channels.

    Args:
        buffer: Holds the images.
        begins: (N,) where each image begins.
        ends: (N,) where it ends.
        size: Height and width.
        channels: (N,) 1 grey, 3 colour.

    Returns:
        (N,) False also where only a closer look would tell.
    """
    last = len(buffer) - _FRAME_BYTES
    if last < 0:
        return np.zeros(len(begins), bool)
    at = begins.copy()
    alive = (ends - begins > _FRAME_BYTES) & (buffer[np.minimum(at, last)] == 0xFF)
    alive &= buffer[np.minimum(at, last) + 1] == 0xD8
    at += 2
    framed, found = np.zeros(len(at), bool), np.zeros(len(at), bool)
    for _ in range(_MAX_SEGMENTS):
        alive &= (at + _FRAME_BYTES <= ends) & (at <= last)
        here = np.where(alive, at, 0)
        marker = buffer[here + 1]
        alive &= buffer[here] == 0xFF
        found |= alive & framed & (marker == _SCAN)
        frames = alive & _FRAMES[marker]
        if frames.any():
            alive[frames] = _is_as_expected(buffer, here[frames], size, channels[frames])
            alive &= ~(frames & framed)
            framed |= frames
        alive &= _SKIPPED[marker] | frames
        if not alive.any():
            break
        at += 2 + _word(buffer, here + 2)
    return found


def num_scans(buffer: Buffer, begins: Numbers, ends: Numbers) -> Numbers:
    """How often the mark of a scan occurs in each image: at least as many scans as it has.

    Args:
        buffer: Holds the images.
        begins: (N,) where each image begins.
        ends: (N,) where it ends.
    """
    marks = [np.zeros(0, np.int64)]
    for first in (0, 1):  # words at even and at odd places: two thirds of the time of single bytes
        length = (len(buffer) - first) // 2 * 2
        words = buffer[first : first + max(0, length)].view("<u2")
        marks.append(2 * np.flatnonzero(words == _SOS) + first)
    found = np.sort(np.concatenate(marks))
    return np.searchsorted(found, np.maximum(ends - 1, begins)) - np.searchsorted(found, begins)


def _is_as_expected(
    buffer: Buffer, at: Numbers, size: tuple[int, int], channels: Numbers
) -> Truths:
    """Whether frame headers name 8 bits, the size, the channels, and usual sampling."""
    components = buffer[at + 9]
    right = (components == channels) & (_word(buffer, at + 2) == 8 + 3 * channels)
    right &= (buffer[at + 4] == 8) & _SAMPLINGS[buffer[at + 11]]
    right &= (_word(buffer, at + 5) == size[0]) & (_word(buffer, at + 7) == size[1])
    colour = components == 3
    return right & (~colour | ((buffer[at + 14] == 0x11) & (buffer[at + 17] == 0x11)))


def _word(buffer: Buffer, at: Numbers) -> Numbers:
    return buffer[at].astype(np.int64) << 8 | buffer[at + 1]
