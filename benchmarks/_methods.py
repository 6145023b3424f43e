"""Method names and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from benchmarks._errors import MethodError


class FiedlerForm(NamedTuple):
    """A way to regularize with the Fiedler value.

    Attributes:
        form: "penalty" (`add_fiedler_penalty`), "shrinkage" (`fiedler_shrinkage`), or "uniform": an L1 penalty of the
            same mean coefficient, which pulls as hard but without the structure.
        normalized: which Laplacian.
        num_eigenvalues: how many eigenvalues are summed.
        sign: -1 raises λ2 instead.
    """

    form: Literal["penalty", "shrinkage", "uniform"] = "penalty"
    normalized: bool = True
    num_eigenvalues: int = 1
    sign: int = 1


# Those that shrink come last: they stand behind the optimizer.
FIEDLER_FORMS: Mapping[str, FiedlerForm] = MappingProxyType(
    {
        "fiedler": FiedlerForm(),
        "fiedler-combinatorial": FiedlerForm(normalized=False),
        "fiedler-4": FiedlerForm(num_eigenvalues=4),
        "fiedler-combinatorial-4": FiedlerForm(normalized=False, num_eigenvalues=4),
        "fiedler-raised": FiedlerForm(sign=-1),
        "fiedler-uniform": FiedlerForm("uniform"),
        "fiedler-combinatorial-uniform": FiedlerForm("uniform", normalized=False),
        "fiedler-shrinkage": FiedlerForm("shrinkage"),
        "fiedler-combinatorial-shrinkage": FiedlerForm("shrinkage", normalized=False),
    }
)
FIEDLER_REGULARIZERS = tuple(FIEDLER_FORMS)
REGULARIZERS = (*FIEDLER_REGULARIZERS, "l2", "l1", "l1-shrinkage", "dropout", "pruning")

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


def with_variants(strengths: Mapping[str, float]) -> dict[str, float]:
    """Strengths for all regularizers: one that has none gets that of the one it is a variant of."""
    bases = {name: "fiedler" if form.normalized else "fiedler-combinatorial" for name, form in FIEDLER_FORMS.items()}
    known = {**bases, "l1-shrinkage": "l1"}
    return {**{name: strengths[base] for name, base in known.items() if base in strengths}, **strengths}


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
