"""Malformed ranges of hyperparameters."""

import bilevel_tf as bt
from tests.malformed.row import Row

ROWS = [
    Row(
        "Uniform with its bounds exchanged",
        lambda: bt.Uniform(1.0, 0.0, initial=0.5),
        ValueError,
        ("low", "high", "1.0", "0.0"),
    ),
]
