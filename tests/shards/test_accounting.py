"""Every member of the sources has one fate, and the fates add up: with everything at once."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

from shards.convert import convert
from shards.dry_run import dry_run
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

SYNTH = SynthConfig(
    count=160, seed=4, num_backgrounds=2, num_foregrounds=8, layout="global-number", zips=2
)


def littered(folder: Path) -> tuple[Path, int, int]:
    """A global-number source with litter, a copy, an empty and a damaged image, one image missing.

    Returns:
        The source, how many members it has, and how many of them are litter.
    """
    source = folder / "source"
    synthesise(source, SYNTH)
    first, second = sorted(source.glob("*.zip"))
    with zipfile.ZipFile(second) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(name for name in contents if "/Fg-Bg/fg-bg" in name)
    depths = sorted(name for name in contents if "/Depth/depth" in name)
    contents[names[0]] = b""
    contents[names[1]] = contents[names[1]][:-50]
    del contents[depths[5]]
    root = names[0].partition("/")[0]
    litter = {"__MACOSX/": b"", f"__MACOSX/{root}/._x": b"m", f"{root}/Thumbs.db": b"t",
              f"{root}/Fg-Bg/.DS_Store": b"d", "readme.md": b"hello"}  # fmt: skip
    with zipfile.ZipFile(second, "w") as archive:
        for name, content in {**contents, **litter}.items():
            archive.writestr(name, content)
    copy = next((source / "Background").iterdir())
    (source / "more" / "Background").mkdir(parents=True)
    (source / "more" / "Background" / copy.name).write_bytes(copy.read_bytes())
    with zipfile.ZipFile(first) as archive:
        members = len(archive.namelist()) + len(contents) + len(litter)
    loose = sum(path.is_file() and path.suffix != ".zip" for path in source.rglob("*"))
    return source, members + loose, len(litter) + 2  # the copied background and truth.tsv


def test_the_accounting_adds_up_with_everything_at_once(tmp_path: Path) -> None:
    source, members, litter = littered(tmp_path)
    config = ConvertConfig(
        sources=(source,), out=tmp_path / "set", processes=1, max_rejected=3, samples_per_shard=16
    )
    whole = convert(config).manifest
    accounting = dict(whole.accounting)
    assert accounting.pop("members") == members == sum(accounting.values())
    assert accounting["debris"] == litter
    assert accounting["backgrounds"] == 2
    assert accounting["rejected"] == 3 + 3 + 2
    assert accounting["used"] == 3 * 157
    assert accounting["not_selected"] == 0
    lines = (tmp_path / "set" / "rejected.jsonl").read_text().splitlines()
    reasons = sorted(json.loads(line)["reason"].partition(" (")[0] for line in lines)
    assert reasons == ["composite does not decode cleanly", "composite is empty", "has no depth"]

    part = replace(config, out=tmp_path / "part", sets=(2,), per_background=30)
    told = dry_run(part)
    chosen = convert(part).manifest
    accounting = dict(chosen.accounting)
    assert accounting.pop("members") == members == sum(accounting.values())
    assert accounting["not_selected"] == 3 * (159 - 60)
    assert accounting["used"] // 3 + len(told.rejected) >= 58
    assert told.accounting["members"] == members
    assert sum(told.accounting.values()) == 2 * members
