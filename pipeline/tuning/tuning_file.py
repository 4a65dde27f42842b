"""What was found to be quickest on this machine, kept in the user's cache folder.

One small JSON file. It is a memory, not a promise: damaged, unreadable or not to be written, it is
as if nothing had been measured yet.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.user_folder import user_cache_folder

_NAME = "tuning.json"
_FORMAT = 1

_logger = logging.getLogger(__name__)


def tuning_path() -> Path | None:
    """Where the file lies; None for a user without a home."""
    try:
        return user_cache_folder() / _NAME
    except RuntimeError:
        return None


def recall(path: Path | None, key: str) -> Mapping[str, Any]:
    """What was remembered under a key; empty if nothing was, or nothing sound."""
    found = _entries(path).get(key)
    return found if isinstance(found, dict) else {}


def remember(path: Path | None, key: str, found: Mapping[str, Any]) -> None:
    """Keep what was found, if that is possible here.

    Two processes that write at a time leave what one of them wrote, whole.
    """
    if path is None:
        return
    entries = {**_entries(path), key: dict(found)}
    text = json.dumps({"format": _FORMAT, "found": entries}, indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        _logger.debug("what was measured is not remembered in %s (%s)", path, error.strerror)


def _entries(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return {}
    entries = content.get("found")
    return entries if isinstance(entries, dict) else {}


def _replace(path: Path, text: str) -> None:
    file, name = tempfile.mkstemp(dir=path.parent, prefix=_NAME)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
