from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.training.precision import Precision, PrecisionConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """They are the process's; whatever a test sets ends with it."""
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize("deterministic", [False, True])
def test_only_deterministic_kernels_run_if_that_is_asked(*, deterministic: bool) -> None:
    Precision(PrecisionConfig(deterministic=deterministic), CPU)
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def gradients(device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = Precision(PrecisionConfig(dtype="fp32", deterministic=True), device).place(
        nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU())
    )
    network(torch.rand(64, 3, 96, 96, device=device)).square().mean().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_the_same_step_gives_the_same_bits_twice() -> None:
    assert all(map(torch.equal, gradients(CPU), gradients(CPU)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_same_step_gives_the_same_bits_twice_on_a_gpu() -> None:
    device = torch.device("cuda")
    assert all(map(torch.equal, gradients(device), gradients(device)))
    assert not torch.backends.cudnn.benchmark
