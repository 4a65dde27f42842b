"""What became of every source member: nothing is lost without a line that says why."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from shards.error import ShardError
from shards.manifest import FATES, REJECTED, FileRecord
from shards.shard import write_file
from shards.triplet import Members, Rejection


class Ledger:
    """Counts members by fate and lists what was rejected.

    Args:
        members: Of all sources.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self.fates: Counter[str] = Counter()
        self.rejected: list[Mapping[str, str]] = []

    def reject(self, rejection: Rejection) -> None:
        """List a triplet or image that cannot be used."""
        blamed = self._members.describe(rejection.members[0])
        line = {"key": rejection.key, "member": blamed, "reason": rejection.reason}
        self.rejected.append(line)
        self.fates["rejected"] += len(rejection.members)

    def add_triplets(self, *, used: int, rejected: Iterable[Mapping[str, str]]) -> None:
        """Count what became of the triplets of a shard; each has three members."""
        lines = list(rejected)
        self.rejected.extend(lines)
        self.fates["used"] += 3 * used
        self.fates["rejected"] += 3 * len(lines)

    def accounting(self) -> dict[str, int]:
        """Members by fate, and their sum, which is the sources'."""
        accounting = {fate: self.fates[fate] for fate in FATES}
        assert sum(accounting.values()) == len(self._members), "every member has one fate"
        return {**accounting, "members": len(self._members)}

    def write(self, out: Path, max_rejected: int) -> FileRecord:
        """Write the list, and stop here if it is longer than the user accepts.

        Raises:
            ShardError: It is; the message says how to accept it.
        """
        lines = sorted(self.rejected, key=lambda line: (line["key"], line["member"]))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        record = write_file(out / REJECTED, text.encode())
        if len(lines) > max_rejected:
            first = lines[0]
            msg = (
                f"{len(lines)} triplets or images were rejected, {max_rejected} are accepted: "
                f"{out / REJECTED} lists them ({first['member']}: {first['reason']}, ...); "
                f"mend the source, or accept them with --max-rejected {len(lines)}"
            )
            raise ShardError(msg)
        return record
