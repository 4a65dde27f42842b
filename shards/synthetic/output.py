"""The files of a set: made in a hidden folder, and moved out of it when all are whole and on disk.

A member's time is the zip format's first, so that equal seeds give equal bytes.
"""

import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from shards.error import ShardError
from shards.synthetic.layouts.layout import Location, Zip

UNFINISHED = ".synth.unfinished"

_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE, _FOLDER = 0o644 << 16, 0o40755 << 16 | 0x10
_FASTEST = 1  # deflating a JPEG gains nothing, at any level


class Output:
    """Zips, loose files and tables below one folder."""

    def __init__(self, folder: Path, zips: Sequence[Zip], stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._archives = {each.name: self._new_zip(each) for each in zips}
        self._deflated = {each.name: each.deflated for each in zips}
        self._loose: dict[str, BinaryIO] = {}
        self._inside: defaultdict[Location, bytearray] = defaultdict(bytearray)
        self.num_members = 0

    def add(self, location: Location, content: bytes) -> None:
        """Write a file."""
        if location.archive is None:
            self._path(location.name).write_bytes(content)
            return
        info = zipfile.ZipInfo(location.name, _EPOCH)
        info.external_attr = _FILE
        if self._deflated[location.archive]:
            info.compress_type = zipfile.ZIP_DEFLATED
        self._archives[location.archive].writestr(info, content, compresslevel=_FASTEST)
        self.num_members += 1

    def append(self, table: Location, line: str) -> None:
        """Add a line to a table; one inside a zip is written by `finish`."""
        if table.archive is not None:
            self._inside[table] += f"{line}\n".encode()
            return
        if table.name not in self._loose:
            file = self._stack.enter_context(self._path(table.name).open("wb"))
            self._loose[table.name] = file
        self._loose[table.name].write(f"{line}\n".encode())

    def finish(self) -> None:
        """Write what was kept until now."""
        for location, text in self._inside.items():
            self.add(location, bytes(text))

    def _new_zip(self, wanted: Zip) -> zipfile.ZipFile:
        archive = self._stack.enter_context(zipfile.ZipFile(self._folder / wanted.name, "w"))
        for folder in wanted.folders:
            info = zipfile.ZipInfo(folder, _EPOCH)
            info.external_attr = _FOLDER
            archive.writestr(info, b"")
        return archive

    def _path(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        return path


@contextmanager
def new_output(
    folder: Path, zips: Sequence[Zip], beside: Sequence[str], last: str
) -> Iterator[Output]:
    """An output that appears in the folder when the context ends well, and else leaves nothing.

    Args:
        folder: Made if need be.
        zips: What to open.
        beside: Files and folders that will be written next to the zips.
        last: The file among them that is to appear after all others.

    Raises:
        ShardError: Something of these names exists already, or cannot be written.
    """
    for name in (*(each.name for each in zips), *beside):
        if (folder / name).exists():
            msg = f"{folder / name} exists already; delete it or choose another folder"
            raise ShardError(msg)
    unfinished = folder / UNFINISHED
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run
        unfinished.mkdir(parents=True)
        with ExitStack() as stack:
            output = Output(unfinished, zips, stack)
            yield output
            output.finish()
        _appear(unfinished, folder, last)
    except OSError as error:
        msg = f"{folder} cannot be written ({error}); make room or choose another folder"
        raise ShardError(msg) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _appear(unfinished: Path, folder: Path, last: str) -> None:
    for path in unfinished.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in sorted(unfinished.iterdir(), key=lambda path: (path.name == last, path.name)):
        path.replace(folder / path.name)
