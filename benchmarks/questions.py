"""What `maskdepth bench` can be asked, and with which options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One benchmark."""

    about: str
    """What it answers, in a few words."""

    options: frozenset[str] = frozenset()
    """What it takes besides --quick and --json, by the names of its `run`'s parameters."""

    is_comparable: bool = False
    """It returns rows of rates, which --plot draws and --compare holds against a kept result."""


_PEERS = frozenset({"peers"})

QUESTIONS: Mapping[str, Question] = {
    "convert": Question(
        about="samples/s of conversion against ceiling and peers",
        options=_PEERS,
        is_comparable=True,
    ),
    "loader": Question(
        about="samples/s of the loader against ceiling and peers",
        options=_PEERS,
        is_comparable=True,
    ),
    "augment": Question(about="the cost of augmentation"),
    "order": Question(about="the order's cost, and how well it mixes"),
    "growth": Question(about="memory over many epochs"),
    "train": Question(about="samples/s of training against the step alone, and waiting for data"),
    "quality": Question(
        about="accuracy and speed of the networks, or of loss pairs",
        options=frozenset({"losses", "data"}),
    ),
    "recipes": Question(
        about="whether the recipes, cut short alike, find masks better than the free one",
        options=frozenset({"data"}),
    ),
}


def find(name: str, given: Mapping[str, object]) -> tuple[Question, Callable[..., Any]]:
    """A question and the function that answers it.

    Args:
        name: A key of `QUESTIONS`.
        given: Options by name; those that are None or False were not given.

    Raises:
        ValueError: There is no such question, or it has no use for an option.
    """
    if name not in QUESTIONS:
        msg = f"no question {name!r}; there are: {', '.join(QUESTIONS)}"
        raise ValueError(msg)
    question = QUESTIONS[name]
    known = question.options | ({"plot", "compare"} if question.is_comparable else set())
    useless = [f"--{option}" for option, value in given.items() if value and option not in known]
    if useless:
        msg = f"{' and '.join(useless)} is of no use to bench {name}; leave it out"
        raise ValueError(msg)
    return question, import_module(f"benchmarks.{name}").run
