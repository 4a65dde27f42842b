"""Where a user's programs keep what can be made again (XDG Base Directory Specification)."""

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """Our folder there; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskdepth"
