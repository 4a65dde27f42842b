"""Bad samples are told once, counted, limited and remembered, in little memory."""

import io
import logging
import sys
from pathlib import Path

import pytest
import torch

from pipeline.error import LoaderError
from pipeline.ledger import KEPT_IN_FULL, BadSampleLedger
from pipeline.source import BadSample

SET = Path("sets/mine")


def _ledger(num_samples: int = 100, max_share: float = 0.1) -> BadSampleLedger:
    return BadSampleLedger(SET, "train", num_samples, max_share)


def _bad(number: int) -> BadSample:
    return BadSample(
        number=number,
        shard="train-000000.tar",
        key=f"k{number}",
        member=f"k{number}.mask.jpg",
        reason="its bytes do not match their CRC-32",
    )


def test_each_bad_sample_is_logged_once_with_shard_member_key_and_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = _ledger()
    for batch in ([7, 3], [3], [], [7, 8]):
        ledger.record(map(_bad, batch))
    assert [record.getMessage() for record in caplog.records] == [
        f"sample {n} (train-000000.tar, k{n}.mask.jpg): its bytes do not match their CRC-32; "
        "it is replaced at weight 0"
        for n in (7, 3, 8)
    ]
    assert [bad.number for bad in ledger.samples] == [7, 3, 8]
    assert len(ledger) == 3


def test_one_sample_met_twice_in_a_batch_counts_once() -> None:
    """A batch may straddle epochs."""
    ledger = _ledger()
    ledger.record([_bad(5), _bad(5)])
    assert len(ledger) == len(ledger.samples) == 1


@pytest.mark.parametrize(
    ("num_samples", "max_share", "tolerated"),
    [(100, 0.1, 10), (100, 0.29, 29), (400_000, 0.001, 400), (80, 0.001, 1), (80, 0, 0), (5, 1, 5)],
)
def test_the_limit_is_a_share_of_the_split_and_the_error_says_all_there_is_to_say(
    num_samples: int, max_share: float, tolerated: int
) -> None:
    """The count, the limit, the last one, and what to do."""
    ledger = _ledger(num_samples, max_share)
    ledger.record(map(_bad, range(tolerated)))
    assert len(ledger) == tolerated
    if tolerated == num_samples:
        return
    with pytest.raises(LoaderError) as caught:
        ledger.record([_bad(tolerated)])
    assert str(caught.value) == (
        f"{tolerated + 1} of {num_samples} samples (train) are bad, more than the {tolerated} that "
        f"--max-bad-samples {max_share:g} tolerates; the last: sample {tolerated} (train-000000.tar"
        f", k{tolerated}.mask.jpg): its bytes do not match their CRC-32; run `maskdepth verify "
        f"{SET}` (with --repair SOURCE to mend it), or raise --max-bad-samples"
    )


def test_a_resumed_ledger_counts_on_and_tells_nothing_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By way of a file that `torch.load` reads without running anything in it."""
    first = _ledger(max_share=0.04)
    first.record(map(_bad, [7, 3]))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again = _ledger(max_share=0.04)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.samples == first.samples
    caplog.clear()
    again.record(map(_bad, [3, 9, 7]))
    assert [record.args for record in caplog.records] == [(_bad(9),)]
    again.record([_bad(1)])
    with pytest.raises(LoaderError, match=r"^5 of 100 samples"):
        again.record([_bad(2)])


def test_what_several_ranks_found_adds_up() -> None:
    merged = _ledger()
    for numbers in ([4, 1], [1, 9]):
        rank = _ledger()
        rank.record(map(_bad, numbers))
        merged.load_state_dict(rank.state_dict())
    assert [bad.number for bad in merged.samples] == [4, 1, 9]
    assert len(merged) == 3


def test_a_checkpoint_with_more_bad_samples_than_now_tolerated_is_refused() -> None:
    tolerant, strict = _ledger(), _ledger(max_share=0.01)
    tolerant.record(map(_bad, range(3)))
    with pytest.raises(LoaderError, match=r"^3 of 100 .* more than the 1 that .*: sample 2 "):
        strict.load_state_dict(tolerant.state_dict())


def test_memory_stays_small_where_everything_is_bad(caplog: pytest.LogCaptureFixture) -> None:
    """Reasons of the first thousand; of the others 8 bytes each."""
    caplog.set_level(logging.ERROR, "pipeline.ledger")
    num = 50_000
    ledger = _ledger(num, 1)
    for first in range(0, num, 500):
        ledger.record(map(_bad, range(first, first + 500)))
    assert len(ledger) == num
    assert [bad.number for bad in ledger.samples] == list(range(KEPT_IN_FULL))
    kept = vars(ledger)
    assert kept["_numbers"].nbytes == 8 * num
    assert sys.getsizeof(kept["_samples"]) < 16 * KEPT_IN_FULL
    ledger.record([_bad(num - 1)])
    assert len(ledger) == num
