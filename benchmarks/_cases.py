"""The cases of the eigensolver benchmark: which graphs, how precisely, from which start."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks._compiling import COMPILATIONS
from benchmarks._contenders import Contender
from benchmarks._errors import ConfigError, DataError
from benchmarks._hard_graphs import GRAPHS
from benchmarks._jax_peers import compile_seconds
from benchmarks._judging import Needed, Result, Rules, judge
from benchmarks._peers import CONTENDERS
from benchmarks._problems import Problem
from benchmarks._reference import Reference, reference
from benchmarks._report import read_earlier
from benchmarks._spectra import NETS, QUICK_NETS, Kernels, Net, Snapshots, snapshots

STATES = ("init", "trained")
KINDS = ("combinatorial", "normalized")
DTYPES = ("float32", "float64")
STARTS = ("cold", "warm")
SOLVERS = tuple(contender.name for contender in CONTENDERS)
ACCURACY: Mapping[str, float] = {"float32": 1e-5, "float64": 1e-8}


@dataclass(frozen=True)
class SolverConfig:
    """One run of the benchmark, fully spelled out.

    Attributes:
        nets: names of networks.
        states: of ``STATES``.
        kinds: of ``KINDS``.
        dtypes: of ``DTYPES``.
        starts: of ``STARTS``.
        solvers: names of contenders.
        accuracy: relative error demanded, in every dtype; None for ``ACCURACY``.
        repeats: most timed runs of a contender on a case.
        cap: seconds for a contender on a case to find its tolerance.
        budget: seconds of timed runs of a contender on a case.
        graphs: names of hard graphs, perhaps none.
        quick: tiny networks instead of the real ones.
        data_dir: folder of MNIST files, or None.
        out: folder the results go to.
        settings_of: report of an earlier run; each contender then has one setting a precision, the tightest it needed
            there.
    """

    nets: tuple[str, ...]
    states: tuple[str, ...]
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    starts: tuple[str, ...]
    solvers: tuple[str, ...]
    accuracy: float | None
    repeats: int
    cap: float
    budget: float
    graphs: tuple[str, ...]
    quick: bool
    data_dir: Path | None
    out: Path
    settings_of: Path | None = None

    def __post_init__(self) -> None:
        known = {
            "nets": tuple(self.known_nets),
            "states": STATES,
            "kinds": KINDS,
            "dtypes": DTYPES,
            "starts": STARTS,
            "solvers": SOLVERS,
            "graphs": tuple(GRAPHS),
        }
        for option, names in known.items():
            _check_names(option, getattr(self, option), names, may_be_empty=option == "graphs")
        if self.data_dir is not None and "784" not in self.nets:
            raise ConfigError("--data-dir is for the net 784, which --nets leaves out")
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise ConfigError(f"--accuracy must lie between 0 and 1, got {self.accuracy}")
        if self.repeats < 1:
            raise ConfigError(f"--repeats must be at least 1, got {self.repeats}")
        for option in ("cap", "budget"):
            if not (math.isfinite(getattr(self, option)) and getattr(self, option) > 0):
                raise ConfigError(f"--{option} must be positive and finite, got {getattr(self, option)}")
        if not list(cases(self)):
            raise ConfigError("no case is left: a warm start needs the trained state")

    @property
    def known_nets(self) -> Mapping[str, Net]:
        """The networks to choose from."""
        return QUICK_NETS if self.quick else NETS

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The chosen contenders, in the order of tables."""
        return tuple(contender for contender in CONTENDERS if contender.name in self.solvers)

    def rules(self, dtype: str) -> Rules:
        """What is demanded in a precision."""
        return Rules(self.accuracy or ACCURACY[dtype], self.repeats, self.cap, self.budget)


class Case(NamedTuple):
    """One row of the table."""

    net: str
    state: str
    kind: str
    dtype: str
    start: str

    def __str__(self) -> str:
        return f"{self.net} {self.state} {self.kind} {self.dtype} {self.start}"


class CaseResult(NamedTuple):
    """All contenders on a case.

    ``compile_seconds`` is our solve's, None if we do not take part; it is measured once for all states of a network.
    """

    case: Case
    sizes: tuple[int, ...]
    edges: int
    reference: Reference
    compile_seconds: float | None
    results: tuple[Result, ...]


def cases(config: SolverConfig) -> Iterator[Case]:
    """All cases of a run; a network that was just initialized has no earlier vector to start from."""
    for net in config.nets:
        for state in config.states:
            for kind in config.kinds:
                for dtype in config.dtypes:
                    for start in config.starts:
                        if (state, start) != ("init", "warm"):
                            yield Case(net, state, kind, dtype, start)


def run_cases(config: SolverConfig, report: Callable[[str], None]) -> Iterator[CaseResult]:
    """Runs all cases, the references of a graph shared by its precisions and starts.

    Args:
        config: the run.
        report: told what is going on.

    Yields:
        Each case as it is done.
    """
    prepared = _Prepared(config, report)
    needed = None if config.settings_of is None else needed_settings(config.settings_of)
    compiling: dict[tuple[str, ...], float] = {}
    for case in cases(config):
        problem, right = prepared.problem(case), prepared.reference(case)
        signature = (case.net, case.kind, case.dtype, case.start)

        def tell(what: str, case: Case = case) -> None:
            report(f"{case}: {what}")

        with jax.enable_x64(case.dtype == "float64"):
            if "ours" in config.solvers and signature not in compiling:
                tell("compiling")
                compiling[signature] = compile_seconds(problem, min(config.repeats, COMPILATIONS))
            known = None if needed is None else needed.get(case.dtype, {})
            found = judge(config.contenders, problem, right, config.rules(case.dtype), tell, known)
        yield CaseResult(case, problem.sizes, problem.edges, right, compiling.get(signature), tuple(found))


def needed_settings(report: Path) -> dict[str, Needed]:
    """For each precision, which settings the solvers of an earlier run needed, and on how many cases.

    Raises:
        DataError: the file is no report of this benchmark.
    """
    record = read_earlier(report, "eigensolvers.json", ("cases",))
    try:
        found = [(case["dtype"], result) for case in record["cases"] for result in case["results"]]
        accurate = [(dtype, r["solver"], r["setting"]) for dtype, r in found if r["outcome"] == "ok"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{report} has cases of another form ({error!r}); name the eigensolvers.json of an earlier run"
        ) from error
    needed: dict[str, dict[str, Counter[str]]] = {}
    for dtype, solver, setting in accurate:
        needed.setdefault(dtype, {}).setdefault(solver, Counter())[setting] += 1
    return dict(needed)


class _Prepared:
    """Networks and references, kept as long as their network is worked on: they are large, and slow to make."""

    def __init__(self, config: SolverConfig, report: Callable[[str], None]) -> None:
        self._config, self._report = config, report
        self._net, self._snapshots = "", Snapshots((), (), ())
        self._references: dict[tuple[str, str], Reference] = {}

    def problem(self, case: Case) -> Problem:
        shots = self._of(case.net)
        kernels = shots.initial if case.state == "init" else shots.trained
        start = self._known("earlier", case.kind, shots.earlier).vector if case.start == "warm" else None
        return _problem(kernels, case.kind, case.dtype, start)

    def reference(self, case: Case) -> Reference:
        shots = self._of(case.net)
        return self._known(case.state, case.kind, shots.initial if case.state == "init" else shots.trained)

    def _of(self, net: str) -> Snapshots:
        if net != self._net:
            self._report(f"{net}: training")
            train = "trained" in self._config.states
            self._net, self._references = net, {}
            self._snapshots = snapshots(self._config.known_nets[net], self._config.data_dir, train)
        return self._snapshots

    def _known(self, state: str, kind: str, kernels: Kernels) -> Reference:
        if (state, kind) not in self._references:
            self._report(f"{self._net} {state} {kind}: reference")
            self._references[state, kind] = reference(_problem(kernels, kind, "float32", None))
        return self._references[state, kind]


def _problem(kernels: Kernels, kind: str, dtype: str, start: np.ndarray | None) -> Problem:
    return Problem(tuple(kernel.astype(dtype) for kernel in kernels), kind == "normalized", start)


def _check_names(option: str, names: Sequence[str], known: Sequence[str], may_be_empty: bool) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"--{option} names an unknown {option[:-1]} {name!r}; known: {', '.join(known)}")
    if not (names or may_be_empty) or len(set(names)) != len(names):
        raise ConfigError(f"--{option} needs names, each once, got {', '.join(names) or 'none'}")
