"""What every command needs between its options and its work.

Text that was given becomes numbers and configurations; results go to stdout, progress and what went
wrong to stderr. All folders have commands, and all may import this folder; so it lies here.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, TypeVar

import typer

BAD_NEWS, USER_ERROR = 1, 2
"""Exit statuses: a check found faults; the user can repair it."""

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

Config = TypeVar("Config")


def build(kind: Callable[..., Config], **values: object) -> Config:
    """A configuration from the options that were given; the others keep its own defaults.

    Raises:
        typer.BadParameter: It refuses a value.
    """
    with given_values():
        return kind(**{name: value for name, value in values.items() if value is not None})


@contextmanager
def given_values() -> Iterator[None]:
    """What a configuration says of a wrong value is the user's to read.

    Raises:
        typer.BadParameter: In place of a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def number(text: str | None) -> int | float | str | None:
    """A number where the text is one; what else it may be is for the configuration to say."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type] # None is a TypeError
    return text


def numbers(text: str | None, name: str) -> tuple[int, ...]:
    """The numbers of a list such as 1,3; none of None.

    Raises:
        typer.BadParameter: It is no such list; says so of the option `name`.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        msg = f"{name} is {text!r}; it must be numbers such as 1,3"
        raise typer.BadParameter(msg) from None


def print_lines(lines: Iterable[str]) -> None:
    """Print a result for people."""
    print("\n".join(lines))


def print_json(value: object) -> None:
    """Print a result for programs."""
    print(json.dumps(value, indent=2, sort_keys=True))


def fail(message: str) -> int:
    """Say in one line on stderr what the user can repair; returns the exit status for it."""
    print(f"maskdepth: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


@contextmanager
def progress(verb: str, unit: str) -> Iterator[Callable[..., None]]:
    """A bar with rate and time left on stderr, on a terminal only.

    Yields a function of what is done, what is to do, and the bytes written so far if any are.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(verb),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(verb, total=1, rate="")

        def show(done: int, total: int, written: int = 0) -> None:
            speed, elapsed = bar.tasks[0].speed, bar.tasks[0].elapsed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            if written and elapsed:
                rate += f", {written / elapsed / 1e6:,.0f} MB/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
