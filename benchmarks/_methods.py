"""Method names and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks._errors import MethodError

FIEDLER_REGULARIZERS = ("fiedler", "fiedler-combinatorial")
REGULARIZERS = (*FIEDLER_REGULARIZERS, "l2", "l1", "dropout")


@dataclass(frozen=True)
class Method:
    """A named set of regularizers.

    Attributes:
        name: the name as the user wrote it.
        regularizers: members of ``REGULARIZERS``, in the order of that tuple; empty
            for ``"none"``.
    """

    name: str
    regularizers: tuple[str, ...]

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
        name: ``"none"``, a regularizer, or several joined by ``+``.

    Returns:
        The method.

    Raises:
        MethodError: a part is unknown or repeated, or ``"none"`` is combined.
    """
    if name == "none":
        return Method(name, ())
    parts = name.split("+")
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
    return Method(name, tuple(r for r in REGULARIZERS if r in parts))
