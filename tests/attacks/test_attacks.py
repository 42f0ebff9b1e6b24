"""The attacks: a sample in every run; all cases, and their table, with MINIDL_ATTACK=all.

``MINIDL_ATTACK=all python -m pytest -s tests/attacks/test_attacks.py``
"""

import os

import pytest
from attacks import clusters, damage, disks, doors, kills, pairs
from attacks.common import write_data

pytestmark = pytest.mark.slow

ALL = os.environ.get("MINIDL_ATTACK") == "all"
every = pytest.mark.skipif(not ALL, reason="only with MINIDL_ATTACK=all")


@pytest.fixture(scope="module")
def report():
    tallies = []
    yield tallies
    print("\n| kind of fault | tried | survived |\n| --- | --- | --- |")
    for t in tallies:
        print(f"| {t.kind} | {t.tried} | {t.survived} |")


@pytest.fixture
def check(report):
    def survived(tally):
        report.append(tally)
        assert tally.tried
        assert tally.failures == []

    return survived


SAMPLE = ("fit, TorchRandom", "fit_online, compounding")  # a killed grid: tests/examples/test_q2.py
SHOTS = [(name, shot) for name, subject in kills.SUBJECTS.items() for shot in subject.shots]


@pytest.mark.parametrize(("name", "shot"), SHOTS)
def test_kills(tmp_path, check, name, shot):
    if not (ALL or (shot == "SIGKILL" and name in SAMPLE)):
        pytest.skip("only with MINIDL_ATTACK=all")
    check(kills.attack(write_data(tmp_path), name, shot, 20 if ALL else 1))


def test_wrong_calls(tmp_path):
    """At most 3 in 100 wrong calls have an obscure error."""
    found, obscure = doors.attack(tmp_path, 10**9 if ALL else 600)
    print(
        f"\n| wrong call | {found.total()} |",
        *(f"| {k} | {n} |" for k, n in found.items()),
        sep="\n",
    )
    assert len(obscure) <= 0.03 * found.total(), "\n".join(obscure)


def test_pairs(tmp_path, check):
    check(pairs.attack(write_data(tmp_path), 8 if ALL else 1))


def test_full_disks(tmp_path, check):
    tally = disks.attack(write_data(tmp_path), disks.SIZES if ALL else disks.SIZES[4:5])
    if tally is None:
        pytest.skip("no small file system can be mounted here")
    check(tally)


def test_damaged_files(tmp_path, check):
    for tally in damage.attack(tmp_path, 80 if ALL else 3):
        check(tally)


@every
def test_dask(tmp_path, check):
    pytest.importorskip("distributed")
    check(clusters.dask(write_data(tmp_path)))
