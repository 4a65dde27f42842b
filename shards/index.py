"""The two indices written beside a shard: our rows (`.npy`) and DALI's text (`.idx`, v1.2).

A row holds where the three images of a sample lie in the tar, what their bytes must hash to, and
what belongs to them. The loader reads rows and never the tar's headers or `KEY.json`.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.error import ShardError

PARTS = ("composite", "mask", "depth")
"""The three images of a sample, in the order of the members and of the index columns."""

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
    """Read a shard's rows and check them against the manifest's sample count.

    Raises:
        ShardError: The file is missing, is no index of ours, or holds another number of rows.
    """
    next_action = "run `maskdepth verify` on the set, or `maskdepth convert` again to rewrite it"
    try:
        rows = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        msg = f"{path.name} is missing; {next_action}"
        raise ShardError(msg) from None
    except (ValueError, EOFError, OSError) as error:
        msg = f"{path.name} is no index of a shard ({error}); {next_action}"
        raise ShardError(msg) from None
    if not isinstance(rows, np.ndarray) or rows.dtype != ROW or rows.shape != (num_samples,):
        msg = f"{path.name} does not hold {num_samples} index rows; {next_action}"
        raise ShardError(msg)
    return rows
