"""Grids of training runs, in parallel, on several machines, and resumable."""

from minidl.grid.points import Grid, Point, Result, exit_status, keeping
from minidl.grid.runner import run
from minidl.view.cli import interruptible

__all__ = ["Grid", "Point", "Result", "exit_status", "interruptible", "keeping", "run"]
