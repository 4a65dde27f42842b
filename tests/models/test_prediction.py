"""What a prediction says, whatever the network that made it."""

import torch

from models.prediction import Prediction


def test_a_missing_task_stays_missing() -> None:
    prediction = Prediction(None, torch.zeros(2, 1, 4, 4))

    assert prediction.mask() is None
    assert prediction.apply(torch.Tensor.double).mask_logits is None


def test_channels_of_depth_are_averaged_as_probabilities() -> None:
    logits = torch.tensor([-2.0, 0.5, 3.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)

    depth = Prediction(None, logits).depth()

    assert depth is not None
    assert depth.shape == (2, 1, 4, 4)
    torch.testing.assert_close(depth, logits.sigmoid().mean(1, keepdim=True))


def test_a_function_reaches_every_scale() -> None:
    coarse = Prediction(None, torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    fine = Prediction(torch.ones(1, 1, 4, 4, dtype=torch.bfloat16), None, (coarse,))

    found = fine.apply(torch.Tensor.float)

    assert found.mask_logits is not None
    assert found.scales[0].depth_logits is not None
    assert found.mask_logits.dtype == found.scales[0].depth_logits.dtype == torch.float32
