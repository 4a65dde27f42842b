"""Per-sample augmentation on the device: what is drawn depends on (seed, epoch, sample) alone.

So it is the same after a resume, for any number of ranks, and streamed or cached. Geometry moves
composite, background, mask and depth together; photometry changes composite and background alike.
Validation never comes here. `config.py` says what there is, `presets.py` what the reference systems
used, `pipeline/finish.py` puts the parts together.
"""

from pipeline.augment.config import AugmentConfig
from pipeline.augment.presets import PRESETS, read_augment

__all__ = ["PRESETS", "AugmentConfig", "read_augment"]
