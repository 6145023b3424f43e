"""What the penalty costs on one device: whole training steps, solves, products, each beside what it is measured by."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import fiedler_jax as fj
from benchmarks._compiling import COMPILATIONS, compiled_again, compiled_anew
from benchmarks._errors import ConfigError
from benchmarks._model import MLP

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
BASELINE = "weight decay"
# The same program compiled once more: its ratio to the other is what chance makes of equal ones.
TWIN = "weight decay again"
MEMBERS = 4


@dataclasses.dataclass(frozen=True)
class PriceConfig:
    """What is measured, and how often.

    Attributes:
        widths: sizes of the layers of the network that trains and is solved, the inputs first.
        batch: examples a step.
        refresh_every: updates from one refresh to the next; each round of steps has exactly one, and others.
        rounds: rounds of steps, and timed solves and products.
        side: rows and columns of the block that products are measured on.
        dtypes: of the parameters.
    """

    widths: tuple[int, ...] = (784, 500, 500, 500, 10)
    batch: int = 100
    refresh_every: int = 100
    rounds: int = 20
    side: int = 4096
    dtypes: tuple[str, ...] = tuple(DTYPES)

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(f"--widths must name at least two layers of at least one unit, not {self.widths}")
        unknown = [name for name in self.dtypes if name not in DTYPES]
        if unknown or not self.dtypes:
            raise ConfigError(f"--dtypes must be of {', '.join(DTYPES)}, not {', '.join(unknown) or 'empty'}")
        for name, least in (("batch", 1), ("refresh_every", 2), ("rounds", 1), ("side", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")


class Figure(NamedTuple):
    """One measured number; where `guarded`, a larger one than before is a loss."""

    name: str
    value: float
    unit: str
    guarded: bool = False


class Step(NamedTuple):
    """A compiled training step, what it goes on with, and the seconds of compiling, at first and with a cache."""

    run: Callable[..., Any]
    carry: tuple[Any, Any]
    data: tuple[jax.Array, jax.Array]
    compile_seconds: float
    again_seconds: float
    memory: int


def figures(config: PriceConfig, tell: Callable[[str], None]) -> Iterator[Figure]:
    """All figures, one after another.

    Args:
        config: what is measured.
        tell: is told what is measured next.
    """
    for dtype in config.dtypes:
        tell(f"training steps in {dtype}")
        yield from step_figures(config, dtype)
    for dtype in config.dtypes:
        tell(f"solves in {dtype}")
        yield from solve_figures(config, dtype)
    tell("seeds under vmap")
    yield from ensemble_figures(config)
    tell("products")
    yield from product_figures(config)


def step_figures(config: PriceConfig, dtype: str) -> Iterator[Figure]:
    """Whole steps with either penalty against weight decay: time, with and without the refresh, compiling, memory."""
    every = config.refresh_every
    steps = {
        BASELINE: _compiled_step(config, dtype, optax.add_decayed_weights(0.01)),
        "normalized": _compiled_step(config, dtype, fj.add_fiedler_penalty(1e-3, refresh_every=every)),
        "combinatorial": _compiled_step(
            config, dtype, fj.add_fiedler_penalty(1e-3, normalized=False, refresh_every=every)
        ),
        TWIN: _compiled_step(config, dtype, optax.add_decayed_weights(0.01)),
    }
    refreshing, between = _interleaved_steps(config, steps)
    decay = steps[BASELINE]
    seconds = statistics.median(between[BASELINE]) / (config.refresh_every - 1)
    yield Figure(f"step, {dtype}, {BASELINE}", 1e3 * seconds, "ms")
    yield Figure(f"step, {dtype}, {TWIN}", _ratio(between[TWIN], between[BASELINE]), f"x {BASELINE}")
    for name in ("normalized", "combinatorial"):
        of = f"{dtype}, {name}"
        whole = [a + b for a, b in zip(refreshing[name], between[name], strict=True)]
        reference = [a + b for a, b in zip(refreshing[BASELINE], between[BASELINE], strict=True)]
        yield Figure(f"step with refreshes, {of}", _ratio(whole, reference), "x weight decay", True)
        yield Figure(f"step between refreshes, {of}", _ratio(between[name], between[BASELINE]), "x weight decay", True)
        for what, compiling, reference in (
            ("first step compiled", steps[name].compile_seconds, decay.compile_seconds),
            ("first step, persistent cache", steps[name].again_seconds, decay.again_seconds),
        ):
            yield Figure(f"{what}, {of}", compiling, "s", True)
            yield Figure(f"{what}, {of}", compiling / reference, "x weight decay", True)
        extra = (steps[name].memory - decay.memory) / _kernel_bytes(config, dtype)
        yield Figure(f"more temporary memory, {of}", extra, "x kernels", True)


def solve_figures(config: PriceConfig, dtype: str) -> Iterator[Figure]:
    """A cold Fiedler pair at initialization and one from the vector of slightly other weights."""
    params = _params(config, dtype)
    graph = fj.graph_from_params(params)
    near = jax.tree.map(lambda w: w * (1 + 0.01 * jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape)), params)
    for normalized in (True, False):

        def solve(params: Any, init: jax.Array | None = None, normalized: bool = normalized) -> fj.FiedlerPair:
            return fj.fiedler_pair(fj.laplacian(graph, params, normalized=normalized), init)

        of = f"{dtype}, {'normalized' if normalized else 'combinatorial'}"
        cold, seconds = compiled_anew(jax.jit(solve), params, times=min(config.rounds, COMPILATIONS))
        yield Figure(f"solve compiled, {of}", seconds, "s", True)
        pair = jax.block_until_ready(cold(params))
        pair.raise_if_failed()
        warm = jax.jit(solve)
        yield Figure(f"cold solve, {of}", 1e3 * _median_seconds(config, lambda f=cold: f(params)), "ms", True)
        yield Figure(f"cold solve, {of}", float(pair.iterations), "block products", True)
        again = jax.block_until_ready(warm(near, pair.vector))
        again.raise_if_failed()
        yield Figure(
            f"warm solve, {of}", 1e3 * _median_seconds(config, lambda f=warm, v=pair.vector: f(near, v)), "ms", True
        )
        yield Figure(f"warm solve, {of}", float(again.iterations), "block products", True)


def ensemble_figures(config: PriceConfig) -> Iterator[Figure]:
    """A step of several seeds under vmap, refreshes included, against as many steps one by one.

    With the state's count mapped every member solves at every step, as with any `lax.cond` under vmap.
    """
    tx, step = _step_function(config, fj.add_fiedler_penalty(1e-3, refresh_every=config.refresh_every))
    data = _data(config, "float32")
    alone = _params(config, "float32")
    members = jax.tree.map(lambda leaf: jnp.stack([leaf * (1 + 0.1 * i) for i in range(MEMBERS)]), alone)
    fields = fj.FiedlerPenaltyState._fields
    unmapped = fj.FiedlerPenaltyState._make(None if name == "count" else 0 for name in fields), 0
    runs = {"alone": (jax.jit(step), (alone, tx.init(alone)))}
    for name, axes in (("unmapped", unmapped), ("mapped", (0, 0))):
        run = jax.jit(jax.vmap(step, in_axes=(0, axes, None, None), out_axes=(0, axes)))
        runs[name] = run, (members, jax.vmap(tx.init, out_axes=axes)(members))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    carries = {name: carry for name, (_, carry) in runs.items()}
    for count in range(1 + max(config.rounds // 10, 1)):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            for _ in range(config.refresh_every):
                carries[name] = run(*carries[name], *data)
            jax.block_until_ready(carries[name])
            if count:
                seconds[name].append((time.perf_counter() - start) * (MEMBERS if name == "alone" else 1))
    for name in ("unmapped", "mapped"):
        yield Figure(f"{MEMBERS} seeds, count {name}", _ratio(seconds[name], seconds["alone"]), "x one by one", True)


def product_figures(config: PriceConfig) -> Iterator[Figure]:
    """Products with a square block against reading it once, which a sum of all its entries does."""
    weights = jax.random.normal(jax.random.key(0), (config.side, config.side), jnp.float32)
    lap = fj.laplacian(*_one_block(weights), normalized=False)
    read = jax.jit(jnp.sum)
    products = {rows: (jax.jit(lambda lap, x: lap.matvec(x)), jnp.ones((rows, lap.num_vertices))) for rows in (1, 3, 8)}
    calls: dict[Any, Callable[[], Any]] = {"read": lambda: read(lap.blocks[0])}
    calls |= {rows: lambda f=f, x=x: f(lap, x) for rows, (f, x) in products.items()}
    seconds = _interleaved(config, calls)
    size = lap.blocks[0].nbytes
    yield Figure(f"reading {config.side} x {config.side} once", size / statistics.median(seconds["read"]) / 1e9, "GB/s")
    for rows in products:
        of = f"product of {rows} rows"
        yield Figure(of, 1e3 * statistics.median(seconds[rows]), "ms")
        yield Figure(of, _ratio(seconds[rows], seconds["read"]), "reads of the block", True)


def _one_block(weights: jax.Array) -> tuple[fj.NetworkGraph, Any]:
    params = {"Dense_0": {"kernel": weights}}
    return fj.graph_from_params(params), params


def _params(config: PriceConfig, dtype: str) -> Any:
    model = MLP(config.widths[1:])
    params = model.init(jax.random.key(0), jnp.ones((1, config.widths[0])), training=False)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(DTYPES[dtype]), params)


def _kernel_bytes(config: PriceConfig, dtype: str) -> int:
    return sum(a * b for a, b in itertools.pairwise(config.widths)) * jnp.dtype(DTYPES[dtype]).itemsize


def _compiled_step(config: PriceConfig, dtype: str, regularizer: optax.GradientTransformation) -> Step:
    tx, step = _step_function(config, regularizer)
    data = _data(config, dtype)
    params = _params(config, dtype)
    carry = params, tx.init(params)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    times = min(config.rounds, COMPILATIONS)
    run, seconds = compiled_anew(jitted, *carry, *data, times=times)
    again = compiled_again(jitted, *carry, *data, times=times)
    return Step(run, carry, data, seconds, again, _temporary(run))


def _data(config: PriceConfig, dtype: str) -> tuple[jax.Array, jax.Array]:
    inputs = jax.random.normal(jax.random.key(1), (config.batch, config.widths[0]), DTYPES[dtype])
    return inputs, jax.random.randint(jax.random.key(2), (config.batch,), 0, config.widths[-1])


def _step_function(
    config: PriceConfig, regularizer: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    tx = optax.chain(regularizer, optax.sgd(1e-3, momentum=0.9))
    model = MLP(config.widths[1:])

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, inputs, training=False)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels))

    def step(params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, inputs, labels), state, params)
        return optax.apply_updates(params, updates), state

    return tx, step


def _temporary(compiled: Any) -> int:
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def _interleaved_steps(
    config: PriceConfig, steps: dict[str, Step]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each round's first step, which refreshes, and of its others, after one round that does not count.

    Each round begins with another kind of step, so that none always follows the same one.
    """
    carries = {name: step.carry for name, step in steps.items()}
    refreshing: dict[str, list[float]] = {name: [] for name in steps}
    between: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for count in range(config.rounds + 1):
        for name in order:
            step, carry = steps[name], carries[name]
            start = time.perf_counter()
            carry = jax.block_until_ready(step.run(*carry, *step.data))
            middle = time.perf_counter()
            for _ in range(config.refresh_every - 1):
                carry = step.run(*carry, *step.data)
            carries[name] = jax.block_until_ready(carry)
            if count:
                refreshing[name].append(middle - start)
                between[name].append(time.perf_counter() - middle)
        order = order[1:] + order[:1]
    return refreshing, between


def _interleaved(config: PriceConfig, calls: dict[Any, Callable[[], Any]]) -> dict[Any, list[float]]:
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for count in range(config.rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if count:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _median_seconds(config: PriceConfig, call: Callable[[], Any]) -> float:
    return statistics.median(_interleaved(config, {"it": call})["it"])


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within a round, which had the machine in the same state."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
