"""Compilation before the first step of a stage, so that its time is told apart from the steps'.

The stage's loader is open by then: while the compiler works, it decodes ahead and fills its cache.
"""

import time
from collections.abc import Callable, Iterator

import torch

from models.training.learner import Learner, parts_of
from models.training.memory import fits
from pipeline.batch import Batch


def compiled_first(
    batches: Iterator[Batch], learner: Learner, tell: Callable[[float], None]
) -> Iterator[Batch]:
    """The same batches; before the first one is handed out the network is compiled for it.

    Args:
        batches: Those of a stage.
        learner: Whose network it is; where nothing compiles, nothing happens. Of several ranks
            each compiles in its first step: one that were done sooner would wait for the others.
        tell: Called with the seconds it took.
    """
    if not learner.precision.compiles or learner.ranks.size > 1:
        yield from batches
        return
    for batch in batches:
        began = time.perf_counter()
        compile_for(learner, batch)
        tell(time.perf_counter() - began)
        yield batch
        break
    yield from batches


def compile_for(learner: Learner, batch: Batch) -> None:
    """Have the forward and the backward pass compiled; leaves the learner as it was.

    Where memory does not suffice for that, the first step will say what to do.
    """
    device = learner.precision.device
    part = parts_of(batch, learner.config.accumulate)[0]
    buffers = {name: values.clone() for name, values in learner.network.named_buffers()}
    devices = [device] if device.type == "cuda" else []

    def try_out() -> None:
        prediction = learner.precision.predict(learner.forward, part.background, part.composite)
        learner.loss(prediction, part.mask, part.depth, part.weight).total.backward()

    with torch.random.fork_rng(devices):
        fits(try_out)
    with torch.no_grad():
        for name, values in learner.network.named_buffers():
            values.copy_(buffers[name])
    learner.optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
