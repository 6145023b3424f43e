"""What a contender in the eigensolver benchmark is: prepared for a problem, then set and called."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks._problems import Problem


class Knob(NamedTuple):
    """How a contender is set: its tolerance (or number of steps), and a second setting if it has one."""

    value: float
    option: int | None = None


class Answer(NamedTuple):
    """What a contender returns: the value, the vector if it gives one, and whether it says that it succeeded."""

    value: Any
    vector: Any = None
    claim: Any = None


Ladder = tuple[Knob, ...]
Solve = Callable[[Knob], Answer]


class Contender(Protocol):
    """Anything that computes Fiedler values."""

    @property
    def name(self) -> str:
        """What it is called in tables and on the command line."""
        ...

    @property
    def accepts_start(self) -> bool:
        """Whether it can use a vector found earlier."""
        ...

    @property
    def compiled(self) -> bool:
        """Whether the first call with a knob compiles."""
        ...

    def refusal(self, problem: Problem) -> str | None:
        """Why it is not tried on a problem, or None."""
        ...

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """The knobs to try, loosest first, one ladder for each second setting."""
        ...

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """The relative error its stopping rule allows at a knob, if it has found the right eigenvalue."""
        ...

    def describe(self, knob: Knob) -> str:
        """The knob in words."""
        ...

    def prepare(self, problem: Problem) -> Solve:
        """All that does not depend on the weights."""
        ...


@dataclass(frozen=True)
class Base:
    """What most contenders have in common: a tolerance relative to the value, and no limit to the size."""

    name: str
    accepts_start: bool = True
    compiled: bool = False

    def refusal(self, problem: Problem) -> str | None:
        """Nothing is too large, unless a contender says so."""
        del problem
        return None

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Tolerances down to rounding."""
        del accuracy
        return (tolerances(problem, 1.0),)

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """The tolerance is relative to the value."""
        del problem, value, bound
        return knob.value

    def describe(self, knob: Knob) -> str:
        """The tolerance."""
        return f"tol {knob.value:.1e}"


@dataclass(frozen=True)
class Lobpcg(Base):
    """What both LOBPCGs have in common: a tolerance for the residual, relative to the bound of the spectrum."""

    widths: tuple[int, ...] = (1, 4)

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Half decades; a block of one first, the fastest, then one of four, the safer."""
        del accuracy
        widths = [width for width in self.widths if 5 * width < problem.vertices]
        return tuple(tuple(k._replace(option=width) for k in tolerances(problem, 0.5)) for width in widths)

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """The residual bounds the absolute error."""
        del problem
        return knob.value * bound / value

    def describe(self, knob: Knob) -> str:
        """Tolerance and block size."""
        return f"tol {knob.value:.1e}·bound, block {knob.option}"


def tolerances(problem: Problem, decades: float, loosest: float = 1e-2) -> Ladder:
    """Knobs from the loosest tolerance down to rounding, by so many powers of ten."""
    tightest = -10 if problem.dtype == np.float64 else -6.5
    exponents = np.arange(np.log10(loosest), tightest - 1e-9, -decades)
    return tuple(Knob(float(10.0**exponent)) for exponent in exponents)


def too_many_edges(problem: Problem, most: int) -> str | None:
    """The reason to refuse a problem with more than so many edges."""
    return None if problem.edges <= most else f"{problem.edges:,} edges, more than {most:,}"
