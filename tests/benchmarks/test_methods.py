import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fiedler_jax as fj
from benchmarks._errors import ConfigError, MethodError
from benchmarks._methods import FIEDLER_FORMS, REGULARIZERS, parse_method
from benchmarks._optimizers import build_optimizer
from benchmarks._training import initial_params

pytestmark = pytest.mark.usefixtures("dense_solver")


@pytest.mark.parametrize(
    ("name", "regularizers"),
    [
        ("none", ()),
        ("l1", ("l1",)),
        ("fiedler+dropout", ("fiedler", "dropout")),
        ("dropout+l2+fiedler-combinatorial", ("fiedler-combinatorial", "l2", "dropout")),
        ("fiedler-combinatorial+fiedler", ("fiedler", "fiedler-combinatorial")),
    ],
)
def test_method_names(name, regularizers):
    method = parse_method(name)
    assert (method.name, method.regularizers) == (name, regularizers)


@pytest.mark.parametrize("name", ["ridge", "", "fiedler+ridge", "Fiedler", "l1+"])
def test_unknown_method_names_the_known_ones(name):
    with pytest.raises(MethodError, match="unknown method") as error:
        parse_method(name)
    assert f"known: none, {', '.join(REGULARIZERS)}, and" in str(error.value)


@pytest.mark.parametrize(
    ("name", "regularizers", "refresh_every"),
    [
        ("fiedler@auto", ("fiedler",), "auto"),
        ("dropout+fiedler@7", ("fiedler", "dropout"), 7),
        ("fiedler", ("fiedler",), None),
    ],
)
def test_a_method_may_have_its_own_refresh(name, regularizers, refresh_every):
    method = parse_method(name)
    assert (method.name, method.regularizers, method.refresh_every) == (name, regularizers, refresh_every)


@pytest.mark.parametrize("name", ["fiedler@", "fiedler@0", "fiedler@often", "fiedler@-1", "l1@3", "fiedler@3@4"])
def test_a_refresh_that_means_nothing(name):
    with pytest.raises(MethodError, match="positive number or auto"):
        parse_method(name)


def test_the_refresh_of_a_method_goes_before_that_of_the_comparison(make_config):
    config = make_config("--refresh-every", "auto", "--methods", "none,fiedler,fiedler@3")
    assert config.refresh_every == "auto"
    params = initial_params((6, *config.hidden, 10), 0)
    counts = {}
    for name in ("fiedler", "fiedler@3"):
        optimizer = build_optimizer(parse_method(name), config, config.strengths, 10)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for _ in range(4):
            _, state = update(params, state, params)
        counts[name] = int(fj.fiedler_metrics(state).refreshes)
    assert counts == {"fiedler": 3, "fiedler@3": 2}


@pytest.mark.parametrize(("name", "message"), [("none+l1", "combines 'none'"), ("l1+l1", "twice")])
def test_meaningless_combination(name, message):
    with pytest.raises(MethodError, match=message):
        parse_method(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strength", "ridge=1"), "unknown regularizer 'ridge'; known: fiedler, "),
        (("--strength", "fiedler+dropout=1"), "unknown regularizer"),
        (("--strength", "l1=nan"), "finite"),
        (("--strength", "fiedler=inf"), "finite"),
        (("--methods", "none,pruning"), "needs --strength pruning=VALUE"),
        (("--methods", "none,pruning", "--strength", "pruning=1"), "share in"),
        (("--strength", "dropout=1"), "share in"),
        (("--strength", "dropout=-0.1"), "share in"),
        (("--strength", "l2=-1"), "negative"),
        (("--methods", "l1,l2"), "must contain 'none'"),
        (("--methods", "none,l1,l1"), "twice"),
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--batch", "0"), "--batch must be at least 1"),
        (("--refresh-every", "0"), "--refresh-every must be at least 1"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--train-size", "0"), "--train-size"),
        (("--hidden", "8,0"), "--hidden"),
        (("--learning-rate", "nan"), "--learning-rate"),
        (("--momentum", "1"), "--momentum"),
        (("--optimizer", "adam", "--momentum", "0.5"), "--momentum is for sgd"),
    ],
)
def test_options_out_of_range(make_config, options, message):
    with pytest.raises(ConfigError, match=message):
        make_config(*options)


def test_negative_fiedler_strength_is_allowed(make_config):
    assert make_config("--strength", "fiedler=-0.5").strengths["fiedler"] == -0.5


def test_strengths_keep_defaults_that_are_not_given(make_config):
    default, changed = make_config(), make_config("--strength", "l1=7", "--strength", "fiedler-4=8")
    assert changed.strengths == {**default.strengths, "l1": 7.0, "l1-shrinkage": 7.0, "fiedler-4": 8.0}


def test_variants_have_the_strength_of_what_they_vary(make_config):
    strengths = make_config("--strength", "fiedler=7", "--strength", "fiedler-combinatorial=8").strengths
    assert set(strengths) == set(REGULARIZERS) - {"pruning"}
    for name, form in FIEDLER_FORMS.items():
        assert strengths[name] == (7 if form.normalized else 8)


def test_dropout_rate_only_with_dropout(make_config):
    strengths = make_config("--strength", "dropout=0.3").strengths
    rates = {name: parse_method(name).dropout_rate(strengths) for name in ("none", "fiedler", "l1+dropout")}
    assert rates == {"none": 0.0, "fiedler": 0.0, "l1+dropout": 0.3}


@pytest.fixture(scope="module")
def first_update(make_config):
    """The first update from a zero gradient, and the parameters it is for."""

    @functools.cache
    def compute(name, *options):
        config = make_config(*options)
        params = initial_params((9, *config.hidden, 10), 0)
        optimizer = build_optimizer(parse_method(name), config, config.strengths, 10)
        gradient = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
        return params, updates

    return compute


UNIT = ("--scale", "unit", "--strength", "fiedler=0.1", "--strength", "fiedler-combinatorial=0.1")


@pytest.mark.parametrize(("name", "term"), [("l2", lambda w: w), ("l1", jnp.sign)])
def test_baselines_reach_kernels_and_biases(first_update, name, term):
    params, updates = first_update(name, "--learning-rate", "0.5", "--strength", f"{name}=0.25")
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, -0.5 * 0.25 * term(w), rtol=1e-6), updates, params)
    assert all(np.abs(layer["bias"]).min() > 0 for layer in updates.values())


@pytest.mark.parametrize("name", ["fiedler", "fiedler-combinatorial"])
def test_fiedler_penalties_leave_biases_alone(first_update, name):
    _, updates = first_update(name, *UNIT)
    assert all(np.abs(layer["kernel"]).max() > 0 for layer in updates.values())
    assert all(np.abs(layer["bias"]).max() == 0 for layer in updates.values())


def test_fiedler_is_normalized_and_combinatorial_is_not(first_update):
    # The normalized Fiedler value does not change with the scale of the weights.
    along = {}
    for name in ("fiedler", "fiedler-combinatorial"):
        params, updates = first_update(name, *UNIT)
        products = jax.tree.map(lambda u, w: jnp.vdot(u, w), updates, params)
        size = jax.tree.map(lambda u, w: jnp.vdot(jnp.abs(u), jnp.abs(w)), updates, params)
        along[name] = abs(sum(jax.tree.leaves(products))) / sum(jax.tree.leaves(size))
    assert along["fiedler"] < 1e-4
    assert along["fiedler-combinatorial"] > 0.5


def test_combination_adds_the_terms_and_vertices_scale_multiplies_by_the_number_of_units(first_update):
    units = 9 + 7 + 5 + 10
    l1, l2, fiedler = (first_update(name, *UNIT)[1] for name in ("l1", "l2", "fiedler"))
    _, combined = first_update("l1+l2+fiedler", "--scale", "vertices", *UNIT[2:])
    total = jax.tree.map(lambda a, b, c: a + b + units * c, l1, l2, fiedler)
    jax.tree.map(lambda c, t: np.testing.assert_allclose(c, t, rtol=1e-4, atol=1e-8), combined, total)


def test_regularizers_are_coupled_to_adam(first_update):
    # Behind Adam's normalisation a lone decay term has the size of the learning rate.
    params, updates = first_update("l2", "--optimizer", "adam", "--learning-rate", "0.25", "--strength", "l2=0.1")
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, -0.25 * jnp.sign(w), rtol=1e-2), updates, params)


def test_adam_has_its_own_learning_rate(make_config):
    assert make_config("--optimizer", "adam").learning_rate == 1e-3
    assert make_config("--optimizer", "adam", "--learning-rate", "0.1").learning_rate == 0.1
