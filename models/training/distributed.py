"""Several processes that train one network, each on its share of every batch.

    torchrun --nproc-per-node N --no-python maskdepth train ... --resume

`joined` reads what torchrun says of this process; `Ranks` is what the processes say to each other.
A rank draws its share of each global batch from the loader, and the loss is divided by the weight
of the whole batch, so N ranks make the step that one would, but for the order of additions and for
BatchNorm, which sees a share. The first rank alone writes.

Decisions (to stop, to save, to leave out a void batch) are agreed through the processors: no one
asks a device for them. Losses and weights are added up on the device, in its own order of work.
"""

import gc
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from models.error import Interrupted, TimeIsUp, TrainingError
from models.training.config import TrainConfig, differences
from pipeline.batch import BatchLoader

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others: longer than a save, or than compiling or filling a cache
takes on one of them. One that has died is noticed at once."""

_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "remote process")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The processes of a run, seen from one of them; by itself, that one alone.

    Every method that speaks to the others must be called by all of them, in the same order.
    """

    rank: int = 0
    """This process, 0 for the one that writes."""

    size: int = 1
    """How many there are."""

    @property
    def is_writer(self) -> bool:
        """Whether files and lines are this process's to write."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, on the device; launches, never waits (on a CPU it does)."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def highest(self, *numbers: int) -> list[int]:
        """The highest of all ranks' numbers at each place; True is 1."""
        if self.size == 1:
            return [*numbers]
        found = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order; plain values and tensors on the CPU."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def on_writer(self, function: Callable[[], T]) -> T:
        """What the first rank's call of a function returned, or raises what it raised there."""
        if self.size == 1:
            return function()
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.is_writer:
            try:
                outcome = (function(), None)
            except Exception as error:  # told to all of them, and raised below
                outcome = (None, error)
        told = [*outcome]
        dist.broadcast_object_list(told, src=0)
        result, fault = outcome if self.is_writer else told
        if fault is not None:
            raise fault
        return cast("T", result)

    def wrapped(self, network: nn.Module, *, has_idle_weights: bool) -> nn.Module:
        """The network with gradients that are the mean of all ranks', where there are several.

        Args:
            network: On its device, the same on all ranks.
            has_idle_weights: Whether some weights get no gradient.
        """
        if self.size == 1:
            return network
        # `equalise` sends buffers, before anybody looks at them; torch 2.13 renamed the option
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        return DistributedDataParallel(
            network,
            **options,
            find_unused_parameters=has_idle_weights,
            gradient_as_bucket_view=True,
        )

    def keeping_gradients(self, network: nn.Module, *, apart: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a part of a batch: only the last part's is exchanged."""
        if apart and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()

    def equalise(self, network: nn.Module) -> None:
        """Give all ranks the first one's running statistics: each saw its own shares."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def seed(self, seed: int) -> None:
        """Seed dropout: the first rank as a process alone would, each other one differently."""
        own = seed if self.is_writer else _seed_of(str(seed).encode(), self.rank)
        torch.manual_seed(own)

    def random_state(self, device: torch.device) -> dict[str, Any]:
        """All ranks' generators, as a checkpoint keeps them: the first's, and `others`.

        They are torch's, of the CPU and of the device: nothing here draws from others.
        """
        own = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
        first, *others = self.gather(own)
        return {**first, "others": others} if others else first

    def load_random_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up this rank's generators. Of another number of ranks the first alone goes on."""
        everyone = [state, *state.get("others", ())]
        if len(everyone) != self.size and not self.is_writer:
            torch.manual_seed(_seed_of(state["cpu"].numpy().tobytes(), self.rank))
            return
        own = everyone[self.rank]
        torch.set_rng_state(own["cpu"])
        if device.type == "cuda" and own["cuda"] is not None:
            torch.cuda.set_rng_state(own["cuda"], device)

    def share_bad_samples(self, loader: BatchLoader) -> None:
        """Let every rank know of the samples that any of them found bad.

        Raises:
            LoaderError: Together they are more than tolerated.
        """
        if self.size == 1:
            return
        most, least = self.highest(loader.num_bad_samples, -loader.num_bad_samples)
        # equal counts may be of other samples, but nobody has any is by far the usual case
        if most == least == 0:
            return
        own = self.rank
        for rank, state in enumerate(self.gather(loader.state_dict())):
            if rank != own:
                loader.load_state_dict(state)

    def check_same(self, config: Mapping[str, Any]) -> None:
        """Check that all ranks are to train the same.

        Raises:
            TrainingError: One has another configuration; names the difference.
        """
        first, *others = self.gather(config)
        for rank, other in enumerate(others, 1):
            if found := differences(first, other):
                spelled = "; ".join(found).replace(" there,", " on rank 0,")
                msg = (
                    f"rank {rank} has another configuration than rank 0 "
                    f"({spelled.replace(' here', f' on rank {rank}')}); start all ranks with the "
                    "same command on machines of one kind, or say which by option"
                )
                raise TrainingError(msg)

    def is_first_to_say(self, message: str) -> bool:
        """Whether no other rank has said this yet; yes, too, where they cannot be asked."""
        if self.size == 1:
            return True
        key = "said " + hashlib.sha256(message.encode()).hexdigest()
        try:
            return dist.distributed_c10d._get_default_store().add(key, 1) == 1
        except (RuntimeError, ValueError):
            return True


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """While entered this process is one of those that torchrun started, if it did.

    Args:
        device: The kind of device; on a GPU each rank of a machine gets its own.

    Yields:
        The ranks, and this one's device.

    Raises:
        TrainingError: The environment is not torchrun's, or there are fewer GPUs than ranks; or a
            rank was lost, which is how all others notice that one died.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield ALONE, device
        return
    rank, local_rank = _number("RANK"), _number("LOCAL_RANK")
    if device.type == "cuda":
        device = _own_gpu(local_rank)
    handler = get_error_handler()
    handler.initialize()
    # gloo for what the processors say to each other, and for all on a CPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = _store_of_attempt()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Ranks(rank=rank, size=size), device
    except (Interrupted, TimeIsUp, SystemExit) as end:
        if getattr(end, "code", 0) in {0, 130}:  # all of them end alike, though one alone says why
            _leave()
        raise
    except Exception as error:
        # the others may be gone, and nobody waits for them
        handler.record_exception(error)  # for torchrun's report
        raise
    _leave()


def _store_of_attempt() -> Store:
    """Where ranks find each other's addresses.

    torchrun by default keeps one store when it starts its ranks again, and whoever came first would
    look for the dead at the addresses they left there. Its count of restarts is the same for the
    ranks of one machine only; several machines by `--rdzv-backend c10d` get a store each time.
    """
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"attempt {attempt}", store)


def _leave() -> None:
    # what a cycle still holds of the group would keep gloo's threads into the interpreter's end,
    # where a thread that asks for it aborts the process (pytorch/pytorch pull request 179291)
    gc.collect()
    dist.destroy_process_group()


def lost_rank(error: RuntimeError) -> TrainingError | None:
    """What to say of an error that is how gloo or NCCL tell that another process has gone."""
    text = str(error).lower()
    if not isinstance(error, dist.DistError) and not any(word in text for word in _LOST):
        return None
    return TrainingError(
        "a rank ended, and the others cannot go on without it; its own last lines, or torchrun's "
        "report below, say why; the same command with --resume goes on from the last checkpoint"
    )


def check_shares(config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    """Check that the ranks can share what is configured.

    Raises:
        ValueError: They cannot.
    """
    for stage in config.parsed_stages:
        if stage.batch_size % ranks.size:
            fitting = max(1, round(stage.batch_size / ranks.size)) * ranks.size
            msg = (
                f"batch size {stage.batch_size} cannot be shared by {ranks.size} ranks; "
                f"use a multiple of {ranks.size}, such as {fitting}"
            )
            raise ValueError(msg)
    if config.sync_batchnorm and device.type == "cpu":
        msg = "sync_batchnorm works on GPUs only; leave it out"
        raise ValueError(msg)


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        msg = (
            f"local rank {local_rank} has no GPU of its own: torch sees "
            f"{torch.cuda.device_count()} here; give torchrun that as --nproc-per-node"
        )
        raise TrainingError(msg)
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _number(name: str, default: int | None = None) -> int:
    """What the environment says; torchrun sets all of them."""
    value = os.environ.get(name, default)
    try:
        return int(value)  # type: ignore[arg-type] # None is a TypeError
    except (TypeError, ValueError):
        msg = f"{name} is {value!r} in the environment; start several processes with torchrun"
        raise TrainingError(msg) from None


def _seed_of(text: bytes, rank: int) -> int:
    digest = hashlib.blake2b(text, digest_size=7, key=str(rank).encode()).digest()
    return int.from_bytes(digest, "little")
