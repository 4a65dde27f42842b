import inspect

import pytest
import torch
from torch import nn

from models.training.optimizer import OPTIMIZERS, OptimizerConfig, build_optimizer, clip_gradients

CLASSES = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
CONFIGS = [
    *(OptimizerConfig(name=name, lr=0.01, weight_decay=0.02, decay="all") for name in OPTIMIZERS),
    OptimizerConfig(
        name="sgd", nesterov=True, momentum=0.8, lr=0.01, weight_decay=0.1, decay="all"
    ),
]


def a_network():
    torch.manual_seed(1)
    stem = nn.Conv2d(2, 3, 3, bias=False)  # its gradient would be a rounding error before the norm
    return nn.Sequential(stem, nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1))


def learn(network, optimizer):
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(4, 2, 6, 6, generator=generator)).square().mean().backward()
        optimizer.step()
    return [weight.detach() for weight in network.parameters()]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}{config.nesterov}")
def test_five_steps_are_those_of_plain_torch(config):
    """Torch's own class in its slowest and plainest form, over all weights in one group."""
    network, reference = a_network(), a_network()
    kind = CLASSES[config.name]
    options = {"momentum": config.momentum, "nesterov": config.nesterov}
    plain = kind(
        reference.parameters(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        foreach=False,
        **{name: options[name] for name in options if name in inspect.signature(kind).parameters},
    )
    found = learn(network, build_optimizer(network, config))
    for ours, theirs in zip(found, learn(reference, plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_fused_where_torch_can(name):
    optimizer = build_optimizer(a_network(), OptimizerConfig(name=name))
    can = "fused" in inspect.signature(CLASSES[name]).parameters
    assert bool(optimizer.defaults.get("fused")) == can


@pytest.mark.parametrize(("decay", "expected"), [("convolutions", [0.1, 0]), ("all", [0.1])])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_decays_is_configured(name, decay, expected):
    network = a_network()
    config = OptimizerConfig(name=name, weight_decay=0.1, decay=decay)
    groups = build_optimizer(network, config).param_groups
    assert [group["weight_decay"] for group in groups] == expected
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def gradients(network):
    return torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None])


@pytest.mark.parametrize(
    ("options", "limit"),
    [({"clip_norm": 0.05}, None), ({"clip_norm": 0, "clip_value": 0.02}, 0.02)],
)
def test_gradients_are_clipped_by_norm_or_by_value(options, limit):
    network = a_network()
    network(torch.randn(4, 2, 6, 6)).square().mean().backward()
    network[3].bias.grad = None  # a head that this run does not train
    before = gradients(network)
    norm = clip_gradients(network, OptimizerConfig(**options))
    assert norm.item() == pytest.approx(before.norm().item(), rel=1e-6)
    expected = before * 0.05 / before.norm() if limit is None else before.clamp(-limit, limit)
    assert not torch.allclose(before, expected), "there is something to clip"
    torch.testing.assert_close(gradients(network), expected, rtol=1e-4, atol=1e-7)


def test_without_clips_gradients_stay():
    network = a_network()
    network(torch.randn(4, 2, 6, 6)).square().mean().backward()
    before = gradients(network)
    clip_gradients(network, OptimizerConfig(clip_norm=0))
    assert torch.equal(gradients(network), before)
