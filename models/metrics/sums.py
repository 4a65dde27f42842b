"""Weighted sums by name in one float64 vector: (N,) values per batch in, totals out once.

Adding needs no answer from the device; ranks are joined by one all-reduce of the vector. What is
added together, such as the values of one task, is a group and lies side by side behind its weight.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

WEIGHT = "weight"


class Sums:
    """Sums of each name of each group.

    Args:
        groups: Group -> its names.
        device: Where the values lie.
    """

    def __init__(
        self, groups: Mapping[str, tuple[str, ...]], device: torch.device | str = "cpu"
    ) -> None:
        self._groups = {group: (WEIGHT, *names) for group, names in groups.items()}
        self._slots: dict[str, slice] = {}
        num_sums = 0
        for group, names in self._groups.items():
            self._slots[group] = slice(num_sums, num_sums + len(names))
            num_sums += len(names)
        self.vector = torch.zeros(num_sums, dtype=torch.float64, device=device)
        """(groups + names,) everything added so far."""

    def add(self, group: str, weight: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add (N,) weights, and (N,) values times weight, for exactly the names of a group."""
        names = self._groups[group]
        assert values.keys() == set(names[1:]), "values and names of a group differ"
        rows = torch.stack(
            [torch.ones_like(weight, dtype=torch.float64), *(values[name] for name in names[1:])]
        )
        # where, not a product alone: a padded sample may hold anything, also nan
        weighted = torch.where(weight > 0, rows * weight, 0)
        self.vector[self._slots[group]] += weighted.sum(1)

    def read(self) -> dict[str, dict[str, float]]:
        """Totals by group and name, and `weight`: one transfer from the device."""
        totals = iter(self.vector.tolist())
        return {
            group: {name: next(totals) for name in names} for group, names in self._groups.items()
        }
