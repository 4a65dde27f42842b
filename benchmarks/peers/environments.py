"""Which packages each peer needs, and how it gets an environment of its own.

    python -m benchmarks.peers make [NAME...]

makes them under the folder that `MASKDEPTH_PEERS` names (unless set, `maskdepth/peers` in the
user's cache folder), each with the versions of `constraints.txt` beside this file. torch is among
them, so that nothing can ask for a newer one: where pip finds a CPU build of it, they get that.

A peer whose packages are ours too, in the very versions, runs in our environment until its own is
made: that would hold nothing else.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness import CannotRun
from pipeline.user_folder import user_cache_folder

CONSTRAINTS = Path(__file__).parent / "constraints.txt"
_MARKER = "made-from.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """The packages of one peer, or of several."""

    name: str
    packages: tuple[str, ...]
    """Installed with what they need."""
    alone: tuple[str, ...] = ()
    """Installed without what they say they need."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Set in its process."""
    remark: str = ""
    """What else has to be there, or why something is left out."""

    @property
    def pins(self) -> tuple[str, ...]:
        """All of its packages with their versions, as pip reads them."""
        versions = pinned()
        return tuple(f"{name}=={versions[name]}" for name in (*self.packages, *self.alone))


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(name="pillow", packages=("torch", "numpy", "pillow")),
        Environment(name="webdataset", packages=("torch", "numpy", "webdataset", "simplejpeg")),
        Environment(name="dali", packages=("torch", "numpy", "nvidia-dali-cuda120")),
        Environment(
            name="litdata",
            packages=(
                "torch",
                "numpy",
                "pillow",
                "lightning-utilities",
                "requests",
                "boto3",
                "obstore",
                "tifffile",
            ),
            alone=("litdata",),
            variables={"LITDATA_DISABLE_VERSION_CHECK": "1"},  # it asks the index when imported
            remark="less torchvision, which does not load beside a CPU build of torch",
        ),
        Environment(
            name="ffcv",
            packages=(
                "torch",
                "numpy",
                "pillow",
                "numba",
                "opencv-python-headless",
                "tqdm",
                "psutil",
                "terminaltables",
                "fastargs",
                "assertpy",
                "packaging",
                "setuptools",
                "wheel",
            ),
            alone=("pytorch-pfn-extras", "ffcv"),
            remark="it is compiled: Debian's g++, pkg-config, libopencv-dev and "
            "libturbojpeg0-dev must be installed",
        ),
        Environment(
            name="nvjpeg",
            packages=("torch", "numpy", "torchvision"),
            remark="for a machine with a GPU: its torch is a CUDA build",
        ),
    )
}


def pinned() -> dict[str, str]:
    """Version of each package of `constraints.txt`."""
    return dict(_lines(CONSTRAINTS.read_text(encoding="utf-8")))


def folder_of(name: str) -> Path:
    """Where a peer's environment is, or would be."""
    return Path(os.environ.get("MASKDEPTH_PEERS") or user_cache_folder() / "peers") / name


def python_of(name: str) -> Path:
    """The interpreter that runs a peer.

    Raises:
        CannotRun: Its environment is not made, or was made of other versions.
    """
    environment, folder = ENVIRONMENTS[name], folder_of(name)
    marker = folder / _MARKER
    if marker.exists() and marker.read_text(encoding="utf-8").split() == list(environment.pins):
        return folder / "bin" / "python"
    if not marker.exists() and all(map(_is_ours, environment.pins)):
        return Path(sys.executable)
    found = "was made of other versions" if marker.exists() else "is not made"
    msg = f"its environment {found}; run `python -m benchmarks.peers make {name}`"
    raise CannotRun(msg)


def make(name: str) -> Path:
    """Make a peer's environment anew.

    Raises:
        CannotRun: pip failed; what it said is on stderr.
    """
    environment, folder = ENVIRONMENTS[name], folder_of(name)
    venv.create(folder, with_pip=True, clear=True)
    try:
        _install(folder, environment.packages)
        _install(folder, environment.alone, "--no-deps", "--no-build-isolation")
    except subprocess.CalledProcessError:
        remark = f" ({environment.remark})" if environment.remark else ""
        msg = f"pip could not install {name}'s packages; see its words above{remark}"
        raise CannotRun(msg) from None
    (folder / _MARKER).write_text("\n".join(environment.pins) + "\n", encoding="utf-8")
    return folder


def _install(folder: Path, packages: Sequence[str], *options: str) -> None:
    if packages:
        python = str(folder / "bin" / "python")
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        constraints = ["--constraint", str(CONSTRAINTS)]
        subprocess.run([*command, *constraints, *options, *packages], check=True)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, is_pin, number = line.partition("#")[0].strip().partition("==")
        if is_pin:
            yield name, number


def _is_ours(pin: str) -> bool:
    name, _, number = pin.partition("==")
    try:
        return version(name).partition("+")[0] == number
    except PackageNotFoundError:
        return False
