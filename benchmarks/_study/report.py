"""The tables of the study."""

import math
from collections.abc import Mapping, Sequence

from benchmarks._report import TextTable, counted
from benchmarks._statistics import CONFIDENCE, MeanSd, mean_sd
from benchmarks._study.judgement import Comparison, Outcome, SparsityPoint
from benchmarks._study.plan import TuneConfig, at_edge
from benchmarks._study.task import Task
from benchmarks._study.trial import Strengths

_UNITS = "Accuracy in points (more is better); rmse in standard deviations of the target (less is better)."
_CORRECTION = (
    "Paired by seed: same examples, initial weights and batches. All seeds are tested on the same examples, and where "
    "a task trains on all others, they train on the same as well. Intervals are Student's at {confidence:.0f} %, each "
    "on its own; a verdict is that of a paired t test at 5 % after Holm's correction for all {count} of this table."
)


def study_tables(
    config: TuneConfig,
    tasks: Mapping[str, Task],
    outcomes: Sequence[Outcome],
    to_none: Sequence[Comparison],
    others: Mapping[str, Sequence[Comparison]],
) -> list[TextTable]:
    """All tables of the report.

    Args:
        config: the comparison.
        tasks: its tasks by name.
        outcomes: by task, then method.
        to_none: the methods' differences to none.
        others: further comparisons by title; each title is a family of its own.

    Returns:
        Differences first, then what was chosen and measured on each task, then shifted test images.
    """
    return [
        _overview(tasks, to_none),
        *(_difference_table(title, tasks, found) for title, found in others.items() if found),
        *(_task_table(config, task, [one for one in outcomes if one.task == name]) for name, task in tasks.items()),
        *(
            _shift_table(task, [one for one in outcomes if one.task == name])
            for name, task in tasks.items()
            if task.shifts
        ),
    ]


def sparsity_table(task: Task, points: Sequence[SparsityPoint], seeds: int) -> TextTable:
    """Accuracy against the share of zeros, a row a strength.

    Args:
        task: the task.
        points: by method, then strength.
        seeds: networks of each point.

    Returns:
        The table.
    """
    factor, digits = (100, 2) if task.classes else (1, 4)
    rows = tuple(
        (
            one.method,
            _strengths_text(one.strengths),
            _cell(one.zero_share, 100, 2),
            _cell(one.value, factor, digits),
            _cell(one.parts, 1, 1),
            _cell(one.lone_units, 1, 1),
        )
        for one in points
    )
    headers = ("method", "strength", "zero %", "accuracy %" if task.classes else "rmse", "parts", "lone units")
    note = (
        f"Mean ± sd over {counted(seeds, 'seed')}, on the test examples. Parts: connected components of more than one "
        "unit, of the graph whose edges are the weights that are not exactly zero. Pruning: gradual magnitude pruning, "
        "its strength the share of zeros."
    )
    return TextTable(f"Exact zeros, task {task.name}", headers, rows, (_recipe_note(task), note))


def _overview(tasks: Mapping[str, Task], to_none: Sequence[Comparison]) -> TextTable:
    methods = list(dict.fromkeys(one.method for one in to_none))
    found = {(one.task, one.method): one for one in to_none}
    rows = tuple((name, *(_gain_cell(task, found[name, method]) for method in methods)) for name, task in tasks.items())
    note = "Without a verdict: no difference."
    return TextTable("Against no regularization", ("task", *methods), rows, (_UNITS, _correction(to_none), note))


def _gain_cell(task: Task, one: Comparison) -> str:
    verdict = "" if one.verdict == "no difference" else f" {one.verdict}"
    return f"{_difference(task, one.difference.mean)} {_interval(task, one)}{verdict}"


def _difference_table(title: str, tasks: Mapping[str, Task], comparisons: Sequence[Comparison]) -> TextTable:
    rows = tuple(
        (
            one.task,
            one.method,
            one.other,
            _difference(tasks[one.task], one.difference.mean),
            _interval(tasks[one.task], one),
            f"{one.adjusted:.2g}",
            one.verdict,
        )
        for one in comparisons
    )
    headers = ("task", "method", "against", "difference", "interval", "p, corrected", "verdict")
    return TextTable(title, headers, rows, (_UNITS, _correction(comparisons)))


def _interval(task: Task, one: Comparison) -> str:
    return f"[{', '.join(_difference(task, end) for end in (one.difference.low, one.difference.high))}]"


def _correction(comparisons: Sequence[Comparison]) -> str:
    return _CORRECTION.format(count=len(comparisons), confidence=100 * CONFIDENCE)


def _task_table(config: TuneConfig, task: Task, outcomes: Sequence[Outcome]) -> TextTable:
    modular = task.modules is not None
    second = ("ece",) if task.classes else ()
    rows = tuple(
        (
            one.method,
            _strengths_text(one.choice.strengths),
            _value(task, one.choice.validation),
            _mean(one, task.measure, 100 if task.classes else 1, 2 if task.classes else 4),
            *(_mean(one, name, 1, 3) for name in ("loss", *second, "train_loss")),
            _mean_of([found["fiedler"]["value"] for found in one.measured], 1, 3),
            _mean(one, "near_zero_share", 100, 1),
            _mean(one, "zero_share", 100, 1),
            *([_mean_of([found["module_agreement"] for found in one.measured], 1, 2)] if modular else []),
        )
        for one in outcomes
    )
    measure = "accuracy %" if task.classes else "rmse"
    headers = (
        "method", "strength", f"validation {measure}", f"test {measure}", "test loss", *second, "train loss",
        "λ2 normalized", "near zero %", "zero %", *(["module agreement"] if modular else []),
    )  # fmt: skip
    return TextTable(f"Task {task.name}", headers, rows, (_task_note(config, task), *_warnings(config, outcomes)))


def _task_note(config: TuneConfig, task: Task) -> str:
    return (
        f"{_recipe_note(task)} Each method had {counted(config.budget, 'strength')}, chosen by {config.folds}-fold "
        f"cross-validation on {counted(config.draws, 'draw')}; then mean ± sd over {config.seeds} other seeds "
        f"({config.first_seed} to {config.first_seed + config.seeds - 1})."
    )


def _recipe_note(task: Task) -> str:
    recipe = task.recipe
    noise = f", {100 * task.label_noise:.0f} % of their labels replaced by another class" if task.label_noise else ""
    network = "-".join(str(width) for width in task.sizes)
    return (
        f"{task.size} training examples{noise}, {len(task.test)} to test; network {network}, {recipe.steps} steps of "
        f"{recipe.batch_size} examples, SGD with learning rate {recipe.learning_rate:g} and momentum "
        f"{recipe.momentum:g}."
    )


def _warnings(config: TuneConfig, outcomes: Sequence[Outcome]) -> list[str]:
    edges = [
        f"{one.method} ({', '.join(ends)})"
        for one in outcomes
        if (ends := at_edge(one.choice.strengths, config.budget))
    ]
    skipped = [
        f"{one.method} {count}"
        for one in outcomes
        if (count := sum(penalty["skipped"] for found in one.measured for penalty in found["penalties"]))
    ]
    found = []
    if edges:
        found.append(f"Chosen at an end of the grid: {'; '.join(edges)}.")
    if skipped:
        found.append(f"Steps without the Fiedler penalty, for want of a usable vector: {', '.join(skipped)}.")
    return found


def _shift_table(task: Task, outcomes: Sequence[Outcome]) -> TextTable:
    rows = tuple(
        (
            one.method,
            *(
                _mean_of([found["shifts"][name][key] for found in one.measured], factor, digits)
                for name in task.shifts
                for key, factor, digits in (("accuracy", 100, 2), ("ece", 1, 3))
            ),
        )
        for one in outcomes
    )
    headers = ("method", *(f"{name} {key}" for name in task.shifts for key in ("accuracy %", "ece")))
    note = "Strengths were chosen on images that are not shifted. ece: expected calibration error, 15 bins."
    return TextTable(f"Task {task.name}, shifted test images", headers, rows, (note,))


def _strengths_text(strengths: Strengths) -> str:
    if len(strengths) == 1:
        return f"{strengths[0][1]:g}"
    return ", ".join(f"{name} {value:g}" for name, value in strengths)


def _mean(one: Outcome, name: str, factor: float, digits: int) -> str:
    return _mean_of([found[name] for found in one.measured], factor, digits)


def _mean_of(values: Sequence[float | None], factor: float, digits: int) -> str:
    return _cell(mean_sd([math.nan if value is None else value for value in values]), factor, digits)


def _cell(value: MeanSd, factor: float, digits: int) -> str:
    if not math.isfinite(value.mean):
        return "not finite"
    return f"{factor * value.mean:.{digits}f} ± {factor * value.sd:.{digits}f}"


def _value(task: Task, value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.2f}" if task.classes else f"{value:.4f}"


def _difference(task: Task, value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:+z.2f}" if task.classes else f"{value:+z.4f}"
