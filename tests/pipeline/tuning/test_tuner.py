"""What is measured once per machine and remembered, and what must never come of it."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pipeline.tuning.tuner
from pipeline.loader import Loader, LoaderConfig
from pipeline.source import SampleSource
from pipeline.tuning.rates import Numbers
from pipeline.tuning.settings import Settings, Wish
from pipeline.tuning.tuner import WORTH_SAMPLES, Stage, Tuner
from pipeline.tuning.tuning_file import recall, remember, tuning_path
from pipeline.turbojpeg import TurboJpegDecoder

CPU = torch.device("cpu")
CONFIG = LoaderConfig(decoder="turbojpeg", cache="off")
DECODER = TurboJpegDecoder(threads=8, prefetch_batches=3)


class Measurements(list[int]):
    """Threads that were measured; half of eight cores are as good as all."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measurements:
    found = Measurements()

    def rate(decoder: TurboJpegDecoder, *_: object, **__: object) -> float:
        found.append(decoder.threads)
        return 1000.0

    monkeypatch.setattr(pipeline.tuning.tuner, "decode_rate", rate)
    return found


@pytest.fixture
def stage(small_set: Path) -> Iterator[Stage]:
    with Loader(small_set, CONFIG, CPU) as loader:
        yield Stage(source=loader.training, size=64, batch_size=32, exact=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tuning.json"


def _tuner(path: Path | None, *, cores: int = 8, wish: Wish | None = None) -> Tuner:
    return Tuner(wish or Wish(), DECODER, CPU, cores=cores, path=path)


def _threads(tuner: Tuner, stage: Stage, samples: float = WORTH_SAMPLES) -> int:
    return tuner.settings_for(stage, samples=samples).threads


def test_the_first_start_measures_and_the_second_remembers(
    measured: Measurements, stage: Stage, path: Path
) -> None:
    assert _threads(_tuner(path), stage) == 4
    assert measured == [8, 6, 4]
    assert _threads(_tuner(path), stage) == 4
    assert _threads(_tuner(path), stage, samples=1) == 4
    assert measured == [8, 6, 4]


def test_a_tuner_measures_a_stage_once_even_where_nothing_can_be_remembered(
    measured: Measurements, stage: Stage
) -> None:
    tuner = _tuner(None)
    assert [_threads(tuner, stage) for _ in range(3)] == [4, 4, 4]
    assert measured == [8, 6, 4]


def test_again_measures_although_it_is_known_and_off_does_nothing_at_all(
    measured: Measurements, stage: Stage, path: Path
) -> None:
    off = _tuner(path, wish=Wish(tune="off"))
    assert _threads(off, stage) == 8
    assert measured == []
    assert not path.exists()
    for _ in range(2):
        assert _threads(_tuner(path, wish=Wish(tune="again")), stage, samples=1) == 4
    assert measured == [8, 6, 4] * 2


def test_a_stage_too_short_to_gain_by_it_is_not_measured(
    measured: Measurements, stage: Stage, path: Path
) -> None:
    assert _threads(_tuner(path), stage, samples=WORTH_SAMPLES - 1) == 8
    assert measured == []


def test_two_cores_or_a_number_leave_nothing_to_measure(
    measured: Measurements, stage: Stage, path: Path
) -> None:
    assert _threads(_tuner(path, cores=2), stage) == 2
    assert _threads(_tuner(path, wish=Wish(threads=7)), stage) == 7
    assert measured == []


@pytest.mark.parametrize(
    "change", [{"size": 224}, {"batch_size": 256}, {"exact": True}], ids=["size", "batch", "exact"]
)
def test_another_kind_of_stage_is_measured_for_itself(
    measured: Measurements, stage: Stage, path: Path, change: dict[str, object]
) -> None:
    _threads(_tuner(path), stage)
    _threads(_tuner(path), replace(stage, **change))  # type: ignore[arg-type]
    assert measured == [8, 6, 4] * 2


def test_another_machine_or_version_is_measured_for_itself(
    measured: Measurements, stage: Stage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _threads(_tuner(path), stage)
    monkeypatch.setattr(pipeline.tuning.tuner, "processor", lambda: "Abacus 3000")
    _threads(_tuner(path), stage)
    monkeypatch.setattr(pipeline.tuning.tuner, "installed_decoders", lambda: {"simplejpeg": "99"})
    _threads(_tuner(path), stage)
    assert measured == [8, 6, 4] * 3


DAMAGE = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "too deep": b"[" * 100_000,
    "another format": b'{"format": 99, "found": {}}',
    "no entries": b'{"format": 1, "found": 7}',
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_measured_anew_and_whole_afterwards(
    measured: Measurements, stage: Stage, path: Path, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert _threads(_tuner(path), stage) == 4
    assert measured == [8, 6, 4]
    assert _threads(_tuner(path), stage) == 4
    assert measured == [8, 6, 4]


@pytest.mark.parametrize("value", [{}, 7, {"threads": 5000, "hw_decoder_load": 0.65},
                                   {"threads": "4", "hw_decoder_load": 0.65},
                                   {"threads": 4, "hw_decoder_load": 9}])  # fmt: skip
def test_an_entry_that_no_measurement_could_give_is_measured_anew(
    measured: Measurements, stage: Stage, path: Path, value: object
) -> None:
    _threads(_tuner(path), stage)
    content = json.loads(path.read_text())
    [key] = content["found"]
    content["found"][key] = value
    path.write_text(json.dumps(content))
    assert _threads(_tuner(path), stage) == 4
    assert measured == [8, 6, 4] * 2


def test_a_home_that_cannot_be_written_is_no_error(
    measured: Measurements, stage: Stage, tmp_path: Path
) -> None:
    """Not by permissions: root may write anywhere but below a file."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "maskdepth" / "tuning.json"
    assert _threads(_tuner(path), stage) == 4
    assert _threads(_tuner(path), stage) == 4
    assert measured == [8, 6, 4] * 2


def test_a_full_disk_leaves_the_old_file_and_no_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(path, "a", {"threads": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    remember(path, "b", {"threads": 2})
    monkeypatch.undo()
    assert recall(path, "a") == {"threads": 1}
    assert recall(path, "b") == {}
    assert [*path.parent.iterdir()] == [path]


def test_whoever_reads_while_others_write_finds_a_whole_file(path: Path) -> None:
    remember(path, "0", {"threads": 0})
    stop = threading.Event()
    torn: list[str] = []

    def look() -> None:
        while not stop.is_set():
            try:
                json.loads(path.read_text())
            except ValueError as error:
                torn.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(200):
        remember(path, str(i % 50), {"threads": i})
    stop.set()
    reader.join()
    assert torn == []
    assert recall(path, "49") == {"threads": 199}


def test_the_file_lies_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning_path() == tmp_path / "maskdepth" / "tuning.json"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert tuning_path() is None
    remember(None, "a", {"threads": 1})
    assert recall(None, "a") == {}


def test_a_source_without_a_good_sample_is_not_measured(
    measured: Measurements, stage: Stage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = stage.source.bad(0, 0, "for a test")

    def read_many(_: SampleSource, numbers: Numbers) -> list[object]:
        return [bad] * len(numbers)

    monkeypatch.setattr(SampleSource, "read_many", read_many)
    assert _threads(_tuner(path), stage) == 8
    assert measured == []


def test_a_real_measurement_on_the_processor_is_short(stage: Stage, path: Path) -> None:
    """The last setting begins before 0.9 s; the rest is room for a machine that others use."""
    began = time.perf_counter()
    threads = _threads(_tuner(path, cores=4), stage)
    assert time.perf_counter() - began < 5
    assert threads in {2, 3, 4}
    [entry] = json.loads(path.read_text())["found"].values()
    assert entry["threads"] == threads


def test_what_is_chosen_changes_neither_order_nor_pixels(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    streams = []
    used: set[tuple[int, int]] = set()
    stream = TurboJpegDecoder.stream

    def spied(self: TurboJpegDecoder, *arguments: object, **named: object) -> object:
        used.add((self.threads, self.prefetch_batches))
        return stream(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TurboJpegDecoder, "stream", spied)
    for cores in (1, 2, 16):
        monkeypatch.setattr(pipeline.tuning.tuner, "own_cores", lambda cores=cores: cores)
        with (
            Loader(small_set, replace(CONFIG, tune="again", seed=3), CPU) as loader,
            loader.train_pixels(size=64, batch_size=16, start=7, num_steps=4) as batches,
        ):
            streams.append([(b.numbers.tolist(), b.composite.clone(), b.mask.clone())
                            for b in batches])  # fmt: skip
    assert len({threads for threads, _ in used}) > 1, "different settings were in use"
    first, *others = streams
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert mine[0] == theirs[0]
            assert torch.equal(mine[1], theirs[1])
            assert torch.equal(mine[2], theirs[2])


def test_validation_uses_what_training_found_for_its_size(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    stream = TurboJpegDecoder.stream

    def spied(self: TurboJpegDecoder, *arguments: object, **named: object) -> object:
        seen.append(self.threads)
        return stream(self, *arguments, **named)  # type: ignore[arg-type]

    def chosen(_: Tuner, stage: Stage, *, samples: float) -> Settings:
        assert samples == 2 * 16
        assert stage.batch_size == 16
        return Settings(threads=3, prefetch_batches=2, hw_decoder_load=0)

    monkeypatch.setattr(TurboJpegDecoder, "stream", spied)
    monkeypatch.setattr(Tuner, "settings_for", chosen)
    with Loader(small_set, replace(CONFIG, threads=1), CPU) as loader:
        with loader.train_pixels(size=64, batch_size=16, start=0, num_steps=2) as batches:
            assert len([*batches]) == 2
        for size in (64, 96):
            with loader.validate(size=size, batch_size=40) as validation:
                assert len([*validation]) == 2
    assert seen == [3, 3, 1]
