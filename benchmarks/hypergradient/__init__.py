"""What a hypergradient costs, here and in other frameworks; see `__main__`."""
