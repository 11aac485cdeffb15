import math

from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async.integrations._ray.leases import Leases

NAMES = st.sampled_from(["one", "two", "three"])


def test_what_a_worker_gives_back_it_holds_no_more() -> None:
    leases = Leases[str](10.0)
    leases.heard("one", 0.0)
    leases.add("one", 0, "grant")
    assert leases.get("one", 0) == "grant"
    assert (leases.remove("one", 0), leases.remove("one", 0), leases.remove("two", 0)) == ("grant", None, None)


def test_a_worker_that_is_not_heard_of_loses_what_it_holds() -> None:
    leases = Leases[str](10.0)
    leases.heard("one", 0.0)
    leases.add("one", 0, "grant")
    leases.heard("two", 5.0)
    assert leases.next_time() == 10.0
    assert leases.expire(9.9) == []
    assert leases.expire(10.0) == ["grant"]
    assert leases.next_time() == 15.0
    assert leases.expire(15.0) == []
    assert leases.next_time() == math.inf


def test_a_worker_s_own_account_counts_up_to_where_it_had_come() -> None:
    leases = Leases[str](10.0)
    leases.heard("one", 0.0)
    for number in range(4):
        leases.add("one", number, f"grant {number}")
    assert leases.keep("one", 3, {1}) == ["grant 0", "grant 2"]
    assert [leases.get("one", number) for number in range(4)] == [None, "grant 1", None, "grant 3"]
    assert leases.keep("nobody", 3, ()) == []


@given(st.lists(st.tuples(st.sampled_from(["heard", "add", "remove", "keep", "expire"]), NAMES, st.integers(0, 5))))
def test_nothing_is_lost_and_nothing_comes_back_twice(steps: list[tuple[str, str, int]]) -> None:
    leases, now, given_out, back = Leases[int](3.0), 0.0, 0, list[int]()
    for step, name, number in steps:
        now += 1
        if step == "heard":
            leases.heard(name, now)
        elif step == "add":
            leases.heard(name, now)
            if leases.get(name, number) is None:
                leases.add(name, number, given_out)
                given_out += 1
        elif step == "remove":
            item = leases.remove(name, number)
            back += [] if item is None else [item]
        elif step == "keep":
            back += leases.keep(name, number, {0, 2})
        else:
            back += leases.expire(now)
    back += leases.expire(math.inf)
    assert sorted(back) == list(range(given_out))
