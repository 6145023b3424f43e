"""The benchmark of traced models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fiedler_jax as fj
from benchmarks import models

pytestmark = pytest.mark.usefixtures("dense_solver")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)])
    monkeypatch.setitem(models.ARCHITECTURES, "small", lambda: (model, jax.ShapeDtypeStruct((5, 6), jnp.float32)))
    return model


@pytest.mark.parametrize("normalized", [True, False])
def test_a_model_is_measured(small: nn.Module, normalized: bool) -> None:
    cost = models.measure("small", True, normalized)
    assert (cost.parameters, cost.vertices, cost.edges, cost.blocks, cost.unknown) == (43, 13, 36, 2, 0)
    assert min(cost.trace_seconds, cost.graph_seconds, cost.graph_bytes) > 0
    params = small.init(jax.random.key(0), jnp.zeros((1, 6)))["params"]
    lap = fj.laplacian(fj.graph_from_params(params), params, normalized=normalized)
    assert cost.pair is not None
    np.testing.assert_allclose(cost.pair.value, np.linalg.eigvalsh(lap.to_dense())[1], rtol=1e-5)


def test_the_table_is_printed(small: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--models", "small", "--no-solve", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("| small")]
    (header,) = [line for line in lines if line.startswith("| model")]
    cells = dict(zip(header.split("|")[1:-1], row.split("|")[1:-1], strict=True))
    assert cells[" vertices "].strip() == "13"
    assert cells[" λ2 "].strip() == "-"


def test_an_unknown_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--models", "alexnet"]) == 2
    assert "no model 'alexnet'; there are resnet50" in capsys.readouterr().err


def test_no_number_is_cut_in_a_pipe(small: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--models", "small"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "(converged)" in shown
