import io
import os
import zipfile

import pytest
import torch
from torch import nn

from models import checkpoint
from models.checkpoint import (
    encode,
    load_weights,
    read_checkpoint,
    weights,
    write_atomically,
)
from models.error import CheckpointError

STATE = {
    "model": {"weight": torch.arange(600.0).view(2, 300), "count": torch.tensor(3)},
    "ema": None,
    "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
    "schedule": {},
    "scaler": {},
    "rng": {"cpu": torch.get_rng_state(), "cuda": None},
    "progress": {"best": (1, float("-inf"))},
    "config": {"network": {"name": "unet"}},
    "set": {"fingerprint": "abc"},
}


@pytest.fixture
def path(tmp_path):
    write_atomically(tmp_path / "last.pt", encode(STATE))
    return tmp_path / "last.pt"


def test_what_was_written_is_read(path):
    found = read_checkpoint(path)
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    assert torch.equal(found["rng"]["cpu"], STATE["rng"]["cpu"])
    for key in ("schedule", "ema", "progress", "config", "set"):
        assert found[key] == STATE[key]


def test_torch_and_zip_read_the_file_without_us(path):
    """The hash is a zip comment: the file stays what `torch.save` makes."""
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"maskdepth checkpoint sha256 ")


def test_every_flipped_byte_is_found(path):
    """One bit in every 37th byte, in the last hundreds, and in the first ten."""
    content = path.read_bytes()
    places = {*range(10), *range(0, len(content), 37), *range(len(content) - 150, len(content))}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.pt is (damaged|not a maskdepth)"):
            read_checkpoint(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged or cut short .*best\.pt"):
        read_checkpoint(path)


def test_an_appended_byte_is_found(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "it is empty"), (b"epoch,loss\n1,2\n", "it begins with b'epoc'")]
)
def test_what_is_no_checkpoint_is_called_none(path, content, found):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is not a maskdepth checkpoint \\({found}"):
        read_checkpoint(path)


def test_a_plain_torch_file_has_no_hash(path):
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match="do not end with their SHA-256"):
        read_checkpoint(path)


def test_a_file_of_ours_that_lacks_parts_is_refused(path):
    path.write_bytes(encode({"model": {}}))
    with pytest.raises(CheckpointError, match="it lacks parts"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_never_run(path, tmp_path):
    """Even under a right hash: a pickle that would make a folder is refused, and makes none."""

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path.write_bytes(encode({**STATE, "config": Attack()}))
    with pytest.raises(CheckpointError, match="holds what no checkpoint of ours does"):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_another_version_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    with pytest.raises(CheckpointError, match="of version 1, this program reads 2"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["absent.pt", "", "last.pt/inside"])
def test_a_missing_checkpoint_is_named(path, name):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*; name the last\.pt"):
        read_checkpoint(path.parent / name)


@pytest.mark.parametrize(
    ("cause", "seen", "message"),
    [
        (OSError(28, "No space left"), CheckpointError, r"cannot be written \(No space.*resume"),
        (KeyboardInterrupt("again"), KeyboardInterrupt, "again"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch, cause, seen, message):
    """A full disk, or a second Ctrl-C while saving, costs nothing but the new checkpoint."""
    before = path.read_bytes()

    def fail(_):
        raise cause

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(seen, match=message):
        write_atomically(path, b"new")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_the_averaged_weights_are_preferred():
    assert weights({"model": {"a": 1}, "ema": None}) == {"a": 1}
    assert weights({"model": {"a": 1}, "ema": {"a": 2}}) == {"a": 2}


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (nn.Linear(2, 3, bias=False), "bias is missing"),
        (nn.Linear(2, 4), r"weight is \(4, 2\), not \(3, 2\) and 1 more"),
        (nn.Sequential(nn.Linear(2, 3)), "weight is missing and 3 more"),
    ],
)
def test_weights_of_another_network_are_spelled(tmp_path, there, message):
    with pytest.raises(CheckpointError, match=f"last.pt holds .* another network .{message}"):
        load_weights(nn.Linear(2, 3), there.state_dict(), tmp_path / "last.pt")


def test_weights_arrive_in_the_network(tmp_path):
    there, here = nn.Linear(2, 3), nn.Linear(2, 3)
    load_weights(here, there.state_dict(), tmp_path / "last.pt")
    assert torch.equal(here.weight, there.weight)
    assert torch.equal(here.bias, there.bias)


def test_the_bytes_of_a_checkpoint_do_not_depend_on_its_name():
    assert encode(STATE) == encode(STATE)
    assert zipfile.is_zipfile(io.BytesIO(encode(STATE)))
