"""Each answer in words, on made-up figures that call for it and on those that call for the opposite."""

import json

import pytest
from homework import answers

import minidl

THRESHOLDS = {"gap": 0.03, "rise": 0.02, "fits": 0.9}


def history(train, valid, loss):
    found = minidl.History()
    model = minidl.Linear(1, 1, rng=0)
    for epoch, (a, b, c) in enumerate(zip(train, valid, loss, strict=True)):
        metrics = {"train_loss": c, "train_accuracy": a, "valid_loss": c, "valid_accuracy": b}
        found.append(minidl.history.Epoch(epoch, 0, 0.1, metrics), model)
    return found


OVERFITTING = [
    (([0.1, 0.7, 0.9, 1.0], [0.1, 0.6, 0.7, 0.68], [3, 1, 0.9, 1.2]), "it overfits"),
    (([0.1, 0.6, 0.7, 0.71], [0.1, 0.6, 0.7, 0.7], [3, 1, 0.9, 1.2]), "the loss rises on new examples"),
    (([0.1, 0.7, 0.9, 1.0], [0.1, 0.6, 0.7, 0.71], [3, 1, 0.9, 0.8]), "more epochs have not done harm"),
    (([0.1, 0.3, 0.4, 0.5], [0.1, 0.3, 0.4, 0.49], [3, 2, 1.9, 1.8]), "it does not overfit, it underfits"),
    (([0.1, 0.8, 0.9, 0.95], [0.1, 0.8, 0.9, 0.94], [3, 2, 1, 0.8]), "neither overfitting nor underfitting"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "words"), OVERFITTING)
def test_overfitting(columns, words):
    sentence = answers.overfitting(history(*columns), **THRESHOLDS)
    assert sentence.endswith(f"{words}.") or words in sentence
    assert sum(other in sentence for _, other in OVERFITTING) == 1
    low = min(range(4), key=columns[2].__getitem__)
    assert f"lowest at epoch {low}" in sentence


def test_the_answers_of_a_run():
    run = history(*OVERFITTING[0][0])
    settled, overfits = answers.of_run(run, settled=0.03, **THRESHOLDS)
    assert settled == answers.convergence("Validation accuracy", run.column("valid_accuracy"), last=5, small=0.03)  # fmt: skip
    assert overfits == answers.overfitting(run, **THRESHOLDS)


CASES = {
    answers.convergence: [
        (("accuracy", [0, 0.5, 0.7, 0.701, 0.7, 0.702]), {"last": 3, "small": 0.005}, ": converged."),
        (("accuracy", [0, 0.5, 0.6, 0.65, 0.7, 0.75]), {"last": 3, "small": 0.005}, "still rises by 0.1500 in the last 3 of 5 epochs: not converged."),
        (("loss", [3, 2, 1.5, 1.2, 1.1, 1]), {"last": 3, "small": 0.005}, "still falls by 0.5000 in the last 3 of 5 epochs: not converged."),
        (("accuracy", [0, 0.5, 0.7, 0.6, 0.71, 0.7]), {"last": 3, "small": 0.005}, "it has not settled."),
    ],
    answers.excess: [
        (([2, 1, 0.5], [2, 1, 1.2]), {"rise": 0.02}, "lowest at epoch 1 of 2, 1.0000, and 1.2000 at the last; the training error goes from 1.0000 to 0.5000: it overfits."),
        (([2, 1, 0.5], [2, 1, 1.01]), {"rise": 0.02}, "no overfitting."),
        (([2, 1, 1.5], [2, 1, 1.2]), {"rise": 0.02}, "the run has not settled."),
    ],
    answers.growth: [
        (("training accuracy", "width", [16, 32, 64], [0.7, 0.8, 0.85]), {"small": 0.01}, "0.8500 at width 64; the first step adds +0.1000, the last +0.0500: diminishing returns."),
        (("training accuracy", "width", [16, 32, 64], [0.7, 0.75, 0.85]), {"small": 0.01}, "no sign of a limit."),
        (("training accuracy", "width", [16, 32, 64], [0.7, 0.6, 0.85]), {"small": 0.01}, "0.8500 at width 64; the first step adds -0.1000, the last +0.2500: no sign of a limit."),
        (("training accuracy", "width", [16, 32, 64], [0.7, 0.8, 0.805]), {"small": 0.01}, "it has levelled off."),
        (("accuracy", "depth", [1, 3, 5], [0.7, 0.8, 0.6]), {"small": 0.01}, "is highest at depth 3, 0.8000, and falls to 0.6000 at depth 5."),
        (("accuracy", "depth", [1, 3, 5], [0.8, 0.7, 0.6]), {"small": 0.01}, "falls from 0.8000 at depth 1 to 0.6000 at depth 5."),
        (("accuracy", "depth", [1, 3, 5], [0.8, 0.801, 0.802]), {"small": 0.01}, "no effect."),
        (("accuracy", "depth", [1], [0.8]), {"small": 0.01}, "the only one."),
    ],
    answers.capacity: [
        ((256, 0.999, 0.9, 1000), {"fits": 0.99}, "At width 256 1 of 1,000 training examples are wrong: the network is nearly wide enough to fit them all, as universal approximation says. It says nothing of new examples: test accuracy is 0.0990 lower."),
        ((16, 0.7, 0.69, 1000), {"fits": 0.99}, "not that training finds it. It says nothing of new examples: test accuracy is 0.0100 lower."),
    ],
    answers.depth: [
        (([1, 3, 9], [0.8, 0.85, 0.5], [0.7, 0.75, 0.4]), {"small": 0.01}, "the deep network is not trained well, it does not overfit."),
        (([1, 3, 9], [0.8, 0.85, 0.95], [0.7, 0.75, 0.6]), {"small": 0.01}, ": it overfits."),
        (([1, 3, 9], [0.8, 0.85, 0.9], [0.7, 0.75, 0.745]), {"small": 0.01}, "depth does no harm here."),
    ],
    answers.gradients: [
        (([1e-9, 1e-2, 1.0], 0.2), {"vanish": 1e-3}, "with 2 hidden layer(s) the gradient of layer 1 is 1e-09 of the last one's at the end: it vanishes; 20% of the units are dead."),
        (([0.5, 0.2, 1.0], 0.0), {"vanish": 1e-3}, "of layer 2 is 0.2 of the last one's at the end: it arrives; 0% of the units are dead."),
        (([1e6, 1.0, 1.0], 0.0), {"vanish": 1e-3}, "it explodes; 0% of the units are dead."),
    ],
    answers.choice: [
        (("features", {"raw": 0.7, "pca": 0.8}, 2600), {"errors": 2}, "pca is best, 0.8000, 0.1000 ahead of raw: more than 2 standard errors on 2,600 examples (0.0239)."),
        (("features", {"raw": 0.705, "pca": 0.7}, 2600), {"errors": 2}, "so a tie."),
        (("features", {"raw": 0.7}, 2600), {"errors": 2}, "features: raw alone, 0.7000."),
    ],
    answers.effect: [
        (("Momentum 0.9", 0.5, 0.6, 1000), {"errors": 2}, "Momentum 0.9 raises the accuracy: from 0.5000 to 0.6000."),
        (("Momentum 0.9", 0.6, 0.5, 1000), {"errors": 2}, "Momentum 0.9 lowers the accuracy: from 0.6000 to 0.5000."),
        (("Momentum 0.9", 0.6, 0.61, 1000), {"errors": 2}, "makes no difference beyond 2 standard errors (0.0437) to the accuracy: from 0.6000 to 0.6100."),
    ],
    answers.stability: [
        (("lr 0.1", [0, 0.5, 0.2, 0.4]), {"drop": 0.1}, "unstable, from 0.2000 to 0.5000, 0.4000 at the end; it falls by up to 0.3000 in one epoch."),
        (("lr 0.1", [0.9, 0.3, 0.4, 0.39]), {"drop": 0.1}, ": stable, from 0.3000 to 0.4000, 0.3900 at the end."),
    ],
    answers.shrinkage: [
        (("L2 0.01", 25.0, 4.3), {"factor": 1.5}, "4.30 instead of 25.00, 5.8 times smaller."),
        (("L2 0.01", 25.0, 24.0), {"factor": 1.5}, "24.00 instead of 25.00, hardly smaller."),
    ],
    answers.approach: [
        (("The distance", [4.0, 3.0, 2.0]), {"near": 0.01}, "goes from 4.0000 to 2.0000, falling at every step; 50.0% is left: it does not arrive."),
        (("The distance", [4.0, 5.0, 0.01]), {"near": 0.01}, "not falling at every step; 0.2% is left: it arrives."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_the_sentence_follows_the_figures(function):
    for arguments, thresholds, words in CASES[function]:
        sentence = function(*arguments, **thresholds)
        assert sentence.endswith(words), sentence


def test_a_tie_needs_more_examples_to_be_decided():
    two = {"a": 0.80, "b": 0.79}
    assert "so a tie" in answers.choice("x", two, 1_000, errors=2)
    assert "more than" in answers.choice("x", two, 100_000, errors=2)


def test_answers_are_printed_and_written(tmp_path, capsys):
    answers.write(tmp_path, {"curves": ["One.", "Two."], "table": ["Three."]})
    assert capsys.readouterr().out == "One.\nTwo.\nThree.\n"
    found = json.loads((tmp_path / answers.FILE).read_text())
    assert found == {"curves": ["One.", "Two."], "table": ["Three."]}
