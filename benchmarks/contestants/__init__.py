"""The contestants, one module for each library; each workload lists those that take part.

A contestant is a function that takes a problem of the workload and returns a ``Task``.
"""
