"""Compare one fit with a search: Table 1, Fig. 5 and Fig. 6 of the Δ-STN paper.

Every run is a problem, a row of the table and a seed. It trains one network, logs
validation loss, test loss, hyperparameters, perturbation scales, training steps and
seconds, and appends one line to `results/table1/<problem>.jsonl`. A run that is already
there is skipped. A search that was stopped goes on where it was, and so does a run of
the problems that are long. `--part 0/2` and `--part 1/2` share the seeds of a table
between two processes.

    python -m examples.table1 run --problem digits-decay --rows fixed STN Δ-STN random
    python -m examples.table1 summary --problem digits-decay
    python -m examples.table1 figures --problem digits-decay

Problems are in `problems.py`, rows in `rows.py`. Any other method is a row as well:

    python -m examples.table1 run --problem mnist-slice --seeds 0-7 \\
        --method 'DeltaSTN(shared_pass=True)' --hyper-optimizer 'Adam(0.01)'

`--retrain` trains the last hyperparameters of every tuned run anew from scratch, with
the same seed, which separates a good schedule from good final values.

The searches `random` and `bayes` are those of `bilevel_tf.search`. They choose by the
validation loss among all their points, and among as many as they have tried by the cost
of one fit of Δ-STN, and of ten; a step of such a fit counts as 2.2 plain ones. What
they choose is trained on all seeds. Test data choose nothing.
"""
