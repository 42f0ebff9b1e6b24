"""Grids of training runs: in parallel, resumable, with tables and plots."""

from minidl.experiments.grid import Grid, Point
from minidl.experiments.runner import Result, run
from minidl.tables import Table

__all__ = ["Grid", "Point", "Result", "Table", "run"]
