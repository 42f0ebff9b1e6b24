"""Tables on the terminal and in files: marks, groups, empty cells."""

import csv

import pytest

from minidl.view.tables import Table


@pytest.fixture
def table():
    result = Table(["width", "valid_accuracy"], "a title")
    result.add(16, 0.51234)
    result.add(16, 0.75, marked=True)
    result.end_group()
    result.add(32, None, marked=True)
    result.add(64, "failed")
    return result


def test_csv(table, tmp_path):
    table.write(tmp_path / "runs/table")
    text = (tmp_path / "runs/table.csv").read_text()
    assert text == "width,valid_accuracy,best\n16,0.5123,0\n16,0.7500,1\n32,,1\n64,failed,0\n"
    table.add(1, 'a "word", another')
    table.write(tmp_path / "quoted")
    with (tmp_path / "quoted.csv").open(newline="") as file:
        assert list(csv.reader(file))[-1] == ["1", 'a "word", another', "0"]


def test_markdown_has_bold_rows_without_bold_empty_cells(table, tmp_path):
    table.write(tmp_path / "table")
    assert (tmp_path / "table.md").read_text() == (
        "# a title\n\n"
        "| width | valid_accuracy |\n"
        "| ---: | ---: |\n"
        "| 16 | 0.5123 |\n"
        "| **16** | **0.7500** |\n"
        "| **32** |  |\n"
        "| 64 | failed |\n"
    )
    Table(["a"]).write(tmp_path / "untitled")
    assert (tmp_path / "untitled.md").read_text() == "| a |\n| ---: |\n"


def test_the_terminal_shows_stars_and_space_between_groups(table, capsys):
    table.show()
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].strip() == "a title"
    assert lines[1].split() == ["width", "valid", "accuracy"]
    assert set(lines[2].strip()) <= {"─", " "}
    assert [line.split() for line in lines[3:]] == [
        ["16", "0.5123"],
        ["*", "16", "0.7500"],
        [],  # between the groups
        ["*", "32"],
        ["64", "failed"],
    ]
    ends = [len(line) for line in (lines[1], lines[3], lines[4], lines[7])]
    assert len(set(ends)) == 1  # numbers are aligned at the right


def test_groups_of_a_table_in_which_each_row_ends_one(capsys):
    table = Table(["a"])
    for i in range(3):
        table.add(i)
        table.end_group()
    table.show()
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[2:7] == ["0", "", "1", "", "2"]


def test_long_rows_are_not_wrapped_in_a_file(capsys):
    table = Table([f"column {i}" for i in range(12)])
    table.add(*["x" * 10] * 12)
    table.show()
    shown = capsys.readouterr().out.splitlines()
    assert any(line.count("x" * 10) == 12 for line in shown)


def test_marked_rows_are_green_in_a_terminal(table, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table.show()
    lines = capsys.readouterr().out.splitlines()
    green = [line for line in lines if "32m" in line]
    assert len(green) == 2
    assert all("* " in line for line in green)
    assert sum("* " in line for line in lines) == 2
