"""The course's single run: its flags, its figures beside a plain PyTorch script, PyTorch missing."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_ffn
import pytest
import scripts
import torch

import minidl
from minidl.parity.torch_model import one_thread

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]\n"
SMALL = ["--widths", 4, "--learning-rates", 0.01, "--l2s", 0, "--epochs", 2, "--jobs", 1]


def run(folder, script, *args, **options):
    return scripts.run(ROOT / "examples" / script, *args, cwd=folder, **options)


@pytest.fixture
def here(folder, monkeypatch, capsys):
    """Runs a script in this process, which has PyTorch loaded already; what it prints."""

    def run_here(script, *args):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
        shown = capsys.readouterr()
        assert end.value.code == 0, shown.err
        return shown.out

    return run_here


def save(path, dataset, n):
    """A part of a data set in the course's format."""
    content = {}
    for part, split in dataset.sample(train=n, valid=n // 5, test=n // 5).splits.items():
        content |= {f"X_{part}": split.x, f"y_{part}": split.y}
    np.savez(path, **content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a small data set."""
    folder = tmp_path_factory.mktemp("warmup")
    save(folder / "emnist-letters.npz", minidl.load_letters(train=520, valid=104, test=104), 520)
    return folder


def history(folder):
    (file,) = folder.glob("*-history-*.json")
    return json.loads(file.read_text())["records"]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """5,000 images of Fashion-MNIST in the course's format."""
    source = ROOT.parent / "shared/data/fashion-mnist"
    if not source.is_dir():
        pytest.skip("no ../shared/data/fashion-mnist beside the checkout")
    file = tmp_path_factory.mktemp("fashion") / "fashion.npz"
    save(file, minidl.load_dataset(source), 5000)
    return file


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("sgd", 0.1), ("adam", 0.001)])
def test_beside_a_plain_pytorch_script(fashion, tmp_path, here, capsys, optimizer, learning_rate):
    with one_thread(), torch.random.fork_rng():
        plain_ffn.main(fashion, 2, optimizer, learning_rate)
    theirs = json.loads(capsys.readouterr().out)
    flags = ["-data_path", fashion, "-epochs", 2, "-optimizer", optimizer, "-learning_rate", learning_rate]  # fmt: skip
    out = here("q2_warmup.py", *flags, "--seed-like", "torch:42", "--out", tmp_path)
    ours = history(tmp_path)
    assert abs(ours[0]["train_loss"] - theirs["history"][0]["train_loss"]) < 1e-6
    assert abs(ours[0]["valid_loss"] - theirs["history"][0]["valid_loss"]) < 1e-6
    assert abs(ours[1]["valid_loss"] - theirs["history"][1]["valid_loss"]) < 1e-4
    for part in ("train", "valid"):
        gap = ours[2][f"{part}_accuracy"] - theirs["history"][2][f"{part}_accuracy"]
        assert abs(gap) < 0.003
    last = float(out.partition("Final Test Accuracy")[2].split()[0])
    assert abs(last - theirs["test_accuracy"]) < 0.003
    assert last > 0.6  # both have learned
    # Another stream starts elsewhere: the agreement is not that of any two runs.
    here("q2_warmup.py", *flags, "--seed", 42, "--out", tmp_path / "own")
    own = history(tmp_path / "own")
    assert abs(own[0]["train_loss"] - theirs["history"][0]["train_loss"]) > 1e-3
    assert abs(own[1]["valid_loss"] - theirs["history"][1]["valid_loss"]) > 1e-3


def test_flags_and_files_of_the_course(folder):
    flags = "-epochs 1 -batch_size 32 -hidden_size 8 -layers 2 -learning_rate 0.1 -l2_decay 0.0001 -dropout 0.3 -activation tanh -optimizer sgd"
    done = run(folder, "q2_warmup.py", *flags.split(), "--out", "out")
    assert done.returncode == 0, done.stderr
    config = "batch-32-lr-0.1-epochs-1-hidden-8-dropout-0.3-l2-0.0001-layers-2-act-tanh-opt-sgd"
    assert {p.name for p in (folder / "out").iterdir() if p.name[0] != "."} == {
        f"ffn-training-loss-{config}.pdf",
        f"ffn-validation-accuracy-{config}.pdf",
        f"ffn-history-{config}.json",
        f"ffn-checkpoint-{config}.npz",
        f"ffn-run-{config}.json",
        f"ffn-scores-{config}.json",
        f"ffn-training-loss-{config}.png",
        f"ffn-validation-accuracy-{config}.png",
        "answers.json",
        "sessions.jsonl",
    }
    records = history(folder / "out")
    assert [r["epoch"] for r in records] == [0, 1]
    for line in ("Final Training Accuracy", "Best Validation Accuracy", "Final Test Accuracy"):
        assert line in done.stdout
    assert f"Final Training Accuracy   {records[-1]['train_accuracy']:.4f}" in done.stdout
    assert "generated" not in done.stdout  # the course's file was there


def test_without_data_there_are_letters(tmp_path):
    done = run(tmp_path, "q2_warmup.py", "-epochs", 1, pictures=False)
    assert done.returncode == 0, done.stderr
    assert "letters (generated, not EMNIST), initial training loss 3.2" in done.stdout


def test_parity_draws_both(folder, here):
    out = here("q2_warmup.py", "-epochs", 2, "-dropout", 0.3, "--parity", "--out", "parity")
    assert "minidl beside PyTorch, the largest differences over 1 network(s):" in out
    (picture,) = (folder / "parity").glob("ffn-parity-*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    gaps = [float(line.split()[-1]) for line in out.splitlines() if line.startswith("  ")]
    assert len(gaps) == 3
    assert max(gaps) < 1e-4
    out = here("q2_depth.py", "--data", "emnist-letters.npz", "--layers", 1, 2, "--widths", 4, "--epochs", 1, "--jobs", 1, "--dtype", "float64", "--parity", "--out", "both")  # fmt: skip
    assert "the largest differences over 2 network(s):" in out
    assert (folder / "both" / "parity.png").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seed-like", "numpy:3"], "expected torch:SEED, as torch:42, got 'numpy:3'"),
        (["--seed-like", "torch:--3"], "expected torch:SEED, as torch:42, got 'torch:--3'"),
        (["--seed-like", "torch:-9223372036854775809"], "a whole number >= -9223372036854775808"),
        (["--seed-like", "torch:x"], "expected torch:SEED, as torch:42, got 'torch:x'"),
        (
            ["--seed-like", "torch:18446744073709551616"],
            "expected seed to be at most 18446744073709551615",
        ),
        (["--seed", "1", "--seed-like", "torch:1"], "not allowed with argument"),
        (["-epochs", "0"], "expected epochs to be a whole number >= 1, got '0'"),
        (["-data_path", "nowhere.npz"], "nowhere.npz: no such file or folder"),
        (["--data", "nowhere.npz"], "nowhere.npz: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(folder, args, message):
    done = run(folder, "q2_warmup.py", *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_torch(folder):
    alone = {"pictures": False, "without": "torch"}
    for script, args in (
        ("q2_warmup.py", ["-epochs", 1]),
        ("q2_width.py", ["--data", "emnist-letters.npz", *SMALL]),
    ):
        done = run(folder, script, *args, "--out", f"alone-{script}", **alone)
        assert done.returncode == 0, done.stderr
        done = run(folder, script, *args, "--parity", "--out", "none", **alone)
        assert done.returncode == 2
        assert done.stderr.startswith(
            "error: torch is needed for this: pip install 'minidl[parity]'"
        )
        assert done.stderr.count("\n") == 1
    command = "runpy.run_module('minidl.parity', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + command, "minidl.parity"], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: torch is needed for this: pip install 'minidl[parity]'")
    assert done.stderr.count("\n") == 1
    code = "import sys; sys.modules['torch'] = None\nimport minidl.parity\ntry:\n    from minidl.parity import compare\nexcept ImportError as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch is needed for this: pip install 'minidl[parity]'")
    assert done.stdout.count("\n") == 1
