"""The master notebook of Question 1: the solution passes, each mistake costs what it should."""

import re
import shutil
import subprocess
import sys

import grade_question1 as grading
import pytest

MISTAKES = {
    "": [1, 1, 5],
    "gradient /= n": [1, 0, 5],
    "gradient[np.arange(n), best] += 1 / n": [0, 1, 5],
    "dz1.sum(axis=0)": [1, 1, 4],
    " * (z1 > 0)": [1, 1, 2],
}
"""Points of the three questions where this text is missing, or a mean in place of a sum."""


def without(mistake, source):
    return source.replace(mistake, mistake.replace("sum", "mean") if "sum" in mistake else "")


def points(change):
    """Return the points of each question for the solution after ``change``."""
    earned = []
    for _, solution, tests in grading.QUESTIONS:
        scope = {}
        exec(grading.SETUP + change(solution), scope)
        earned.append(0)
        for test in tests:
            try:
                exec(test, dict(scope))
            except (AssertionError, NameError):
                continue
            earned[-1] += 1
    return earned


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_its_points(mistake):
    assert points(lambda source: without(mistake, source)) == MISTAKES[mistake]


def test_an_empty_notebook_has_no_points():
    solutions = re.compile(r"# BEGIN SOLUTION.*# END SOLUTION", re.DOTALL)
    assert points(lambda source: solutions.sub("...", source)) == [0, 0, 0]


def test_cells_are_in_the_order_of_otter_grader():
    book = grading.notebook()
    raw = [c["source"].splitlines()[0] for c in book["cells"] if c["cell_type"] == "raw"]
    question = ["BEGIN QUESTION", "BEGIN SOLUTION", "END SOLUTION", "BEGIN TESTS", "END TESTS"]
    assert raw[1:7] == [f"# {text}" for text in (*question, "END QUESTION")]
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


@pytest.mark.slow
def test_otter_assigns_and_grades(tmp_path):
    otter = shutil.which("otter")
    if otter is None:
        pytest.skip("otter-grader is not installed")

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    script = grading.__file__
    run(sys.executable, script)
    run(otter, "assign", "question1.ipynb", "dist")  # it runs the tests on the solution
    student = (tmp_path / "dist" / "student" / "question1.ipynb").read_text(encoding="utf-8")
    assert "dz1" not in student
    solved = (tmp_path / "dist" / "autograder" / "question1.ipynb").read_text(encoding="utf-8")
    wrong = solved.replace("dz1.sum(axis=0)", "dz1.mean(axis=0)")
    (tmp_path / "wrong.ipynb").write_text(wrong, encoding="utf-8")
    (grader,) = (tmp_path / "dist" / "autograder").glob("*.zip")
    assert (
        "Total Score: 6.000 / 7.000" in run(otter, "run", "-a", str(grader), "wrong.ipynb").stdout
    )
