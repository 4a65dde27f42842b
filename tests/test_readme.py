"""The README is a promise: its commands run as printed, its figures are the measured ones."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.readme import rewritten

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_commands_run_as_printed(tmp_path: Path) -> None:
    (block,) = re.findall(r"## Use it\n\n```sh\n(.*?)```", README, re.DOTALL)
    program = str(Path(sys.executable).parent / "maskdepth")
    lines = [line for line in block.splitlines() if line]
    assert len(lines) >= 7
    for line in lines:
        command = shlex.split(line, comments=True)
        assert command[0] == ".venv/bin/maskdepth"
        done = subprocess.run(
            [program, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for path in ("set.png", "run/best.pt", "predictions/panel.png"):
        assert (tmp_path / path).exists(), path


def test_the_figures_are_those_of_the_result_files() -> None:
    assert rewritten(README) == README


def test_every_file_it_names_exists() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    (tree,) = re.findall(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    folder = Path()
    for line in tree.splitlines():
        found = re.fullmatch(r"( *)(\S+(?: \S+)*)(?: {2,}.*)?", line)
        assert found, line
        for name in found[2].split():
            if not found[1]:
                folder = Path(name) if name.endswith("/") else Path()
                assert (ROOT / name).exists(), name
            assert not found[1] or (ROOT / folder / name).exists(), f"{folder / name}"
