"""Services and clients under a virtual clock, for `benchmarks.quota_simulation` and `tests/simulation`.

The client is the real one, through its transport and its clock. What is simulated is the service, the way to it, and the
time, which jumps to whatever happens next.
"""
