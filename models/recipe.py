"""Recipes: a whole training run as one TOML file, ours or a user's own.

    [recipe]  summary = "one line"
    [set]     split, val                     what `maskdepth convert` is expected to have made
    [network] name, width                    `NetworkConfig`
    [loss]    mask, depth, ..._weight        `LossConfig`
    [train]   stages, batch_size, ...        `TrainConfig`, with its tables
    [loader]  augment                        a preset, changed or not: "003,rotation=15"

What a recipe leaves out keeps its default; what the command line gives takes its place.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.error import TrainingError
from models.losses import LossConfig
from models.registry import NETWORKS, NetworkConfig
from models.training.config import TrainConfig, from_dict

FOLDER = Path(__file__).with_name("recipes")
SPLITS = ("foreground", "background", "both", "random")
"""What `maskdepth convert --split` takes; `shards/` is not imported here."""

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a recipe says of itself."""

    summary: str = ""
    """One line for a list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedSet:
    """How the set was made that a recipe's figures refer to."""

    split: str = ""
    """What validation holds out, as `maskdepth convert --split` takes it. Empty: anything."""

    val: float = 0.0
    """Share held out; 0: any."""

    def __post_init__(self) -> None:
        """Check both: `train` advises a command made of them."""
        if self.split and self.split not in SPLITS:
            msg = f"split is {self.split!r}; it must be one of {', '.join(SPLITS)}"
            raise ValueError(msg)
        if not 0 <= self.val < 1:
            msg = f"val is {self.val:g}; it is a share from 0 up, below 1"
            raise ValueError(msg)

    @property
    def convert(self) -> str:
        """The options of `maskdepth convert` that make such a set."""
        options = [f"--split {self.split}"] if self.split else []
        options += [f"--val {self.val:g}"] if self.val else []
        return " ".join(["convert", *options])

    def differences(self, split: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
        """Where a set was made otherwise.

        Args:
            split: The manifest's record of the split: the rule that was applied.
            options: The options of its conversion; joined sets have no common ones.
        """
        found = []
        if self.split and split.get("rule") != self.split:
            found.append(f"split {split.get('rule')!r}, not {self.split!r}")
        if self.val and options.get("val") not in (None, self.val):
            found.append(f"val {options['val']:g}, not {self.val:g}")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderTable:
    """What a recipe says of the loader; all else there is a matter of the machine."""

    augment: str = ""
    """A preset, changed or not; empty: the loader's default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One recipe, every part of it checked but the augmentation's name."""

    name: str
    """A bundled recipe's name, or a path."""

    text: str
    """The file, comments and all."""

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the file says, by table."""

    def part(self, table: str, given: Mapping[str, Any] | None = None) -> Any:
        """The configuration that a table makes.

        Args:
            table: A key of `TABLES`.
            given: Options that take the place of the file's, nested as its tables are; None is
                an option that was not given.

        Raises:
            ValueError: A value is out of range, or has the wrong type.
        """
        values = _merged(self.tables.get(table, {}), given or {})
        return from_dict(TABLES[table], values, table)


TABLES: dict[str, type[Any]] = {
    "recipe": About,
    "set": ExpectedSet,
    "network": NetworkConfig,
    "loss": LossConfig,
    "train": TrainConfig,
    "loader": LoaderTable,
}
"""The tables of a recipe, and what each of them makes."""

EMPTY = Recipe(name="", text="")
"""All defaults."""


def recipe_names() -> list[str]:
    """The bundled recipes: the house's own, then the reference systems'."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != "house")


def read_recipe(name: str) -> Recipe:
    """Read and check a recipe.

    Args:
        name: Of a bundled one; or a path, which ends with .toml.

    Raises:
        TrainingError: There is none, or a key or value in it is wrong; the message names both.
    """
    is_path = name.endswith(".toml") or os.sep in name
    path = Path(name) if is_path else FOLDER / f"{name}.toml"
    if not is_path and name not in recipe_names():
        nearest = difflib.get_close_matches(name, recipe_names(), n=1, cutoff=0)
        msg = (
            f"there is no recipe {name!r}; the nearest is {nearest[0]!r}, `maskdepth recipes` "
            "lists all, and a file of your own ends with .toml"
        )
        raise TrainingError(msg)
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        msg = f"recipe {path} cannot be read ({error.strerror}); name a file that exists"
        raise TrainingError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"recipe {path} is no TOML ({error}); correct it there"
        raise TrainingError(msg) from None
    recipe = Recipe(name=name, text=text, tables=tables)
    try:
        _check(recipe)
    except ValueError as error:
        msg = f"recipe {path}: {error}; `maskdepth recipes house` shows how one is written"
        raise TrainingError(msg) from None
    return recipe


def facts(recipe: Recipe) -> dict[str, Any]:
    """What one chooses a recipe by, as plain values."""
    network, loss, train = (recipe.part(name) for name in ("network", "loss", "train"))
    expected = recipe.part("set")
    tasks = NETWORKS[network.name].tasks
    losses = {task: getattr(loss, task) for task in tasks}
    weights = {task: getattr(loss, f"{task}_weight") for task in tasks}
    return {
        "name": recipe.name,
        "summary": recipe.part("recipe").summary,
        "network": " ".join(filter(None, (network.name, network.width))),
        "stages": train.stages,
        "batch_size": train.batch_size,
        "losses": losses,
        "weights": weights,
        "optimizer": train.optimizer.name,
        "lr": train.optimizer.lr,
        "schedule": train.schedule.name,
        "augment": recipe.part("loader").augment,
        "set": {"split": expected.split, "val": expected.val, "convert": expected.convert},
    }


def describe(recipes: Iterable[Recipe]) -> list[str]:
    """A table of recipes, one a line."""
    titles = ("name", "network", "stages", "batch", "losses", "optimizer", "set")
    table = [titles]
    for found in map(facts, recipes):
        losses = [
            f"{task}{'' if weight == 1 else f' x {weight:g}'}: {found['losses'][task]}"
            for task, weight in found["weights"].items()
        ]
        table.append((
            found["name"],
            found["network"],
            found["stages"],
            found["batch_size"],
            "; ".join(losses),
            f"{found['optimizer']} {found['lr']:g}, {found['schedule']}",
            found["set"]["convert"].removeprefix("convert "),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _check(recipe: Recipe) -> None:
    for name, table in recipe.tables.items():
        if name not in TABLES:
            nearest = difflib.get_close_matches(name, TABLES, n=1, cutoff=0)[0]
            msg = f"no table is called {name!r}; the nearest known one is {nearest!r}"
            raise ValueError(msg)
        if not isinstance(table, Mapping):
            msg = f"{name!r} is a table, written [{name}]"
            raise ValueError(msg)  # noqa: TRY004 - what a user can cause is a ValueError
        recipe.part(name)


def _merged(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in given.items():
        if isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key, {}), value)
        elif value is not None:
            merged[key] = value
    return merged
