"""How fast a run is, in numbers that cost it nothing: what `Meter` counted, memory, and MFU.

MFU (model FLOP utilisation, Chowdhery et al., "PaLM", 2022, appendix B) is an estimate: the
multiplications and additions of the network's convolutions and matrix products for one sample,
forward, times 3 for forward and backward, times samples/s, over the device's peak. A GPU's peak is
its data sheet's for dense bf16 or fp16, else what a short matrix product reaches here, as it is on
a CPU: other work on the machine at that moment makes it too low. Losses, optimiser and norms count
as nothing, so that the rest is what there may be to gain.
"""

import copy
import os
import time
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.training.precision import FORMATS, Precision
from pipeline.meter import Reading

BACKWARD_AND_FORWARD = 3
MEASURED = ("samples_per_s", "images_per_s", "data_wait_share", "step_s", "memory_bytes", "mfu")
"""Fields of a training record that differ from one run to the same again."""

PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "B200": 2250e12, "GH200": 989e12,
    "A100": 312e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L4": 121e12, "A6000": 155e12,
    "V100": 125e12, "T4": 65e12, "P100": 18.7e12,
    "RTX 5090": 209e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""FLOP/s of 16-bit products summed in 32 bits, without sparsity, by a part of the GPU's name."""

_SIDE, _TRIES = 512, 3


class Speed:
    """The speed of a run on its device.

    Args:
        network: What is trained.
        precision: How it computes.
        num_ranks: Devices that share each batch.
    """

    def __init__(self, network: nn.Module, precision: Precision, num_ranks: int = 1) -> None:
        self._network = network
        self._precision = precision
        self._num_ranks = num_ranks
        self._flops_per_sample = 0

    def begin_stage(self, size: int) -> None:
        """Another size: other work for each sample, other memory."""
        self._flops_per_sample = BACKWARD_AND_FORWARD * forward_flops(self._network, size)
        if self._precision.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._precision.device)

    def fields(self, reading: Reading) -> dict[str, float]:
        """What a training record says of a window; asks the device nothing.

        `memory_bytes` is the most that tensors of this stage took on a GPU, or what the process
        takes of a CPU's memory now.
        """
        peak = peak_flops(self._precision.device, self._precision.name) * self._num_ranks
        return {
            "samples_per_s": reading.samples_per_s,
            "images_per_s": reading.images_per_s,
            "data_wait_share": reading.waiting_share,
            "step_s": reading.seconds / max(1, reading.steps),
            "memory_bytes": memory_bytes(self._precision.device),
            "mfu": reading.samples_per_s * self._flops_per_sample / peak,
        }


def forward_flops(network: nn.Module, size: int) -> int:
    """Floating-point operations of a forward pass over one sample of `size` px; 0 if unknown.

    Two for each multiplication with its addition, of convolutions and matrix products. Nothing is
    computed: it is worked out on torch's meta device, on a copy.
    """
    without_values = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(1, 3, size, size, device="meta")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            without_values(image, image)
    except (NotImplementedError, RuntimeError):  # a layer that has no meta twin
        return 0
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, dtype: str) -> float:
    """FLOP/s that the device can do at most in a format of `PrecisionConfig`."""
    if device.type == "cuda" and dtype != "fp32" and (known := known_peak(_name(device))):
        return known
    # a CPU without fp16 of its own would need seconds to show it
    return _reached(device, "fp32" if (device.type, dtype) == ("cpu", "fp16") else dtype)


def known_peak(name: str) -> float | None:
    """The data sheet's figure for a GPU of that name; the longest name in it counts."""
    found = [part for part in PEAKS if part.lower() in name.lower()]
    return PEAKS[max(found, key=len)] if found else None


def memory_bytes(device: torch.device) -> float:
    """The most that tensors took on a GPU, or the process's resident memory; 0 if unknown."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0.0
    return float(int(pages) * os.sysconf("SC_PAGE_SIZE"))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


@cache
def _reached(device: torch.device, dtype: str) -> float:
    """The best of a few products of square matrices."""
    side = _SIDE if device.type == "cpu" else 16 * _SIDE
    matrix = torch.ones(side, side, dtype=FORMATS[dtype], device=device)
    times = []
    for _ in range(_TRIES + 1):
        began = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - began)
    return float(2 * side**3 / min(times[1:]))
