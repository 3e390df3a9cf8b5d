"""What a field may be: one value, a list, a range of numbers or of whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.mistakes import quoted
from trainers.config import TrialConfig

Value = str | int | float | None
DEFAULTS: dict[str, Value] = {name: value for name, value in TrialConfig().to_dict().items() if name != "epochs"}
"""Every field that a space may name, in the order of ``TrialConfig``; epochs belong to the budget."""


@dataclass(frozen=True)
class Constant:
    """One value; takes no parameter."""

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
    """Any number from ``low`` to ``high``; with ``log``, evenly over the logarithm."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def values(self) -> None:
        """A continuous range has no list of values."""

    def __str__(self) -> str:
        return f"a number from {quoted(self.low)} to {quoted(self.high)}"


@dataclass(frozen=True)
class IntRange:
    """A whole number from ``low`` to ``high``, both included, in steps of ``step``. ``log`` needs a step of 1."""

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
