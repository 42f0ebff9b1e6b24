"""The workloads, one module each.

A module whose contestants take turns in worker processes has ``problem(case)``, ``CONTESTANTS`` and
``disagreement(problem, found)``; ``harness.workers`` checks and times them. Every workload has an
entry in ``registry``.
"""
