"""Grids of training runs, in parallel and resumable."""

from minidl.grid.axes import Grid, Point
from minidl.grid.results import Result
from minidl.grid.runner import run

__all__ = ["Grid", "Point", "Result", "run"]
