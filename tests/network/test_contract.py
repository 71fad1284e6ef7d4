"""Methods and objectives use nothing of a model that `Network` does not declare."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.network.network import Network
from tests.training.models import data

METHODS = {
    "DeltaSTN": bt.DeltaSTN(train_steps=1),
    "DeltaSTN, shared pass": bt.DeltaSTN(shared_pass=True, train_steps=1),
    "CenteredSTN": bt.methods.CenteredSTN(train_steps=1),
    "STN": bt.STN(train_steps=1),
    "Hypernetwork": bt.methods.Hypernetwork(train_steps=1),
    "ExactImplicit": bt.methods.ExactImplicit(damping=0.1, train_steps=1),
    "ConjugateGradient": bt.ConjugateGradient(3, train_steps=1),
    "HOAG": bt.methods.HOAG(iterations=3, train_steps=1),
    "Neumann": bt.Neumann(2, train_steps=1),
    "T1T2": bt.methods.T1T2(train_steps=1),
    "GaussNewton": bt.methods.GaussNewton(3, train_steps=1),
    "EmpiricalFisher": bt.methods.EmpiricalFisher(3, train_steps=1),
    "DARTS": bt.methods.DARTS(0.1, train_steps=1),
    "Greedy": bt.methods.Greedy(train_steps=1),
    "Unrolled": bt.Unrolled(2, train_steps=1),
    "Unrolled, restart": bt.Unrolled(2, restart=True, train_steps=1),
    "ForwardMode": bt.methods.ForwardMode(2, train_steps=1),
    "ForwardMode, real time": bt.methods.ForwardMode(real_time=True, train_steps=1),
    "RMAD": bt.methods.RMAD(2, train_steps=1),
    "DrMAD": bt.methods.DrMAD(2, train_steps=1),
}
PRIORS = {
    "ELBO, by gradient": (bt.ELBO(), bt.methods.DARTS(second_order=None)),
    "ELBO, GravesUpdate": (bt.ELBO(), bt.methods.GravesUpdate(train_steps=1)),
    "exact": (bt.objectives.LaplaceEvidence("exact"), bt.methods.T1T2()),
    "ggn": (bt.objectives.LaplaceEvidence("ggn"), bt.methods.T1T2()),
    "kronecker": (bt.objectives.LaplaceEvidence("kronecker"), bt.methods.T1T2()),
    "diagonal": (bt.objectives.LaplaceEvidence("diagonal"), bt.methods.T1T2()),
    "MacKayUpdate": (
        bt.objectives.LaplaceEvidence(),
        bt.methods.MacKayUpdate(train_steps=1),
    ),
}


def declared_only(network):
    """A network that has the members of `Network`, and no others."""

    def member(name):
        if isinstance(getattr(Network, name), property):
            return property(lambda self: getattr(network, name))
        return lambda self, *args, **kwargs: getattr(network, name)(*args, **kwargs)

    members = {name: member(name) for name in Network.__abstractmethods__}
    return type("DeclaredOnly", (Network,), members)()


def fitted(inputs, outputs, hp, **arguments):
    """λ before and after two steps of a model that shows only declared members."""
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.network = declared_only(model.network)
    model.compile(hyper_optimizer=keras.optimizers.SGD(1.0), **arguments)
    before = np.array(hp.unconstrained)
    x, y = data(8)
    validation = (x, y) if model.objective.judged_on == "validation" else None
    model.fit(x, y, 4, validation_data=validation, verbose=0)
    return before, np.array(hp.unconstrained)


def weight_decay():
    return bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2), seed=1)


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_the_stub_has_nothing_else():
    inputs = keras.Input((6,))
    model = bt.BilevelModel(
        inputs, bt.HyperDense(3)(inputs), hyperparameters=weight_decay()
    )
    stub = declared_only(model.network)
    assert stub.hyperparameters is model.hyperparameters
    with pytest.raises(AttributeError):
        stub._model  # noqa: B018


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    hp, inputs = weight_decay(), keras.Input((6,))
    outputs = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    sgd = keras.optimizers.SGD(0.05, momentum=0.9)
    before, after = fitted(
        inputs, outputs, hp, optimizer=sgd, loss=crossentropy(), method=METHODS[name]
    )
    assert np.all(np.isfinite(after))
    assert np.any(before != after)


def test_cross_validation():
    hp, inputs = weight_decay(), keras.Input((6,))
    outputs = keras.layers.Dense(3, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    objective = bt.CrossValidation(2, stratified=False)
    method = bt.methods.T1T2(train_steps=1)
    before, after = fitted(
        inputs, outputs, hp, loss=crossentropy(), method=method, objective=objective
    )
    assert np.any(before != after)


@pytest.mark.parametrize("name", PRIORS)
def test_likelihoods_and_priors(name):
    objective, method = PRIORS[name]
    method.train_steps = 1
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior = bt.NormalPrior(hp["precision"], data_size=8)
    inputs = keras.Input((6,))
    if isinstance(objective, bt.ELBO):
        outputs = bt.VariationalDense(3, prior=prior)(inputs)
    else:
        outputs = keras.layers.Dense(
            3, kernel_regularizer=prior, bias_regularizer=prior
        )(inputs)
    before, after = fitted(
        inputs, outputs, hp, loss=crossentropy(), method=method, objective=objective
    )
    assert np.all(np.isfinite(after))
    assert np.any(before != after)


@pytest.mark.parametrize(
    "name", ["HOAG", "Unrolled, restart", "ForwardMode, real time"]
)
def test_one_method_object_in_two_models(name):
    """Training one model leaves the state of the other alone."""

    def make():
        hp, inputs = weight_decay(), keras.Input((6,))
        outputs = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        sgd = keras.optimizers.SGD(0.05, momentum=0.9)
        model.compile(sgd, crossentropy(), method=METHODS[name])
        return model

    one, other = make(), make()
    before = {k: np.array(v) for k, v in other.network_state.items()}
    assert before
    x, y = data(8)
    one.fit(x, y, 4, validation_data=(x, y), verbose=0)
    assert one.network_state.keys() == before.keys()
    assert any(np.any(v != before[k]) for k, v in one.network_state.items())
    for key, variable in other.network_state.items():
        np.testing.assert_array_equal(variable, before[key])
    # The other goes on as a model with a method object of its own does.
    other.fit(x, y, 4, validation_data=(x, y), verbose=0)
    assert other.network_state.keys() == before.keys()
