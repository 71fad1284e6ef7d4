"""Only the matrix products of a hypergradient, as a lower bound of its time.

A dense layer has inputs a, kernel W and error δ; a dot marks a derivative along V:

    z = a·W;   g = aᵀ·δ;   δ′ = δ·Wᵀ
    ż = ȧ·W + a·V;   ġ = ȧᵀ·δ + aᵀ·δ̇;   δ̇′ = δ̇·Wᵀ + δ·Vᵀ

A product with the Hessian takes the six matrix products of the second line. The first
layer takes only two, because ȧ is 0 there and δ̇′ is not needed. A gradient takes three
per layer, and two in the first. Sums, activations and the solver's vectors are left
out.

A compiler must not drop a product, share it, or compute it only once. Every product
therefore has an operand that comes from another product, and is itself an operand or a
result. If a sum is left out, both of its terms are used, in different places. The
final result has no meaning.
"""

import functools

import tensorflow as tf


def calls(work):
    """Return a function for each kind, which returns a list of arrays."""
    kernels, train, valid = operands(work)
    found = {}
    for kind, count in {"cg": work.iterations, "neumann": work.terms}.items():
        function = tf.function(functools.partial(hypergradient, count=count))
        found[kind] = functools.partial(function, kernels, train, valid)
    one = tf.function(lambda kernels, x: gradient(kernels, x)[2])
    return {"gradient": functools.partial(one, kernels, train), **found}


def operands(work):
    """Return kernels and both batches' inputs, scaled so that nothing overflows."""
    kernels = [tf.constant(_scale(w)) for w in work.weights[::2]]
    return kernels, *(tf.constant(_scale(x)) for x, _ in (work.train, work.valid))


def _scale(matrix):
    """Scale a random matrix so that its products with others are hardly larger."""
    return 0.7 * matrix / matrix.std() / matrix.size**0.25


def hypergradient(kernels, train, valid, count):
    """Do the products of two gradients and of `count` products with the Hessian."""
    target = gradient(kernels, valid)[2]
    inputs, errors, gradients = gradient(kernels, train)
    pairs = [(g, g) for g in target]
    for _ in range(count):
        pairs = hessian_product(kernels, inputs, errors, pairs)
    return [*gradients, *(g for pair in pairs for g in pair)]


def gradient(kernels, x):
    """Return inputs a and errors δ of all layers, and gradients g."""
    inputs = [x]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    errors = [inputs.pop()]
    for kernel in reversed(kernels[1:]):
        errors.insert(0, tf.matmul(errors[0], kernel, transpose_b=True))
    return inputs, errors, _multiply_transposed(inputs, errors)


def hessian_product(kernels, inputs, errors, pairs):
    """Return what stands for ġ, given what stands for V.

    Both are one pair per layer. The sides of a pair for ġ are the two terms of ġ. The
    first side of a pair for V goes into ż, and the second into δ̇′. The first layer
    needs one matrix each; its pairs have it twice.
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
    found = _multiply_transposed(inputs, moved_errors)
    others = _multiply_transposed(from_errors, errors[1:])
    return [(found[0], found[0]), *zip(found[1:], others, strict=True)]


def _multiply_transposed(left, right):
    """Return aᵀ·b for every layer."""
    return [tf.matmul(a, b, transpose_a=True) for a, b in zip(left, right, strict=True)]
