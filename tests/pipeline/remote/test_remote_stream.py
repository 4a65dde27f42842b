"""A remote set streams as the same set on disk does, whatever the line does to it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from pipeline.augment import AugmentConfig
from pipeline.batch import Batch
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.remote.folder import RemoteConfig
from shards.convert import convert
from shards.error import ShardError
from shards.manifest import read_manifest
from shards.options import ConvertConfig

CPU = torch.device("cpu")
SHARDS = 15


@pytest.fixture(scope="module")
def sharded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 training samples in 15 shards, 80 validation samples in 5."""
    out = tmp_path_factory.mktemp("sharded") / "set"
    convert(
        ConvertConfig(
            sources=(source,), out=out, samples_per_shard=16, val=0.25, seed=1, processes=1
        )
    )
    assert len(read_manifest(out).split_shards("train")) == SHARDS
    return out


@pytest.fixture
def served(sharded: Path, web: Any) -> Any:
    """The set behind a web server, at `/set`."""
    shutil.copytree(sharded, web.folder / "set")
    return web


@pytest.fixture
def config(tmp_path: Path) -> LoaderConfig:
    remote = RemoteConfig(
        cache_dir=tmp_path / "fetched", retries=2, backoff_s=0.01, timeout_s=1, cache_gb=1
    )
    return LoaderConfig(
        decoder="turbojpeg",
        threads=2,
        prefetch_batches=1,
        seed=4,
        cache="off",
        tune="off",
        augment=AugmentConfig(flip=0),
        remote=remote,
    )


def _windowed(config: LoaderConfig, shards: Path, share: float = 0.6) -> LoaderConfig:
    """A window of 4 shards, and room for a share of all."""
    total = sum(path.stat().st_size for path in shards.glob("train-*.tar"))
    remote = replace(config.remote, cache_gb=share * total / 1e9)
    return replace(config, order="windowed", window_shards=4, remote=remote)


def _train(loader: Loader, *, start: int = 0, steps: int = 60, batch_size: int = 4) -> list[Batch]:
    with loader.train(size=32, batch_size=batch_size, start=start, num_steps=steps) as batches:
        return [_copied(batch) for batch in batches]


def _validate(loader: Loader) -> list[Batch]:
    with loader.validate(size=32, batch_size=16) as batches:
        return [_copied(batch) for batch in batches]


def _copied(batch: Batch) -> Batch:
    tensors = {
        name: getattr(batch, name).clone()
        for name in ("composite", "background", "mask", "depth", "number", "weight")
    }
    return replace(batch, **tensors)


def _assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("number", "weight", "composite", "background", "mask", "depth"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def _tars(web: Any) -> Counter[str]:
    return Counter(name for name in web.fetched if name.startswith("train") and "tar" in name)


@contextmanager
def _watched(folder: Path) -> Iterator[list[int]]:
    """The most bytes that a folder held, looked at all the time."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            sizes = 0
            for path, _, names in os.walk(folder):
                for name in names:
                    try:
                        sizes += (Path(path) / name).stat().st_size
                    except FileNotFoundError:
                        continue
            peak[0] = max(peak[0], sizes)

    thread = threading.Thread(target=watch)
    thread.start()
    yield peak
    ended.set()
    thread.join()


@pytest.mark.parametrize("order", ["global", "windowed"])
@pytest.mark.parametrize("protocol", ["memory", "file", "http"])
def test_batches_are_those_of_the_set_on_disk(
    sharded: Path, config: LoaderConfig, web: Any, order: str, protocol: str
) -> None:
    """Bit for bit, over two epochs and validation, with validation in the middle of a stream."""
    if protocol == "http":
        shutil.copytree(sharded, web.folder / "set")
    else:
        fsspec.filesystem("memory").put(f"{sharded}/", "/streamed/", recursive=True)
    urls = {"memory": "memory://streamed", "file": f"file://{sharded}", "http": f"{web.url}/set"}
    if order == "windowed":
        config = _windowed(config, sharded)

    def stream(data: Path | str) -> list[Batch]:
        with (
            Loader(data, config, CPU) as loader,
            loader.train(size=32, batch_size=4, start=5, num_steps=120) as batches,
        ):
            found = [_copied(next(batches)) for _ in range(20)] + _validate(loader)
            return found + [_copied(batch) for batch in batches]

    _assert_equal(stream(urls[protocol]), stream(sharded))


def test_the_folder_never_holds_more_than_it_may(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    """And no shard is fetched much more often than an epoch needs it."""
    config = _windowed(config, sharded)
    assert config.remote.cache_dir is not None
    with (
        _watched(config.remote.cache_dir) as peak,
        Loader(f"{served.url}/set", config, CPU) as loader,
    ):
        _train(loader, steps=180)
        _validate(loader)
    limit = config.remote.cache_gb * 1e9
    assert 0.6 * limit < peak[0] <= limit
    fetched = _tars(served)
    assert len(fetched) == SHARDS
    assert fetched.total() <= 3 * SHARDS + 4


def test_shards_are_fetched_ahead_in_the_order_of_the_stream(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    config = replace(_windowed(config, sharded), remote=replace(config.remote, fetches=1))
    with Loader(f"{served.url}/set", config, CPU) as loader:
        numbers = loader.order.sample_numbers(0, 240) // 16
        first_needed = list(dict.fromkeys(numbers.tolist()))
        with loader.train(size=32, batch_size=4, start=0, num_steps=60) as batches:
            next(batches)
            until = time.monotonic() + 10
            while len(_tars(served)) < 8 and time.monotonic() < until:
                time.sleep(0.02)
    fetched = [int(name[6:12]) for name in _tars(served)]
    under_way = set(numbers[:20].tolist())  # 5 batches of 4: wanted at once
    assert len(fetched) > len(under_way)
    assert sorted(fetched, key=first_needed.index)[len(under_way) :] == fetched[len(under_way) :]


@pytest.mark.parametrize(
    ("share", "order", "told"),
    [
        (0.9, "global", r"global order draws from all shards .* --order windowed"),
        (0.2, "windowed", r"windowed order draws from 4 shards .* fewer --window-shards"),
    ],
)
def test_room_that_is_too_small_for_the_order_is_refused_before_anything_is_fetched(
    served: Any, sharded: Path, config: LoaderConfig, share: float, order: str, told: str
) -> None:
    config = _windowed(config, sharded, share)
    if order == "global":
        config = replace(config, order=order, window_shards=None)
    with (
        Loader(f"{served.url}/set", config, CPU) as loader,
        pytest.raises(LoaderError, match=told),
    ):
        _train(loader)
    assert not _tars(served)


@pytest.mark.parametrize("fault", ["hang", "wrong", "cut", "503"])
def test_a_fault_that_passes_changes_nothing(
    served: Any, sharded: Path, config: LoaderConfig, fault: str
) -> None:
    for number in (0, 3, 7):
        served.faults[f"train-{number:06d}.tar"] = [fault]
    with Loader(f"{served.url}/set", config, CPU) as loader, Loader(sharded, config, CPU) as local:
        _assert_equal(_train(loader), _train(local))
        assert loader.num_bad_samples == 0


@pytest.mark.parametrize(
    ("fault", "told"), [("hang", "nothing arrived for 1 s"), ("wrong", "another SHA-256")]
)
def test_a_shard_that_cannot_be_had_is_bad_samples_each_with_the_reason(
    served: Any, sharded: Path, config: LoaderConfig, fault: str, told: str
) -> None:
    served.faults["train-000003.tar"] = [fault] * 50
    tolerant = replace(config, max_bad_samples=0.1)
    with Loader(f"{served.url}/set", tolerant, CPU) as loader, Loader(sharded, config, CPU) as good:
        ours, theirs = _train(loader), _train(good)
        bad = loader.bad_samples
    assert sorted(sample.number for sample in bad) == [*range(48, 64)]
    assert all(told in sample.reason and "tried 3 times" in sample.reason for sample in bad)
    for one, other in zip(ours, theirs, strict=True):
        is_bad = torch.isin(one.number, torch.arange(48, 64))
        assert torch.equal(one.weight == 0, is_bad)
        assert torch.equal(one.composite[~is_bad], other.composite[~is_bad])


def test_a_shard_that_vanishes_while_training_ends_past_the_limit(
    served: Any, config: LoaderConfig
) -> None:
    with Loader(f"{served.url}/set", config, CPU) as loader:
        (served.folder / "set/train-000003.tar").unlink()
        with pytest.raises(LoaderError, match=r"--max-bad-samples.*cannot be fetched \(it is not"):
            _train(loader)


def test_a_shard_is_tried_again_when_it_is_needed_again(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    served.faults["train-000003.tar"] = ["503"] * 3  # one epoch's tries
    config = replace(_windowed(config, sharded, 0.5), max_bad_samples=0.1)
    with Loader(f"{served.url}/set", config, CPU) as loader:
        batches = _train(loader, steps=120)
    weights = torch.cat([batch.weight for batch in batches])
    assert (weights[:240] == 0).sum() == 16
    assert weights[240:].all()


def test_faults_of_a_remote_set_are_named_together_when_it_is_opened(
    served: Any, config: LoaderConfig
) -> None:
    folder = served.folder / "set"
    (folder / "train-000002.tar").unlink()
    (folder / "val-000000.npy").unlink()
    os.truncate(folder / "train-000003.tar", 1000)
    content = bytearray((folder / "backgrounds.tar").read_bytes())
    content[600] ^= 1
    (folder / "backgrounds.tar").write_bytes(content)
    with pytest.raises(LoaderError) as caught:
        Loader(f"{served.url}/set", config, CPU)
    message = str(caught.value)
    for told in (
        "train-000002.tar cannot be had: it is not there",
        "val-000000.npy cannot be fetched (it is not there)",
        "bytes shorter than the manifest says",
        "backgrounds.tar cannot be fetched",
        f"run `maskdepth verify {served.url}/set`",
    ):
        assert told in message
    assert set(_tars(served)) <= {"train-000002.tar"}


def test_what_is_no_set_or_a_damaged_one_is_refused(served: Any, config: LoaderConfig) -> None:
    with pytest.raises(LoaderError, match=r"/nowhere/manifest.json cannot be fetched .*give the"):
        Loader(f"{served.url}/nowhere", config, CPU)
    path = served.folder / "set/manifest.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(ShardError, match=r"http://.*/set/manifest.json is damaged"):
        Loader(f"{served.url}/set", config, CPU)


def test_another_state_of_the_set_is_never_taken_for_it(
    served: Any, small_set: Path, config: LoaderConfig
) -> None:
    with Loader(f"{served.url}/set", config, CPU) as loader:
        _train(loader, steps=8)
    shutil.rmtree(served.folder / "set")
    shutil.copytree(small_set, served.folder / "set")
    with Loader(f"{served.url}/set", config, CPU) as loader, Loader(small_set, config, CPU) as own:
        _assert_equal(_train(loader, steps=16), _train(own, steps=16))


def test_a_second_run_fetches_no_shard_again(served: Any, config: LoaderConfig) -> None:
    for _ in range(2):
        with Loader(f"{served.url}/set", config, CPU) as loader:
            _train(loader)
    assert set(_tars(served).values()) == {1}


def test_a_fetched_shard_that_was_damaged_since_is_fetched_again(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    assert config.remote.cache_dir is not None
    with Loader(f"{served.url}/set", config, CPU) as loader:
        _train(loader)
    [path] = config.remote.cache_dir.glob("*/train-000005.tar")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with Loader(f"{served.url}/set", config, CPU) as loader, Loader(sharded, config, CPU) as good:
        _assert_equal(_train(loader), _train(good))
    assert _tars(served)["train-000005.tar"] == 2


def test_samples_kept_decoded_need_no_shard(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    """Later epochs come from the cache, though the folder holds but a part of the set."""
    config = replace(_windowed(config, sharded), cache="host")
    with Loader(f"{served.url}/set", config, CPU) as loader:
        _train(loader, steps=240)
    assert _tars(served).total() <= SHARDS + 8


RUN = """
import sys
from pathlib import Path
import torch
from pipeline.loader import Loader, LoaderConfig
from pipeline.remote.folder import RemoteConfig

remote = RemoteConfig(cache_dir=Path(sys.argv[2]), backoff_s=0.01)
config = LoaderConfig(
    decoder="turbojpeg", threads=1, seed=4, cache="off", tune="off", remote=remote
)
with Loader(sys.argv[1], config, torch.device("cpu")) as loader:
    with loader.train(size=32, batch_size=16, start=0, num_steps=int(sys.argv[3])) as batches:
        for batch in batches:
            print(int(batch.number.sum()), float(batch.composite.double().sum()), flush=True)
            assert batch.weight.all()
"""


def _start(served: Any, config: LoaderConfig, steps: int = 15) -> subprocess.Popen[str]:
    arguments = [f"{served.url}/set", str(config.remote.cache_dir), str(steps)]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_run_goes_on_with_what_it_had_fetched(served: Any, config: LoaderConfig) -> None:
    served.faults["train-000001.tar"] = ["hang"]  # half-way there when it is killed
    process = _start(served, config)
    until = time.monotonic() + 60
    while len(_tars(served)) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = _tars(served)
    assert config.remote.cache_dir is not None
    whole = {path.name for path in config.remote.cache_dir.glob("*/train-*.tar")}
    assert whole
    done = _start(served, config)
    lines, _ = done.communicate(timeout=120)
    assert (done.returncode, len(lines.splitlines())) == (0, 15)
    again = _tars(served) - before
    assert not whole & set(again)
    assert not [*config.remote.cache_dir.glob("*/*.part")]


def test_two_processes_that_share_the_folder_fetch_each_shard_once(
    served: Any, config: LoaderConfig
) -> None:
    processes = [_start(served, config) for _ in range(2)]
    found = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert found[0] == found[1]
    assert set(_tars(served).values()) == {1}


@pytest.mark.parametrize("ends_by", ["breaking out", "an error", "closing the loader"])
def test_a_line_that_hangs_delays_no_end(served: Any, config: LoaderConfig, ends_by: str) -> None:
    """And no thread of ours is left."""
    patient = replace(config, remote=replace(config.remote, timeout_s=600))

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("maskdepth")]

    loader = Loader(f"{served.url}/set", patient, CPU)
    first = int(loader.order.sample_numbers(0, 1)[0]) // 16
    for number in {*range(SHARDS)} - {first}:
        served.faults[f"train-{number:06d}.tar"] = ["hang"] * 9
    stream = loader.train(size=32, batch_size=1, start=0, num_steps=15)
    next(stream.__enter__())
    time.sleep(0.2)  # the batches after it are being read, and wait
    began = time.monotonic()
    if ends_by == "closing the loader":
        loader.close()
    elif ends_by == "an error":
        assert not stream.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        loader.close()
    else:
        stream.__exit__(None, None, None)
        loader.close()
    assert time.monotonic() - began < 3
    assert not threads()


def test_names_of_samples_are_fetched_like_samples(
    served: Any, sharded: Path, config: LoaderConfig
) -> None:
    with Loader(f"{served.url}/set", config, CPU) as loader, Loader(sharded, config, CPU) as local:
        numbers = np.arange(0, 80, 7).tolist()
        assert [loader.validation_key(n) for n in numbers] == [
            local.validation_key(n) for n in numbers
        ]
