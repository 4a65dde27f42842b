"""Where commands lie, and the arrows of docs/design.md: the only imports between folders."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cli

ROOT = Path(cli.__file__).parent

FORBIDDEN = {
    "shards": {"pipeline", "models", "benchmarks", "cli", "torch", "nvidia", "webdataset"},
    "pipeline": {"models", "benchmarks", "cli"},
    "models": {"pipeline", "shards", "benchmarks", "cli", "nvidia"},
    "benchmarks": {"cli"},
}
"""What no file of a folder imports, not even inside a function."""

ALLOWED = {
    "models/commands.py": {"shards.console"},
    "models/training": {"pipeline.batch", "pipeline.meter"},
    "models/training/evaluate.py": {"pipeline.loader"},  # the type of `facts_of`'s loader
}
"""The exceptions that docs/design.md grants, and one for type checkers alone."""

HOMES = {
    "synth": "shards.commands",
    "convert": "shards.commands",
    "verify": "pipeline.commands",
    "inspect": "cli",
    "stats": "shards.commands",
    "train": "cli",
    "lr-find": "cli",
    "evaluate": "cli",
    "predict": "cli",
    "export": "models.commands",
    "report": "cli",
    "models": "models.commands",
    "recipes": "models.commands",
    "demo": "cli",
    "doctor": "pipeline.commands",
    "bench": "benchmarks.commands",
}
"""Every command in the order of the help, and where cli.py's docstring says it lies."""


def imported(path: Path) -> Iterator[str]:
    """All modules that a file names, also inside functions and for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path} imports relatively"
            # the name may be the module: `from pipeline import batch`
            is_package = "." not in node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if is_package else node.module


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_what_the_design_allows(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert len(paths) > 10
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        allowed = set[str]().union(*(ALLOWED[key] for key in ALLOWED if name.startswith(key)))
        found = {module for module in imported(path) if module.split(".")[0] in FORBIDDEN[folder]}
        assert found <= allowed, f"{name} imports {found - allowed}"


def test_every_command_lies_where_the_command_line_says() -> None:
    assert {name: command.__module__ for name, command in cli.COMMANDS.items()} == HOMES
    assert list(cli.COMMANDS) == list(HOMES)


def test_the_help_lists_the_commands_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    words = [line.split()[1] for line in capsys.readouterr().out.splitlines() if len(line) > 5
             and line.startswith("│ ") and line[2].isalpha()]  # fmt: skip
    assert words == list(HOMES)
