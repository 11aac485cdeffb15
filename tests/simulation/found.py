"""Scenarios that failed once, made as small as they still did, and what it was; see `described`."""

from __future__ import annotations

from tests.simulation.scenario import CallPlan, ClientPlan, QuotaPlan, Scenario, ServicePlan

FOUND = {
    "a hook was told that a call waits which had ended: what was left of its joined request did": Scenario(
        seed=4, service=ServicePlan(most_bytes=172), calls=(CallPlan(kind="one", inputs=8, size=(33, 136)),)
    ),
    "the same where the request had been cut": Scenario(
        seed=5,
        service=ServicePlan(quota=QuotaPlan(tokens=457)),
        clients=(ClientPlan(max_batch_size=3, max_backoff=1.0, quota="given"),),
        calls=(CallPlan(kind="one", inputs=10),),
    ),
    "progress was not told of a stream's last items that are no texts": Scenario(
        seed=23, calls=(CallPlan(kind="stream", bad=0.8, progress="follows"),)
    ),
    "a call that was closed raised although its last answer came in time": Scenario(
        seed=178, service=ServicePlan(latency=(0.383, 1.532)), clients=(ClientPlan(closed_at=0.724),)
    ),
    "what doubted a limit that was found went over the one that was given": Scenario(
        seed=230,
        service=ServicePlan(bytes_per_token=2.0, quota=QuotaPlan(tokens=207, text=False)),
        clients=(
            ClientPlan(quota="given"),
            ClientPlan(attempt_timeout=3.0, quota="backend", cache="slow", hooks="raises"),
        ),
        calls=(CallPlan(client=1), CallPlan(inputs=10)),
    ),
    "a request that was sent again counted with the tokens that it was once thought to have": Scenario(
        seed=101764,
        service=ServicePlan(
            latency=(0.292, 1.168), bytes_per_token=2.0, outage=(0.263, 32.277), quota=QuotaPlan(tokens=113, text=False)
        ),
        clients=(
            ClientPlan(
                max_batch_size=6,
                max_attempts=1,
                max_elapsed=5.0,
                initial_backoff=2.0,
                attempt_timeout=3.0,
                max_delay=0.3,
                quota="shared",
                hooks="raises",
                knows_dimension=True,
            ),
        ),
        calls=(
            CallPlan(inputs=3, size=(54, 172), common=True),
            CallPlan(at=0.221, inputs=2, size=(45, 150), priority="interactive", timeout=0.133),
            CallPlan(at=8.299, inputs=3, size=(29, 142)),
            CallPlan(inputs=6, size=(57, 85), duplicates=0.4),
        ),
    ),
    "a slow cache kept a stream beyond its deadline": Scenario(
        seed=2697,
        clients=(ClientPlan(max_batch_size=3, cache="slow"),),
        calls=(CallPlan(kind="stream", inputs=16, timeout=3.435),),
    ),
    "a slow cache kept a call beyond its deadline": Scenario(
        seed=5058, clients=(ClientPlan(cache="slow"),), calls=(CallPlan(timeout=0.566),)
    ),
    "rows that a lost attempt had left were put in the places of another request": Scenario(
        seed=3022532,
        service=ServicePlan(
            latency=(0.409, 0.613),
            pieces=3,
            faults=("wrong_count",),
            fault_rate=0.2,
            quota=QuotaPlan(tokens=1122, requests_per_window=5, window=60.0, text=False, tenants=0.3),
        ),
        clients=(
            ClientPlan(
                max_concurrency=5,
                max_elapsed=5.0,
                initial_backoff=0.01,
                attempt_timeout=3.0,
                max_delay=0.3,
                quota="backend",
                cache="garbage",
                hooks="none",
            ),
            ClientPlan(
                max_concurrency=6,
                max_batch_size=5,
                initial_backoff=2.0,
                max_backoff=1.0,
                attempt_timeout=3.0,
                max_delay=0.3,
                quota="given",
                cache="forgets",
                hooks="none",
            ),
        ),
        calls=(
            CallPlan(kind="stream", client=1, inputs=10, duplicates=0.4, refused=0.5, progress="follows"),
            CallPlan(bad=0.8),
            CallPlan(
                kind="stream",
                at=1.813,
                inputs=21,
                size=(22, 23),
                on_error="return",
                refused=0.5,
                bad=0.8,
                source="async",
                pause=0.003,
                text_fails_at=-1,
                ordered=False,
                progress="follows",
                common=True,
            ),
        ),
    ),
    "a stream that had told what ended its job did not tell what its progress raised": Scenario(
        seed=3027426,
        service=ServicePlan(faults=("status=400",), fault_rate=0.5),
        calls=(CallPlan(kind="stream", progress="raises"),),
    ),
    "what counted for less than a billionth of a second more was taken for free": Scenario(
        seed=6006587,
        service=ServicePlan(latency=(1.096, 1.644), most_bytes=103, quota=QuotaPlan(tokens=197, window=60.0)),
        clients=(
            ClientPlan(
                max_concurrency=5,
                max_batch_size=3,
                max_backoff=1.0,
                attempt_timeout=3.0,
                max_delay=0.3,
                quota="given",
                cache="raises",
                hooks="none",
            ),
            ClientPlan(
                max_concurrency=6,
                max_batch_size=2,
                max_attempts=3,
                initial_backoff=0.01,
                max_backoff=1.0,
                max_delay=0.001,
                quota="shared",
                knows_dimension=True,
            ),
            ClientPlan(
                max_concurrency=2, max_elapsed=60.0, quota="shared", hooks="raises", looks_up=True, knows_dimension=True
            ),
        ),
        calls=(
            CallPlan(client=2, source="async"),
            CallPlan(),
            CallPlan(client=1, inputs=2, size=(56, 138), source="async"),
            CallPlan(client=1, inputs=3, size=(21, 113), priority="interactive"),
            CallPlan(client=1, at=2.116, inputs=4, source="async", pause=0.476, progress="follows", raises="StopIteration"),
        ),
    ),
    "a request whose first text was found to have more tokens than its turn was sent with that turn": Scenario(
        seed=6009068,
        service=ServicePlan(bytes_per_token=2.0, quota=QuotaPlan(tokens=177)),
        clients=(ClientPlan(max_batch_size=2, quota="shared"), ClientPlan()),
        calls=(
            CallPlan(client=1),
            CallPlan(client=1),
            CallPlan(kind="one", inputs=14, size=(10, 119), refused=0.5),
        ),
    ),
    "a back end that granted 10^309 tokens stopped the client for good": Scenario(
        seed=6000213,
        service=ServicePlan(most_bytes=64),
        clients=(ClientPlan(), ClientPlan(max_concurrency=1, quota="backend", backend="answers")),
        calls=(CallPlan(client=1, inputs=3, progress="raises"), CallPlan(client=1, at=8.418, inputs=2)),
    ),
    "a source was said not to end where the cache did not": Scenario(
        seed=6000298,
        clients=(ClientPlan(cache="stays"),),
        calls=(CallPlan(timeout=1.696), CallPlan(kind="stream", timeout=0.054, source="async")),
    ),
    "a source that was left behind left the timer of its items running": Scenario(
        seed=6012898,
        calls=(CallPlan(kind="stream", timeout=0.2, source="async", source_hangs=True, source_stays=True, max_delay=2.0),),
    ),
    "a back end that was about to end was left behind, for two had cancelled its call at once": Scenario(
        seed=6001009,
        clients=(ClientPlan(quota="backend", backend="stays"),),
        calls=(CallPlan(kind="one", inputs=2, timeout=22.958, refused=0.5),),
    ),
    "a call was said to fail early whose back end had told it to pause, for others still had grants": Scenario(
        seed=20442,
        service=ServicePlan(faults=("rate_limited=3",), fault_rate=0.5),
        clients=(ClientPlan(max_concurrency=2, quota="backend"),),
        calls=(CallPlan(kind="one", inputs=20, timeout=0.937),),
    ),
    "a stream was said to be out of order that was left before it said that a rejection had ended it": Scenario(
        seed=27285,
        service=ServicePlan(latency=(1.147, 4.588), pieces=3, bytes_per_token=2.0, quota=QuotaPlan(tokens=176, tenants=0.3)),
        clients=(ClientPlan(max_batch_size=2, max_elapsed=5.0, attempt_timeout=3.0),),
        calls=(CallPlan(kind="stream", inputs=9, leaves_after=4), CallPlan()),
    ),
}
