"""The matrix products of a hypergradient, and nothing else: a floor for its time.

Of a dense layer with inputs a, kernel W and error δ, and dots for what moves with V:

    z = a·W;   g = aᵀ·δ;   δ′ = δ·Wᵀ
    ż = ȧ·W + a·V;   ġ = ȧᵀ·δ + aᵀ·δ̇;   δ̇′ = δ̇·Wᵀ + δ·Vᵀ

A product with the Hessian takes those of the second line: 6, but for the first layer,
where ȧ is 0 and nobody asks for δ̇′, 2. A gradient takes 3 and 2. Sums, activations and
the solver's vectors are left out.

For there to be no product that can be dropped, shared or computed once, each has an
operand that comes from another one, and is an operand or a result. Where a sum is left
out, its two terms go separate ways; what comes out of it all means nothing.
"""

import functools

import tensorflow as tf


def calls(work):
    """One call per kind; each returns a list of arrays."""
    kernels, train, valid = operands(work)
    found = {}
    for kind, count in {"cg": work.iterations, "neumann": work.terms}.items():
        function = tf.function(functools.partial(hypergradient, count=count))
        found[kind] = functools.partial(function, kernels, train, valid)
    one = tf.function(lambda kernels, x: gradient(kernels, x)[2])
    return {"gradient": functools.partial(one, kernels, train), **found}


def operands(work):
    """Kernels and the inputs of either batch, scaled so that no product overflows."""
    kernels = [tf.constant(_scaled(w)) for w in work.weights[::2]]
    return kernels, *(tf.constant(_scaled(x)) for x, _ in (work.train, work.valid))


def _scaled(matrix):
    """A random matrix whose products with others are hardly larger than those."""
    return 0.7 * matrix / matrix.std() / matrix.size**0.25


def hypergradient(kernels, train, valid, count):
    """The products of two gradients and of so many products with the Hessian."""
    target = gradient(kernels, valid)[2]
    inputs, errors, gradients = gradient(kernels, train)
    pairs = [(g, g) for g in target]
    for _ in range(count):
        pairs = hessian_product(kernels, inputs, errors, pairs)
    return [*gradients, *(g for pair in pairs for g in pair)]


def gradient(kernels, x):
    """Inputs a and errors δ of all layers, and gradients g."""
    inputs = [x]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    errors = [inputs.pop()]
    for kernel in reversed(kernels[1:]):
        errors.insert(0, tf.matmul(errors[0], kernel, transpose_b=True))
    return inputs, errors, _transposed(inputs, errors)


def hessian_product(kernels, inputs, errors, pairs):
    """What stands for ġ, given what stands for V.

    Either is a pair for every layer, whose two sides are the terms of ġ, and where V
    goes: into ż and into δ̇′. The first layer has a single one of each, twice.
    """
    (first, _), *later = pairs
    moved, from_inputs, from_errors = [inputs[0] @ first], [], []
    for a, kernel, delta, (v, w) in zip(
        inputs[1:], kernels[1:], errors[1:], later, strict=True
    ):
        from_inputs.append(a @ v)
        from_errors.append(tf.matmul(delta, w, transpose_b=True))
        moved.append(moved[-1] @ kernel)
    # One term of the last ż stands for δ̇ in ġ, and the other in δ̇′.
    moved_errors = [moved[-1]]
    for kernel, z in zip(reversed(kernels[1:]), reversed(from_inputs), strict=True):
        moved_errors.insert(0, tf.matmul(z, kernel, transpose_b=True))
    found = _transposed(inputs, moved_errors)
    others = _transposed(from_errors, errors[1:])
    return [(found[0], found[0]), *zip(found[1:], others, strict=True)]


def _transposed(left, right):
    """aᵀ·b for every layer."""
    return [tf.matmul(a, b, transpose_a=True) for a, b in zip(left, right, strict=True)]
