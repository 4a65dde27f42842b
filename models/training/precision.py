"""Number format, memory format and compilation of the network: set here and nowhere else.

Weights and optimiser state are float32 always; the forward pass runs under autocast; losses and
metrics see float32 logits. Memory format is channels-last, as `Batch` delivers it.

On a CPU with bf16 instructions (AMD Zen 5, 2 cores, a U-Net of width 16, training, 64 and 224 px)
channels-last trains 1.4 times as fast as contiguous, and bf16 1.6 to 1.9 times as fast as fp32.
Without them (oneDNN held to plain AVX-512) bf16 takes 1.9 times as long as fp32, held to AVX2 10
times. So `auto` asks the processor; what it chose is in the configuration that a checkpoint keeps,
and another machine that would choose otherwise says so instead of going on in another arithmetic.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from models.prediction import Prediction

FORMATS = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
COMPILE = ("auto", "off", "max", "on")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionConfig:
    """How the network computes."""

    dtype: str = "auto"
    """`bf16`, `fp16` (with a loss scaler), `tf32` (fp32, but a GPU rounds factors to 10 bits, also
    in losses), `fp32`, or `auto`: on a GPU bf16 where it has bf16 of its own (Ampere and later),
    else fp16; on a CPU bf16 where it has instructions for it, else fp32."""

    compile: str = "auto"
    """`torch.compile`, with static shapes, once per stage. `auto`: on GPUs; `off`: nowhere; `max`:
    with kernels tuned by trial, and on a GPU CUDA graphs; `on`: as `auto` on a GPU, on a CPU too
    (an earlier spelling, kept for the configurations that have it)."""

    deterministic: bool = False
    """Only kernels that give the same bits every time; on a CPU they always do."""

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *FORMATS):
            msg = f"precision {self.dtype!r} is not known; choose one of auto, {', '.join(FORMATS)}"
            raise ValueError(msg)
        if self.compile not in COMPILE:
            msg = f"compile {self.compile!r} is not known; choose one of {', '.join(COMPILE)}"
            raise ValueError(msg)


class Precision:
    """A `PrecisionConfig` on a device.

    Args:
        config: What is asked for.
        device: Where the network computes.
        allow_graphs: Whether `max` may use CUDA graphs. They keep gradients in memory of their own
            for one step, which several backward passes to a step, or ranks, would write over.
    """

    def __init__(
        self, config: PrecisionConfig, device: torch.device, *, allow_graphs: bool = True
    ) -> None:
        self.device = device
        self.name = resolved(config, device).dtype
        self.compiles = config.compile in ("on", "max") or (
            config.compile == "auto" and device.type == "cuda"
        )
        self._mode = None
        if config.compile == "max":
            self._mode = "max-autotune-no-cudagraphs"
            if device.type == "cuda" and allow_graphs:
                self._mode = "max-autotune"
        if config.deterministic:
            # cuBLAS reads it when the device is first used; torch refuses kernels without it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True)
        if device.type == "cuda":
            # shapes are static within a stage; but what is fastest differs from run to run
            torch.backends.cudnn.benchmark = not config.deterministic
            # torch rounds in convolutions unless told not to: fp32 would not be what it says
            torch.backends.cudnn.allow_tf32 = self.name == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = self.name == "tf32"

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, channels-last, in float32."""
        # mypy: torch's stub of Module.to lacks the overload with device and memory_format
        return network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler: at work in fp16 only, elsewhere it hands everything through."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def compiled(self, network: nn.Module) -> nn.Module:
        """The network as it is to be called for one size; shares the weights of `network`."""
        if not self.compiles:
            return network
        return cast("nn.Module", torch.compile(network, dynamic=False, mode=self._mode))

    def forget_compiled(self) -> None:
        """Drop what was compiled for an earlier size.

        It will not be called again, and would count against the recompile limit.
        """
        if self.compiles:
            torch.compiler.reset()

    def predict(
        self, network: nn.Module, background: torch.Tensor | None, composite: torch.Tensor
    ) -> Prediction:
        """Forward pass under autocast; the logits come back in float32."""
        dtype = FORMATS[self.name]
        if self._mode == "max-autotune":
            torch.compiler.cudagraph_mark_step_begin()  # the last step's outputs are done with
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            prediction: Prediction = network(background, composite)
        return prediction.apply(torch.Tensor.float)


def resolved(config: PrecisionConfig, device: torch.device) -> PrecisionConfig:
    """The configuration with `auto` replaced by what suits the device."""
    return replace(config, dtype=_automatic(device)) if config.dtype == "auto" else config


def _automatic(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    # torch 2.11 does not tell yet; fp32 is right everywhere
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if fast else "fp32"
