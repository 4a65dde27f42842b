"""Make the peers' environments, or tell what there is.

`python -m benchmarks.peers` lists each with the interpreter that runs it, or why none does.
`python -m benchmarks.peers make [NAME...]` makes environments: all that need no GPU unless named.
"""

import argparse
import sys

from benchmarks.harness import CannotRun
from benchmarks.peers.environments import ENVIRONMENTS, make, python_of

_FOR_A_GPU = {"nvjpeg"}  # made when named: its torch is gigabytes


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 1 if one of the environments could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=("list", "make"), default="list")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    asked = parser.parse_args(arguments)
    unknown = set(asked.names) - ENVIRONMENTS.keys()
    if unknown:
        parser.error(f"no peer {min(unknown)!r}; there are: {', '.join(ENVIRONMENTS)}")
    failed = False
    for name in asked.names or ENVIRONMENTS:
        if asked.command == "make" and not asked.names and name in _FOR_A_GPU:
            continue
        try:
            found = make(name) if asked.command == "make" else python_of(name)
            print(f"{name:<12}{found}")
        except CannotRun as error:
            failed = asked.command == "make"
            print(f"{name:<12}{error}", file=sys.stderr if failed else sys.stdout)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
