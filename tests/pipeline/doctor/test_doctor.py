"""What the doctor finds on whole and on odd machines, and that it never falls ill itself."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import cli
import pipeline.doctor.loader
import pipeline.doctor.machine
import pipeline.doctor.report
import pipeline.doctor.shard_set
from pipeline.cache.gather import Gather, Kernel
from pipeline.cache.memory_plan import Need, Room, plan_cache
from pipeline.doctor.gpus import Driver, Gpu, JpegEngines
from pipeline.doctor.loader import SIZES, StageFacts
from pipeline.doctor.machine import gpu_remarks, package_faults, package_remarks
from pipeline.doctor.report import Report, examine
from pipeline.doctor.section import Section
from pipeline.doctor.shard_set import set_faults
from pipeline.tuning.settings import Settings
from shards.manifest import read_manifest

CPU = torch.device("cpu")
H200 = Gpu(name="NVIDIA H200", memory=141 << 30, free=140 << 30)
DRIVER = Driver(version="580.1", gpus=(H200,), reason="")
NO_DRIVER = Driver(version=None, gpus=(), reason="no NVIDIA driver")
SEVEN = JpegEngines(engines=7, cores=1, reason="")
NONE = JpegEngines(engines=0, cores=0, reason="nvJPEG finds none")
UNKNOWN = JpegEngines(engines=None, cores=None, reason="nvJPEG does not start (status 6)")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rates over one batch each, and nothing left in the user's cache folder."""
    monkeypatch.setattr(pipeline.doctor.loader, "_SECONDS", 0.0)
    monkeypatch.setattr(pipeline.doctor.loader, "_FEW_SECONDS", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *map(str, arguments), "--device", "cpu"])
    return int(ended.value.code or 0)


def test_a_whole_set_is_measured_planned_and_bounded(
    small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--data", small_set, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    manifest = read_manifest(small_set)
    tars = [manifest.files[f"{shard.name}.tar"].bytes for shard in manifest.shards]
    assert found["set"]["samples"] == 320
    assert found["set"]["shards"] == 6
    assert found["set"]["bytes"] == sum(tars)
    assert 0 <= found["set"]["in_page_cache"] <= 1
    assert found["machine"]["cores"]["allowed"] == len(os.sched_getaffinity(0))
    assert found["packages"]["versions"]["torch"] == torch.__version__
    stages = found["loader"]["stages"]
    assert sorted(map(int, stages)) == list(SIZES)
    for size, stage in stages.items():
        rates = stage["streaming_samples_per_s"]
        assert {"decoding", "reading"} <= set(rates)
        assert stage["bound"] == min(rates, key=rates.__getitem__)
        assert stage["cache_bytes"] == 240 * 5 * int(size) ** 2, "240 training samples fit anywhere"
        assert stage["cached_samples_per_s"] > 0
    assert found["loader"]["decoding_by_threads"]["1"] > 0


def test_without_a_set_it_makes_samples_and_plans_for_the_usual_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    report = examine(CPU)
    assert report.faults == ()
    lines = "\n".join(report.lines())
    assert "400,000 training samples" in lines
    assert "no faults" in lines
    assert not [*tmp_path.glob("maskdepth-doctor-*")], "what was made is gone"


def test_a_damaged_set_is_a_fault_by_name_and_ends_with_1(
    copied_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = copied_set / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-81])
    assert _run("--data", copied_set) == 1
    lines = capsys.readouterr().out.splitlines()
    [fault] = [line for line in lines if line.startswith("fault")]
    assert "train-000001.tar is 81 bytes shorter than the manifest says; run `maskdepth" in fault
    assert not any("no faults" in line for line in lines)
    assert lines[0].startswith("machine"), "the rest is examined all the same"


@pytest.mark.parametrize("content", [None, "{", '{"a": 1}'])
def test_what_is_no_set_is_a_fault_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert _run("--data", tmp_path, "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1


def test_a_set_whose_samples_are_all_bad_is_a_fault(
    spoil: object, copied_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil([*range(240)])  # type: ignore[operator]
    assert _run("--data", copied_set, "--json") == 1
    [fault] = json.loads(capsys.readouterr().out)["faults"]
    assert fault.endswith(f"is good; run `maskdepth verify {copied_set} --deep`")


@pytest.mark.parametrize("part", ["examine_machine", "examine_gpus", "examine_packages"])
@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyError("MemTotal")])
def test_a_part_that_fails_is_a_remark_and_the_others_are_examined(
    monkeypatch: pytest.MonkeyPatch, small_set: Path, part: str, error: Exception
) -> None:
    def fail() -> Section:
        raise error

    monkeypatch.setattr(pipeline.doctor.report, part, fail)
    monkeypatch.setattr(
        pipeline.doctor.report, "examine_loader", lambda *_, **__: Section(name="loader")
    )
    report = examine(CPU, small_set)
    assert len(report.sections) == 5
    assert report.faults == ()
    [remark] = [told for told in report.remarks if "could not be examined" in told]
    assert type(error).__name__ in remark


@pytest.mark.parametrize(
    ("driver", "engines", "seen", "video", "told"),
    [
        (NO_DRIVER, None, 0, False, []),
        (DRIVER, SEVEN, 1, True, []),
        (DRIVER, SEVEN, 0, True, ["torch sees no GPU"]),
        (DRIVER, NONE, 1, True, ["CUDA decodes alone"]),
        (DRIVER, NONE, 1, False, ["compute,utility,video"]),
        (DRIVER, UNKNOWN, 0, False, ["torch sees no GPU", "compute,utility,video"]),
    ],
)
def test_gpus_and_engines_that_cannot_be_used_are_remarked_on(
    driver: Driver, engines: JpegEngines | None, seen: int, video: bool, told: list[str]
) -> None:
    found = [*gpu_remarks(driver, engines, seen, video=video, environment={})]
    assert len(found) == len(told)
    assert all(part in remark for part, remark in zip(told, found, strict=True))


def test_a_containers_own_capabilities_are_quoted() -> None:
    environment = {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    [remark] = gpu_remarks(DRIVER, NONE, 1, video=False, environment=environment)
    assert remark.endswith("(NVIDIA_DRIVER_CAPABILITIES is 'compute,utility' here)")


def test_a_gpu_is_shown_with_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.doctor.machine, "read_driver", lambda: DRIVER)
    monkeypatch.setattr(pipeline.doctor.machine, "read_jpeg_engines", lambda: SEVEN)
    section = pipeline.doctor.machine.examine_gpus()
    assert section.lines[0] == "NVIDIA H200, 151.4 GB, 150.3 GB free"
    assert section.lines[1].startswith("driver 580.1; torch sees ")
    assert section.lines[2] == "JPEG engines 7; cores per engine 1"


@pytest.mark.parametrize(
    ("versions", "faults", "remarks"),
    [
        ({"nvidia-dali-cuda120": "2.4"}, 0, 0),
        ({"nvidia-dali-cuda120": "2.4", "nvidia-dali-cuda130": "2.4"}, 1, 0),
        ({}, 0, 1),
    ],
)
def test_two_builds_of_dali_are_a_fault_and_none_beside_a_gpu_a_remark(
    versions: Mapping[str, str], faults: int, remarks: int
) -> None:
    assert len([*package_faults(versions)]) == faults
    assert len([*package_remarks(versions, has_gpu=True)]) == remarks
    assert not [*package_remarks(versions, has_gpu=False)]


def test_both_builds_end_the_command_with_1_and_both_names(
    monkeypatch: pytest.MonkeyPatch, small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"torch": "2.13", "nvidia-dali-cuda120": "2.4", "nvidia-dali-cuda130": "2.4"}
    monkeypatch.setattr(pipeline.doctor.machine, "installed_decoders", lambda: both)
    assert _run("--data", small_set) == 1
    assert (
        "nvidia-dali-cuda120 and nvidia-dali-cuda130 are both installed" in capsys.readouterr().out
    )


def test_what_gathers_is_told_and_numpy_alone_is_a_remark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section = pipeline.doctor.machine.examine_packages()
    assert section.facts["gatherer"] == f"numba {version('numba')}"
    assert section.lines[-1] == f"cached samples are gathered by numba {version('numba')}"
    assert not [remark for remark in section.remarks if "gather" in remark]

    def compiled() -> Kernel:
        msg = "No module named 'numba'\nand more"
        raise ModuleNotFoundError(msg)

    monkeypatch.setattr(pipeline.doctor.machine, "gather", Gather(compiled))
    section = pipeline.doctor.machine.examine_packages()
    assert section.facts["gatherer"] == f"numpy {version('numpy')}"
    [remark] = [remark for remark in section.remarks if "gather" in remark]
    assert remark.endswith("(ModuleNotFoundError: No module named 'numba')")
    assert section.faults == ()


def test_more_shards_than_files_may_be_open_is_a_fault(small_set: Path) -> None:
    manifest = read_manifest(small_set)
    assert not [*set_faults(manifest, None)]
    assert not [*set_faults(manifest, 1024)]
    many = replace(manifest, shards=manifest.shards * 200)
    [fault] = set_faults(many, 1024)
    assert fault.startswith("1,200 shards are held open, and this process may open 1,024 files")


def test_a_slow_disk_is_the_bound_of_a_set_that_is_not_in_memory(
    monkeypatch: pytest.MonkeyPatch, small_set: Path
) -> None:
    monkeypatch.setattr(pipeline.doctor.shard_set, "resident_bytes", lambda _: 0)
    monkeypatch.setattr(pipeline.doctor.shard_set, "disk_rate", lambda _: 20_000.0)
    facts = examine(CPU, small_set).facts()
    for stage in facts["loader"]["stages"].values():
        assert stage["bound"] == "the disk"
        expected = 20_000.0 / facts["set"]["bytes_per_sample"]
        assert stage["streaming_samples_per_s"]["the disk"] == pytest.approx(expected)
    assert any("100% of the set is read from the disk" in remark for remark in facts["remarks"])


def test_a_stage_says_what_bounds_it_what_comes_beside_and_where_it_is_kept() -> None:
    need = Need(samples=1000, size=64, passes=4)
    stage = StageFacts(
        size=64,
        settings=Settings(threads=14, prefetch_batches=3, hw_decoder_load=0.45),
        plan=plan_cache("auto", need, Room(device=10**9, host=0, file=None)),
        streaming={"decoding": 30_000.0, "reading": 90_000.0},
        cached=5_000_000.0,
    )
    assert [*stage.lines("dali on cuda")] == [
        "64 px: 14 threads, 3 batches ahead, 45% of the JPEGs to the engines: 30,000 samples/s, "
        "bound by decoding",
        "  beside it reading 90,000",
        "  cache 64 px, 1,000 training samples: all in device memory, 20.5 MB of 1.0 GB free",
        "  cached passes 5,000,000 samples/s, bound by gathering",
    ]
    assert "engines" not in next(stage.lines("turbojpeg on cpu"))


def test_the_report_tells_remarks_and_faults_last() -> None:
    section = Section(name="a", lines=("one", "two"), remarks=("slow",), faults=("broken",))
    report = Report(sections=(section,))
    assert [line.split() for line in report.lines()] == [
        ["a", "one"], ["two"], ["remark", "slow"], ["fault", "broken"],
    ]  # fmt: skip
