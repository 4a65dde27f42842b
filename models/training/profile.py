"""A torch profiler trace of a few steps, for TensorBoard's profiler, Perfetto or chrome://tracing.

The steps are those of the run, which goes on unchanged; only its speed at that moment is no guide.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from pipeline.batch import Batch

SKIPPED, WARMED, TRACED = 10, 2, 5
"""Steps before the profiler begins, those it throws away, and those it keeps."""


def profiled(
    batches: Iterator[Batch], folder: Path, device: torch.device, *, num_steps: int
) -> Iterator[Batch]:
    """The same batches; what is done between one and the next is traced for a few steps.

    Args:
        batches: Those of a stage.
        folder: Gets the trace, a file `*.pt.trace.json`.
        device: Where the work is done.
        num_steps: Batches that come; of few the last ones are traced.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    skipped = min(SKIPPED, max(0, num_steps - WARMED - TRACED))
    with profile(
        activities=activities,
        schedule=schedule(skip_first=skipped, wait=0, warmup=WARMED, active=TRACED, repeat=1),
        on_trace_ready=tensorboard_trace_handler(str(folder)),
        record_shapes=True,
        profile_memory=True,
    ) as profiler:
        for _, batch in zip(range(skipped + WARMED + TRACED), batches, strict=False):
            yield batch
            profiler.step()
    yield from batches
