"""Services and clients under a virtual clock, for `benchmarks.quota_simulation` and `tests/simulation`.

The client is the real one, with another transport and clock. The service, the network and the time are simulated; the time
jumps to the next event.
"""
