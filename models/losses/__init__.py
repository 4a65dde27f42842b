"""Losses of the two tasks: a `Prediction` and its targets in, three scalars out.

Each task's loss is a sum of terms written as an expression, "0.85 ssim(window=3) + 0.15 l1". A
term maps logits and a target in [0, 1] to one value per image, so that a sample's weight scales its
whole contribution, and samples of weight 0 (padding, replaced bad samples) contribute nothing;
terms over the whole batch are handed the weights. All are computed in float32 (float64 stays).

pixels.py similarity.py overlap.py depth.py   the terms
expression.py                                 their names, options and limits; reads expressions
targets.py                                    range, size and channels of what is compared with
task.py                                       puts them together
"""

from models.losses.depth import gradient, silog
from models.losses.expression import TERMS, Kind, Term, parse_loss
from models.losses.overlap import batch_dice, dice, iou
from models.losses.pixels import batch_rmse, bce, charbonnier, l1, mse, rmse
from models.losses.similarity import dssim, ms_ssim, ssim
from models.losses.task import LossConfig, Losses, TaskLoss

__all__ = [
    "TERMS",
    "Kind",
    "LossConfig",
    "Losses",
    "TaskLoss",
    "Term",
    "batch_dice",
    "batch_rmse",
    "bce",
    "charbonnier",
    "dice",
    "dssim",
    "gradient",
    "iou",
    "l1",
    "ms_ssim",
    "mse",
    "parse_loss",
    "rmse",
    "silog",
    "ssim",
]
