"""The replicas that share a training step under a `tf.distribute` strategy.

Each replica gets a part of the batch. As Keras does, every loss is divided by the
number of replicas, and optimizers add up the gradients. Outside of a strategy there is
one replica, and nothing here has an effect.
"""

import tensorflow as tf


def count_replicas() -> int:
    """Return the number of replicas among which this step is divided."""
    if tf.distribute.get_replica_context() is None:
        return 1
    return tf.distribute.get_strategy().num_replicas_in_sync


def take_share(value: tf.Tensor) -> tf.Tensor:
    """Divide what all replicas compute alike, so that their sum is the value once."""
    count = count_replicas()
    return value / tf.cast(count, value.dtype) if count > 1 else value


def undo_share(value: tf.Tensor) -> tf.Tensor:
    """Multiply a loss that Keras has divided by the number of replicas."""
    count = count_replicas()
    return value * tf.cast(count, value.dtype) if count > 1 else value


def make_seed_own(seed: tf.Tensor) -> tf.Tensor:
    """Make a seed, `[2]`, another one on every replica.

    Seed generators have the same state on all replicas, which would otherwise draw
    the same noise for different examples.
    """
    if count_replicas() == 1:
        return seed
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.random.experimental.stateless_fold_in(seed, replica)


def find_rows(size: int | tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Find where the examples of this replica stand in the whole batch.

    Args:
        size: Number of examples that this replica has.

    Returns:
        The number of examples on the replicas before this one, and on all of them.
    """
    count = count_replicas()
    if count == 1:
        return 0, size
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group
    # GPUs add up floats; these are exact up to 16 million examples.
    own = tf.one_hot(replica, count) * tf.cast(size, "float32")
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, own), "int32")
    return tf.reduce_sum(sizes[:replica]), tf.reduce_sum(sizes)
