"""The hypergradient by this library."""

import functools

import tensorflow as tf

import bilevel_tf as bt
from benchmarks.hypergradient import products, workload


def variants(work, threads):
    """Return the calls to time, by variant and kind."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return {
        "bilevel_tf": calls(work, jit=False),
        "bilevel_tf, XLA": calls(work, jit=True),
        workload.FLOOR: products.calls(work),
    }


def calls(work, jit):
    """Return a function for each kind, which returns a list of arrays."""
    w = [tf.constant(a) for a in work.weights]
    h = [tf.constant(a) for a in work.hyperparameters]
    train, valid = [tuple(map(tf.constant, b)) for b in (work.train, work.valid)]
    methods = {
        "cg": bt.ConjugateGradient(work.iterations, tolerance=0.0),
        "neumann": bt.Neumann(work.terms, learning_rate=work.rate),
    }

    @tf.function(jit_compile=jit)
    def gradient(w, h, train):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = inner_loss(w, h, train)
        return tape.gradient(loss, w), loss

    def hypergradient(method, w, h, train, valid):
        found = bt.hypergradient(
            lambda w, h: inner_loss(w, h, train),
            lambda w, h: cross_entropy(w, valid),
            weights=w,
            hyperparameters=h,
            method=method,
        )
        return found.gradients, found.outer_loss, found.report

    found = {"gradient": lambda: gradient(w, h, train)[0]}
    for kind, method in methods.items():
        function = functools.partial(hypergradient, method)
        function = tf.function(function, jit_compile=jit)
        found[kind] = functools.partial(_call_for_first, function, w, h, train, valid)
    return found


def inner_loss(w, h, batch):
    """Return L of lists of weights and hyperparameters."""
    decay = [tf.reduce_sum(tf.exp(b) * tf.square(a)) for a, b in zip(w, h, strict=True)]
    return cross_entropy(w, batch) + 0.5 * tf.add_n(decay)


def cross_entropy(w, batch):
    """Return the mean cross-entropy of a batch."""
    x, labels = batch
    for kernel, bias in zip(w[:-2:2], w[1:-2:2], strict=True):
        x = tf.nn.relu(x @ kernel + bias)
    logits = x @ w[-2] + w[-1]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(losses)


def _call_for_first(function, *arguments):
    return function(*arguments)[0]
