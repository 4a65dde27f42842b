"""A folder that is not on this machine, by fsspec: files fetched whole, checked on arrival.

A try is given up when nothing arrives for a while; tries are spaced by waits that double, the same
in every run. What cannot be had in the end is told in one line.
"""

import asyncio
import errno
import logging
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from pipeline.error import LoaderError
from pipeline.opening import hash_fault, size_fault
from shards.manifest import FileRecord

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""Which extra of this package brings what a protocol needs."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_POLL_S = 0.1
_ASKED_AT_ONCE = 16
_MAX_TOLD = 200

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Cancelled = Callable[[], bool]
"""Whether nobody waits for a file any more."""


def _never() -> bool:
    return False


class FetchError(Exception):
    """A file cannot be had from where it lies; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteConfig:
    """How sets that are not on this machine are fetched."""

    cache_dir: Path | None = None
    """Folder that keeps what was fetched; several processes may share it. None: one of the user's
    cache folder."""

    cache_gb: float = 20.0
    """What that folder may hold, in 10^9 bytes; the shards used longest ago make room."""

    fetches: int = 4
    """Shards fetched at a time."""

    timeout_s: float = 30.0
    """A try that brings nothing for so long is given up."""

    retries: int = 6
    """Tries after the first one."""

    backoff_s: float = 0.5
    """The wait after the first try; it doubles with each."""

    def __post_init__(self) -> None:
        for name in ("cache_gb", "timeout_s"):
            if not getattr(self, name) > 0:
                msg = f"remote {name} is {getattr(self, name)}; it must be above 0"
                raise ValueError(msg)
        for name, least in (("fetches", 1), ("retries", 0), ("backoff_s", 0)):
            if getattr(self, name) < least:
                msg = f"remote {name} is {getattr(self, name)}; it must be at least {least}"
                raise ValueError(msg)


def is_remote(location: str) -> bool:
    """Whether this is a URL and no path."""
    return _URL.match(location) is not None


class RemoteFolder:
    """The files of one folder behind a URL. Any number of threads may ask at once.

    Args:
        url: Such as `s3://bucket/set`; credentials are those that fsspec finds by itself.
        config: How patient to be.

    Raises:
        LoaderError: The protocol is unknown, or what it needs is not installed.
    """

    def __init__(self, url: str, config: RemoteConfig) -> None:
        self.url = url.rstrip("/")
        self.config = config
        protocol = self.url.partition("://")[0].lower()
        self._is_web = protocol in {"http", "https"}
        try:
            # an instance of our own: its connections end with it
            files, self._root = url_to_fs(self.url, skip_instance_cache=True)
        except ImportError:
            extra = EXTRAS.get(protocol)
            advice = f"install maskdepth with its extra [{extra}]" if extra else "install it"
            msg = f"{self.url} needs an fsspec package that is not installed here; {advice}"
            raise LoaderError(msg) from None
        except ValueError as error:
            msg = f"{self.url} cannot be opened ({error}); give s3://, gs://, https:// or a folder"
            raise LoaderError(msg) from None
        self._files: Any = files

    def read(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            FetchError: It cannot be had.
        """
        return self._patiently(lambda: self._call("cat_file", self._path(name)))

    def fetch(
        self, name: str, into: Path, record: FileRecord, *, cancelled: Cancelled = _never
    ) -> None:
        """Copy a file and compare it with what the manifest says of it.

        Args:
            name: The file.
            into: An existing local file; what it held is lost.
            record: What it must be.
            cancelled: Asked now and then.

        Raises:
            FetchError: It cannot be had, or has other bytes.
            OSError: There is no room for it here.
        """

        def once() -> None:
            self._call("get_file", self._path(name), str(into), growing=into, cancelled=cancelled)
            if fault := hash_fault(into, record):
                raise FetchError(fault)

        self._patiently(once, cancelled)

    def size_faults(self, records: Mapping[str, FileRecord]) -> list[str]:
        """What is missing, or has another size than the manifest says; no file is read."""
        listed = self._listed_sizes()

        def check(name: str) -> str:
            try:
                size = listed.get(name) or self._size(name)
            except FetchError as error:
                return f"{name} cannot be had: {error}"
            # a web server need not tell sizes
            return "" if size is None else size_fault(name, size, records[name])

        with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="maskdepth-size") as pool:
            return [fault for fault in pool.map(check, records) if fault]

    def _size(self, name: str) -> int | None:
        return self._patiently(lambda: self._call("info", self._path(name))).get("size")

    def _listed_sizes(self) -> dict[str, int | None]:
        """Sizes by one question, where the protocol has one; a web server's list has none."""
        if self._is_web:
            return {}
        try:
            found = self._call("ls", self._root, detail=True)
        except Exception:  # whatever it is: without a list each file is asked for
            return {}
        return {entry["name"].rpartition("/")[2]: entry.get("size") for entry in found}

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _patiently(self, attempt: Callable[[], Result], cancelled: Cancelled = _never) -> Result:
        """Try until it works or there is no hope."""
        wait_s = self.config.backoff_s
        for tried in range(1, self.config.retries + 2):
            try:
                return attempt()
            except FileNotFoundError:
                msg = "it is not there"
                raise FetchError(msg) from None
            except Exception as error:  # every protocol has its own
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise
                hopeless = isinstance(error, PermissionError) or cancelled()
                if hopeless or tried > self.config.retries:
                    times = f", tried {tried} times" if tried > 1 else ""
                    raise FetchError(_told(error) + times) from None
                _logger.info("%s: %s; trying again in %g s", self.url, _told(error), wait_s)
            _sleep(wait_s, cancelled)
            wait_s *= 2
        raise AssertionError

    def _call(
        self,
        verb: str,
        *args: object,
        growing: Path | None = None,
        cancelled: Cancelled = _never,
        **options: object,
    ) -> Any:
        """One method of the file system, given up when it stalls if it is an asynchronous one."""
        if not self._files.async_impl:
            return getattr(self._files, verb)(*args, **options)
        coroutine = getattr(self._files, f"_{verb}")(*args, **options)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._files.loop)
        try:
            return self._result(future, growing, cancelled)
        finally:
            future.cancel()  # if it still runs

    def _result(self, future: Future[Any], growing: Path | None, cancelled: Cancelled) -> Any:
        size, moved = -1, time.monotonic()
        while not wait([future], timeout=_POLL_S).done:
            now = growing.stat().st_size if growing is not None else -1
            if now != size:
                size, moved = now, time.monotonic()
            if time.monotonic() - moved > self.config.timeout_s:
                msg = f"nothing arrived for {self.config.timeout_s:g} s"
                raise FetchError(msg)
            if cancelled():
                msg = "nobody waits for it any more"
                raise FetchError(msg)
        return future.result()


def _sleep(seconds: float, cancelled: Cancelled) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not cancelled():
        time.sleep(min(left, _POLL_S))


def _told(error: Exception) -> str:
    """One line of a stranger's error."""
    text = " ".join(str(error).split())[:_MAX_TOLD]
    if isinstance(error, FetchError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
