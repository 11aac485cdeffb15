"""Measures the client beside the alternatives: `python -m benchmarks`, or `make bench` for everything.

`docs/benchmarks.md` says what is measured, what the measurements favour, and the results.
"""
