"""Losses: ``value, dlogits = loss(logits, y)``, or ``loss(logits, y, weight)``.

One call returns the value and its gradient, so the two always belong to the same function. The
value is a Python float, summed in float64. The gradient is with respect to the logits and has
their dtype. Both are the mean over the batch by default, weighted where weights are given (see
``ReducedLoss``, which also says how to write a loss).

========================  ====================================  ==========================
loss                      targets                               figure of success
========================  ====================================  ==========================
``CrossEntropy``          labels (n,) or distributions (n, K)   accuracy
``FenchelYoung(map)``     labels (n,) or distributions (n, K)   accuracy
``SmoothedNLL(map)``      labels (n,) or distributions (n, K)   accuracy
``Perceptron``            labels (n,)                           accuracy
``BinaryLogistic``        -1 and +1, (n,)                       accuracy
``BinaryCrossEntropy``    0 and 1 or probabilities, (n, K)      exact_match, mean_accuracy
``SquaredError``          numbers (n, d)                        r2
``AbsoluteError``         numbers (n, d)                        r2
``Huber(delta)``          numbers (n, d)                        r2
``Quantile(q)``           numbers (n, d)                        the value itself
========================  ====================================  ==========================

``loss.predict(outputs)`` gives classes, signs, labels 0 and 1, or numbers, as the targets are, and
``loss.probabilities(outputs)`` probabilities where there are any. Where an example has one output,
its targets may be (n,). Labels are integers ``0..K-1`` of any
dtype and byte order; ``Dataset.from_labels`` numbers others. Other targets are refused by name.

For the losses of several classes, a row whose largest logit is not finite (only ``-inf``, or
``+inf``, or NaN) makes the value NaN, which stops ``fit``, for every number of classes. They are
finite for finite float32 logits however far apart, and for float64 logits unless a difference or
the sum is above the largest double, 1.8e308.
"""

from minidl.losses.base import Loss, ReducedLoss, TwiceDifferentiable, hessian
from minidl.losses.binary import BinaryCrossEntropy, BinaryLogistic
from minidl.losses.classes import CrossEntropy, FenchelYoung, Perceptron, SmoothedNLL
from minidl.losses.regression import AbsoluteError, Huber, Quantile, SquaredError

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "BinaryLogistic",
    "CrossEntropy",
    "FenchelYoung",
    "Huber",
    "Loss",
    "Perceptron",
    "Quantile",
    "ReducedLoss",
    "SmoothedNLL",
    "SquaredError",
    "TwiceDifferentiable",
    "hessian",
]
