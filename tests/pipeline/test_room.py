"""Memory goes round, and never while anybody holds any of it."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.room import MOST, Room

CPU = torch.device("cpu")


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_what_nobody_holds_is_taken_again() -> None:
    room = Room(CPU)
    first = address(room.take(3, 4))
    assert address(room.take(3, 4)) == first


@pytest.mark.parametrize(
    "hold",
    [
        lambda tensor: tensor,
        lambda tensor: tensor[1:].permute(1, 0),
        lambda tensor: tensor.numpy()[0],
        lambda tensor: tensor.detach(),
        lambda tensor: (tensor * torch.ones(4, requires_grad=True)).grad_fn,
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: tensor.untyped_storage(),
    ],
    ids=["tensor", "view", "array", "detached", "graph", "buffer", "storage"],
)
def test_what_somebody_holds_stays_his(hold) -> None:  # type: ignore[no-untyped-def]
    room = Room(CPU)
    taken = room.take(3, 4)
    own, held = address(taken), hold(taken)
    del taken
    assert own not in {address(tensor) for tensor in [room.take(3, 4) for _ in range(3)]}
    del held
    assert address(room.take(3, 4)) == own


def test_another_shape_or_type_is_other_memory() -> None:
    room = Room(CPU)
    first = room.take(2, 6)
    made = [room.take(2, 6), room.take(6, 2), room.take(2, 6, dtype=torch.uint8)]
    assert [tensor.dtype for tensor in made] == [torch.float32, torch.float32, torch.uint8]
    assert [tuple(tensor.shape) for tensor in made] == [(2, 6), (6, 2), (2, 6)]
    assert len({address(tensor) for tensor in (first, *made)}) == 4


@given(kept=st.lists(st.booleans(), min_size=1, max_size=4 * MOST))
@settings(deadline=None)
def test_a_consumer_may_keep_any_of_them(kept: list[bool]) -> None:
    """Also more than are remembered: each keeps what was written to it."""
    room, held = Room(CPU), []
    for number, is_kept in enumerate(kept):
        tensor = room.take(5).fill_(number)
        if is_kept:
            held.append((number, tensor))
        del tensor
    assert all((tensor == number).all() for number, tensor in held)


def test_what_is_saved_is_the_tensor_alone() -> None:
    tensor = Room(CPU).take(4, 4).fill_(1)
    assert torch.equal(pickle.loads(pickle.dumps(tensor)), tensor)
    assert np.asarray(tensor).sum() == 16
