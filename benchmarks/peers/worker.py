"""The peer's end of the line: one JSON object a line on stdin, one answer a line on stdout.

    {"do": "open", "job": {...}}              prepares        {"versions": {"ffcv": "1.0.2"}}
    {"do": "run", "seconds": 2.0}             streams         {"rate": 2710.2}
    {"do": "show", "count": 16, "to": PATH}   writes an .npz  {}

or {"error": REASON}. Between two lines the process waits and takes no processor time, so that peers
can take turns. Whatever a library prints to stdout goes to stderr.
"""

import importlib
import itertools
import json
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import rate_of
from benchmarks.peers.job import Arrays, Job, Peer


def main(module: str, packages: str) -> None:
    """Serve until stdin ends.

    Args:
        module: Which peer: a module of this folder.
        packages: Distributions whose versions to tell, with commas.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    served: _Served | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            served = served or _Served(importlib.import_module(f"benchmarks.peers.{module}"))
            answer = getattr(served, asked.pop("do"))(**asked)
            if "versions" in answer:
                answer["versions"] = {name: version(name) for name in packages.split(",")}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class _Served:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._job: Job

    def open(self, job: dict[str, Any]) -> dict[str, Any]:
        paths = {name: Path(job[name]) for name in ("set_path", "folder")}
        self._job = Job(**{**job, **paths})
        self._peer.prepare(self._job)
        return {"versions": {}}

    def run(self, seconds: float) -> dict[str, Any]:
        finish = getattr(self._peer, "finish", None)
        with closing(self._endless()) as batches:
            return {"rate": rate_of(batches, self._job.batch_size, seconds, finish)}

    def show(self, count: int, to: str) -> dict[str, Any]:
        job = replace(self._job, batch_size=count)
        arrays = next(iter(self._peer.batches(job, shuffled=False)))
        names = ("composite", "mask", "depth")
        np.savez(to, **{name: _here(a) for name, a in zip(names, arrays, strict=True)})
        return {}

    def _endless(self) -> Generator[Arrays]:
        for _ in itertools.count():
            yield from self._peer.batches(self._job, shuffled=True)


def _here(array: Any) -> Any:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)
