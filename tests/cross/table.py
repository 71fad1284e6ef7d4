"""The table: methods, and the cells that are refused."""

import bilevel_tf as bt

METHODS = {
    "DeltaSTN": lambda: bt.DeltaSTN(entropy_weight=0.0, train_steps=1),
    "DeltaSTN, shared pass": lambda: bt.DeltaSTN(
        shared_pass=True, entropy_weight=0.0, train_steps=1
    ),
    "CenteredSTN": lambda: bt.methods.CenteredSTN(entropy_weight=0.0, train_steps=1),
    "STN": lambda: bt.STN(entropy_weight=0.0, train_steps=1),
    "Hypernetwork": lambda: bt.methods.Hypernetwork(entropy_weight=0.0, train_steps=1),
    "ExactImplicit": lambda: bt.methods.ExactImplicit(0.3, train_steps=1),
    "ConjugateGradient": lambda: bt.ConjugateGradient(3, 0.0, 4.0, train_steps=1),
    "HOAG": lambda: bt.methods.HOAG(
        1e-12, 1.0, 1e-12, iterations=30, damping=4.0, train_steps=1
    ),
    "Neumann": lambda: bt.Neumann(3, 0.1, train_steps=1),
    "T1T2": lambda: bt.methods.T1T2(train_steps=1),
    "GaussNewton": lambda: bt.methods.GaussNewton(3, 0.0, 4.0, train_steps=1),
    "EmpiricalFisher": lambda: bt.methods.EmpiricalFisher(3, 0.0, 4.0, train_steps=1),
    "DARTS": lambda: bt.methods.DARTS(0.1, train_steps=1),
    "Greedy": lambda: bt.methods.Greedy(train_steps=1),
    "Unrolled": lambda: bt.Unrolled(3, train_steps=1),
    "Unrolled, restart": lambda: bt.Unrolled(3, restart=True, train_steps=1),
    "ForwardMode": lambda: bt.methods.ForwardMode(3, train_steps=1),
    "ForwardMode, real time": lambda: bt.methods.ForwardMode(
        real_time=True, train_steps=1
    ),
    "RMAD": lambda: bt.methods.RMAD(3, train_steps=1),
    "DrMAD": lambda: bt.methods.DrMAD(3, train_steps=1),
}

REFUSED: dict[tuple[str, str], str] = {}
