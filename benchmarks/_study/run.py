"""The study from its first trial to the last, picking up what an interrupted run left."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks._study.judgement import Measured, Outcome, choose, outcome
from benchmarks._study.plan import TuneConfig, judging_trials, tuning_trials
from benchmarks._study.store import TrialStore
from benchmarks._study.task import Task
from benchmarks._study.trial import Trial, run_trials

Progress = Callable[[str, int], None]


def run_study(
    config: TuneConfig,
    tasks: Mapping[str, Task],
    store: TrialStore,
    progress: Progress = lambda label, finished: None,
) -> list[Outcome]:
    """Chooses every method's strengths on every task, then judges it by fresh seeds.

    Args:
        config: the comparison.
        tasks: its tasks by name.
        store: where finished trials are kept.
        progress: told what is at work and how many trials have been finished since it was told last.

    Returns:
        The outcomes, by task, then method.
    """
    return [_judged(config, task, method, store, progress) for task in tasks.values() for method in config.methods]


def total_trials(config: TuneConfig) -> int:
    """How many trials there are in all."""
    tuning = sum(len(tuning_trials("", method, config)) for method in config.methods)
    return len(config.tasks) * (tuning + len(config.methods) * config.seeds)


def finished_trials(
    task: Task, trials: Sequence[Trial], store: TrialStore, progress: Callable[[int], None] = lambda finished: None
) -> Measured:
    """Runs those trials that the store does not have.

    Returns:
        All trials and what was measured of them, in their order.
    """
    missing = [trial for trial in trials if store.get(task, trial) is None]
    progress(len(trials) - len(missing))
    for finished in run_trials(task, missing):
        store.add(task, finished)
        progress(len(finished))
    return [(trial, _stored(task, trial, store)) for trial in trials]


def _judged(config: TuneConfig, task: Task, method: str, store: TrialStore, progress: Progress) -> Outcome:
    tuning = finished_trials(
        task, tuning_trials(task.name, method, config), store, lambda n: progress(f"{task.name}: tuning {method}", n)
    )
    choice = choose(task, tuning)
    judging = finished_trials(
        task,
        judging_trials(task.name, method, choice.strengths, config),
        store,
        lambda n: progress(f"{task.name}: judging {method}", n),
    )
    return outcome(task, method, choice, judging)


def _stored(task: Task, trial: Trial, store: TrialStore) -> dict[str, Any]:
    measured = store.get(task, trial)
    assert measured is not None
    return measured
