import itertools
import math
from typing import Any

import pytest

from pinecone_embed_async import ConfigurationError, EmbedClient, Quota, SharedQuota
from pinecone_embed_async._models import PLANS
from pinecone_embed_async._rate_limit import QuotaDemand, QuotaOutcome, limiter_options

BAD_WHOLE: list[Any] = [0, -1, 1.5, "1000", True, math.inf]


@pytest.mark.parametrize("name", ["tokens_per_minute", "requests_per_second", "requests_per_minute"])
@pytest.mark.parametrize("value", BAD_WHOLE)
def test_limits_must_be_integers_from_1(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be an integer ≥ 1, or None to learn it, got"):
        Quota(**{name: value})


@pytest.mark.parametrize("window", [0, -1, math.inf, math.nan, "60", True, None])
def test_a_window_must_be_a_positive_number_of_seconds(window: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^window must be a number of seconds > 0, got"):
        Quota(window=window)


@pytest.mark.parametrize("quota", ["gold", "", 0, True, 1.5, object(), SharedQuota])
def test_invalid_quotas_are_refused_by_client_and_shared_quota(quota: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^quota must be "):
        EmbedClient("multilingual-e5-large", api_key="k", quota=quota)
    with pytest.raises(ConfigurationError, match=r"^quota must be "):
        SharedQuota(quota)


def test_the_message_names_the_plans() -> None:
    with pytest.raises(ConfigurationError, match=r'"starter".*"standard".*\'gold\''):
        limiter_options("gold")


# Source: the token limits in the service's documentation (2025-10).
@pytest.mark.parametrize(
    ("plan", "model", "input_type", "tokens"),
    [
        (plan, model, input_type, tokens)
        for plans, limits in {
            ("starter", "builder"): (250_000, 50_000, 250_000, 250_000),
            ("standard", "enterprise"): (1_000_000, 250_000, 3_000_000, 3_000_000),
        }.items()
        for plan in plans
        for (model, input_type), tokens in zip(
            itertools.product(("multilingual-e5-large", "pinecone-sparse-english-v0"), ("passage", "query")),
            limits,
            strict=True,
        )
    ],
)
def test_tokens_of_plans_by_model_and_input_type(plan: str, model: str, input_type: str, tokens: int) -> None:
    options = limiter_options(plan)
    assert options.tokens((model, input_type)) == tokens
    assert (options.requests_per_second, options.requests_per_minute, options.window) == (100, 2000, 60)


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_has_tokens_for_unknown_models(plan: str) -> None:
    assert limiter_options(plan, "sparse").tokens(("new", "")) is not None
    assert limiter_options(plan, None).tokens(("new", "passage")) is not None


def test_own_limits_hold_for_every_model_and_no_quota_has_none() -> None:
    own = limiter_options(Quota(1000, None, 7, window=0.5))
    assert own.tokens(("any", "query")) == 1000
    assert (own.requests_per_second, own.requests_per_minute, own.window) == (None, 7, 0.5)
    nothing = limiter_options(None)
    assert nothing.tokens(("any", "query")) is None
    assert nothing.requests_per_second is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": 0}, "tokens must be an integer ≥ 1, got 0"),
        ({"least": 0}, "least must be an integer ≥ 1, got 0"),
        ({"least": 1.5}, "least must be an integer ≥ 1, got 1.5"),
        ({"least": 11}, "least must be at most tokens, which is 10, got 11"),
        ({"priority": "high"}, 'priority must be "interactive" or "bulk", got \'high\''),
        ({"model": 7}, "model must be .*"),
        ({"flow": []}, "flow must be hashable, such as a text, got list"),
        ({"within": -1}, "within must be .*"),
    ],
)
def test_invalid_demands_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        QuotaDemand(**{"model": "m", "input_type": "", "tokens": 10, "least": 1, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "lost"}, "kind must be .*"),
        ({"tokens": -1}, "tokens must be .*"),
        ({"message": b"too much"}, "message must be .*"),
        ({"retry_after": -1}, "retry_after must be .*"),
    ],
)
def test_invalid_outcomes_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        QuotaOutcome(**{"kind": "rejected", "tokens": 10, **changed})


def test_demands_and_outcomes_may_have_the_least_values() -> None:
    assert QuotaDemand("m", "", 1, 1, within=0).within == 0
    assert QuotaOutcome("rejected", 0, retry_after=0).retry_after == 0


def test_without_numbers_of_requests_the_documented_ones_are_kept() -> None:
    assert (Quota().requests_per_second, Quota().requests_per_minute) == (100, 2000)


def test_a_quota_cannot_be_changed_and_may_be_a_key() -> None:
    quota = Quota(1000)
    with pytest.raises(AttributeError):
        quota.tokens_per_minute = 2000  # type: ignore[misc]
    assert {quota: "the plan"}[Quota(1000)] == "the plan"
