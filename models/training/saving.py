"""When and how a run's checkpoints are written; `models/checkpoint.py` has their format."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import LAST, encode, write_atomically, write_newest
from models.error import TrainingError
from models.training.distributed import Ranks
from models.training.evaluate import SetFacts
from models.training.guards import all_finite
from models.training.learner import Learner
from models.training.progress import Progress
from models.training.recording import Recorder
from models.training.time_limit import TimeLimit


@dataclass(kw_only=True)
class Saver:
    """Writes checkpoints of what a recorder keeps account of."""

    run_dir: Path
    learner: Learner
    recorder: Recorder
    time_limit: TimeLimit
    sections: Mapping[str, Mapping[str, Any]]
    facts: SetFacts

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.recorder.progress

    @property
    def ranks(self) -> Ranks:
        """Who saves together; one of them writes."""
        return self.recorder.ranks

    def save(self, *names: str) -> None:
        """Write one checkpoint under one or more names; all ranks call it together.

        Raises:
            TrainingError: Weights are not finite: no checkpoint is ever written of such.
            CheckpointError: It cannot be written.
        """
        with self.time_limit.saving():
            self._refuse_bad_weights()
            self.recorder.take_stock()
            self.progress.loader = self.recorder.loader.state_dict()
            self.recorder.tracker.sync()
            state = {
                **self.learner.state_dict(),
                "progress": asdict(self.progress),
                "config": self.sections,
                "set": self.facts.record(),
            }

            def write() -> None:
                content = encode(state)
                for name in names:
                    if name == LAST:
                        write_newest(self.run_dir, content)
                    else:
                        write_atomically(self.run_dir / name, content)

            self.ranks.on_writer(write)

    def _refuse_bad_weights(self) -> None:
        if not all_finite(self.learner.network):
            step = self.progress.step
            msg = (
                f"the weights are no finite numbers any more after step {step:,}; "
                f"the checkpoints in {self.run_dir} are from before; start another run with a "
                "lower learning rate"
            )
            raise TrainingError(msg)
