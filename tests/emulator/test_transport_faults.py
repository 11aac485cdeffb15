from __future__ import annotations

import asyncio
import email.utils
import gzip
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pinecone_embed_async.emulator import Emulator, Fault, FaultName, Outlook
from pinecone_embed_async.emulator._transport_faults import gzip_bomb, retry_after_header
from tests.emulator.asking import SPARSE, Asking

if TYPE_CHECKING:
    from collections.abc import Iterator

# aiohttp's names for what it makes of each fault.
BROKEN: dict[str, type[Exception]] = {
    "connection_refused=0.02": aiohttp.ClientConnectionError,
    "reset_before_headers": aiohttp.ClientConnectionError,
    "closed_before_headers": aiohttp.ServerDisconnectedError,
    "stalled_headers=0.02": aiohttp.ClientConnectionError,
    "garbage_status_line": aiohttp.ClientResponseError,
    "status=102": aiohttp.ClientConnectionError,
    "reset_during_headers": aiohttp.ClientConnectionError,
    "reset_after_headers": aiohttp.ClientError,
    "cut_off_body": aiohttp.ClientPayloadError,
    "stalled_body=0.02": aiohttp.ClientError,
    "oversized_header": aiohttp.ClientResponseError,
    "lying_gzip": aiohttp.ClientPayloadError,
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_broken_answer_is_an_error_and_the_next_one_is_right(emulator: Emulator, ask: Asking, fault: str) -> None:
    right = (await ask.embed("a", "b")).body
    emulator.inject(fault)
    with pytest.raises(BROKEN[fault]):
        await ask.embed("a", "b")
    await emulator.accept_connections()
    assert (await ask.embed("a", "b")).body == right
    name = Fault(fault.partition("=")[0]).name
    seen = emulator.statistics()
    assert seen.faults == {name: 1}
    # What the service has worked for it has billed, whether it arrived or not.
    times = 3 if Fault(name).billed else 2
    assert seen.answered == {"a": times, "b": times}
    assert seen.answered_well == {"a": 2, "b": 2}


@pytest.mark.parametrize("fault", ["stalled_headers", "stalled_body"])
async def test_a_stall_lasts_until_the_client_leaves(emulator: Emulator, ask: Asking, fault: str) -> None:
    emulator.inject(fault)
    task = asyncio.create_task(ask.embed("a"))
    await emulator.wait_for_requests(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await emulator.wait_until_idle()


@pytest.mark.parametrize("fault", ["slow_drip=0.02", "informational", "informational=100", "compressed", "keep_alive_close"])
async def test_a_harmless_fault_brings_the_right_answer(emulator: Emulator, ask: Asking, fault: str) -> None:
    right = (await ask.embed("a", "b")).body
    emulator.inject(fault)
    assert (await ask.embed("a", "b")).body == right
    assert emulator.statistics().answered_well == {"a": 2, "b": 2}


async def test_a_kept_connection_is_closed_as_it_is_used_again(emulator: Emulator, ask: Asking) -> None:
    emulator.inject("keep_alive_close")
    assert (await ask.embed("a")).status == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask.embed("b")
    assert (await ask.embed("b")).status == 200
    assert emulator.statistics().connections_opened == 2


async def test_a_refused_connection_is_refused_until_the_time_is_over(emulator: Emulator, ask: Asking) -> None:
    emulator.inject("connection_refused=60")
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask.embed("a")
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask.embed("a")
    await emulator.accept_connections()
    assert (await ask.embed("a")).status == 200
    emulator.inject("connection_refused=0.01")
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask.embed("a")
    async with asyncio.timeout(5):
        while True:
            try:
                reply = await ask.embed("a")
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.005)
    assert reply.status == 200


async def test_connections_are_refused_and_accepted_by_hand(emulator: Emulator, ask: Asking) -> None:
    url = emulator.url
    await ask.embed("a")
    emulator.refuse_connections()
    with pytest.raises(aiohttp.ClientError):
        await ask.embed("a")
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask.embed("a")
    await emulator.accept_connections()
    await emulator.accept_connections()
    assert emulator.url == url
    assert (await ask.embed("a")).status == 200


async def test_closing_while_connections_are_refused_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with Emulator() as emulator, aiohttp.ClientSession() as session:
        emulator.inject("connection_refused=60")
        with pytest.raises(aiohttp.ClientConnectionError):
            await Asking(emulator, session).embed("a")
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("status", [*range(200, 600, 33), 204, 304, 408, 425, 429, 500, 501, 503, 520, 529, 599])
@pytest.mark.parametrize("body", ["json", "html", "empty", "cut"])
async def test_every_status_has_every_body(emulator: Emulator, ask: Asking, status: int, body: str) -> None:
    emulator.inject(f"status={status},{body},7")
    reply = await ask.embed("a")
    assert reply.status == status
    assert reply.headers["Retry-After"] == "7"
    if body == "empty" or status in {204, 304}:
        assert reply.body == b""
    elif body == "html":
        assert reply.headers["Content-Type"].startswith("text/html")
        assert b"<h1>" in reply.body
    elif body == "json":
        assert reply.code
    else:
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            _ = reply.json
    assert (await ask.embed("a")).status == 200


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("rate_limited", "RESOURCE_EXHAUSTED", "max embedding tokens per minute (250000) model 'multilingual-e5-large'"),
        ("rate_limited_without_text", "RESOURCE_EXHAUSTED", ""),
        ("request_rate_limited", "TOO_MANY_REQUESTS", "max inference requests per second (100)"),
        ("month_quota_spent", "RESOURCE_EXHAUSTED", "for the current month"),
        ("quota_exceeded", "QUOTA_EXCEEDED", "quota"),
    ],
)
async def test_refusals_for_quotas_have_their_codes(
    emulator: Emulator, ask: Asking, fault: str, code: str, text: str
) -> None:
    emulator.inject(fault)
    reply = await ask.embed("a")
    assert (reply.status, reply.code) == (429, code)
    assert text in reply.message
    assert bool(reply.message) == bool(text)
    assert "Retry-After" not in reply.headers
    assert emulator.statistics().answered == {}


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"input_type": "query"}, "query"), ({"input_type": "passage"}, "passage"), ({"input_type": None}, "passage")],
)
async def test_a_rejection_names_the_input_type_of_its_request(
    emulator: Emulator, ask: Asking, parameters: dict[str, Any], named: str
) -> None:
    emulator.inject("rate_limited", when=lambda request: request.input_type == named)
    reply = await ask.embed("a", parameters=parameters)
    assert f"and input type '{named}' for" in reply.message


@pytest.mark.parametrize(
    ("value", "sent"),
    [("7", "7"), ("negative", "-1"), ("huge", "9" * 30), ("rubbish", "soon; perhaps"), ("-5", "-5"), ("dated", "dated")],
)
async def test_retry_after_may_be_anything(emulator: Emulator, ask: Asking, value: str, sent: str) -> None:
    emulator.inject(f"rate_limited={value}")
    assert (await ask.embed("a")).headers["Retry-After"] == sent


@pytest.mark.parametrize(("value", "ahead"), [("date", 1), ("date+90", 90), ("date-5", -5)])
def test_retry_after_may_be_a_date(value: str, ahead: float) -> None:
    sent = retry_after_header(value)["Retry-After"]
    assert sent.endswith("GMT")
    assert 0 <= email.utils.parsedate_to_datetime(sent).timestamp() - time.time() - ahead + 0.5 < 2


@pytest.mark.parametrize(
    ("value", "status", "url"),
    [
        ("", 307, "http://elsewhere.invalid/embed"),
        ("302:http://127.0.0.1:9/x", 302, "http://127.0.0.1:9/x"),
        ("http://127.0.0.1:9", 307, "http://127.0.0.1:9"),
    ],
)
async def test_a_redirect_goes_where_it_is_told(emulator: Emulator, ask: Asking, value: str, status: int, url: str) -> None:
    emulator.inject(Fault("redirect", value))
    reply = await ask.embed("a")
    assert (reply.status, reply.headers["Location"]) == (status, url)


async def test_an_error_may_come_in_a_200(emulator: Emulator, ask: Asking) -> None:
    emulator.inject("error_in_200=401")
    reply = await ask.embed("a")
    assert reply.status == 200
    assert reply.json["error"]["code"] == "UNAUTHENTICATED"
    assert reply.json["status"] == 401


async def test_a_gigantic_body_is_streamed_and_bounded(emulator: Emulator, ask: Asking) -> None:
    emulator.inject("gigantic_body=2")
    reply = await ask.embed("a")
    assert len(reply.body) == 2 * 2**20 + len(b'{"model":"')
    emulator.inject("gigantic_body=4096")
    async with ask.session.post(
        f"{emulator.url}/embed",
        data=b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"},"inputs":[{"text":"a"}]}',
        headers=ask.headers(),
    ) as response:
        await response.content.readexactly(2**20)
    await emulator.wait_until_idle()


async def test_a_gzip_bomb_grows_to_its_size(emulator: Emulator, ask: Asking) -> None:
    assert gzip.decompress(gzip_bomb(3)) == b'{"model":"' + b"x" * (3 * 2**20)
    assert len(gzip_bomb(3)) < 5000
    emulator.inject("gzip_bomb=2")
    async with ask.session.post(
        f"{emulator.url}/embed",
        data=b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"},"inputs":[{"text":"a"}]}',
        headers=ask.headers(),
    ) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
    assert size == 2 * 2**20 + len(b'{"model":"')


async def test_a_refused_request_keeps_its_refusal(emulator: Emulator, ask: Asking) -> None:
    emulator.inject("cut_off_body")
    assert (await ask.embed("a", model="none")).status == 404
    assert emulator.statistics().faults == {}


async def test_faults_are_switched_while_it_runs(emulator: Emulator, ask: Asking) -> None:
    emulator.faults = "status=503"
    assert (await ask.embed("a")).status == 503
    emulator.faults = [Fault("status", 500), "nan_values"]
    assert len(emulator.faults) == 2
    assert (await ask.embed("a")).status == 500
    emulator.inject("status=502", when=lambda request: "b" in request.inputs)
    assert [(await ask.embed(text)).status for text in "abb"] == [500, 502, 500]
    emulator.faults = None
    assert (await ask.embed("a")).status == 200
    emulator.inject("status=502")
    emulator.clear_faults()
    assert (await ask.embed("a")).status == 200


def _each_fault() -> Iterator[Fault]:
    for name in FaultName:
        value = {"stalled_headers": "0.01", "stalled_body": "0.01", "connection_refused": "0.01"}.get(name.value, "")
        yield Fault(name, value or ("1" if name.value in {"gzip_bomb", "gigantic_body"} else ""))


@pytest.mark.parametrize("model", ["multilingual-e5-large", SPARSE])
async def test_every_fault_is_committed_without_a_word_in_the_log(
    emulator: Emulator, ask: Asking, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    for fault in _each_fault():
        emulator.inject(fault)
        try:
            await ask.embed("a", "b", "c", model=model)
        except aiohttp.ClientError:
            assert fault.outlook is Outlook.RETRYABLE
        await emulator.wait_until_idle()
        await emulator.accept_connections()
        emulator._connections._doomed.clear()  # type: ignore[union-attr]
        emulator.clear_faults()
        expected = int(fault.applies_to("sparse" if model == SPARSE else "dense"))
        assert emulator.statistics().faults.get(fault.name.value, 0) == expected, fault
    assert caplog.records == []
