"""The best-response methods against ridge regression, where all is in closed form.

The inner objective is mean((y − x̃w)²) + Σ_k f(λ_k) wᵀP_k w, with x̃ = (x, 1), one factor
for the kernel and, where there are two hyperparameters, one for the bias.

Perturbations are ±σ, both for every example (all four sign patterns where there are
two hyperparameters), in place of random draws: that two-point rule is exact for
Gaussian expectations of cubic polynomials. With f the identity L_T(λ + ε, w + Θε) is
cubic in ε with a quadratic in Θ, so these tests see exact expectations. Theorem 3 then
holds at any σ (an odd moment of ε vanishes, though L_T is not jointly quadratic); with
f a softplus it holds as σ → 0.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.layers.response.full import FullResponse

FACTOR = 0.7


@keras.saving.register_keras_serializable("tests")
class Linear(bt.Unconstrained):
    """λ itself, which a penalty would refuse if it knew that it can become negative."""

    ends = (0.0, float("inf"))


class FullDeltaSTN(bt.DeltaSTN):
    """With one column of Θ for every hyperparameter, which one unit cannot share."""

    response_class = FullResponse

    def response_arguments(self):
        return {}


class Ridge:
    """A problem, its model and its closed forms.

    Args:
        method: The method.
        names: "kernel", or "kernel" and "bias": which weights have a tuned factor.
        scale: Class of the scale.
        sigma: σ.
        factor: Initial value of the factors.
        **kwargs: Of the scales.
    """

    features = 3

    def __init__(
        self,
        method,
        names=("kernel",),
        scale=Linear,
        sigma=0.5,
        factor=FACTOR,
        **kwargs,
    ):
        self.names = names
        options = {"perturbation_scale": sigma, **kwargs}
        self.space = bt.HyperparameterSpace(
            {name: scale(initial=factor, **options) for name in names}
        )
        self._make_data()
        self._make_model(method)

    def _make_data(self):
        signs = list(itertools.product([1.0, -1.0], repeat=len(self.names)))
        random = np.random.default_rng(0)
        truth = random.normal(size=(self.features, 1))

        def draw(count):
            x = random.normal(size=(count, self.features))
            y = x @ truth + 0.5 + random.normal(size=(count, 1))
            return np.tile(x, (len(signs), 1)), np.tile(y, (len(signs), 1))

        self.train, self.valid = draw(8), draw(10)
        self._signs = signs

    def _make_model(self, method):
        inputs = keras.Input((self.features,))
        regularizers = {
            f"{name}_regularizer": bt.L2(self.space[name]) for name in self.names
        }
        self.layer = bt.HyperDense(1, **regularizers)
        self.model = bt.BilevelModel(
            inputs, self.layer(inputs), hyperparameters=self.space
        )
        self.method = method
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        self.model.compile(optimizer=optimizer, loss="mse", method=method)
        self.space.sample = self._sample

    def _sample(self, batch_size):
        repeats = batch_size // len(self._signs)
        signs = tf.repeat(tf.constant(self._signs, self.space.dtype), repeats, 0)
        return signs * self.space.perturbation_scale()

    # Closed forms

    @property
    def point(self):
        """λ."""
        return self.space.unconstrained.numpy()

    def penalties(self):
        """P_k."""
        on = {
            "kernel": np.diag([1.0] * self.features + [0.0]),
            "bias": np.diag([0.0] * self.features + [1.0]),
        }
        return [on[name] for name in self.names]

    def factors(self, point):
        """f(λ) of every hyperparameter."""
        values = self.space.constrain(tf.constant(point))
        return [float(value) for value in values.values()]

    def curvature(self, point):
        """C + Σ f(λ_k) P_k, half the Hessian."""
        x = augmented(self.train[0])
        factors = self.factors(point)
        penalty = sum(f * p for f, p in zip(factors, self.penalties(), strict=True))
        return x.T @ x / len(x) + penalty

    def moment(self):
        """mean(y x̃)."""
        x, y = self.train
        return augmented(x).T @ y[:, 0] / len(x)

    def best_response(self, point):
        """w*(λ)."""
        return np.linalg.solve(self.curvature(point), self.moment())

    def jacobian(self, point, weights=None):
        """dw*/dλ, `[d + 1, h]`, by the implicit function theorem (Eq. 2.3)."""
        weights = self.best_response(point) if weights is None else weights
        with tf.GradientTape() as tape:
            free = tf.constant(point)
            tape.watch(free)
            values = tf.stack(list(self.space.constrain(free).values()))
        slopes = np.diag(tape.jacobian(values, free))
        pairs = zip(slopes, self.penalties(), strict=True)
        cross = np.stack([slope * p @ weights for slope, p in pairs], 1)
        return -np.linalg.solve(self.curvature(point), cross)

    def validation_loss(self, point):
        """L_V(λ, w*(λ))."""
        x, y = self.valid
        return np.mean((y[:, 0] - augmented(x) @ self.best_response(point)) ** 2)

    # The model's side

    def set_weights(self, weights):
        self.layer.kernel.assign(weights[:-1, None])
        self.layer.bias.assign(weights[-1:])

    def set_response(self, jacobian):
        """Make Θ what it is given to be; of rank one if structured."""
        kernel, bias = self.layer.responses.values()
        if isinstance(kernel, FullResponse):
            kernel.jacobian.assign(jacobian.T[:, :-1, None])
            bias.jacobian.assign(jacobian.T[:, -1:])
            return
        kernel.direction.assign(jacobian[:-1])
        bias.direction.assign(jacobian[-1])
        kernel.factor.assign([[1.0]])
        bias.factor.assign([[1.0]])

    def set_exact(self):
        """Weights and Θ those of the true best response at λ."""
        jacobian = self.jacobian(self.point)
        weights = self.best_response(self.point)
        self.set_response(jacobian)
        shift = 0 if self.method.centered else jacobian @ self.point
        self.set_weights(weights - shift)

    def response(self):
        """Θ, `[d + 1, h]`."""
        columns = []
        for row in np.eye(len(self.names)):
            shifts = [r.shift(row[None]) for r in self.layer.responses.values()]
            columns.append(np.append(*shifts))
        return np.stack(columns, 1)

    def weights_at_current(self):
        """The weights with which the model predicts."""
        weights = np.append(self.layer.kernel, self.layer.bias)
        return (
            weights
            if self.method.centered
            else weights + self.response() @ (self.point)
        )

    def repeat(self, step, times, rate):
        """Run `step(model, x, y, sample_weight)`, with momentum."""
        for optimizer in (self.model.optimizer, self.model.response_optimizer):
            optimizer.learning_rate = rate
        x, y = map(tf.constant, self.train)

        @tf.function
        def loop():
            for _ in tf.range(times):
                step(self.model.network, x, y, None)

        loop()

    def outer_gradient(self):
        """What `outer_step` hands to an optimizer for λ and the raw σ."""
        before = [v.numpy() for v in self.method.tuned_variables(self.space)]
        self.model.hyper_optimizer = keras.optimizers.SGD(1.0)
        self.model.hyper_optimizer.build(self.method.tuned_variables(self.space))
        self.method.outer_step(
            self.model.network, (*map(tf.constant, self.valid), None), None
        )
        after = [v.numpy() for v in self.method.tuned_variables(self.space)]
        return [b - a for b, a in zip(before, after, strict=True)]


def augmented(x):
    return np.append(x, np.ones((len(x), 1)), 1)


def relative_error(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def randomize(layer, seed):
    random = np.random.default_rng(seed)
    for variable in layer.response_variables:
        variable.assign(random.normal(size=variable.shape))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("method", "names"),
    [
        (bt.DeltaSTN(), ("kernel",)),
        (bt.methods.CenteredSTN(), ("kernel",)),
        (FullDeltaSTN(), ("kernel", "bias")),
    ],
    ids=["DeltaSTN", "CenteredSTN", "full Θ, two hyperparameters"],
)
class TestTheorem3:
    """Θ converges to the best-response Jacobian with λ and w0 fixed."""

    def test_any_sigma_where_l2_is_linear(self, method, names, seed, float64):
        ridge = Ridge(method, names, sigma=0.5)
        ridge.set_weights(ridge.best_response(ridge.point))
        randomize(ridge.layer, seed)
        assert relative_error(ridge.response(), ridge.jacobian(ridge.point)) > 0.1
        ridge.repeat(method.update_response, 3000, rate=0.1)
        assert relative_error(ridge.response(), ridge.jacobian(ridge.point)) < 1e-6

    def test_small_sigma_on_a_nonlinear_scale(self, method, names, seed, float64):
        ridge = Ridge(method, names, scale=bt.Positive, sigma=0.01)
        ridge.set_weights(ridge.best_response(ridge.point))
        randomize(ridge.layer, seed)
        ridge.repeat(method.update_response, 3000, rate=0.025 / 0.01**2)
        assert relative_error(ridge.response(), ridge.jacobian(ridge.point)) < 1e-3

    def test_any_weights(self, method, names, seed, float64):
        ridge = Ridge(method, names, sigma=0.5)
        weights = np.random.default_rng(seed).normal(size=ridge.features + 1)
        ridge.set_weights(weights)
        randomize(ridge.layer, seed)
        ridge.repeat(method.update_response, 3000, rate=0.1)
        exact = ridge.jacobian(ridge.point, weights)
        assert relative_error(ridge.response(), exact) < 1e-5


def biased_solution(ridge, sigma):
    """Weights and Θ that minimise E_ε[L_T(λ + ε, w + Θε)] jointly, with l2 = λ + ε.

    With A = C + λP they solve Aw + σ²PΘ = b and AΘ + Pw = 0. So Θ = −A⁻¹Pw and
    w = (A − σ²PA⁻¹P)⁻¹ b, which is w*(λ) only where σ = 0.
    """
    curvature, (penalty,) = ridge.curvature(ridge.point), ridge.penalties()
    cross = penalty @ np.linalg.solve(curvature, penalty)
    weights = np.linalg.solve(curvature - sigma**2 * cross, ridge.moment())
    return weights, -np.linalg.solve(curvature, penalty @ weights)


class TestBias:
    """Appendix G: what training under perturbation does to the weights."""

    sigma = 0.6

    @pytest.mark.parametrize(
        "method", [bt.STN(), bt.DeltaSTN(shared_pass=True), bt.methods.Hypernetwork()],
        ids=["STN", "shared_pass", "Hypernetwork"],
    )  # fmt: skip
    def test_joint_training_is_biased_as_predicted(self, method, float64):
        ridge = Ridge(method, sigma=self.sigma)
        ridge.repeat(method.inner_step, 2000, rate=0.05)
        weights, response = biased_solution(ridge, self.sigma)
        found = ridge.weights_at_current()
        np.testing.assert_allclose(found, weights, rtol=1e-5)
        np.testing.assert_allclose(ridge.response()[:, 0], response, rtol=1e-5)
        unbiased = ridge.best_response(ridge.point)
        assert relative_error(found, unbiased) > 0.02

    @pytest.mark.parametrize(
        "method",
        [bt.methods.CenteredSTN(), bt.DeltaSTN()],
        ids=["CenteredSTN", "DeltaSTN"],
    )
    def test_two_passes_are_not(self, method, float64):
        ridge = Ridge(method, sigma=self.sigma)
        ridge.repeat(method.inner_step, 2000, rate=0.05)
        found, exact = ridge.weights_at_current(), ridge.best_response(ridge.point)
        np.testing.assert_allclose(found, exact, rtol=1e-8)
        np.testing.assert_allclose(
            ridge.response(), ridge.jacobian(ridge.point), rtol=1e-6
        )


def central_differences(function, point, step=1e-5):
    steps = step * np.eye(len(point))
    return np.array(
        [(function(point + s) - function(point - s)) / (2 * step) for s in steps]
    )


class TestOuterStep:
    """dL_V/dλ and dL_V/dσ when weights and Θ are exact."""

    @pytest.mark.parametrize("scale", [Linear, bt.Positive])
    @pytest.mark.parametrize(
        ("method", "names"),
        [
            (bt.DeltaSTN(), ("kernel",)),
            (bt.STN(), ("kernel",)),
            (FullDeltaSTN(), ("kernel", "bias")),
            (bt.methods.Hypernetwork(), ("kernel", "bias")),
        ],
        ids=["DeltaSTN", "STN", "full Θ", "Hypernetwork"],
    )
    def test_gradient_equals_central_differences(self, method, names, scale, float64):
        ridge = Ridge(method, names, scale=scale)
        ridge.set_exact()
        expected = central_differences(ridge.validation_loss, ridge.point)
        np.testing.assert_allclose(ridge.outer_gradient()[0], expected, rtol=1e-7)

    @pytest.mark.parametrize("factor", [1e-2, 1e2])
    def test_moves_towards_the_optimum(self, factor, float64):
        ridge = Ridge(bt.DeltaSTN(), scale=bt.Positive, factor=factor)
        ridge.set_exact()
        start = ridge.validation_loss(ridge.point)
        ahead = ridge.point - 0.1 * np.sign(ridge.outer_gradient()[0])
        assert ridge.validation_loss(ahead) < start
        assert (ahead > ridge.point) == (factor < 1)

    def test_entropy_alone_widens_sigma(self, float64):
        ridge = Ridge(bt.DeltaSTN(entropy_weight=0.3), sigma=0.5)
        ridge.set_weights(ridge.best_response(ridge.point))
        slope = 1 - np.exp(-0.5)  # of the softplus, where it is 0.5
        gradients = ridge.outer_gradient()
        np.testing.assert_allclose(gradients[0], 0, atol=1e-14)
        np.testing.assert_allclose(gradients[1], [-0.3 * slope / 0.5], rtol=1e-7)

    def test_response_narrows_sigma(self, float64):
        sigma, tau = 0.5, 0.3
        ridge = Ridge(bt.DeltaSTN(entropy_weight=tau), sigma=sigma)
        ridge.set_exact()
        moved = augmented(ridge.valid[0]) @ ridge.jacobian(ridge.point)[:, 0]
        slope = 1 - np.exp(-sigma)
        expected = (2 * sigma * np.mean(moved**2) - tau / sigma) * slope
        np.testing.assert_allclose(ridge.outer_gradient()[1], [expected], rtol=1e-7)

    def test_fixed_sigma_stays(self, float64):
        ridge = Ridge(bt.DeltaSTN(), learn_perturbation_scale=False)
        ridge.set_exact()
        gradients = ridge.outer_gradient()
        assert gradients[0] != 0
        assert gradients[1] == 0


@pytest.mark.parametrize("l2", [0.05, 2.0])
@pytest.mark.parametrize(
    "method",
    [
        bt.STN(train_steps=5, warmup_epochs=2),
        bt.methods.CenteredSTN(train_steps=5, warmup_epochs=2),
        bt.DeltaSTN(train_steps=5, warmup_epochs=2),
        bt.DeltaSTN(train_steps=5, warmup_epochs=2, shared_pass=True),
        bt.DeltaSTN(train_steps=5, warmup_epochs=2, response_share=0.5),
        bt.methods.Hypernetwork(train_steps=5, warmup_epochs=2),
    ],
    ids=["STN", "CenteredSTN", "DeltaSTN", "shared_pass", "response_share", "full"],
)
def test_fit_moves_towards_the_optimum(method, l2):
    random = np.random.default_rng(0)
    x, x_valid = random.normal(size=(2, 128, 8)).astype("float32")
    truth = random.normal(size=(8, 1)).astype("float32") / 5

    def noisy(inputs):
        return inputs @ truth + random.normal(size=(128, 1)).astype("float32")

    y, y_valid = noisy(x), noisy(x_valid)
    hp = bt.HyperparameterSpace(
        l2=bt.Positive(initial=l2, learn_perturbation_scale=False)
    )
    inputs = keras.Input((8,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        optimizer=keras.optimizers.Adam(0.02),
        hyper_optimizer=keras.optimizers.RMSprop(0.06),
        method=method,
        loss="mse",
        steps_per_execution=5,
    )
    full = tf.data.Dataset.from_tensors
    model.fit(
        full((x, y)).repeat(),
        validation_data=full((x_valid, y_valid)),
        epochs=4,
        steps_per_epoch=100,
        shuffle=False,
        verbose=0,
    )
    exact = exact_l2(x, y, x_valid, y_valid)
    assert 0.1 < exact < 1
    assert (hp.values()["l2"] > l2) == (exact > l2)
    assert abs(np.log(hp.values()["l2"] / exact)) < 0.6 * abs(np.log(l2 / exact))


def exact_l2(x, y, x_valid, y_valid):
    """The best factor of a grid."""

    def loss(factor):
        matrix = x.T @ x / len(x) + factor * np.eye(x.shape[1])
        weights = np.linalg.solve(matrix, x.T @ y / len(x))
        return np.mean((y_valid - x_valid @ weights) ** 2)

    grid = np.geomspace(1e-3, 1e2, 200)
    return grid[np.argmin([loss(factor) for factor in grid])]
