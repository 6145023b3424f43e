"""What is noted while a model is interpreted, and the two kinds of value it is interpreted on."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fiedler_jax._effective import Effective, constant_value
from fiedler_jax._paths import Path, display
from fiedler_jax.tracing._identities import NO_UNIT, no_units, varied
from fiedler_jax.tracing._jaxpr import Program
from fiedler_jax.tracing._units import Units

# What an array is made of: parameters and constants alone, or (also) the model's inputs. The latter by the unit
# identities of its elements.
Value = Effective | np.ndarray

# The name of units that a loop carries, which are no kernel's until it is known what goes on with them.
CARRY = "carry"

Rule = Callable[["Trace", Any, Sequence[Value]], Sequence[Value]]


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of an effective kernel with an activation: entry e joins unit source[e] to unit target[e].

    Both identities have as many axes as the kernel.
    """

    kernel: Effective
    source: np.ndarray
    target: np.ndarray


@dataclasses.dataclass(frozen=True)
class ScaledKernel:
    """A kernel whose rows were multiplied by an activation and not summed yet.

    Attributes:
        result: the identities of the product, by which it is known again.
        kernel: the kernel.
        axes: for each axis of the kernel that of the product.
        rows: identities of the activation, with as many axes as the product.
        product: the edges noted for it, if any: those of what it is if nothing sums it.
        is_square: whether it is a square, of the difference of the activation and the kernel.
    """

    result: np.ndarray
    kernel: Effective
    axes: tuple[int, ...]
    rows: np.ndarray
    product: Product | None = None
    is_square: bool = False


@dataclasses.dataclass
class Trace:
    """The notes of one interpretation.

    Attributes:
        run: interprets a program on values.
        units: the unit identities.
        products: every product of a kernel with an activation.
        uses: what else was done with a parameter leaf.
        unknown: what was not understood, in words.
        scaled: kernels whose rows were multiplied by an activation, by the result's address.
        shifted: likewise kernels whose rows were subtracted from one, or added to it.
        summed: products of such kernels that were summed later on, and do not count unless read by themselves too.
        changed: parameters that a loop starts from and changes, with the units of what it carries.
        seen: arrays of identities on whose variation something depended, with the axes along which they varied.
        rows: the units that kernels read where an array has none, by its address and axes, with the array.
        queries: products that count only if their units do, such as of kernels repeated over a batch.
    """

    run: Callable[["Trace", Program, Sequence[Value]], list[Value]]
    units: Units = dataclasses.field(default_factory=Units)
    products: list[Product] = dataclasses.field(default_factory=list)
    uses: dict[Path, list[str]] = dataclasses.field(default_factory=dict)
    unknown: list[str] = dataclasses.field(default_factory=list)
    scaled: dict[int, ScaledKernel] = dataclasses.field(default_factory=dict)
    shifted: dict[int, ScaledKernel] = dataclasses.field(default_factory=dict)
    summed: list[Product] = dataclasses.field(default_factory=list)
    changed: list[tuple[Effective, np.ndarray]] = dataclasses.field(default_factory=list)
    seen: list[tuple[np.ndarray, frozenset[int]]] = dataclasses.field(default_factory=list)
    rows: dict[Any, tuple[Value, np.ndarray]] = dataclasses.field(default_factory=dict)
    queries: list[Product] = dataclasses.field(default_factory=list)

    def multiply(self, product: Product) -> None:
        """Note a product; its units have edges from now on."""
        self.units.link(product.source)
        self.units.link(product.target)
        self.products.append(product)

    def share(self, product: Product, how: str) -> None:
        """Note that a product may be none, such as that of a kernel repeated over a batch, as learned queries are.

        It counts if its units are read, given out or summed with others.
        """
        self.used([product.kernel], how)
        self.queries.append(product)

    def are_queries(self, ids: np.ndarray) -> bool:
        """Whether the units here are all those of learned queries."""
        made = [self.units.find(product.target).ravel() for product in self.queries]
        return bool(made) and bool(np.all(np.isin(self.units.find(ids), np.concatenate([[NO_UNIT], *made]))))

    def no_queries(self, ids: np.ndarray) -> None:
        """Note that units are those of no learned queries."""
        if self.queries:
            units = self.units.find(ids)
            self.queries = [one for one in self.queries if not np.any(np.isin(self.units.find(one.target), units))]

    def see(self, ids: np.ndarray) -> None:
        """Note that something depends on the axes along which identities vary."""
        self.seen.append((ids, varied(self.units.simplest(ids))))

    def saw_all(self) -> bool:
        """Whether everything would be as it was if what has been united later had been one from the start."""
        return all(varied(self.units.simplest(ids)) == axes for ids, axes in self.seen)

    def scale(self, scaled: ScaledKernel) -> None:
        """Note a kernel whose rows were multiplied by an activation."""
        self.scaled[id(scaled.result)] = scaled

    def scaled_kernel(self, value: Value) -> ScaledKernel | None:
        """The kernel whose rows were multiplied, if this is the result."""
        return self.scaled.get(id(value))

    def without_summed(self, used: np.ndarray) -> None:
        """Leave out products summed as another one, and those of queries, unless their units are used by themselves."""
        used = self.units.find(used)
        apart = [*self.summed, *self.queries]
        gone = [product for product in apart if not np.any(np.isin(self.units.find(product.target), used))]
        self.products = [product for product in self.products if not any(product is one for one in gone)]

    def known(self, value: Value) -> np.ndarray | None:
        """The value of an array that depends on neither parameters nor inputs; None for any other."""
        return constant_value(value) if isinstance(value, Effective) else None

    def used(self, values: Iterable[Value], how: str) -> None:
        """Note what is done with the parameter leaves among some values."""
        for path in leaves_of(values):
            self.uses.setdefault(path, []).append(how)

    def not_understood(self, what: str, values: Iterable[Value]) -> None:
        """Note something that was not understood, with the parameter leaves and the units concerned."""
        values = list(values)
        leaves = [display(path) for path in leaves_of(values)]
        names = sorted({self.units.name(int(v[v >= 0].min())) for v in map(identities, values) if np.any(v >= 0)})
        on = " on " + ", ".join(leaves) if leaves else ""
        of = " at units of " + ", ".join(names) if names else ""
        if (message := what + on + of) not in self.unknown:
            self.unknown.append(message)
        self.used(values, f"not understood: {what}")


def leaves_of(values: Iterable[Value]) -> list[Path]:
    """The parameter leaves that some values depend on, activations aside."""
    return list(dict.fromkeys(path for value in values if isinstance(value, Effective) for path in value.leaves))


def identities(value: Value) -> np.ndarray:
    """The unit identities of a value; what depends on parameters alone has none."""
    return no_units(len(value.shape)) if isinstance(value, Effective) else value


def of_outputs(equation: Any) -> list[np.ndarray]:
    """Outputs that hold no units."""
    return [no_units(len(variable.aval.shape)) for variable in equation.outvars]


def shape_of(variable: Any) -> tuple[int, ...]:
    """The shape of a variable of an equation."""
    return tuple(variable.aval.shape)
