"""Some forged files in every run; all of them are among the attacks."""

import pytest
from attacks import damage

SLOW = {"marks": pytest.mark.slow}  # a page takes half a second


@pytest.mark.parametrize("name", [pytest.param(n, **(SLOW if "report" in n else {})) for n in damage.FORGED])  # fmt: skip
def test_forged_files_are_refused_in_one_line(tmp_path, name):
    """Wrong kinds, numbers without end, deep lists, other layers, with right sums and lengths."""
    assert damage.read_forged(tmp_path, name, 4) == []
