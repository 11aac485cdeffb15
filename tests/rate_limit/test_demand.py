"""The demand of interactive calls in the last window, and the forecast that it makes."""

import math

import pytest

from pinecone_embed_async._rate_limit.demand import DEVIATIONS, KEPT_AT_MOST, Demand

LENGTH = 60.0
LIMIT = 10_000


def demand_of(*requests: tuple[int, float]) -> Demand:
    demand = Demand(LENGTH)
    for tokens, at in requests:
        demand.asked(tokens, at)
    return demand


def test_a_forecast_has_the_rate_of_the_last_window_and_the_deviation_of_its_requests() -> None:
    forecast = demand_of((300, 0.0), (400, 30.0)).forecast(LIMIT, 40.0)
    assert forecast is not None
    assert forecast.rate == pytest.approx(700 / LENGTH)
    assert forecast.spread == pytest.approx(DEVIATIONS * math.sqrt((300**2 + 400**2) / LENGTH))
    assert (forecast.waiting, forecast.surplus, forecast.most) == (0, 700, KEPT_AT_MOST * LIMIT)


def test_no_demand_is_expected_a_window_after_the_last_request() -> None:
    demand = demand_of((300, 0.0), (400, 30.0))
    forecast = demand.forecast(LIMIT, 89.0)
    assert forecast is not None
    assert (forecast.surplus, forecast.over_at) == (400, 90.0)
    assert demand.forecast(LIMIT, 90.0) is None
    demand.waiting = 10
    forecast = demand.forecast(LIMIT, 90.0)
    assert forecast is not None
    assert (forecast.waiting, forecast.surplus, forecast.over_at) == (10, 0, math.inf)


def test_tokens_cut_off_a_request_are_asked_for_again_and_do_not_count_twice() -> None:
    demand = demand_of((50, 0.0), (900, 10.0))
    demand.cut(900, 300)
    demand.asked(600, 10.0)
    assert demand.forecast(LIMIT, 20.0) == demand_of((50, 0.0), (300, 10.0), (600, 10.0)).forecast(LIMIT, 20.0)


def test_calls_are_over_their_share_with_what_waits_and_what_they_asked_for() -> None:
    demand = demand_of((4000, 0.0))
    demand.waiting = 1000
    assert not demand.is_over_share(LIMIT, 1.0)
    demand.waiting = 1001
    assert demand.is_over_share(LIMIT, 1.0)
    assert not demand.is_over_share(LIMIT, 60.0)


def test_a_window_of_demand_is_kept_in_few_parts() -> None:
    demand = demand_of(*((1, number / 100) for number in range(20_000)))
    forecast = demand.forecast(LIMIT, 199.99)
    assert forecast is not None
    # At most a part is kept for too long.
    assert 6000 <= forecast.surplus <= 6000 * (1 + 1 / 60)
