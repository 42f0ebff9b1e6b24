"""Grids of training runs, in parallel and resumable."""

from minidl.grid.axes import Grid, Point
from minidl.grid.runner import Result, run

__all__ = ["Grid", "Point", "Result", "run"]
