from __future__ import annotations

import pickle

import pytest

from pinecone_embed_async.emulator import (
    CHAOS_FAULTS,
    EmbedRequest,
    Fault,
    FaultMix,
    FaultName,
    FaultRule,
    FaultSource,
    Outlook,
    parse_fault,
)
from pinecone_embed_async.emulator._faults import FaultPlan, as_fault, as_sources

REQUESTS = [EmbedRequest(number, "m", (f"text {number}",), "dense") for number in range(1, 301)]


@pytest.mark.parametrize("name", FaultName)
def test_every_fault_has_a_line_of_description_and_reads_back(name: FaultName) -> None:
    fault = Fault(name)
    assert fault.description
    assert "\n" not in fault.description
    assert parse_fault(str(fault)).fault == fault
    assert pickle.loads(pickle.dumps(fault)) == fault  # noqa: S301


def test_an_unknown_fault_lists_the_names() -> None:
    for text in ("nonsense", "nonsense=1:0.5", ""):
        with pytest.raises(ValueError, match=r"reset_before_headers.*white_space"):
            parse_fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "nan_values=3",
        "status=600",
        "status=99",
        "status=abc",
        "status=500,pdf",
        "stalled_body=-1",
        "stalled_body=nan",
        "stalled_body=soon",
        "gzip_bomb=0",
        "gzip_bomb=1.5",
        "informational=101",
        "informational=200",
        "error_in_200=200",
        "rate_limited=a\r\nb",
        "redirect=http://é/",
        "nan_values:2",
        "nan_values:3/2",
        "nan_values:1/0",
    ],
)
def test_a_value_or_rate_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|rate|RATE"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("text", "name", "value", "rate"),
    [
        ("nan_values", "nan_values", "", 1.0),
        ("nan_values:0.1", "nan_values", "", 0.1),
        ("nan_values:1/3", "nan_values", "", 1 / 3),
        ("status=503", "status", "503", 1.0),
        ("status=503,html,120:.5", "status", "503,html,120", 0.5),
        ("slow_drip=2:1", "slow_drip", "2", 1.0),
        ("redirect=http://127.0.0.1:8080/x", "redirect", "http://127.0.0.1:8080/x", 1.0),
        ("redirect=302:http://127.0.0.1:8080:0.25", "redirect", "302:http://127.0.0.1:8080", 0.25),
    ],
)
def test_name_value_and_rate_are_read(text: str, name: str, value: str, rate: float) -> None:
    rule = parse_fault(text)
    assert (rule.fault.name, rule.fault.value, rule.rate) == (name, value, rate)


@pytest.mark.parametrize(
    ("fault", "outlook"),
    [
        ("status=503", Outlook.RETRYABLE),
        ("status=429,empty", Outlook.RETRYABLE),
        ("status=525,html", Outlook.RETRYABLE),
        ("status=204", Outlook.RETRYABLE),
        ("status=102", Outlook.RETRYABLE),
        ("status=101", Outlook.TERMINAL),
        ("status=302", Outlook.TERMINAL),
        ("status=400", Outlook.TERMINAL),
        ("status=409", Outlook.RETRYABLE),
        ("status=409,html", Outlook.TERMINAL),
        ("status=501", Outlook.TERMINAL),
        ("status=507,json", Outlook.RETRYABLE),
        ("status=507,html", Outlook.TERMINAL),
        ("error_in_200=503", Outlook.RETRYABLE),
        ("error_in_200=403", Outlook.TERMINAL),
        ("month_quota_spent", Outlook.TERMINAL),
        ("quota_exceeded", Outlook.TERMINAL),
        ("redirect", Outlook.TERMINAL),
        ("slow_drip", Outlook.HARMLESS),
        ("nan_values", Outlook.RETRYABLE),
    ],
)
def test_the_outlook_is_that_of_the_clients_rules(fault: str, outlook: Outlook) -> None:
    assert as_fault(fault).outlook is outlook


def test_chaos_has_every_fault_that_a_client_should_survive() -> None:
    assert all(fault.outlook is not Outlook.TERMINAL for fault in CHAOS_FAULTS)
    survivable = {name for name in FaultName if Fault(name).outlook is not Outlook.TERMINAL}
    assert {fault.name for fault in CHAOS_FAULTS} == survivable


def test_a_mix_is_the_same_with_every_run_and_differs_by_seed() -> None:
    chosen = [FaultMix(seed=1).choose(request) for request in REQUESTS]
    assert chosen == [FaultMix(seed=1).choose(request) for request in REQUESTS]
    assert chosen != [FaultMix(seed=2).choose(request) for request in REQUESTS]
    share = sum(fault is not None for fault in chosen) / len(chosen)
    assert 0.25 < share < 0.42
    # Pinned: the draws must not depend on the machine either.
    mix = FaultMix(seed=1, rate=0.5, faults=["status=503", "cut_off_body", "nan_values"])
    assert [str(mix.choose(request)) for request in REQUESTS[:4]] == ["None", "status=503", "nan_values", "None"]


def test_a_mix_draws_only_what_applies() -> None:
    mix = FaultMix(rate=1, faults=["index_negative", "ragged_dimension"])
    assert {str(mix.choose(request)) for request in REQUESTS} == {"ragged_dimension"}


def test_a_rule_has_a_rate_and_a_condition() -> None:
    assert all(FaultRule("nan_values").choose(request) for request in REQUESTS)
    assert not any(FaultRule("nan_values", 0).choose(request) for request in REQUESTS)
    some = sum(FaultRule("nan_values", 0.5).choose(request) is not None for request in REQUESTS)
    assert 120 < some < 180
    rule = FaultRule("nan_values", when=lambda request: "text 7" in request.inputs)
    assert [request.number for request in REQUESTS if rule.choose(request)] == [7]


def test_rules_draw_independently() -> None:
    one, other = FaultRule("nan_values", 0.5), FaultRule("null_values", 0.5)
    assert any((one.choose(request) is None) != (other.choose(request) is None) for request in REQUESTS)


def test_injected_faults_come_first_and_end() -> None:
    plan = FaultPlan((FaultRule("html_body"),))
    plan.inject(Fault("nan_values"), 2, None)
    plan.inject(Fault("empty_body"), 1, lambda request: request.number == 2)
    plan.inject(Fault("index_negative"), 1, None)
    names = [str(plan.choose(request)) for request in REQUESTS[:4]]
    assert names == ["nan_values", "nan_values", "html_body", "html_body"]
    assert str(plan.choose(REQUESTS[1])) == "empty_body"
    with pytest.raises(ValueError, match="times"):
        plan.inject(Fault("nan_values"), 0, None)


def test_sources_are_made_of_whatever_names_faults() -> None:
    class Own:
        def choose(self, request: EmbedRequest) -> Fault | None:
            return None

    assert isinstance(Own(), FaultSource)
    sources = as_sources([Own(), "status=503:0.5", Fault("nan_values"), FaultName.HTML_BODY, FaultMix()])
    assert [type(source).__name__ for source in sources] == ["Own", "FaultRule", "FaultRule", "FaultRule", "FaultMix"]
    assert as_sources(None) == as_sources([]) == ()
