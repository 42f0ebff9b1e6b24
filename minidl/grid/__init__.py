"""Grids of training runs, in parallel, on several machines, and resumable."""

from minidl.grid.points import Grid, Point, Result, Shard, exit_status, keeping
from minidl.grid.runner import run
from minidl.grid.workers import Polling, connected

__all__ = [
    "Grid",
    "Point",
    "Polling",
    "Result",
    "Shard",
    "connected",
    "exit_status",
    "keeping",
    "run",
]
