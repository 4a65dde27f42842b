"""A list in a loader's clothes, a network of two convolutions, and runs made of them."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.losses import LossConfig, TaskLoss
from models.prediction import Prediction
from models.training.config import TrainConfig
from models.training.evaluate import SetFacts
from models.training.optimizer import OptimizerConfig
from models.training.trainer import Trainer
from pipeline.batch import Batch

LOSS = LossConfig(mask="bce", depth="l1")


class TinyNetwork(nn.Module):
    """Everything whose state a resume must restore: weights, running statistics, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)
        )
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, background, composite):
        """As every network: a mask and a depth of logits."""
        mask, depth = self.head(self.body(torch.cat((background, composite), 1))).split(1, 1)
        return Prediction(mask_logits=mask, depth_logits=depth)


class ListLoader:
    """Bright squares on noise: the mask is the square, the depth a ramp that it interrupts.

    `on_train` and `on_validate` are called before a batch is handed out, with the number of
    samples consumed before it, and may signal or raise. Samples in `bad` come at weight 0.
    """

    def __init__(self, num_samples: int = 10, num_validation: int = 5) -> None:
        self.num_samples = num_samples
        generator = torch.Generator().manual_seed(0)
        count = num_samples + num_validation
        self.background = torch.rand(count, 3, 16, 16, generator=generator) - 0.5
        self.mask = torch.zeros(count, 1, 16, 16)
        for number, mask in enumerate(self.mask):
            top, left = number % 8, number * 3 % 8
            mask[:, top : top + 8, left : left + 8] = 1
        self.composite = torch.where(self.mask > 0, 1.5, self.background)
        ramp = torch.linspace(0.2, 0.8, 16).expand(count, 1, 16, 16)
        self.depth = torch.where(self.mask > 0, 0.1, ramp)
        self.numbers_seen: list[int] = []
        self.bad: set[int] = set()
        self.found_bad: list[int] = []
        self.on_train: Callable[[int], None] = lambda consumed: None
        self.on_validate: Callable[[int], None] = lambda consumed: None

    @contextmanager
    def train(self, *, size, batch_size, start, num_steps):
        """The endless stream, in an order that depends on the place in it alone."""
        yield self._train(size, batch_size, start, num_steps)

    def _train(self, size, batch_size, start, num_steps) -> Iterator[Batch]:
        for step in range(num_steps):
            begin = start + step * batch_size
            numbers = [self._sample(place) for place in range(begin, begin + batch_size)]
            self.on_train(begin)
            self.numbers_seen += numbers
            self.found_bad = sorted({*self.found_bad, *self.bad.intersection(numbers)})
            yield self._batch(numbers, size, [float(n not in self.bad) for n in numbers])

    def _sample(self, place: int) -> int:
        epoch, position = divmod(place, self.num_samples)
        return random.Random(epoch).sample(range(self.num_samples), self.num_samples)[position]

    @contextmanager
    def validate(self, *, size, batch_size):
        """The samples after the training ones, once."""
        yield self._validate(size, batch_size)

    def _validate(self, size, batch_size) -> Iterator[Batch]:
        numbers = list(range(self.num_samples, len(self.mask)))
        for begin in range(0, len(numbers), batch_size):
            self.on_validate(begin)
            chosen = numbers[begin : begin + batch_size]
            num_padding = batch_size - len(chosen)
            weight = [1.0] * len(chosen) + [0.0] * num_padding
            yield self._batch(chosen + [chosen[0]] * num_padding, size, weight)

    def _batch(self, numbers: list[int], size: int, weight: list[float]) -> Batch:
        def resized(images):
            return functional.interpolate(images[numbers], size=(size, size), mode="nearest")

        return Batch(
            background=resized(self.background),
            composite=resized(self.composite),
            mask=resized(self.mask),
            depth=resized(self.depth),
            number=torch.tensor(numbers),
            weight=torch.tensor(weight),
            is_void=not any(weight),
        )

    @property
    def num_bad_samples(self) -> int:
        """Each once."""
        return len(self.found_bad)

    def state_dict(self):
        """The bad samples found."""
        return {"bad": self.found_bad}

    def load_state_dict(self, state):
        """Know them again."""
        self.found_bad = list(state.get("bad", ()))


class TwoLists(ListLoader):
    """Samples 0 to 3 are the first set, 4 to 9 the second."""

    set_lengths = (4, 6)

    def __init__(self):
        super().__init__()
        self.opened = []

    @contextmanager
    def train(self, *, size, batch_size, start, num_steps, sets=()):
        """Each choice of sets in its own order."""
        self.opened.append((sets, start, num_steps))
        own = {(): range(10), (1,): range(4), (2,): range(4, 10)}[sets]
        numbers = [self._sample_of(own, at) for at in range(start, start + num_steps * batch_size)]
        yield self._own(numbers, size, batch_size)

    def _sample_of(self, own, place):
        turn, at = divmod(place, len(own))
        return own[(at + turn) % len(own)]

    def _own(self, numbers, size, batch_size):
        for begin in range(0, len(numbers), batch_size):
            chosen = numbers[begin : begin + batch_size]
            self.on_train(begin)
            self.numbers_seen += chosen
            yield self._batch(chosen, size, [1.0] * batch_size)


FACTS = SetFacts(
    fingerprint="0123456789abcdef",
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(1.0, 1.0, 1.0),
    mean_depth=lambda size: torch.full((size, size), 0.4),
)

CONFIG = TrainConfig(
    stages="8:1.5,12:1",
    batch_size="4,3",
    optimizer=OptimizerConfig(lr=0.01),
    log_every=3,
    num_panels=3,
    seed=5,
)
"""Ten samples: epoch ends after steps 3 and 4 (8 px, 4 samples each) and 8 (12 px, 3 each)."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make these small steps 15 times as slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def loader() -> ListLoader:
    return ListLoader()


@pytest.fixture
def two_lists() -> type[TwoLists]:
    """Makes loaders of two sets."""
    return TwoLists


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Trainers of the tiny network; each one starts from the same initial weights."""

    def make(
        run: str = "run",
        *,
        loader: ListLoader | None = None,
        network: nn.Module | None = None,
        facts: SetFacts = FACTS,
        sections: dict[str, dict[str, object]] | None = None,
        **changes: object,
    ) -> Trainer:
        config = replace(CONFIG, **changes)
        torch.manual_seed(config.seed)
        return Trainer(
            config,
            network=network or TinyNetwork(),
            loss=TaskLoss(LOSS),
            loader=loader or ListLoader(),
            facts=facts,
            run_dir=tmp_path / run,
            device=torch.device("cpu"),
            sections=sections or {"network": {"name": "tiny"}, "loss": asdict(LOSS)},
        )

    return make
