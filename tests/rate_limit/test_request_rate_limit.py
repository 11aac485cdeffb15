from pinecone_embed_async._rate_limit.named_limits import RequestRateLimit
from pinecone_embed_async._rate_limit.pauses import KnownPause


def test_a_named_limit_holds_for_four_windows_and_twice_as_long_each_time_it_is_named_again() -> None:
    limit = RequestRateLimit(2.0, None)
    # With a request in flight, another one fits only once the limit has lapsed.
    limit.rejected(1, KnownPause(10.0), 10.0)
    assert limit.free_at(1, 10.0) == 18.0
    # Of the same burst.
    limit.rejected(1, KnownPause(17.0), 17.0)
    assert limit.free_at(1, 17.0) == 18.0
    limit.rejected(1, KnownPause(18.0), 18.0)
    assert limit.free_at(1, 18.0) == 34.0
    limit.rejected(1, KnownPause(34.0), 34.0)
    assert limit.free_at(1, 34.0) == 66.0
    assert limit.free_at(1, 66.0) <= 66.0


def test_another_limit_holds_for_four_windows_and_none_at_all_only_pauses() -> None:
    limit = RequestRateLimit(1.0, None)
    for now in (10.0, 14.0):
        limit.rejected(1, KnownPause(now), now)
    limit.rejected(2, KnownPause(15.0), 15.0)
    assert limit.free_at(2, 15.0) == 19.0
    limit.rejected(None, KnownPause(16.5), 16.0)
    assert limit.free_at(2, 16.0) == 19.0
    limit.rejected(None, KnownPause(21.0), 16.0)
    assert limit.free_at(2, 16.0) == 21.0
