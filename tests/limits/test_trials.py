import math

from pinecone_embed_async._limits._trials import EAGER_PROBES, PROBE_WINDOWS, Trials

LENGTH = 10.0


def test_nothing_is_tried_before_a_limit_was_named() -> None:
    assert Trials(LENGTH).next == math.inf


def test_it_is_tried_after_some_windows_and_then_half_as_often_each_time() -> None:
    trials, now = Trials(LENGTH), 100.0
    trials.named(now, is_lower=False)
    for windows in (PROBE_WINDOWS, 2 * PROBE_WINDOWS, 4 * PROBE_WINDOWS):
        assert trials.next == now + windows * LENGTH
        now = trials.next
        trials.held(now)


def test_it_is_tried_each_window_for_some_time_if_a_higher_limit_held_before() -> None:
    trials, now = Trials(LENGTH), 100.0
    trials.named(now, is_lower=True)
    for _ in range(EAGER_PROBES + 1):
        assert trials.next == now + LENGTH
        now = trials.next
        trials.held(now)
    assert trials.next == now + 2 * LENGTH


def test_one_is_under_way_at_a_time() -> None:
    trials = Trials(LENGTH)
    trials.named(0.0, is_lower=True)
    trials.is_under_way = True
    assert trials.next == math.inf
    trials.is_under_way = False
    assert trials.next == LENGTH


def test_what_is_named_again_after_a_trial_that_seemed_to_succeed_is_tried_half_as_often() -> None:
    trials = Trials(LENGTH)
    trials.named(0.0, is_lower=False)
    trials.succeeded()
    assert trials.next == math.inf
    trials.named(50.0, is_lower=False)
    assert trials.next == 50 + 2 * PROBE_WINDOWS * LENGTH


def test_a_trial_that_told_nothing_is_soon_followed_by_another() -> None:
    trials = Trials(LENGTH)
    trials.named(0.0, is_lower=False)
    trials.told_nothing(40.0)
    assert 40 < trials.next < 41
