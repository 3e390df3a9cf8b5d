"""Domains of a field: one value, a list, a continuous range, or a range of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.mistakes import quoted
from trainers.config import TrialConfig

Value = str | int | float | None
DEFAULTS: dict[str, Value] = {name: value for name, value in TrialConfig().to_dict().items() if name != "epochs"}
"""Field -> default, for every field of a space, in the order of ``TrialConfig``; epochs belong to the budget."""


@dataclass(frozen=True)
class Constant:
    """A single value, which a sampler does not choose."""

    value: Value

    def holds(self, value: Any) -> bool:
        return bool(self.value == value)

    def values(self) -> tuple[Value, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return quoted(self.value)


@dataclass(frozen=True)
class Choice:
    """One of at least two different values."""

    options: tuple[Value, ...]

    def holds(self, value: Any) -> bool:
        return value in self.options

    def values(self) -> tuple[Value, ...]:
        return self.options

    def __str__(self) -> str:
        return "one of " + ", ".join(map(quoted, self.options))


@dataclass(frozen=True)
class Uniform:
    """Any number from ``low`` to ``high``, both included; uniform, or with ``log`` uniform in the logarithm."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def values(self) -> None:
        """Return None: a continuous range cannot be enumerated."""

    def __str__(self) -> str:
        return f"a number from {quoted(self.low)} to {quoted(self.high)}"


@dataclass(frozen=True)
class IntRange:
    """An integer from ``low`` to ``high``, both included, in steps of ``step``. ``log`` requires a step of 1."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def holds(self, value: Any) -> bool:
        whole = isinstance(value, int | float) and float(value).is_integer()
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def values(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step)

    def __str__(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.low} to {self.high}{steps}"


Domain = Constant | Choice | Uniform | IntRange
