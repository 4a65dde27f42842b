import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from shards.archive import FolderArchive
from shards.block import info
from shards.members import Member, MemberTable
from shards.task import Facts, sample_tasks
from shards.triplet import Members, Triplet


def member(name: str, size: int) -> Member:
    return Member(name, size, 7, 2**40, max(1, size - 1), 8, True)


@pytest.fixture
def members() -> Members:
    """Two archives; a forged size does not fit 63 bits."""
    few = MemberTable.of(member(name, 5) for name in "abc")
    one = FolderArchive(Path("one"), "one", few)
    forged = MemberTable.of([member("d", 2**64 - 1), member("e", 9)])
    other = FolderArchive(Path("other"), "other", forged)
    return Members([one, other])


def test_tasks_arrive_in_another_process_as_they_were_meant(members: Members) -> None:
    triplets = [
        Triplet("first", 0, 3, 4, "bg.1", "fg1", True),
        Triplet("second", 1, 2, 0, "lost", None, None),
        Triplet("third", 4, 1, 3, None, "fg0", False),
    ]
    tasks = sample_tasks(triplets, members, {"bg.0": 0, "bg.1": 1}, {"fg0": 0, "fg1": 1})
    arrived = pickle.loads(pickle.dumps(tasks))
    a, b, c, d, e = members
    assert list(arrived.facts(np.arange(3))) == [
        Facts("first", "bg-1", 1, "fg1", 1, True),
        Facts("second", None, -1, None, -1, None),
        Facts("third", None, -1, "fg0", 0, False),
    ]
    assert [facts.key for facts in arrived.facts(np.array([2, 0]))] == ["third", "first"]
    assert arrived.archives.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]
    found = [[arrived.member(sample, part) for part in range(3)] for sample in range(3)]
    assert found == [[a, d, e], [b, c, a], [e, b, d]]
    assert len(arrived) == 3


@pytest.mark.parametrize(
    "name", ["plain.jpg", 'quote".jpg', "gr\u00fcn \u732b.jpg", "a\\b\x7f.jpg"]
)
@pytest.mark.parametrize("known", [True, False])
def test_what_is_known_of_a_sample_is_written_as_json_writes_it(name: str, known: bool) -> None:
    background, foreground, mirrored = ("bg1", "fg1", False) if known else (None, None, None)
    facts = Facts("k", background, 3, foreground, 4, mirrored)
    expected = {
        "background": background,
        "background_number": 3 if known else None,
        "foreground": foreground,
        "mirrored": mirrored,
        "archive": f"{name}.zip",
        "member": name,
        "size": [48, 64],
    }
    written = info(facts, f"{name}.zip", name, (48, 64))
    assert written == json.dumps(expected).encode()
