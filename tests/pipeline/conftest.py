"""Sets to stream, whole and damaged, and an independent reading of them."""

import hashlib
import io
import shutil
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shards.index import Rows
from shards.manifest import BACKGROUNDS, FileRecord, read_manifest
from shards.tar import read_members

Reference = Callable[[int, int], npt.NDArray[np.uint8]]
Spoil = Callable[..., Path]
Reseal = Callable[[Path], None]


def split_rows(set_path: Path, split: str) -> list[tuple[str, int, np.void]]:
    """Shard, row in the shard and index row of each sample of a split, in stored order."""
    return [
        (shard.name, i, row)
        for shard in read_manifest(set_path).split_shards(split)
        for i, row in enumerate(np.load(set_path / f"{shard.name}.npy"))
    ]


@pytest.fixture(scope="session")
def reference(small_set: Path) -> Reference:
    """`reference(part, size)`: that part of every training sample by tarfile and Pillow alone."""
    images: list[Image.Image] = []
    for shard in read_manifest(small_set).split_shards("train"):
        images += [
            Image.open(io.BytesIO(content)).convert("RGB" if ".fgbg." in name else "L")
            for name, content in read_members(small_set / f"{shard.name}.tar")
            if not name.endswith(".json")
        ]

    def at_size(part: int, size: int) -> npt.NDArray[np.uint8]:
        bilinear = Image.Resampling.BILINEAR
        return np.stack([np.asarray(i.resize((size, size), bilinear)) for i in images[part::3]])

    return at_size


@pytest.fixture
def copied_set(small_set: Path, tmp_path: Path) -> Path:
    """A copy of the small set, to be damaged."""
    return Path(shutil.copytree(small_set, tmp_path / "set"))


@pytest.fixture
def reseal() -> Reseal:
    """Makes a set's manifest vouch for indices and backgrounds as they are now."""

    def vouch(set_path: Path) -> None:
        manifest = read_manifest(set_path)
        files = dict(manifest.files)
        for path in (set_path / name for name in manifest.files):
            if path.suffix != ".npy" and path.name != BACKGROUNDS:
                continue
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files[path.name] = FileRecord(bytes=len(content), sha256=digest)
        (set_path / "manifest.json").write_text(replace(manifest, files=files).text())

    return vouch


@pytest.fixture
def spoil(copied_set: Path, reseal: Reseal) -> Spoil:
    """Damages samples of the copied set: `spoil(numbers, part=, split=, hide=)`.

    `hide` makes the CRC fit the damage, so that only the decoder can find it.
    """

    def damage(
        numbers: list[int], *, part: int = 0, split: str = "train", hide: bool = False
    ) -> Path:
        for number in numbers:
            name, i, row = split_rows(copied_set, split)[number]
            tar, index = copied_set / f"{name}.tar", copied_set / f"{name}.npy"
            content = bytearray(tar.read_bytes())
            begin, size = int(row["offset"][part]), int(row["size"][part])
            if hide:
                content[begin + 4 : begin + size] = bytes(size - 4)
                table: Rows = np.load(index)
                table["crc"][i, part] = zlib.crc32(content[begin : begin + size])
                np.save(index, table)
            else:
                content[begin + size // 2] ^= 0x10
            tar.write_bytes(content)
        reseal(copied_set)
        return copied_set

    return damage


class Web:
    """A folder behind http, on this machine, that fails as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = defaultdict(list)
        """What the next requests of a file meet: `hang`, `wrong`, `cut`, or a status."""
        self.fetched: list[str] = []
        """Files in the order in which they were asked for."""
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Let go of who hangs, and end."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                path = web.folder / self.path.lstrip("/")
                faults = web.faults[path.name]
                fault = faults.pop(0) if with_body and faults else ""
                if with_body:
                    web.fetched.append(path.name)
                if fault == "hang":
                    web._released.wait()
                    return
                if fault.isdigit() or not path.is_file():
                    self.send_error(int(fault or 404))
                    return
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if fault == "wrong":
                    content = bytes([content[0] ^ 1]) + content[1:]
                elif fault == "cut":
                    content = content[: len(content) // 2]
                if with_body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        return Handler


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server of an empty folder."""
    (tmp_path / "web").mkdir()
    server = Web(tmp_path / "web")
    yield server
    server.close()
