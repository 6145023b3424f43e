"""The comparison of eigensolvers from its command line, its contenders, references and graphs."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.image
import numpy as np
import pytest
import reference as oracle
from matplotlib.figure import Figure

import fiedler_jax as fj
from benchmarks import _hard_graphs, eigensolvers
from benchmarks._cases import Case, CaseResult, needed_settings
from benchmarks._contenders import Answer, Knob
from benchmarks._errors import DataError
from benchmarks._hard_graphs import GRAPHS, hard_problem
from benchmarks._judging import Result, Rules
from benchmarks._peers import CONTENDERS
from benchmarks._problems import BlockLaplacian, Problem, edge_form
from benchmarks._reference import Reference, UnprovedError, count_below
from benchmarks._reference import reference as right_value
from benchmarks._solver_plots import plot_times
from benchmarks._spectra import NETS, QUICK_NETS, Net, snapshots

SIZES = (14, 9, 6, 3)
SOLVERS = ("ours", "lobpcg", "dense")
GRAPH = "bridge-1e-8"


class Results(NamedTuple):
    folder: Path
    record: dict[str, Any]
    shown: str


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """What one quick run from the command line wrote and showed."""
    folder = tmp_path_factory.mktemp("eigensolvers") / "results"
    options = ("--quick", "--states", "trained", "--kinds", "normalized", "--dtypes", "float64")
    few = ("--solvers", ",".join(SOLVERS), "--graphs", GRAPH, "--repeats", "3", "--cap", "1", "--budget", "0.1")
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = eigensolvers.main([*options, *few, "--out", str(folder)])
    assert status == 0
    record = json.loads((folder / "eigensolvers.json").read_text(encoding="utf-8"))
    return Results(folder, record, shown.getvalue())


def tiny_problem(normalized: bool, dtype: str, symmetric: bool = False) -> tuple[Problem, float]:
    """A small chain, or its adjacency, and its Fiedler value from the oracle."""
    kernels = [kernel.astype(dtype) for kernel in oracle.random_kernels(SIZES, seed=3)]
    adjacency = oracle.chain_adjacency(kernels)
    weights = (adjacency.astype(dtype),) if symmetric else tuple(kernels)
    return Problem(weights, normalized, symmetric=symmetric), float(oracle.spectrum(adjacency, normalized)[1])


def test_json_has_every_case_and_solver(results):
    record = results.record
    found = [(c["net"], c["state"], c["kind"], c["dtype"], c["start"]) for c in record["cases"]]
    assert found == [("30", "trained", "normalized", "float64", start) for start in ("cold", "warm")]
    for case in record["cases"]:
        assert case["reference"]["method"] == "dense float64"
        assert (case["vertices"], case["edges"]) == (62, 30 * 16 + 16 * 12 + 12 * 4)
        assert case["compile_seconds"] > 0
        entries = {entry["solver"]: entry for entry in case["results"]}
        assert tuple(entries) == SOLVERS
        for name in ("ours", "lobpcg"):
            entry = entries[name]
            assert entry["outcome"] == "ok"
            assert entry["error"] <= 1e-8
            assert entry["quartiles"][0] <= entry["median"] <= entry["quartiles"][1]
            assert entry["attempts"][-1]["setting"]
        assert entries["ours"]["ratio_to_ours"] == 1
        assert len(entries["ours"]["seconds"]) == 3
    outcomes = {entry["solver"]: entry["outcome"] for entry in record["cases"][1]["results"]}
    assert outcomes == {"ours": "ok", "lobpcg": "ok", "dense": "skipped"}
    assert record["accuracy"] == {"float32": 1e-5, "float64": 1e-8}
    assert {"jax", "scipy", "matfree", "networkx", "numpy"} <= set(record["versions"])
    assert record["command"].startswith("python -m benchmarks.eigensolvers --quick")


def test_only_ours_resolves_the_weak_bridge(results):
    (bridge,) = results.record["hard_graphs"]
    outcomes = {entry["solver"]: entry["outcome"] for entry in bridge["results"]}
    assert outcomes["ours"] == "ok"
    assert outcomes["dense"] == "wrong"
    assert bridge["reference"]["value"] == pytest.approx(4e-10)


def test_markdown_has_the_tables_versions_and_command(results):
    text = (results.folder / "eigensolvers.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "| case | ours | compile s | lobpcg | dense |" in lines
    assert "| graph | λ2 | ours | lobpcg | dense |" in lines
    assert sum(line.startswith("| 30 ") for line in lines) == 2
    assert "**Silent wrong answers**" in lines
    assert f"numpy {np.__version__}" in text
    assert "CPU cores" in text
    assert "--solvers ours,lobpcg,dense" in text


def test_plot_is_an_image_with_content(results):
    image = matplotlib.image.imread(results.folder / "eigensolvers.png")
    assert min(image.shape[:2]) > 300
    assert len(np.unique(image[::3, ::3, :3].reshape(-1, 3), axis=0)) > 20


def test_legend_of_the_plot_leaves_out_who_was_not_timed(tmp_path, monkeypatch):
    timed = Result("lobpcg", "ok", seconds=(0.2, 0.1, 0.3))
    case = Case("30", "trained", "normalized", "float64", "cold")
    found = CaseResult(
        case, SIZES, 234, Reference(1.0, np.ones(32), 2.0, "dense"), None, (timed, Result("dense", "slow"))
    )
    named = []
    monkeypatch.setattr(Figure, "legend", lambda figure, handles, **_: named.extend(h.get_label() for h in handles))
    plot_times([found], ["ours", "lobpcg", "dense"], tmp_path / "times.png")
    assert named == ["lobpcg", "hollow, crossed: wrong or too slow"]


def test_terminal_shows_tables(results):
    for text in ("milliseconds a solve", "Hard graphs", "takes no start", str(results.folder)):
        assert text in results.shown


# NetworkX's TraceMIN does not converge on normalized Laplacians.
@pytest.mark.parametrize(
    ("contender", "normalized", "dtype"),
    [
        pytest.param(contender, normalized, dtype, id=f"{contender.name}-{dtype}")
        for contender in CONTENDERS
        for normalized, dtype in ((False, "float64"), (True, "float32"))
        if not (contender.name == "networkx" and normalized)
    ],
)
def test_every_contender_finds_the_dense_value(contender, normalized, dtype):
    problem, expected = tiny_problem(normalized, dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-8
    knob = {"networkx": Knob(1e-9)}.get(contender.name, contender.ladders(problem, tolerance)[0][-1])
    if contender.name == "matfree" and normalized:
        # More steps than the Krylov space has dimensions give its Lanczos nonsense.
        knob = Knob(14)
    with jax.enable_x64(dtype == "float64"):
        answer = jax.block_until_ready(contender.prepare(problem)(knob))
    assert float(answer.value) == pytest.approx(expected, rel=tolerance)
    if answer.vector is not None:
        assert answer.vector.dtype == dtype
        vector = np.asarray(answer.vector, np.float64)
        dense = oracle.dense_laplacian(oracle.chain_adjacency(list(problem.weights)), normalized)
        assert np.linalg.norm(dense @ vector - expected * vector) < 0.02 * expected * np.linalg.norm(vector)
    assert answer.claim is None or bool(answer.claim)


@pytest.mark.parametrize("contender", [c for c in CONTENDERS if not c.compiled], ids=lambda c: c.name)
def test_every_contender_takes_an_adjacency(contender):
    problem, expected = tiny_problem(False, "float64", symmetric=True)
    knob = Knob(1e-9) if contender.name == "networkx" else contender.ladders(problem, 1e-5)[0][-1]
    assert float(contender.prepare(problem)(knob).value) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("contender", [c for c in CONTENDERS if c.accepts_start], ids=lambda c: c.name)
def test_a_start_at_the_answer_is_used(contender, x64):
    problem, expected = tiny_problem(True, "float64")
    warm = Problem(problem.weights, True, right_value(problem).vector)
    loosest = contender.ladders(problem, 1e-5)[0][0]
    assert float(contender.prepare(warm)(loosest).value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_numpy_operator_is_the_dense_laplacian(normalized, symmetric):
    problem, _ = tiny_problem(normalized, "float64", symmetric)
    chain, _ = tiny_problem(normalized, "float64")
    dense = oracle.dense_laplacian(oracle.chain_adjacency(list(chain.weights)), normalized)
    lap, columns = BlockLaplacian(problem), np.random.default_rng(0).normal(size=(sum(SIZES), 3))
    np.testing.assert_allclose(lap.matmat(columns), dense @ columns, atol=1e-13)
    np.testing.assert_allclose(lap.matvec(columns[:, 0]), dense @ columns[:, 0], atol=1e-13)
    np.testing.assert_allclose(lap.to_dense(), dense, atol=1e-13)
    np.testing.assert_allclose(lap.to_sparse(problem.pattern).toarray(), dense, atol=1e-13)
    np.testing.assert_allclose(dense @ lap.null_vector, 0, atol=1e-13)
    assert edge_form(problem, columns[:, 0]) == pytest.approx(
        columns[:, 0] @ dense @ columns[:, 0] / (columns[:, 0] @ columns[:, 0])
    )


def test_references_agree_and_are_proved(monkeypatch):
    problem, expected = tiny_problem(False, "float64")
    assert right_value(problem).value == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("benchmarks._reference.DENSE_LIMIT", 0)
    proved = right_value(problem)
    assert proved.value == pytest.approx(expected, rel=1e-12)
    assert "certified" in proved.method


@pytest.mark.parametrize("normalized", [False, True])
def test_eigenvalues_are_counted_layer_by_layer(normalized):
    problem, _ = tiny_problem(normalized, "float64")
    values = oracle.spectrum(oracle.chain_adjacency(list(problem.weights)), normalized)
    for below in (1, 2, 5, 20):
        assert count_below(problem, (values[below - 1] + values[below]) / 2) == below


def test_a_reference_that_is_not_the_second_eigenvalue_is_refused(monkeypatch):
    problem, _ = tiny_problem(False, "float64")
    third = float(oracle.spectrum(oracle.chain_adjacency(list(problem.weights)), False)[2])
    monkeypatch.setattr("benchmarks._reference.DENSE_LIMIT", 0)
    monkeypatch.setattr("benchmarks._reference._TIGHT", 0.5)
    monkeypatch.setattr(
        "fiedler_jax.fiedler_pair",
        lambda *_, **__: Answer(third, np.ones(sum(SIZES))),
    )
    with pytest.raises(UnprovedError, match="not λ2"):
        right_value(problem)


def test_an_earlier_report_is_not_written_over(tmp_path, capsys):
    (tmp_path / "eigensolvers.json").write_text("{}")
    options = ("--quick", "--settings-of", str(tmp_path / "eigensolvers.json"), "--out", str(tmp_path))
    assert eigensolvers.main(list(options)) == 2
    assert "would be written over; name another folder with --out" in capsys.readouterr().err
    assert (tmp_path / "eigensolvers.json").read_text() == "{}"


def test_an_earlier_run_settles_the_settings(results, tmp_path):
    needed = needed_settings(results.folder / "eigensolvers.json")["float64"]
    assert set(needed) == set(SOLVERS)
    assert sum(needed["lobpcg"].values()) == 2
    report = str(results.folder / "eigensolvers.json")
    few = ("--quick", "--states", "trained", "--kinds", "normalized", "--dtypes", "float64", "--starts", "cold")
    options = ("--solvers", "ours,lobpcg", "--graphs", "none", "--cap", "1", "--budget", "0.1", "--settings-of", report)
    with contextlib.redirect_stdout(io.StringIO()):
        assert eigensolvers.main([*few, *options, "--out", str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / "eigensolvers.json").read_text(encoding="utf-8"))["cases"]
    assert [len(result["attempts"]) for result in case["results"]] == [1, 1]
    assert "one setting for all cases" in (tmp_path / "eigensolvers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["[]", "{}", '{"cases": 3}', '{"cases": [{"dtype": "float32"}]}'])
def test_settings_of_another_file_are_refused(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match=r"other\.json.*; name the eigensolvers\.json of an earlier run"):
        needed_settings(tmp_path / "other.json")


def test_training_moves_the_weights_and_is_repeatable():
    net = QUICK_NETS["30"]
    first, second = snapshots(net, None), snapshots(net, None)
    for shot in ("initial", "earlier", "trained"):
        for a, b in zip(getattr(first, shot), getattr(second, shot), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.allclose(first.earlier[0], first.trained[0])
    assert np.abs(first.initial[0]).max() <= 30**-0.5
    untrained = snapshots(net, None, train=False)
    np.testing.assert_array_equal(untrained.trained[0], first.initial[0])


def test_training_on_mnist_files(tmp_path, idx_bytes):
    net = Net((784, 4, 10), steps=6, lag=3)
    with pytest.raises(DataError, match="does not exist"):
        snapshots(net, tmp_path / "nowhere")
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(20) % 10))
    on_files, on_teacher = snapshots(net, tmp_path), snapshots(net, None)
    np.testing.assert_array_equal(on_files.initial[0], on_teacher.initial[0])
    assert not np.allclose(on_files.trained[0], on_teacher.trained[0])


def test_hard_graphs_are_what_they_say():
    sizes = {name: hard_problem(name).vertices for name in GRAPHS}
    assert sizes["tree-2381"] == 6
    assert (sizes["cycle-200"], sizes["barbell"], sizes["regular-3418-0"]) == (200, 50, 100)
    for name in GRAPHS:
        adjacency = hard_problem(name).weights[0]
        np.testing.assert_array_equal(adjacency, adjacency.T)
    assert np.all(hard_problem("regular-3418-1").weights[0].sum(axis=0) == 5)
    assert right_value(hard_problem("cycle-200")).value == pytest.approx(2 - 2 * np.cos(2 * np.pi / 200), rel=1e-12)
    assert right_value(hard_problem("two-components")).value < 1e-12


def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(_hard_graphs, "_GRACE", 0.0)
    monkeypatch.setattr(_hard_graphs, "_PATIENCE", 0.01)
    rules = Rules(accuracy=1e-8, repeats=3, cap=5.0, budget=0.2)
    (result,) = _hard_graphs.run_hard(["tree-2381"], ["dense"], rules, lambda _: None, lambda: None)
    assert result.results[0].outcome == "ended"
    assert "no answer in" in (result.results[0].reason or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nets", "785"), "unknown net '785'; known: 64, 784, 3072, 20531, 4096x4"),
        (("--quick", "--nets", "784"), "unknown net '784'; known: 30"),
        (("--solvers", "ours,arpack"), "unknown solver 'arpack'; known: ours, lobpcg"),
        (("--kinds", ""), "--kinds needs names"),
        (("--dtypes", "float32,float32"), "each once"),
        (("--states", "init", "--starts", "warm"), "no case is left"),
        (("--graphs", "petersen"), "unknown graph 'petersen'"),
        (("--accuracy", "0"), "--accuracy must lie between 0 and 1"),
        (("--repeats", "0"), "--repeats must be at least 1"),
        (("--cap", "nan"), "--cap must be positive"),
        (("--quick", "--data-dir", "."), "--data-dir is for the net 784"),
        (("--quick", "--settings-of", "nowhere.json"), "name the eigensolvers.json of an earlier run"),
    ],
)
def test_bad_options_end_with_a_message(tmp_path, capsys, options, message):
    assert eigensolvers.main([*options, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err


def test_output_is_checked_before_solving(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(eigensolvers, "run_cases", lambda *_: pytest.fail("solving started"))
    (tmp_path / "file").write_text("")
    assert eigensolvers.main(["--out", str(tmp_path / "file")]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_help_names_everything(capsys):
    with pytest.raises(SystemExit) as stop:
        eigensolvers.main(["--help"])
    assert stop.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    for name in (*NETS, *GRAPHS, *(contender.name for contender in CONTENDERS)):
        assert name in shown


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ["784", "3072", "20531"])
def test_a_solve_takes_few_block_products_before_and_in_training(name, normalized, dtype):
    kernels = snapshots(NETS[name], None)
    solver = fj.Davidson(tol=1e-6)
    solve = jax.jit(lambda lap, start: fj.fiedler_pair(lap, start, solver=solver))
    start = None
    for state in (kernels.initial, kernels.earlier, kernels.trained):
        params = oracle.chain_params([np.asarray(kernel) for kernel in state], dtype)
        lap = fj.laplacian(fj.graph_from_params(params), params, normalized=normalized)
        for init in (None, start):
            pair = solve(lap, init)
            assert pair.usable
            assert int(pair.iterations) <= 6
        start = pair.vector


def test_threads_of_blas_are_kept_from_waiting_busily_before_numpy_reads_how_long() -> None:
    code = "import os, sys, benchmarks; print('numpy' in sys.modules, os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.split() == ["False", "4"]
