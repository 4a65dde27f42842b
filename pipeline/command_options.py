"""The loader's options, as commands declare them.

`train` takes all of them, its help in panels; other commands share the few of the first part. Each
states the default of `LoaderConfig` or `RemoteConfig`, which is where it comes from.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

_DECODER = "auto (DALI on a GPU), turbojpeg, or dali. (default: auto)"
_MAX_BAD_SAMPLES = "Share of samples that may be bad. (default: 0.001)"
_REMOTE_CACHE_DIR = "Keeps what URLs gave. (default: in the user's cache folder)"
_REMOTE_CACHE_GB = "What that may hold, in GB. (default: 20.0)"

# of several commands

Data = Annotated[
    list[str], typer.Option(help="Folder or URL of the set; give it again to join another.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, or cuda.")]
Decoder = Annotated[str | None, typer.Option(help=_DECODER)]
MaxBadSamples = Annotated[float | None, typer.Option(help=_MAX_BAD_SAMPLES)]
RemoteCacheDir = Annotated[Path | None, typer.Option(help=_REMOTE_CACHE_DIR)]
RemoteCacheGb = Annotated[float | None, typer.Option(help=_REMOTE_CACHE_GB)]


def chosen_device(name: str) -> "torch.device":
    """The device that a `Device` option names.

    Raises:
        typer.BadParameter: It is none of them, or not here.
    """
    import torch

    if name not in {"auto", "cpu", "cuda"}:
        msg = f"device is {name!r}; it must be auto, cpu or cuda"
        raise typer.BadParameter(msg)
    if name == "cuda" and not torch.cuda.is_available():
        msg = "device is 'cuda', and torch sees no GPU here; use --device cpu"
        raise typer.BadParameter(msg)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)


# of `train` alone: which samples, and in which order

_samples = partial(typer.Option, rich_help_panel="Samples")

Order = Annotated[str | None, _samples(help="global, or windowed for huge sets. (default: global)")]
WindowShards = Annotated[int | None, _samples(help="Shards mixed at a time. (default: 64 or more)")]
Repeat = Annotated[
    str | None, _samples(help="How often an epoch holds each set, as 2,1. (default: once)")
]
Augment = Annotated[
    str | None,
    _samples(
        help="PRESET[,OPTION=VALUE...]: none, flip, strong, or a reference's, 000 to 004; as "
        "in strong,rotation=15. (default: flip)"
    ),
]
TrainMaxBadSamples = Annotated[float | None, _samples(help=_MAX_BAD_SAMPLES)]
VerifyHashes = Annotated[
    bool, _samples("--verify-hashes", help="Check every file's SHA-256 first.")
]

# ... decoding and keeping what was decoded

_decoding = partial(typer.Option, rich_help_panel="Decoding and caching")

TrainDecoder = Annotated[str | None, _decoding(help=_DECODER)]
ExactDecode = Annotated[bool, _decoding("--exact-decode", help="Never decode at a reduced scale.")]
Threads = Annotated[str | None, _decoding(help="Decoding threads, or auto. (default: auto)")]
PrefetchBatches = Annotated[
    str | None, _decoding(help="Batches decoded ahead, or auto. (default: auto)")
]
HwDecoderLoad = Annotated[
    str | None, _decoding(help="Share for the JPEG engines, or auto. (default: auto)")
]
Tune = Annotated[
    str | None,
    _decoding(
        help="auto measures what is quickest here once, again once more, off never. (default: auto)"
    ),
]
Cache = Annotated[
    str | None,
    _decoding(
        help="Keep decoded samples for the next pass: device, host, file, off; auto picks the "
        "first with room. (default: auto)"
    ),
]
CacheDir = Annotated[
    Path | None,
    _decoding(help="Folder of cache files, kept after the run. (default: auto makes none)"),
]
FillAhead = Annotated[
    bool, _decoding("--fill-ahead", help="Also fill the next stage's cache meanwhile.")
]

# ... sets at URLs

_remote = partial(typer.Option, rich_help_panel="Sets at URLs")

TrainRemoteCacheDir = Annotated[Path | None, _remote(help=_REMOTE_CACHE_DIR)]
TrainRemoteCacheGb = Annotated[float | None, _remote(help=_REMOTE_CACHE_GB)]
RemoteFetches = Annotated[int | None, _remote(help="Shards fetched at a time. (default: 4)")]
RemoteRetries = Annotated[int | None, _remote(help="Tries after the first. (default: 6)")]
RemoteTimeout = Annotated[
    float | None, _remote(help="Seconds of silence that end a try. (default: 30.0)")
]
