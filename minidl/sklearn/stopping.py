"""The rule by which scikit-learn's networks end training, as a callback."""

from __future__ import annotations

import math

from minidl.callbacks import Callback, Run


class Convergence(Callback):
    """Stops when the monitored figure has not improved for more than ``patience`` epochs.

    An epoch without an improvement is one whose score is not better by ``tol`` than the best score
    of all epochs before it, as in ``sklearn.neural_network``. (``minidl.EarlyStopping`` compares
    with the last epoch that was such an improvement.)

    Parameters
    ----------
    tol : float
    patience : int or inf
    adaptive : bool
        Whether to divide the learning rate by 5 in place of stopping, until it is 1e-6.
    verbose : bool
        Whether to print a line for each epoch.

    Attributes
    ----------
    converged : bool
        Whether this rule ended the training.
    """

    def __init__(self, tol: float, patience: float, *, adaptive: bool, verbose: bool) -> None:
        self.tol, self.patience = tol, patience
        self.adaptive, self.verbose = adaptive, verbose
        self.best, self.without, self.converged = -math.inf, 0, False

    def on_epoch(self, run: Run) -> bool:
        record = run.history[-1]
        score = run.history.score(record)
        self.without = self.without + 1 if score < self.best + self.tol else 0
        self.best = max(self.best, score)
        if self.verbose:
            shown = dict.fromkeys(("train_loss", run.history.monitor))
            figures = (f"{n} = {record.figures[n]:.8f}" for n in shown if n in record.figures)
            print(f"Iteration {record.epoch}, {', '.join(figures)}", flush=True)
        if self.without <= self.patience:
            return False
        lr = run.optimizer.lr
        if self.adaptive and not callable(lr) and lr > 1e-6:
            run.optimizer.lr, self.without = lr / 5, 0
            return False
        self.converged = True
        return True
