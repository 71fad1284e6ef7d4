"""The same hypergradient in PyTorch, by double backward."""

import functools
import importlib.util

import torch
from torch.nn import functional


def variants(work, threads):
    """Return the calls to time, by variant and kind."""
    torch.set_num_threads(threads)
    found = {"PyTorch, double backward": calls(work, conjugate_gradient, neumann)}
    if importlib.util.find_spec("torchopt") is not None:
        found["TorchOpt"] = calls(work, torchopt_cg, torchopt_neumann)
    return found


def calls(work, conjugate_gradient, neumann):
    """Return a function for each kind, which returns a list of arrays."""
    w = [torch.tensor(a, requires_grad=True) for a in work.weights]
    h = [torch.tensor(a, requires_grad=True) for a in work.hyperparameters]
    train, valid = [tuple(map(torch.tensor, b)) for b in (work.train, work.valid)]
    solvers = {
        "cg": functools.partial(conjugate_gradient, iterations=work.iterations),
        "neumann": functools.partial(neumann, terms=work.terms, rate=work.rate),
    }
    found = {"gradient": lambda: torch.autograd.grad(inner_loss(w, h, train), w)}
    for kind, solve in solvers.items():
        found[kind] = functools.partial(hypergradient, solve, w, h, train, valid)
    return found


def hypergradient(solve, w, h, train, valid):
    """Return dQ/dh by an approximate solution."""
    target = torch.autograd.grad(cross_entropy(w, valid), w)
    loss = inner_loss(w, h, train)
    gradients = torch.autograd.grad(loss, w, create_graph=True)

    def product(v):
        return torch.autograd.grad(gradients, w, v, retain_graph=True)

    x = solve(product, target)
    indirect = torch.autograd.grad(gradients, h, x)
    return [-g for g in indirect]


@torch.no_grad()
def conjugate_gradient(product, b, iterations):
    """Run a fixed number of iterations from zero."""
    x, residual, direction = [torch.zeros_like(t) for t in b], list(b), list(b)
    squares = dot(b, b)
    for _ in range(iterations):
        moved = product(direction)
        rate = squares / dot(direction, moved)
        x = add_scaled(x, rate, direction)
        residual = add_scaled(residual, -rate, moved)
        before, squares = squares, dot(residual, residual)
        direction = add_scaled(residual, squares / before, direction)
    return x


@torch.no_grad()
def neumann(product, b, terms, rate):
    """Sum the Neumann series in a loop."""
    term, total = list(b), list(b)
    for _ in range(terms):
        term = add_scaled(term, -rate, product(term))
        total = add_scaled(total, 1.0, term)
    return [rate * t for t in total]


def torchopt_cg(product, b, iterations):
    """Run TorchOpt's conjugate gradients for a fixed number of iterations."""
    from torchopt.linear_solve import solve_cg

    return solve_cg(maxiter=iterations, rtol=0.0)(product, tuple(b))


def torchopt_neumann(product, b, terms, rate):
    """Sum TorchOpt's Neumann series."""
    from torchopt.linear_solve import solve_inv

    return solve_inv(ns=True, maxiter=terms, alpha=rate)(product, tuple(b))


def dot(a, b):
    """Return ⟨a, b⟩ of two lists."""
    return sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))


def add_scaled(a, factor, b):
    """Return a + factor · b of two lists."""
    return [x + factor * y for x, y in zip(a, b, strict=True)]


def inner_loss(w, h, batch):
    """Return L of lists of weights and hyperparameters."""
    decay = [
        torch.sum(torch.exp(b) * torch.square(a)) for a, b in zip(w, h, strict=True)
    ]
    return cross_entropy(w, batch) + 0.5 * sum(decay)


def cross_entropy(w, batch):
    """Return the mean cross-entropy of a batch."""
    x, labels = batch
    for kernel, bias in zip(w[:-2:2], w[1:-2:2], strict=True):
        x = functional.relu(x @ kernel + bias)
    return functional.cross_entropy(x @ w[-2] + w[-1], labels)
