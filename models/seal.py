"""The SHA-256 at the end of an exported file, in a place where its own format allows a remark.

FILE.onnx   one more entry of `metadata_props`; any reader of ONNX reads the file all the same
FILE.pt2    the comment of a zip archive, as in a checkpoint
"""

import hashlib
import struct
from pathlib import Path

from models.error import CheckpointError

ONNX, PT2 = ".onnx", ".pt2"

_MARK = b"maskdepth sha256"
_DIGEST_BYTES = 64


def sealed(payload: bytes, suffix: str) -> bytes:
    """A file's bytes with their SHA-256 at the end, where its format allows a remark."""
    digest = hashlib.sha256(payload).hexdigest().encode()
    if suffix == ONNX:
        return payload + _onnx_tail(digest)
    # a zip file ends with the length of its comment, which torch leaves 0
    return payload[:-2] + struct.pack("<H", len(_MARK) + _DIGEST_BYTES) + _MARK + digest


def _onnx_tail(digest: bytes) -> bytes:
    """One more `metadata_props` of a ModelProto: protobuf messages join by concatenation."""
    entry = b"\x0a" + bytes([len(_MARK)]) + _MARK + b"\x12" + bytes([len(digest)]) + digest
    return b"\x72" + bytes([len(entry)]) + entry


def unsealed(content: bytes, path: Path) -> bytes:
    """What `sealed` was given, if it is still the same.

    Raises:
        CheckpointError: The hash is missing or wrong.
    """
    if path.suffix == ONNX:
        payload = content[: -len(_onnx_tail(b"0" * _DIGEST_BYTES))]
    else:
        payload = content[: -len(_MARK) - _DIGEST_BYTES - 2] + b"\0\0"
    if _MARK not in content[-_DIGEST_BYTES - len(_MARK) - 4 :]:
        found = f"its {len(content):,} bytes do not end with their SHA-256"
    elif sealed(payload, path.suffix) != content:
        found = "its bytes do not match their SHA-256"
    else:
        return payload
    msg = f"{path} is damaged, cut short, or no file of `maskdepth export` ({found}); export again"
    raise CheckpointError(msg)
