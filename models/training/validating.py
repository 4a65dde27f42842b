"""A validation within the memory there is: in batches as training's, or advice where none fits."""

from collections.abc import Callable

from torch import nn

from models.losses import TaskLoss
from models.prediction import Prediction
from models.training.distributed import Ranks
from models.training.evaluate import SetFacts, evaluate
from models.training.memory import fits, out_of_memory
from models.training.plan import PlannedStage
from models.training.precision import Precision
from models.training.validation_loss import ValidationLoss
from pipeline.batch import Batch, BatchLoader

Observe = Callable[[Batch, Prediction], None]


class _OneBatchFitsError(Exception):
    """Ends a trial after its first batch."""


def validation_scores(
    network: nn.Module,
    loader: BatchLoader,
    stage: PlannedStage,
    *,
    parts: int,
    common: int,
    loss: TaskLoss,
    facts: SetFacts,
    precision: Precision,
    observe: Observe,
    ranks: Ranks,
    rescue: Callable[[], None],
) -> dict[str, float]:
    """What `evaluate` says, in batches no larger than a training step computes at once.

    Args:
        network: What `Learner.predictor` returned.
        loader: Its validation samples.
        stage: Whose size and batch size.
        parts: In how many a training step computes its batch.
        common: What these must divide: the greatest divisor of all stages' batch sizes.
        loss: Computed in a trial as well.
        facts: Of the set.
        precision: How the network computes.
        observe: See `evaluate`.
        ranks: See `evaluate`.
        rescue: Called before anything is tried, where the samples do not fit.

    Raises:
        TrainingError: They do not fit into memory; it says how many do.
    """
    share = stage.batch_size // ranks.size

    def scores_in(parts: int, observe: Observe) -> dict[str, float]:
        return evaluate(
            network,
            loader,
            size=stage.size,
            batch_size=ranks.size * max(1, share // parts),
            facts=facts,
            precision=precision,
            observe=observe,
            ranks=ranks,
        )

    def enough(batch: Batch, prediction: Prediction) -> None:
        ValidationLoss(loss).add(batch, prediction)
        raise _OneBatchFitsError

    def one_batch_fits(parts: int) -> bool:
        try:
            return fits(lambda: scores_in(parts, enough))
        except _OneBatchFitsError:
            return True

    scores: dict[str, float] = {}
    if fits(lambda: scores.update(scores_in(parts, observe))):
        return scores
    rescue()
    raise out_of_memory(
        precision.device,
        size=stage.size,
        batch_size=share,
        accumulate=parts,
        common=common,
        fits=one_batch_fits,
        doing=" while validating",
    )
