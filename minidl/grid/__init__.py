"""Grids of training runs, in parallel, on several machines, and resumable."""

from minidl.grid.axes import Grid, Point
from minidl.grid.executors import Polling, connected
from minidl.grid.results import Result, exit_status, keeping
from minidl.grid.runner import run
from minidl.grid.shards import Shard

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
