"""The two indices written beside a shard: our rows (`.npy`) and DALI's text (`.idx`, v1.2).

A row holds where the three images of a sample lie in the tar, what their bytes must hash to, and
what belongs to them. The loader reads rows and never the tar's headers or `KEY.json`.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.error import ShardError

PARTS = ("composite", "mask", "depth")
"""The three images of a sample, in the order of the members and of the index columns."""

CHANNELS = {"composite": 3, "mask": 1, "depth": 1, "background": 3}
"""Of every kind of image in a set."""

UNKNOWN = -1
"""Stands for an unknown background or foreground number, or an unknown mirroring."""

ROW = np.dtype(
    [
        ("offset", "<i8", (3,)),  # of the image's first byte in the tar
        ("size", "<i4", (3,)),  # bytes
        ("crc", "<u4", (3,)),  # CRC-32 of the bytes
        ("json_size", "<i4"),  # KEY.json, the member that follows the depth map
        ("json_crc", "<u4"),
        ("background", "<i4"),  # position in backgrounds.tar
        ("foreground", "<i4"),  # position in the manifest's list of foregrounds
        ("mirrored", "<i1"),  # 1 mirrored, 0 plain
    ]
)

Rows = npt.NDArray[np.void]


def read_rows(path: Path, num_samples: int) -> Rows:
    """Read a shard's rows; the file must be to the byte what `numpy.save` writes for so many.

    The header is compared and not parsed: a damaged one would make numpy's parser raise anything.

    Raises:
        ShardError: The file is missing, is no index of ours, or holds another number of rows.
    """
    next_action = "run `maskdepth verify` on the set, or `maskdepth convert` again to rewrite it"
    try:
        content = path.read_bytes()
    except OSError as error:
        found = "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        msg = f"{path.name} {found}; {next_action}"
        raise ShardError(msg) from None
    header = _header(num_samples)
    if content[: len(header)] != header or len(content) != len(header) + num_samples * ROW.itemsize:
        msg = f"{path.name} does not hold {num_samples} index rows; {next_action}"
        raise ShardError(msg)
    return np.frombuffer(content, ROW, offset=len(header))


def _header(num_samples: int) -> bytes:
    fields = np.lib.format.header_data_from_array_1_0(np.zeros(0, ROW))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {**fields, "shape": (num_samples,)})
    return buffer.getvalue()
