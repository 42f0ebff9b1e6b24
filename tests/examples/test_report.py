"""The report of real runs: valid HTML, complete, escaped, without requests; the homework resumes."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import browser
import html5lib
import numpy as np
import pytest
import scripts
import work
from homework.page import read_run, run_folders, write_report
from homework.runs import environment, session

import minidl
from minidl.view.plots import Panel, line_plot

ROOT = Path(__file__).resolve().parents[2]
NAME = "a<i>&\"b'|c"
"""The name of the data set: every sign that has a meaning in HTML or Markdown."""


def run(folder, *args, status=0):
    done = scripts.run(*args, cwd=folder)
    assert done.returncode == status, done.stderr
    return done


def env():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def draw(file, features):
    """Write a data set of four classes in the course's format."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 120, (4, features))
    content = {}
    for part, n in (("train", 400), ("valid", 80), ("test", 80)):
        y = np.resize(np.arange(4), n)
        content[f"X_{part}"] = (centres[y] + rng.integers(0, 130, (n, features))).astype(np.uint8)
        content[f"y_{part}"] = y
    np.savez(file, **content)


def homework(*args):
    return ROOT / "examples/homework_2025.py", "--data", f"{NAME}.npz", "--full", *args


def report(folder, *args, status=0):
    return run(folder, ROOT / "examples/report.py", *args, status=status)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A working folder where five questions are finished, on images of 10 x 10 pixels."""
    folder = tmp_path_factory.mktemp("homework")
    draw(folder / f"{NAME}.npz", features=100)
    only = ["1.1", "1.2c", "2.1", "3.2"]
    flags = ["--epochs", 20, "--jobs", 1, "--out", "hw", "--only", *only]
    shown = run(folder, *homework(*flags)).stdout
    assert f"wrote hw{os.sep}report{os.sep}report.html" in shown
    return folder


@pytest.fixture(scope="module")
def page(done):
    return done / "hw/report/report.html"


def parse(page):
    """Parse a page; html5lib raises at the first error."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(page.read_text(encoding="utf-8"))


def text(element):
    return " ".join("".join(element.itertext()).split())


def tables(tree):
    """Return each table as its caption and its rows of text."""
    return {
        text(table.find("caption")): [[text(cell) for cell in row] for row in table.iter("tr")]
        for table in tree.iter("table")
    }


def states(tree):
    """Return title, state and duration of the runs, as the list on top shows them."""
    line = r"(.+): ((?:not )?finished), ([\d.]+ s), data: .+"
    return [re.fullmatch(line, text(e)).groups() for e in tree.iter("li")]


def sessions(folder):
    return read_run(folder).sessions


# ---------------------------------------------------------------- the page


def test_html(page):
    tree = parse(page)
    headings = [int(e.tag[1]) for e in tree.iter() if re.fullmatch(r"h\d", str(e.tag))]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(headings))
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    links = [e.get("href") for e in tree.iter("a")]
    assert sorted(links) == sorted(f"#{i}" for i in ids)  # no other links: every picture is inside
    assert list(tree.iter("script")) == []
    found = list(tree.iter("table"))
    assert len(found) > 10
    for table in found:
        assert text(table.find("caption"))
        rows = list(table.iter("tr"))
        assert {e.get("scope") for e in rows[0]} == {"col"}
        for row in rows[1:]:
            assert [e.get("scope") for e in row.iter("th")] == ["row"]
            assert len(row) == len(rows[0])
    pictures = list(tree.iter("img"))
    assert len(pictures) == 4  # curves and weights of 1.1, two of 2.1
    for picture in pictures:
        assert len(picture.get("alt")) > 60, picture.get("alt")
        assert picture.get("src").startswith(("data:image/svg+xml;", "data:image/png;"))
        assert int(picture.get("width")) > 100
    assert page.stat().st_size < 5_000_000


def test_contents(done, page):
    tree = parse(page)
    found = tables(tree)
    folder = done / "hw/q1_perceptron"
    scores = json.loads((folder / "scores.json").read_text())
    everything = text(tree)
    assert ["best valid", f"{scores['best_valid']:.4f}"] in found["Figures of 1.1 Perceptron"]
    curves = [p.get("alt") for p in tree.iter("img") if "perceptron" in p.get("alt")]
    assert len(curves) == 2
    assert (
        "accuracy (share of examples) against epoch: training (after the epoch) from" in curves[0]
    )
    assert NAME in curves[0]
    # tables, with the best row
    (grid,) = (rows for title, rows in found.items() if title.startswith(f"logistic regression, {NAME}"))  # fmt: skip
    assert len(grid) == 1 + 12
    assert sum(row[0].startswith("★") for row in grid) == 1
    assert sum("best" in (row.get("class") or "") for row in tree.iter("tr")) == 1
    # published figures beside ours
    title = f"published figures, of EMNIST Letters, beside ours, of {NAME}, 400 training examples"
    test = next(row for row in found[f"perceptron: {title}"] if "test accuracy, best epoch" in row)
    assert test[-3:] == [f"{scores['test']:.4f}", "0.6110", "0.6111"]
    grid = found[f"logistic regression: {title}"]
    words = "epochs 20, features raw, lr 0.001, l2 0.0001, l1 0"
    assert [row[3:] for row in grid if row[0] == words] == [["0.7206", ""], ["0.7222", ""]]
    # settings, environment, data, duration
    assert ["seed", "42"] in found["Settings of 1.1 Perceptron"]
    assert ["epochs", "20"] in found["Settings of 1.1 Perceptron"]
    machine = dict(found["Machine 1"])
    assert machine["NumPy"] == np.__version__
    assert machine["processor"] == environment()["processor"]
    assert "kernels" in machine["BLAS"]
    used = dict(found["Data set 1"])
    data = minidl.load_dataset(done / f"{NAME}.npz")
    assert (used["name"], used["generated"], used["train"]) == (NAME, "False", "400")
    assert used["sha256"] == data.checksum()
    assert "drawn by a program" not in everything
    assert [(title, state) for title, state, _ in states(tree)] == [
        ("1.1 Perceptron", "finished"),
        ("1.2c Grid", "finished"),
        ("2.1 Warm-up", "finished"),
        ("3.2 Properties", "finished"),
    ]


def test_markdown(done):
    file = done / "hw/report/report.md"
    lines = file.read_text(encoding="utf-8").splitlines()
    pictures = re.findall(r"^!\[(.+)\]\((\S+)\)$", "\n".join(lines), re.M)
    assert len(pictures) == 4
    for alt, path in pictures:
        assert len(alt) > 60
        assert (file.parent / path).is_file()
    cells = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]
    assert sum(n > 0 for n in cells) > 60
    for before, after in itertools.pairwise(cells):
        assert before == after or 0 in (before, after)  # a table has rows of one length
    assert "a&lt;i&gt;&amp;\"b'\\|c" in "\n".join(lines)
    assert "<i>" not in "\n".join(line for line in lines if not line.startswith("    "))


# ---------------------------------------------------------------- a browser


needs_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium")


@needs_chromium
def test_a_browser_asks_for_nothing_and_says_nothing(page, tmp_path):
    requests, messages = browser.visit(page, tmp_path)
    assert requests == [page.resolve().as_uri()]
    assert messages == []


@needs_chromium
def test_the_browser_check_sees_faults(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    faults = '<img src="https://example.invalid/a.png" alt="">', "<script>nothing()</script>"
    (tmp_path / "faulty.html").write_text(text.replace("</main>", "".join(faults) + "</main>"), encoding="utf-8")  # fmt: skip
    requests, messages = browser.visit(tmp_path / "faulty.html", tmp_path / "profile")
    assert requests[1:] == ["https://example.invalid/a.png"]
    assert any("nothing is not defined" in message for message in messages)


def test_the_html_check_sees_faults(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    for i, (right, wrong) in enumerate((("</table>", ""), ("</h2>", "</h3>"), ("<p>", "<p><p/>"))):
        (tmp_path / f"{i}.html").write_text(text.replace(right, wrong, 1), encoding="utf-8")
        with pytest.raises(html5lib.html5parser.ParseError):
            parse(tmp_path / f"{i}.html")


# ---------------------------------------------------------------- single folders


def test_text_of_files_is_escaped(tmp_path):
    folder = tmp_path / "<script>alert(1)</script>"
    folder = tmp_path / "x" / "&<b>"
    folder.mkdir(parents=True)
    evil = '</title></style><script>alert("1")</script>\n| **x** ![y](z)'
    (folder / "run.json").write_text(json.dumps({"axes": {}, "settings": {evil: evil}}))
    (folder / "scores.json").write_text(json.dumps({evil: evil}))
    table = minidl.view.tables.Table([evil, "b"], evil.partition("\n")[0])
    table.add(evil, evil, marked=True)
    table.write(folder / "table")
    line_plot(folder / "a.png", Panel({evil: ([0, 1], [1, 2])}, "x", "y"), title="x")
    with session(folder, data={"name": evil, "generated": True}, command=evil, program=evil):
        pass
    page = write_report([read_run(folder, evil)], tmp_path / "out", title=evil)
    tree = parse(page)
    assert list(tree.iter("script")) == []
    assert text(tree.find(".//h1")) == " ".join(evil.split())
    assert "![y](z)" in tree.find(".//img").get("alt")
    assert "drawn by a program" in text(tree.find(".//li"))
    lines = (tmp_path / "out/report.md").read_text(encoding="utf-8").splitlines()
    shown = "\n".join(line for line in lines if not line.startswith("    "))  # without code
    assert "<script" not in shown
    assert len(re.findall(r"(?<!\\)\]\(", shown)) == 1  # the picture


def test_large_pictures_are_linked(done, tmp_path):
    runs = [read_run(done / "hw/q1_perceptron"), read_run(done / "hw/q2_warmup")]
    page = write_report(runs, tmp_path, limit=200_000)
    tree = parse(page)
    assert 100_000 < page.stat().st_size <= 200_000
    assert 1 <= len(list(tree.iter("img"))) <= 3
    linked = [a.get("href") for a in tree.iter("a") if a.get("href").startswith("pictures/")]
    assert len(linked) + len(list(tree.iter("img"))) == 4
    assert all((tmp_path / path).is_file() for path in linked)


def test_a_grid_of_a_user_without_tables(tmp_path):
    grid = minidl.grid.points.Grid(a=[1, 2], b=[0.5])
    minidl.grid.runner.run(grid, work.product, out=tmp_path / "own", progress=False)
    found = tables(parse(write_report([read_run(tmp_path / "own")], tmp_path / "out")))
    assert [row[:3] for row in found["Runs"]] == [
        ["a", "b", "value"],
        ["1", "0.5000", "0.5000"],
        ["2", "0.5000", "1.0000"],
    ]


def test_a_grid_that_lacks_runs_is_not_finished(tmp_path):
    """Without sessions; a script's grid is not finished if its last session did not end."""
    grid = minidl.grid.Grid(a=[1, 2], b=[0.5])
    minidl.grid.run(grid, work.product, out=tmp_path, progress=False)
    assert read_run(tmp_path).finished
    with contextlib.suppress(KeyboardInterrupt), session(tmp_path):
        raise KeyboardInterrupt
    assert not read_run(tmp_path).finished
    (tmp_path / "sessions.jsonl").unlink()
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes().partition(b"\n")[0] + b"\n")
    assert not read_run(tmp_path).finished
    assert read_run(tmp_path).kept == 1


def test_unfinished_runs_are_listed(done, tmp_path):
    folder = tmp_path / "q1_perceptron"
    shutil.copytree(done / "hw/q1_perceptron", folder)
    line = (folder / "sessions.jsonl").read_text()
    (folder / "sessions.jsonl").write_text(line + line.replace('"ended": true', '"ended": false'))
    shown = report(tmp_path, folder, done / "hw/q3_properties")
    assert shown.stderr == "q1_perceptron is not finished; it is listed as such\n"
    tree = parse(tmp_path / "report/report.html")
    found = tables(tree)
    assert [state for _, state, _ in states(tree)] == ["not finished", "finished"]
    assert "Settings of q1_perceptron" in found
    assert "Figures of q1_perceptron" not in found  # they may be of fewer epochs


def test_a_folder_of_runs_is_read(done, tmp_path):
    names = ["q1_grid", "q1_perceptron", "q2_warmup", "q3_properties"]
    assert [folder.name for folder in run_folders([done / "hw"])] == names
    shown = report(done, "hw", "--out", tmp_path, "--title", "All of it")
    assert shown.stdout == f"wrote {tmp_path / 'report.html'}, and the same as Markdown\n"
    tree = parse(tmp_path / "report.html")
    assert text(tree.find(".//h1")) == "All of it"
    scores = tables(tree)["Scores of all runs"]
    assert scores[0] == ["run", "validation", "training", "test"]
    assert [row[0] for row in scores[1:]] == [f"hw/{name}" for name in names[:3]]
    assert all(re.fullmatch(r"0\.\d{4}|1\.0000", cell) for row in scores[1:] for cell in row[1:])


def test_runs_are_found_at_any_depth(tmp_path):
    for name in ("a/x/q1", "a/y/z/q1", "a/y/.hidden/q1", "b/q1", "b/q1/inside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    folders = run_folders([tmp_path / "a", tmp_path / "b/q1", tmp_path / "b"])
    assert list(folders.values()) == ["a/x/q1", "a/y/z/q1", "q1", "q1/inside"]
    assert list(run_folders([tmp_path / "b/q1/inside"]).values()) == ["inside"]
    assert [read_run(*run).title for run in folders.items()] == list(folders.values())


def test_pictures_stand_before_long_tables(tmp_path):
    with session(tmp_path):
        pass
    for name, n in (("a", 26), ("b", 25)):
        table = minidl.view.tables.Table(["x", "y"], name)
        for i in range(n):
            table.add(i, i)
        table.write(tmp_path / name)
    line_plot(tmp_path / "curve", Panel({"a": ([0, 1], [1, 2])}, "x", "y"))
    write_report([read_run(tmp_path)], tmp_path / "out")
    for page, signs in (("md", ("**b**", "![", "**a**")), ("html", ("n>b</cap", "<img", "n>a</cap"))):  # fmt: skip
        shown = (tmp_path / f"out/report.{page}").read_text()
        places = [shown.index(sign) for sign in signs]
        assert places == sorted(places)


def test_errors_are_one_line(done, tmp_path):
    good = done / "hw/q1_perceptron"

    def broken(name, file, content):
        folder = tmp_path / name
        shutil.copytree(good, folder)
        (folder / file).write_bytes(content)
        return folder

    (tmp_path / "empty").mkdir()
    # A description that says it is compressed, and is not.
    text = b"iTXtDescription\0\1\0\0\0no zlib"
    packed_badly = (good / "weights.png").read_bytes()[:33] + struct.pack(">I", len(text) - 4) + text  # fmt: skip
    cases = {
        tmp_path / "none": "expected the folder of a run",
        tmp_path / "empty": "expected the folder of a run",
        broken("a", "sessions.jsonl", b"{}\n"): "sessions.jsonl: not as it was written",
        broken("b", "scores.json", b"[]"): "expected an object, got list",
        broken("c", "weights.png", b"text"): "weights.png: not as it was written",
        broken("t", "weights.png", (good / "weights.png").read_bytes()[:20]): "weights.png",
        broken("z", "weights.png", packed_badly): "weights.png: not as it was written",
        broken("d", "published.csv", b"a,best\n1\n"): "line 2: expected 2 cells, got 1",
        broken("e", "weights.png", (good / "weights.png").read_bytes()[:-9]): "weights.png",
        broken("f", "run.json", b"{"): "run.json: not as it was written",
    }
    for folder, message in cases.items():
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            [read_run(f) for f in run_folders([folder])]
        assert str(folder) in str(error.value)
    for folder in (tmp_path / "none", tmp_path / "c"):
        shown = report(tmp_path, folder, status=2)
        assert shown.stderr.count("\n") == 1
        assert cases[folder] in shown.stderr
    assert not (tmp_path / "report").exists()


SESSION = {"ended": True, "seconds": 1}
ODD = {
    "sessions.jsonl": [
        *({**SESSION, "seconds": seconds} for seconds in ("x", None, [], "Infinity", "NaN", -1, 10**400)),
        *({**SESSION, name: "x"} for name in ("data", "environment", "settings")),
        {**SESSION, "data": 1}, {"ended": True}, [], 3, None, "x",
    ],
    "run.json": [[], "x", None],
    "scores.json": [[], 1, None],
    "answers.json": [[], {"a": 1}, {"a": "xy"}, {"a": {"x": 1}}],
    "grid.json": [{"axes": 3}, {"axes": {"a": 3}}, []],
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), [(k, v) for k, found in ODD.items() for v in found])
def test_odd_files_are_named(tmp_path, name, content):
    """One line that names the file; or the page is written, as of a file that is not needed."""
    if name == "grid.json":
        grid = minidl.grid.Grid(a=[1])
        minidl.grid.run(grid, work.slow, out=tmp_path, progress=False)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as error:
        write_report([read_run(tmp_path)], tmp_path / "out")
    assert "\n" not in str(error.value)


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(*chunks, width=10, height=10):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", b"never read")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def test_files_of_others_are_left_out(tmp_path):
    """No picture is decompressed, and no pipe is opened."""
    (tmp_path / "run.json").write_text("{}")
    packed = zlib.compress(bytes(10**6))
    (tmp_path / "bomb.png").write_bytes(png(*[chunk(b"zTXt", b"Description\0\0" + packed)] * 9))
    (tmp_path / "text.png").write_bytes(png(chunk(b"tEXt", b"Description\0a < b")))
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.csv")
    run = read_run(tmp_path)
    assert [(p.file.name, p.description) for p in run.pictures] == [("bomb.png", "\0" * 10**6), ("text.png", "a < b")]  # fmt: skip
    assert run.tables == []


@pytest.mark.parametrize(
    "content",
    [
        png()[:-9], png()[:20], png()[:8], b"", png(width=10**5, height=10**5), png(width=0),
        png(chunk(b"IDAT", b"x")).replace(b"IDATx", b"IDATy"), png()[:33] + b"\xff\xff\xff\xff" + png()[37:],
    ],
)  # fmt: skip
def test_damaged_pictures_are_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: not as it was written \(.+\)$"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "name", ["run.json", "scores.json", "sessions.jsonl", "results.jsonl", "a.csv"]
)
def test_large_files_are_refused(tmp_path, name):
    (tmp_path / "run.json").write_text("{}")
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**10)  # without blocks on the disk
    with pytest.raises(ValueError, match=f"{name}.*expected at most"):
        read_run(tmp_path)


# ---------------------------------------------------------------- pictures and sessions


def test_pictures_carry_their_description(tmp_path):
    curves = {"ours – β": ([0, 1, 2], [3.0, 2.0, 1.5]), "long": (range(20), np.arange(20.0))}
    panel = Panel(curves, "epoch", "loss (nats)", mark=2)
    for name in ("both", "a.png", "b.pdf"):
        line_plot(tmp_path / name, panel, title="two\ncurves")
    assert {p.name for p in tmp_path.iterdir()} == {"both.png", "both.svg", "a.png", "b.pdf"}
    words = (
        "two curves. loss (nats) against epoch: ours – β 3 at 0, 2 at 1, 1.5 at 2; "
        "long from 0 at 0 to 19 at 19. The best epoch is 2."
    )
    first, both = read_run(tmp_path).pictures
    assert first.description == both.description == words
    assert (first.width, first.height) == (both.width, both.height) == (499, 394)
    before = (tmp_path / "both.svg").read_bytes()
    line_plot(tmp_path / "both", panel, title="two\ncurves")
    assert (tmp_path / "both.svg").read_bytes() == before


def test_sessions(tmp_path):
    """One that ended, or was stopped after it had computed, is noted; others are not."""
    results = tmp_path / "results"
    with session(tmp_path, results, processes=3):
        pass
    for i, error in enumerate((KeyboardInterrupt, OSError, MemoryError, SystemExit), start=1):
        with contextlib.suppress(error), session(tmp_path, results):
            results.write_text("1" * i)
            raise error
        with pytest.raises(error), session(tmp_path, results):  # refused, or all was computed
            raise error
    with session(tmp_path, results):
        pass
    found = sessions(tmp_path)
    assert [s["ended"] for s in found] == [True, *[False] * 4, True]
    assert found[0]["processes"] == 3
    assert found[0]["environment"]["NumPy"] == np.__version__
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", found[0]["started"])
    (tmp_path / "sessions.jsonl").write_text((tmp_path / "sessions.jsonl").read_text()[:-5])
    assert len(sessions(tmp_path)) == 5  # the last line is cut short
    with session(tmp_path):
        pass
    assert sessions(tmp_path)[:5] == found[:5]
    assert len(sessions(tmp_path)) == 6


@pytest.mark.parametrize("epochs", [(3,), (2, 3)])
def test_a_run_that_failed_is_not_finished(done, tmp_path, epochs):
    """It had trained, and its picture could not be written; the same command ends it."""
    command = ROOT / "examples/q1_perceptron.py", "--data", done / f"{NAME}.npz", "--full", "--out", "q1"  # fmt: skip
    *before, last = epochs
    for n in before:
        run(tmp_path, *command, "--epochs", n)
    picture = tmp_path / "q1/curves.svg"
    picture.unlink(missing_ok=True)
    picture.mkdir(parents=True)
    run(tmp_path, *command, "--epochs", last, status=2)
    run(tmp_path, *command, "--epochs", 1, status=2)  # refused
    found = read_run(tmp_path / "q1")
    assert found.state.startswith("not finished, ")
    assert NAME in found.state
    assert found.settings["q1"]["epochs"] == last
    picture.rmdir()
    run(tmp_path, *command, "--epochs", last)
    assert read_run(tmp_path / "q1").finished


def test_a_run_without_sessions_is_not_finished(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "scores.json").write_text('{"test": 0.5}')
    assert not read_run(tmp_path).finished


def test_another_machine_goes_on(tmp_path):
    with session(tmp_path):
        pass
    file = tmp_path / "sessions.jsonl"
    here = json.loads(file.read_text())
    there = {**here, "environment": {**here["environment"], "processor": "another one"}}
    file.write_text(json.dumps(there) + "\n")
    with session(tmp_path):
        pass
    found = tables(parse(write_report([read_run(tmp_path)], tmp_path / "out")))
    assert dict(found["Machine 1"])["processor"] == "another one"
    assert dict(found["Machine 2"])["processor"] == environment()["processor"]


# ---------------------------------------------------------------- the homework


def test_what_is_finished_is_not_run_again(done, tmp_path):
    done = shutil.copytree(done, tmp_path / "copy")  # its report is written anew
    before = (done / "hw/q1_perceptron/sessions.jsonl").read_text()
    marks = {p: p.stat().st_mtime_ns for p in (done / "hw").glob("q*/*") if p.is_file()}
    shown = run(done, *homework("--epochs", 20, "--jobs", 1, "--out", "hw", "--only", "1.1", "3.2")).stdout  # fmt: skip
    assert "1.1 Perceptron: finished before\n3.2 Properties: finished before\n" in shown
    assert (done / "hw/q1_perceptron/sessions.jsonl").read_text() == before
    assert {p: p.stat().st_mtime_ns for p in marks} == marks
    # other flags are not finished, and the folder belongs to the former ones
    shown = run(done, *homework("--seed", 7, "--epochs", 20, "--out", "hw", "--only", "1.1"), status=2)  # fmt: skip
    assert "seed was 42, now it is 7" in shown.stderr
    # other data of the same name
    file, kept = done / f"{NAME}.npz", done / "hw/q1_perceptron/finished.json"
    content, finished = file.read_bytes(), kept.read_bytes()
    draw(file, features=99)
    again = homework("--epochs", 20, "--jobs", 1, "--out", "hw", "--only", "1.1")
    shown = run(done, *again, status=2)
    assert "q1_perceptron/checkpoint.npz: holds another run: " in shown.stderr
    file.write_bytes(content)
    kept.write_bytes(finished[:-3])  # damaged: the script says that all epochs are done
    assert "finished before" not in run(done, *again).stdout
    assert kept.read_bytes() == finished


@pytest.mark.parametrize("shot", ["SIGINT", "SIGKILL"])
def test_the_homework_resumes(done, shot):
    """The script that runs ends with the command, also if that is killed."""
    again = f"again-{shot}"
    command = [sys.executable, *map(str, homework("--epochs", 60, "--out", again, "--only", "1.1"))]  # fmt: skip
    process = subprocess.Popen(command, cwd=done, env=env(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    folder = done / again / "q1_perceptron"
    end = time.monotonic() + 60
    while not (folder / "checkpoint.npz").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(getattr(signal, shot))
    errors = process.communicate(timeout=60)[1]  # ends with all that write to it
    if shot == "SIGINT":
        assert process.returncode == 130, errors
        assert "the epochs that ended are kept" in errors
        assert errors.endswith("stopped in 1.1 Perceptron; the same command goes on\n")
    before = [False] * (shot == "SIGINT")
    assert [s["ended"] for s in sessions(folder)] == before
    assert not read_run(folder).finished
    run(done, *command[1:])
    assert [s["ended"] for s in sessions(folder)] == [*before, True]
    assert states(parse(done / again / "report/report.html"))[0][1] == "finished"


def test_the_report_of_a_grid_with_failed_runs(tmp_path):
    draw(tmp_path / f"{NAME}.npz", features=16)  # fewer than the 90 principal components
    shown = run(tmp_path, *homework("--epochs", 1, "--jobs", 1, "--out", "hw", "--only", "1.2c"), status=1)  # fmt: skip
    assert "expected n_components to be at most 16" in shown.stdout
    assert (tmp_path / "hw/report/report.html").is_file()
    assert not (tmp_path / "hw/q1_grid/finished.json").exists()


def test_homework_errors(done):
    shown = run(done, *homework("--only", "9.9"), status=2)
    assert shown.stderr.count("\n") == 1
    shown = run(done, *homework("--out", "bad", "--only", "2.3"), status=2)
    assert "expected the folder of a run of q2_width.py" in shown.stderr
