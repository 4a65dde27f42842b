"""Peers as contenders: each in its process, compared with us before its figures count."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import CannotRun
from benchmarks.peers.environments import ENVIRONMENTS, python_of
from benchmarks.peers.job import Job
from benchmarks.peers.process import PeerProcess

Images = Mapping[str, npt.NDArray[np.uint8]]
NUM_COMPARED = 16
MEAN_LEVELS, MOST_LEVELS = 3.0, 32.0
"""How far a peer's pixels may lie from our exact ones, of 255 levels: on average and at the 99.9th
percentile, per image kind. Full decoding by libjpeg-turbo, Pillow or DALI is 0 apart from ours;
FFCV's fast DCT 1 on average, its resize by area (64 px) 2 and, at the masks' edges, 29; masks
decoded at a reduced scale 19."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerKind:
    """A row of a table."""

    title: str
    environment: str
    module: str
    mode: str = ""


PILLOW = PeerKind(title="DataLoader + Pillow", environment="pillow", module="pillow_loader")
STREAMING = (
    PILLOW,
    PeerKind(title="webdataset + simplejpeg", environment="webdataset", module="webdataset_reader"),
    PeerKind(title="DALI's webdataset reader", environment="dali", module="dali_reader"),
    PeerKind(title="FFCV, JPEG", environment="ffcv", module="ffcv_file", mode="jpg"),
    PeerKind(title="LitData + Pillow", environment="litdata", module="litdata_stream"),
)
CACHED = (
    PeerKind(title="FFCV, raw", environment="ffcv", module="ffcv_file", mode="raw"),
    PeerKind(title="FFCV, raw, in one epoch", environment="ffcv", module="ffcv_file",
             mode="raw in one epoch"),
)  # fmt: skip
ON_GPU = (PeerKind(title="torchvision, nvJPEG", environment="nvjpeg", module="nvjpeg_decoder"),)


class Peers:
    """The peers of one run: their processes, their own files, their versions.

    Args:
        set_path: The set they read.
        stored_size: Side of its images in pixels.
        folder: Where they may write.
        reference: Our exact pixels of the first `NUM_COMPARED` training samples at a size.
    """

    def __init__(
        self, set_path: Path, stored_size: int, folder: Path, reference: Callable[[int], Images]
    ) -> None:
        self._set_path, self._stored_size = set_path, stored_size
        self._folder, self._reference = folder, reference
        self._processes: dict[PeerKind, PeerProcess] = {}
        self._stack = ExitStack()
        self.versions: dict[str, str] = {}
        """Of the packages of those that ran."""

    def contender(
        self, kind: PeerKind, *, size: int, batch_size: int, threads: int, seconds: float
    ) -> Callable[[], float]:
        """What `take_turns` calls: the first call prepares the peer and looks at its pixels."""
        folder = self._folder / kind.module
        job = Job(
            set_path=self._set_path,
            folder=folder,
            stored_size=self._stored_size,
            size=size,
            batch_size=batch_size,
            threads=threads,
            mode=kind.mode,
        )
        is_open = False

        def once() -> float:
            nonlocal is_open
            if not is_open:
                folder.mkdir(parents=True, exist_ok=True)
                self._open(kind, job)
                is_open = True
            answer = self._process(kind).ask("run", patience_s=120 + seconds, seconds=seconds)
            return float(answer["rate"])

        return once

    def _open(self, kind: PeerKind, job: Job) -> None:
        process = self._process(kind)
        self.versions |= process.ask("open", job=asdict(job))["versions"]
        shown = job.folder / "shown.npz"
        process.ask("show", count=NUM_COMPARED, to=shown)
        with np.load(shown) as theirs:
            check_images(theirs, self._reference(job.size))

    def _process(self, kind: PeerKind) -> PeerProcess:
        if kind not in self._processes or not self._processes[kind].is_alive:
            environment = ENVIRONMENTS[kind.environment]
            process = PeerProcess(
                python_of(kind.environment),
                kind.module,
                (*environment.packages, *environment.alone),
                environment.variables,
            )
            self._processes[kind] = self._stack.enter_context(process)
        return self._processes[kind]

    def close(self) -> None:
        """End their processes."""
        self._stack.close()
        self._processes.clear()

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_images(theirs: Mapping[str, Any], ours: Images) -> None:
    """Compare a peer's arrays with ours.

    Raises:
        CannotRun: They are of another shape or type, or further away than tolerated.
    """
    for part, expected in ours.items():
        found = np.asarray(theirs[part])
        if found.shape != expected.shape or found.dtype != expected.dtype:
            msg = f"it delivers {part} as {found.dtype} {found.shape}, not uint8 {expected.shape}"
            raise CannotRun(msg)
        distance = np.abs(found.astype(np.int16) - expected)
        mean, most = float(distance.mean()), float(np.quantile(distance, 0.999))
        if mean > MEAN_LEVELS or most > MOST_LEVELS:
            msg = (
                f"it delivers other pixels: {part} is {mean:.1f} levels off on average, "
                f"{most:.0f} at the 99.9th percentile"
            )
            raise CannotRun(msg)
