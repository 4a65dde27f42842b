"""Cache files survive kills, are shared, and are never taken for another's."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.cache import cache_file
from pipeline.cache.cache_file import FileTable, bytes_on_disk, cache_path, open_file_table
from pipeline.cache.sample_table import write_rows
from pipeline.error import LoaderError

SIZE = 24
NUM = 300
IDENTITY = {"set": "f" * 64, "split": "train", "size": SIZE, "samples": NUM}


def pixels(numbers: npt.NDArray[np.int64], size: int = SIZE) -> list[npt.NDArray[np.uint8]]:
    """Parts that tell which sample they are of, in every byte."""
    seed = (numbers * 7 + 1) % 251
    shapes = ((size, size, 3), (size, size, 1), (size, size, 1))
    return [
        np.broadcast_to((seed + part).astype(np.uint8)[:, None, None, None], (len(numbers), *shape))
        for part, shape in enumerate(shapes)
    ]


def put(table: FileTable, *numbers: int) -> None:
    chosen = np.array(numbers)
    table.put(chosen, pixels(chosen), np.arange(len(chosen)))


def check(table: FileTable) -> set[int]:
    """The samples that a table holds; each must have its own pixels in every byte."""
    held = np.flatnonzero(table.holds(np.arange(len(table))))
    found = np.empty((len(held), table.rows.shape[1]), np.uint8)
    table.gather(held, found, in_use=found.nbytes)
    expected = np.empty_like(found)
    write_rows(expected, np.arange(len(held)), pixels(held, table.size), np.arange(len(held)))
    np.testing.assert_array_equal(found, expected)
    return set(held.tolist())


@pytest.fixture
def table(tmp_path: Path) -> Iterator[FileTable]:
    opened = open_file_table(tmp_path, IDENTITY, num=NUM)
    yield opened
    opened.close()


def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    first = open_file_table(tmp_path, IDENTITY, num=NUM)
    put(first, 3, 299, 0)
    first.close()
    again = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(again) == {0, 3, 299}
    put(again, 5)
    again.close()
    first.close()  # twice is once
    third = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(third) == {0, 3, 5, 299}
    third.close()


def test_the_file_is_allocated_in_full_before_it_is_used(table: FileTable, tmp_path: Path) -> None:
    [path] = tmp_path.iterdir()
    assert bytes_on_disk(path) >= NUM * 5 * SIZE**2
    assert path.name.startswith("train-24px-")
    assert path == cache_path(tmp_path, IDENTITY)
    assert table.num_held == 0


def test_a_sample_without_a_row_is_not_held_and_not_written(tmp_path: Path) -> None:
    partial = open_file_table(tmp_path, IDENTITY, num=10)
    put(partial, 9, 10, 299)
    assert partial.holds(np.array([9, 10, 299])).tolist() == [True, False, False]
    partial.close()
    again = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert len(again) == 10, "a file keeps the number that it was made with"
    assert check(again) == {9}
    again.close()


def test_two_processes_share_what_each_has_written(table: FileTable, tmp_path: Path) -> None:
    other = open_file_table(tmp_path, IDENTITY, num=NUM)
    put(table, 1, 2)
    put(other, 2, 3)
    assert check(other) == {2, 3}
    table.commit()
    other.commit()
    assert check(table) == check(other) == {1, 2, 3}
    other.close()
    assert check(table) == {1, 2, 3}


@pytest.mark.parametrize(
    "change", [{"set": "e" * 64}, {"split": "val"}, {"size": 25}, {"samples": 301}]
)
def test_another_identity_has_another_file(
    table: FileTable, tmp_path: Path, change: dict[str, object]
) -> None:
    put(table, 1)
    table.commit()
    other = open_file_table(tmp_path, {**IDENTITY, **change}, num=NUM)
    assert check(other) == set()
    other.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_under_the_right_name_with_anothers_header_is_filled_anew(tmp_path: Path) -> None:
    other = open_file_table(tmp_path, {**IDENTITY, "set": "e" * 64}, num=NUM)
    put(other, 1)
    other.close()
    [path] = tmp_path.iterdir()
    path.rename(cache_path(tmp_path, IDENTITY))
    mine = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(mine) == set()
    mine.close()


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(60)
        file.write(b"!")


def damage_flags(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 + 7)
        file.write(b"\x05")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage_header, damage_flags, cut, empty])
def test_a_damaged_file_is_noticed_and_filled_anew(
    tmp_path: Path, harm: object, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_file_table(tmp_path, IDENTITY, num=NUM)
    put(first, 1)
    first.close()
    assert callable(harm)
    harm(cache_path(tmp_path, IDENTITY))
    again = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(again) == set()
    put(again, 2)
    again.close()
    third = open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(third) == {2}
    third.close()
    assert ("is damaged or unfinished; it is filled anew" in caplog.text) == (harm is not empty)


def test_a_damaged_file_that_others_have_mapped_is_left_to_them(
    table: FileTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make it anew would pull the pages away under them."""
    put(table, 1)
    damage_header(cache_path(tmp_path, IDENTITY))
    monkeypatch.setattr(cache_file, "_WAIT_S", 0.0)
    with pytest.raises(LoaderError, match=r"is damaged and in use; end the other runs"):
        open_file_table(tmp_path, IDENTITY, num=NUM)
    assert check(table) == {1}


def test_a_file_that_is_just_being_made_is_waited_for(tmp_path: Path) -> None:
    path = cache_path(tmp_path, IDENTITY)
    script = textwrap.dedent(f"""
        import fcntl, os, sys, time
        file = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", script]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker,
        ThreadPoolExecutor(1) as pool,
    ):
        assert maker.stdin is not None
        assert maker.stdout is not None
        maker.stdout.readline()
        opening = pool.submit(open_file_table, tmp_path, IDENTITY, num=NUM)
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.2)
        maker.stdin.close()
        opened = opening.result(timeout=60)
        assert check(opened) == set()
        opened.close()


def test_a_folder_that_cannot_be_written_is_named_with_the_next_action(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LoaderError, match=r"cannot be opened \(.*\); choose another --cache-dir"):
        open_file_table(tmp_path / "file", IDENTITY, num=NUM)


def test_a_disk_without_room_is_named_before_anything_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LoaderError, match=r"No space left.*choose another --cache-dir"):
        open_file_table(tmp_path, IDENTITY, num=NUM)
    assert cache_path(tmp_path, IDENTITY).stat().st_size == 0
    monkeypatch.undo()
    opened = open_file_table(tmp_path, IDENTITY, num=NUM)
    opened.close()


def test_closing_leaves_no_lock_no_thread_and_no_map(table: FileTable, tmp_path: Path) -> None:
    path = cache_path(tmp_path, IDENTITY)
    table.close()
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert str(path) not in Path("/proc/self/maps").read_text()


FULL_COUNT = 1000

FILLER = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from pipeline.cache import cache_file
    from tests.pipeline.cache.test_cache_file import IDENTITY, NUM, open_file_table, pixels

    cache_file.COMMIT_EVERY_S = 0.002
    rng = np.random.default_rng(0)

    def fill():
        table = open_file_table(Path(sys.argv[1]), IDENTITY, num=NUM)
        for number in rng.permutation(NUM):
            one = np.array([number])
            table.put(one, pixels(one), np.array([0]))
            time.sleep(0.0002)

    for line in sys.stdin:
        seconds = rng.uniform(0, 0.08)
        child = os.fork()
        if not child:
            fill()
            os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("killed", flush=True)
"""


@pytest.mark.parametrize("kills", [10, pytest.param(FULL_COUNT, marks=pytest.mark.soak)])
def test_a_killed_filling_leaves_no_flag_without_its_pixels_and_goes_on(
    tmp_path: Path, kills: int, soak_report: Callable[..., None]
) -> None:
    held: set[int] = set()
    grown = 0
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FILLER), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        for _ in range(kills):
            killer.stdin.write(b"again\n")
            killer.stdin.flush()
            assert killer.stdout.readline() == b"killed\n"
            table = open_file_table(tmp_path, IDENTITY, num=NUM)
            found = check(table)
            table.close()
            assert held <= found, "what was held before the kill is held after it"
            grown += len(found) > len(held)
            held = found
            if len(held) == NUM:
                held = set()
                cache_path(tmp_path, IDENTITY).unlink()
        killer.stdin.close()
    assert grown > 1, "some kills came while the file was filled"
    if kills >= FULL_COUNT:
        soak_report("cache_kills", kills=kills, while_filling=grown, wrong_samples=0)


KILLED_AT = {
    "half a row": {9},
    "rows written": {9},
    "rows on the disk": {9},
    "flagged": {9, *range(20, 28)},
}
"""Where a process is killed, and what may then be held: 9 was there before."""

KILLER = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from pipeline.cache import cache_file, sample_table
    from tests.pipeline.cache.test_cache_file import IDENTITY, NUM, KILLED_AT, open_file_table, put

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def half(rows, at, parts, which):
        rows[at, :100] = 77
        die()

    def killed(folder, where):
        cache_file.COMMIT_EVERY_S = 1000
        table = open_file_table(folder, IDENTITY, num=NUM)
        put(table, 9)
        table.commit()
        sync = os.fdatasync
        if where == "half a row":
            sample_table.write_rows = half
        if where == "rows written":
            os.fdatasync = die
        if where == "rows on the disk":
            os.fdatasync = lambda file: die(sync(file))
        put(table, *range(20, 28))
        table.commit()
        die()

    for number, where in enumerate(KILLED_AT):
        child = os.fork()
        if not child:
            killed(Path(sys.argv[1]) / str(number), where)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def test_a_kill_at_any_point_of_writing_a_row_leaves_no_flag_without_pixels(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), str(tmp_path)],
        check=True,
        cwd=Path(__file__).parents[3],
    )
    for number, (where, held) in enumerate(KILLED_AT.items()):
        table = open_file_table(tmp_path / str(number), IDENTITY, num=NUM)
        assert check(table) == held, where
        table.close()


@pytest.mark.parametrize("size", [224])
def test_rows_beyond_two_to_the_31_bytes_of_one_part_are_their_own(
    tmp_path: Path, size: int
) -> None:
    """14,300 samples at 224 px: composites alone are more than 2**31 bytes; few are written."""
    num = 14_300
    identity = {**IDENTITY, "size": size, "samples": num}
    if os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize < 2 * num * 5 * size**2:
        pytest.skip("the disk has no room")
    assert num * 3 * size**2 > 2**31
    edge = 2**31 // (5 * size**2)
    chosen = np.array([0, 1, edge - 1, edge, edge + 1, 2 * edge % num, num - 2, num - 1])
    table = open_file_table(tmp_path, identity, num=num)
    table.put(chosen, pixels(chosen, size), np.arange(len(chosen)))
    assert check(table) == set(chosen.tolist())
    table.close()
    again = open_file_table(tmp_path, identity, num=num)
    assert check(again) == set(chosen.tolist())
    again.close()
    cache_path(tmp_path, identity).unlink()
