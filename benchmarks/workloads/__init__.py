"""The workloads, one module each, in the order in which they run.

A module has ``cases``, ``contestants`` and ``CONTESTANTS``. If its contestants take turns in worker
processes, it also has ``problem``, ``disagreement`` and ``budget``, and ``harness.workers`` checks
and times them; otherwise it has ``measure``.
"""

from harness.jobs import Workload

WORKLOADS = {
    w.name: w
    for w in (
        Workload("imports", "seconds and megabytes", 1, 25),
        Workload("evaluate", "milliseconds", 1e3, 5, many_threads=True),
        Workload("simplex", "microseconds", 1e6, 1.2),
        Workload("online", "microseconds an example", 1e6, 12),
        Workload("step", "microseconds a step", 1e6, 22, many_threads=True),
        Workload("memory", "megabytes", 1, 30),
        Workload("real", "seconds an epoch", 1, 12),
        Workload("grid", "seconds", 1, 360),
    )
}
