"""What a record says of rate, memory and utilisation, by figures worked out by hand."""

import json

import pytest
import torch
from torch import nn

from models.prediction import Prediction
from models.training import speed
from models.training.precision import Precision, PrecisionConfig
from models.training.speed import MEASURED, Speed, forward_flops, known_peak, memory_bytes
from pipeline.meter import Reading

CPU = torch.device("cpu")


class TinyNetwork(nn.Module):
    """6 channels to 8 by 3 x 3, then to 2 by 1 x 1, with a norm and dropout between."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(), nn.Conv2d(8, 2, 1)
        )

    def forward(self, background, composite):
        """As every network."""
        mask, depth = self.body(torch.cat((background, composite), 1)).split(1, 1)
        return Prediction(mask_logits=mask, depth_logits=depth)


def test_flops_are_two_for_each_weight_at_each_place():
    """6 channels to 8 by 3 x 3, then 8 to 2 by 1 x 1, at 16 x 16 places."""
    assert forward_flops(TinyNetwork(), 16) == 2 * 16 * 16 * (6 * 8 * 9 + 8 * 2)


def test_counting_changes_nothing():
    torch.manual_seed(3)
    network = TinyNetwork().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    forward_flops(network, 16)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


class ByValues(nn.Module):
    """Asks a tensor for its value, which the meta device has not."""

    def forward(self, background, composite):
        """One way or the other."""
        if composite.sum() > 0:
            return Prediction(mask_logits=composite, depth_logits=None)
        return Prediction(mask_logits=background, depth_logits=None)


def test_a_network_that_cannot_be_counted_has_no_utilisation():
    assert forward_flops(ByValues(), 16) == 0


def test_utilisation_is_forward_and_backward_over_the_peak(monkeypatch):
    """10 samples/s of 3 x 229,376 operations on two devices that can do 1e7 a second each."""
    monkeypatch.setattr(speed, "peak_flops", lambda device, dtype: 1e7)
    found = Speed(TinyNetwork(), Precision(PrecisionConfig(dtype="fp32"), CPU), num_ranks=2)
    found.begin_stage(16)
    fields = found.fields(Reading(steps=4, samples=20, seconds=2.0, waiting_s=0.5))
    assert fields["mfu"] == pytest.approx(10 * 3 * 229_376 / 2e7)
    assert (fields["samples_per_s"], fields["images_per_s"]) == (10, 30)
    assert (fields["step_s"], fields["data_wait_share"]) == (0.5, 0.25)
    assert tuple(fields) == MEASURED


def test_a_gpu_is_known_by_the_longest_name():
    assert known_peak("NVIDIA H100 PCIe") == 756e12
    assert known_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert known_peak("NVIDIA L40S") == 362e12
    assert known_peak("Voodoo 2") is None


def test_resident_memory_grows_with_what_is_kept():
    before = memory_bytes(CPU)
    kept = torch.ones(16 << 20)
    assert 48e6 < memory_bytes(CPU) - before < 96e6
    del kept


def test_records_say_how_fast_the_run_is(make_trainer):
    trainer = make_trainer()
    trainer.run()
    lines = (trainer.run_dir / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    assert all(0 < record["mfu"] < 1 for record in records)
    assert all(0 < record["step_s"] < 10 for record in records)
    assert all(record["memory_bytes"] > 50e6 for record in records)
