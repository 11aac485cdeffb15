"""The client beside what people use instead: `python -m benchmarks`, or `make bench` for everything.

`docs/benchmarks.md` says what is measured, what that favours, and what came of it.
"""
