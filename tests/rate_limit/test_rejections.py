import pytest

from pinecone_embed_async._rate_limit.rejections import LimitKind, NamedLimit, named_limit
from pinecone_embed_async.emulator import _quota


def test_the_documented_message_for_tokens_per_minute() -> None:
    # Source: the service's documentation on rate limits.
    text = (
        "Request failed. You've reached the max embedding tokens per minute (250000) model 'multilingual-e5-large' and input"
        " type 'passage' for the current project. To increase this limit, upgrade your plan."
    )
    assert named_limit(text) == NamedLimit("tokens per minute", 250_000)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (_quota.tokens_per_minute_text(1_000_000, "llama-text-embed-v2", "query"), "tokens per minute"),
        (_quota.requests_per_second_text(1_000_000), "requests per second"),
        (_quota.requests_per_minute_text(1_000_000), "requests per minute"),
    ],
)
def test_messages_of_the_emulator(text: str, kind: LimitKind) -> None:
    assert named_limit(text) == NamedLimit(kind, 1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Too many requests",
        _quota.tokens_per_month_text(5_000_000, "multilingual-e5-large"),
        "max embedding tokens per minute (0)",
        "max embedding tokens per minute (many)",
        "max embedding tokens per minute (1" + 20 * "0" + ")",
        "max embedding tokens per minute (-5)",
    ],
)
def test_messages_that_name_no_limit(text: str) -> None:
    assert named_limit(text) is None
