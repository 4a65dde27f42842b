"""Our end of the line to a peer's process; `worker.py` says what is spoken."""

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness import CannotRun

# its interpreter sees this folder of ours and nothing else: neither our packages nor our modules
_BOOT = """
import sys, types
package = types.ModuleType("benchmarks")
package.__path__ = [sys.argv[1]]
sys.modules["benchmarks"] = package
from benchmarks.peers.worker import main
main(sys.argv[2], sys.argv[3])
"""
_HERE = Path(__file__).parent.parent
PATIENCE_S = 900.0
"""FFCV compiles for seconds and writes gigabytes; nothing sound takes this long."""
_GRACE_S = 5.0


class PeerProcess:
    """A peer in its own interpreter.

    Args:
        python: Its interpreter.
        module: Its module in this folder.
        packages: Distributions whose versions it tells.
        variables: Set in its environment.
    """

    def __init__(
        self,
        python: Path,
        module: str,
        packages: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - till close()
        self._process = subprocess.Popen(
            [str(python), "-I", "-c", _BOOT, str(_HERE), module, ",".join(packages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **variables},
            start_new_session=True,
        )

    def ask(self, do: str, *, patience_s: float = PATIENCE_S, **values: object) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            CannotRun: The peer failed, ended, or did not answer in time.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **values}, default=str) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise CannotRun(self._last_words()) from None
        if not select.select([process.stdout], [], [], patience_s)[0]:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            msg = f"no answer to {do!r} within {patience_s:,.0f} s"
            raise CannotRun(msg)
        line = process.stdout.readline()
        if not line:
            raise CannotRun(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CannotRun(answer["error"])
        return answer

    @property
    def is_alive(self) -> bool:
        """It can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and what it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().splitlines() if line.strip()]
        return f"its process ended with {status}: {lines[-1] if lines else 'it said nothing'}"
