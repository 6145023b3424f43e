from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from benchmarks._data import Dataset
from benchmarks._errors import ConfigError
from benchmarks._experiment import run_experiment, steps_per_epoch
from benchmarks._methods import parse_method
from benchmarks._model import MLP
from benchmarks._training import (
    batch_order,
    compile_trainer,
    dropout_key,
    initial_params,
    layer_sizes,
    near_zero_share,
    penalty_points,
    score,
    scoring_keys,
    timed_epoch,
)

pytestmark = pytest.mark.usefixtures("dense_solver")

# What make_config and small_data give.
SIZES = (9, 7, 5, 10)
ZERO = [f"--strength={name}=0" for name in ("l1", "l2", "dropout", "fiedler", "fiedler-combinatorial")]


def _numbers(run):
    """A run without its times."""
    return [point._replace(seconds=None) for point in run.points]


def _unpenalized(point):
    """A point without what only some methods measure."""
    return point._replace(penalties={}, active_dropout=None)


def _train(name, config, data, seed=0):
    trainer = compile_trainer(parse_method(name), config, data)
    state = trainer.init(initial_params(layer_sizes(config, data), seed))
    order = batch_order(seed, 1, len(data.train_labels), config.batch_size)
    state, _ = timed_epoch(trainer, state, *data[:2], order, dropout_key(seed, 1))
    return trainer, state


def test_initial_weights_are_uniform_within_fan_in():
    params = initial_params((64, 200, 50, 10), 0)
    for name, fan_in, width in (("Dense_0", 64, 200), ("Dense_1", 200, 50), ("Dense_2", 50, 10)):
        bound = fan_in**-0.5
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert kernel.shape == (fan_in, width)
        assert (1 - 20 / kernel.size) * bound < np.abs(kernel).max() <= bound
        assert 0.6 * bound < np.abs(bias).max() <= bound
        for array in (kernel, bias):
            assert stats.kstest(np.ravel(array), stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01


def test_batch_order_is_a_permutation_by_seed_and_epoch():
    order = batch_order(3, 2, 70, 16)
    assert order.shape == (4, 16)
    assert len(set(order.ravel().tolist())) == 64
    assert 0 <= order.min() <= order.max() < 70
    np.testing.assert_array_equal(order, batch_order(3, 2, 70, 16))
    assert (order != batch_order(3, 1, 70, 16)).any()
    assert (order != batch_order(4, 2, 70, 16)).any()


def test_methods_of_strength_zero_equal_none_bit_by_bit(make_config, small_data):
    # So initial weights and batch order cannot depend on the method.
    methods = ("none", "dropout", "fiedler+l1+l2")
    runs = run_experiment(make_config("--methods", ",".join(methods), *ZERO), small_data)
    assert tuple(run.method for run in runs) == methods
    baseline, *others = ([_unpenalized(point) for point in _numbers(run)] for run in runs)
    assert others == [baseline, baseline]


def test_methods_start_alike_and_then_part(make_config, small_data):
    config = make_config("--methods", "none,l1,dropout", "--strength", "l1=0.01")
    runs = run_experiment(config, small_data)
    starts, ends = ([_unpenalized(run.points[i])._replace(seconds=None) for run in runs] for i in (0, -1))
    assert starts[0] == starts[1] == starts[2]
    assert len({end.train_loss for end in ends}) == 3


REPEATED = ("--methods", "none,fiedler+dropout", "--seeds", "2")


@pytest.fixture(scope="module")
def repeated(make_config, small_data):
    return run_experiment(make_config(*REPEATED), small_data)


def test_same_seeds_give_same_numbers_and_the_second_compiles_nothing(make_config, small_data, repeated, caplog):
    compiled = []

    def count(method, seed, epoch):
        compiled.append(sum("Finished XLA compilation" in record.message for record in caplog.records))

    with jax.log_compiles(True):
        again = run_experiment(make_config(*REPEATED), small_data, on_epoch=count)
    assert [_numbers(run) for run in again] == [_numbers(run) for run in repeated]
    assert compiled[0] > 0
    assert compiled[len(compiled) // 2 - 1] == compiled[-1]


def test_runs_are_ordered_by_method_and_seeds_differ(repeated):
    names = [(run.method, run.seed) for run in repeated]
    assert names == [("none", 0), ("none", 1), ("fiedler+dropout", 0), ("fiedler+dropout", 1)]
    assert repeated[0].points[0].train_loss != repeated[1].points[0].train_loss


def test_a_seed_does_not_depend_on_the_other_methods_and_seeds(make_config, small_data, repeated):
    (alone,) = run_experiment(make_config("--methods", "none"), small_data)
    assert _numbers(alone) == _numbers(repeated[0])


def test_epoch_equals_a_plain_loop(make_config, small_data):
    config = make_config("--strength", "l2=0.01", "--learning-rate", "0.1")
    _, state = _train("l2", config, small_data)
    model = MLP((7, 5, 10))
    params = initial_params(SIZES, 0)
    optimizer = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    opt_state = optimizer.init(params)  # pyright: ignore[reportArgumentType]

    def loss(params, inputs, labels):
        logits: Any = model.apply({"params": params}, inputs, training=False)
        log_likelihood = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_likelihood, labels[:, None], axis=1).mean()

    for rows in batch_order(0, 1, 70, 16):
        gradient = jax.grad(loss)(params, small_data.train_inputs[rows], small_data.train_labels[rows])
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, params)


def test_donated_state_leaves_the_initial_parameters_alone(make_config, small_data):
    config = make_config()
    trainer = compile_trainer(parse_method("none"), config, small_data)
    params = initial_params(SIZES, 0)
    before = jax.tree.map(np.array, params)
    state = trainer.init(params)
    old = state.params["Dense_0"]["kernel"]
    timed_epoch(trainer, state, *small_data[:2], batch_order(0, 1, 70, 16), dropout_key(0, 1))
    jax.tree.map(np.testing.assert_array_equal, params, before)
    assert old.is_deleted()


def test_dropout_acts_in_training_only(make_config, small_data):
    config = make_config("--strength", "dropout=0.5")
    _, state = _train("dropout", config, small_data)
    _, plain = _train("none", config, small_data)
    assert np.abs(state.params["Dense_1"]["kernel"] - plain.params["Dense_1"]["kernel"]).max() > 1e-4

    activation = np.asarray(small_data.test_inputs, np.float64)
    for i in range(3):
        layer = state.params[f"Dense_{i}"]
        activation = activation @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        activation = np.maximum(activation, 0) if i < 2 else activation
    log_likelihood = activation - np.log(np.exp(activation).sum(axis=1, keepdims=True))
    scored = score(SIZES, state.params, small_data.test_inputs, small_data.test_labels)
    labels = np.asarray(small_data.test_labels)
    np.testing.assert_allclose(scored.loss, -log_likelihood[np.arange(40), labels].mean(), rtol=1e-5)
    np.testing.assert_allclose(scored.accuracy, (activation.argmax(axis=1) == labels).mean())


def test_scoring_with_dropout_active_draws_masks_from_the_key(small_data):
    params, test = initial_params(SIZES, 0), (small_data.test_inputs, small_data.test_labels)
    train_key, test_key = scoring_keys(0, 1)
    model = MLP((7, 5, 10), 0.5)
    for key in (train_key, test_key):
        logits: Any = model.apply({"params": params}, test[0], training=True, rngs={"dropout": key})
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(test[1])).mean()
        np.testing.assert_allclose(score(SIZES, params, *test, 0.5, key).loss, expected, rtol=1e-6)
    off = float(score(SIZES, params, *test).loss)
    assert float(score(SIZES, params, *test, 0.0, train_key).loss) == pytest.approx(off, rel=1e-6)
    losses = [float(score(SIZES, params, *test, 0.5, key).loss) for key in (train_key, test_key, scoring_keys(0, 2)[0])]
    assert len({off, *losses}) == 4


def test_dropout_masks_change_from_step_to_step_and_epoch_to_epoch():
    params = initial_params(SIZES, 0)
    keys = [*jax.random.split(dropout_key(0, 1), 2), *jax.random.split(dropout_key(0, 2), 2), dropout_key(1, 1)]

    @jax.jit
    def outputs(key) -> Any:
        return MLP((7, 5, 10), 0.5).apply({"params": params}, jnp.ones((20, 9)), training=True, rngs={"dropout": key})

    assert len({float(outputs(key).sum()) for key in keys}) == len(keys)


@pytest.fixture(scope="module")
def penalized(make_config, small_data):
    """Two runs of 24 steps: without penalty, and with both Fiedler penalties at great strength."""
    return run_experiment(
        make_config(
            *("--methods", "none,fiedler-combinatorial+fiedler", "--epochs", "6", "--learning-rate", "0.02"),
            *("--strength", "fiedler=0.1", "--strength", "fiedler-combinatorial=0.1", "--refresh-every", "100"),
        ),
        small_data,
    )


def test_penalties_report_what_they_found(penalized):
    # The only refresh was at the first step, so the penalties saw the initial network.
    initial, *_, final = penalized[1].points
    pairs = {"fiedler": initial.normalized, "fiedler-combinatorial": initial.combinatorial}
    assert list(final.penalties) == list(pairs)
    for name, penalty in final.penalties.items():
        np.testing.assert_allclose(penalty.value, pairs[name].value, rtol=1e-4)
        np.testing.assert_allclose(penalty.ipr, pairs[name].ipr, rtol=1e-2)
        assert penalty.status == "converged"
        assert penalty.l1_coefficient > 0


def test_strong_penalties_lower_the_fiedler_values(penalized):
    none, both = (run.points[-1] for run in penalized)
    assert both.normalized.value < 0.9 * none.normalized.value
    assert both.combinatorial.value < 0.8 * none.combinatorial.value


def test_no_penalty_no_report(make_config, small_data):
    trainer, state = _train("l1+dropout", make_config(), small_data)
    assert penalty_points(trainer, state) == {}


def test_near_zero_share_counts_kernels_only():
    params = {
        "Dense_0": {"kernel": np.array([[0.0, 1.0], [-9e-4, -2e-3]]), "bias": np.zeros(2)},
        "Dense_1": {"kernel": np.array([[1.0], [1e-3]]), "bias": np.zeros(1)},
    }
    assert near_zero_share(params) == pytest.approx(2 / 6)


def test_divergence_is_reported_not_hidden(make_config, small_data):
    (run,) = run_experiment(make_config("--methods", "none", "--learning-rate", "1e30"), small_data)
    assert run.points[0].normalized.converged
    final = run.points[-1]
    assert not np.isfinite(final.train_loss)
    assert not final.normalized.converged
    assert not final.combinatorial.converged


def test_batch_larger_than_the_data_is_refused(make_config, small_data):
    assert steps_per_epoch(make_config("--batch", "70"), small_data) == 1
    with pytest.raises(ConfigError, match="--batch 71 is more than the 70"):
        run_experiment(make_config("--batch", "71"), small_data)


def test_methods_take_turns_epoch_by_epoch(make_config, small_data):
    turns = []
    config = make_config("--methods", "none,l2", "--seeds", "2")
    run_experiment(config, small_data, on_epoch=lambda *turn: turns.append(turn))
    assert turns == [(m, s, e) for s in (0, 1) for e in (1, 2) for m in ("none", "l2")]


def test_data_is_an_argument_not_a_constant(make_config, small_data):
    config = make_config()
    trainer = compile_trainer(parse_method("none"), config, small_data)
    other = Dataset(*(np.zeros_like(array) for array in small_data[:-1]), classes=10)
    states = [
        timed_epoch(
            trainer,
            trainer.init(initial_params(SIZES, 0)),
            *(data[:2]),
            batch_order(0, 1, 70, 16),
            dropout_key(0, 1),
        )[0]
        for data in (small_data, other)
    ]
    first, second = (state.params["Dense_0"]["kernel"] for state in states)
    assert np.abs(first - second).max() > 1e-3
