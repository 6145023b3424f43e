"""Method names and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks._errors import MethodError

FIEDLER_REGULARIZERS = ("fiedler", "fiedler-combinatorial")
REGULARIZERS = (*FIEDLER_REGULARIZERS, "l2", "l1", "dropout")

Refresh = int | Literal["auto"]


@dataclass(frozen=True)
class Method:
    """A named set of regularizers.

    Attributes:
        name: the name as the user wrote it.
        regularizers: members of ``REGULARIZERS``, in the order of that tuple; empty
            for ``"none"``.
        refresh_every: steps between two solves of its Fiedler penalties, if it has its own.
    """

    name: str
    regularizers: tuple[str, ...]
    refresh_every: Refresh | None = None

    @property
    def fiedler_regularizers(self) -> tuple[str, ...]:
        """The regularizers that are Fiedler penalties."""
        return tuple(r for r in self.regularizers if r in FIEDLER_REGULARIZERS)

    def dropout_rate(self, strengths: Mapping[str, float]) -> float:
        """Rate of the dropout layers in training; zero without dropout."""
        return strengths["dropout"] if "dropout" in self.regularizers else 0.0


def parse_method(name: str) -> Method:
    """Reads a method name such as ``"l1"`` or ``"fiedler+dropout"``.

    Args:
        name: ``"none"``, a regularizer, or several joined by ``+``; with Fiedler penalties perhaps followed by ``@``
            and the steps between their refreshes, a number or ``auto``.

    Returns:
        The method.

    Raises:
        MethodError: a part is unknown or repeated, ``"none"`` is combined, or the steps are no positive number.
    """
    if name == "none":
        return Method(name, ())
    listed, at, steps = name.partition("@")
    parts = listed.split("+")
    for part in parts:
        if part == "none":
            raise MethodError(f"method {name!r} combines 'none' with something")
        if part not in REGULARIZERS:
            where = f" in {name!r}" if len(parts) > 1 else ""
            raise MethodError(
                f"unknown method {part!r}{where}; known: none, "
                f"{', '.join(REGULARIZERS)}, and combinations such as fiedler+dropout"
            )
    if len(set(parts)) != len(parts):
        raise MethodError(f"method {name!r} names a regularizer twice")
    regularizers = tuple(r for r in REGULARIZERS if r in parts)
    if not at:
        return Method(name, regularizers)
    refresh_every = _parse_refresh(steps)
    if refresh_every is None or not set(parts) & set(FIEDLER_REGULARIZERS):
        raise MethodError(f"method {name!r}: @ takes a positive number or auto, and needs a Fiedler penalty before it")
    return Method(name, regularizers, refresh_every)


def _parse_refresh(text: str) -> Refresh | None:
    """Steps between refreshes, as a positive number or ``"auto"``; None for any other text."""
    if text == "auto":
        return "auto"
    return int(text) if text.isdecimal() and int(text) > 0 else None
