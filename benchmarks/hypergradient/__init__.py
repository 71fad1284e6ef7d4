"""Time and memory of a hypergradient, here and in other frameworks; see `__main__`."""
