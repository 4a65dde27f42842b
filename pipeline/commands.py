"""The commands of this folder: verify (of a folder or a URL) and doctor; `cli.py` registers them.

Nothing heavy is imported before a command runs.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command_options import Device, chosen_device
from shards.console import BAD_NEWS, Json, print_json, print_lines, progress


def verify(
    path: Annotated[
        str, typer.Argument(help="Folder of the set; or URL: sizes alone.", show_default=False)
    ],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    repair: Annotated[
        list[Path] | None,
        typer.Option(metavar="SOURCE...", help="First restore damaged files from these."),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="", help="", show_default=False, hidden=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare every file of a set with its manifest; exit status 1 if anything differs."""
    from shards.restore import restore
    from shards.verify import verify as run

    if more and not repair:
        msg = f"{more[0]} is one too many; verify takes one set, and sources after --repair"
        raise typer.BadParameter(msg)
    if "://" in path:
        _verify_remote(path, is_plain=not (deep or repair), as_json=as_json)
        return
    if repair:
        with progress("repair", "samples") as show:
            for name in restore(Path(path), [*repair, *(more or [])], show):
                print(f"restored {name}", file=sys.stderr)
    with progress("verify", "bytes") as show:
        faults = run(Path(path), deep=deep, on_progress=show)
    if as_json:
        print_json({"faults": [{"file": fault.file, "found": fault.found} for fault in faults]})
    else:
        for fault in faults:
            print(fault)
        print(f"{path}: {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}")
    if faults:
        raise typer.Exit(BAD_NEWS)


def _verify_remote(url: str, *, is_plain: bool, as_json: bool) -> None:
    from pipeline.remote.folder import RemoteConfig
    from pipeline.remote.remote_set import RemoteSets

    if not is_plain:
        msg = f"--deep and --repair read every file; copy {url} to a folder first"
        raise typer.BadParameter(msg)
    faults = RemoteSets(RemoteConfig()).faults(url)
    if as_json:
        print_json({"faults": faults})
    else:
        print_lines([*faults, f"{url}: {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}"])
    if faults:
        raise typer.Exit(BAD_NEWS)


def doctor(
    data: Annotated[
        Path | None, typer.Option(help="Also look at this set's files.", show_default=False)
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what this machine has, what the loader would choose here, and what bounds it.

    Takes some seconds; exit status 1 if something is found that makes the loader fail.
    """
    from pipeline.doctor.report import examine

    report = examine(chosen_device(device), data)
    if as_json:
        print_json(report.facts())
    else:
        print_lines(report.lines())
    if report.faults:
        raise typer.Exit(BAD_NEWS)
