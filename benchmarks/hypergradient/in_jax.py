"""The same hypergradient in JAX, compiled."""

import functools
import importlib.util

import jax
import jax.numpy as jnp


def variants(work, threads):
    """Return the calls to time, by variant and kind.

    JAX ignores `threads`, and uses all cores that its process may use.
    """
    found = {
        "JAX, jvp of the gradient": calls(work, repeated),
        "JAX, linearised once": calls(work, linearised),
    }
    if importlib.util.find_spec("jaxopt") is None:
        for kinds in found.values():
            del kinds["cg"]
    return found


def calls(work, product):
    """Return a function for each kind, which returns a list of arrays."""
    w, h = _to_arrays(work.weights), _to_arrays(work.hyperparameters)
    train, valid = _to_arrays(work.train), _to_arrays(work.valid)
    solvers = {
        "cg": functools.partial(conjugate_gradient, iterations=work.iterations),
        "neumann": functools.partial(neumann, terms=work.terms, rate=work.rate),
    }
    gradient = jax.jit(jax.value_and_grad(inner_loss))
    found = {"gradient": lambda: jax.block_until_ready(gradient(w, h, train))[1]}
    for kind, solve in solvers.items():
        function = jax.jit(functools.partial(hypergradient, solve, product))
        found[kind] = functools.partial(_call_for_second, function, w, h, train, valid)
    return found


def hypergradient(solve, product, w, h, train, valid):
    """Return Q and dQ/dh by an approximate solution."""
    outer_loss, target = jax.value_and_grad(cross_entropy)(w, valid)
    gradient = jax.grad(inner_loss)
    x = solve(product(lambda w: gradient(w, h, train), w), target)
    _, pull_back = jax.vjp(lambda h: gradient(w, h, train), h)
    return outer_loss, [-g for g in pull_back(x)[0]]


def repeated(gradient, w):
    """Return v ↦ H·v, which computes the gradient anew in every call."""
    return lambda v: jax.jvp(gradient, (w,), (v,))[1]


def linearised(gradient, w):
    """Return v ↦ H·v, which computes only once what does not depend on v."""
    return jax.linearize(gradient, w)[1]


def conjugate_gradient(product, b, iterations):
    """Run jaxopt's conjugate gradients for a fixed number of iterations."""
    from jaxopt.linear_solve import solve_cg

    return solve_cg(product, b, maxiter=iterations, tol=0.0)


def neumann(product, b, terms, rate):
    """Sum the Neumann series in a loop."""

    def body(_, state):
        term, total = state
        term = [t - rate * m for t, m in zip(term, product(term), strict=True)]
        return term, [a + t for a, t in zip(total, term, strict=True)]

    _, total = jax.lax.fori_loop(0, terms, body, (b, b))
    return [rate * t for t in total]


def inner_loss(w, h, batch):
    """Return L of lists of weights and hyperparameters."""
    decay = [jnp.sum(jnp.exp(b) * jnp.square(a)) for a, b in zip(w, h, strict=True)]
    return cross_entropy(w, batch) + 0.5 * sum(decay)


def cross_entropy(w, batch):
    """Return the mean cross-entropy of a batch."""
    x, labels = batch
    for kernel, bias in zip(w[:-2:2], w[1:-2:2], strict=True):
        x = jax.nn.relu(x @ kernel + bias)
    log_shares = jax.nn.log_softmax(x @ w[-2] + w[-1])
    return -jnp.mean(jnp.take_along_axis(log_shares, labels[:, None], axis=1))


def _to_arrays(values):
    return [jnp.asarray(v) for v in values]


def _call_for_second(function, *arguments):
    return jax.block_until_ready(function(*arguments))[1]
