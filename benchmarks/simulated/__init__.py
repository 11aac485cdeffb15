"""Services and clients under a virtual clock, for `benchmarks.quota_simulation`.

What decides in the client is the package's own: the limiter and its turnstile, the planner, the run of requests. What is
simulated is the service, the way to it, and the time, which jumps to whatever happens next.
"""
