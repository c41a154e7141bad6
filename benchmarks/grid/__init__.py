"""Rates over a grid of settings, to find the cliffs: ``python -m benchmarks.grid``.

A cliff is a cell that is far slower than its neighbours though the client has as much to do for a record.
"""
