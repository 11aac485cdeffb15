import math

from pinecone_embed_async._rate_limit.named_limits import LimitProbe

LENGTH = 10.0


def test_no_probe_before_a_limit_was_named() -> None:
    assert LimitProbe(LENGTH).next == math.inf


def test_probes_come_after_four_windows_and_then_half_as_often_each_time() -> None:
    probe, now = LimitProbe(LENGTH), 100.0
    probe.named(now, is_lower=False)
    for windows in (4, 8, 16):
        assert probe.next == now + windows * LENGTH
        now = probe.next
        probe.held(now)


def test_eight_probes_come_every_window_if_a_higher_limit_held_before() -> None:
    probe, now = LimitProbe(LENGTH), 100.0
    probe.named(now, is_lower=True)
    for _ in range(8 + 1):
        assert probe.next == now + LENGTH
        now = probe.next
        probe.held(now)
    assert probe.next == now + 2 * LENGTH


def test_one_probe_is_in_flight_at_a_time() -> None:
    probe = LimitProbe(LENGTH)
    probe.named(0.0, is_lower=True)
    probe.is_in_flight = True
    assert probe.next == math.inf
    probe.is_in_flight = False
    assert probe.next == LENGTH


def test_a_limit_named_again_after_a_seemingly_successful_probe_is_probed_half_as_often() -> None:
    probe = LimitProbe(LENGTH)
    probe.named(0.0, is_lower=False)
    probe.stop()
    assert probe.next == math.inf
    probe.named(50.0, is_lower=False)
    assert probe.next == 50 + 8 * LENGTH


def test_an_inconclusive_probe_is_soon_followed_by_another() -> None:
    probe = LimitProbe(LENGTH)
    probe.named(0.0, is_lower=False)
    probe.inconclusive(40.0)
    assert probe.next == 40 + LENGTH / 120
