import pytest

from pinecone_embed_async import ConfigurationError
from pinecone_embed_async._endpoint import check_api_key, check_base_url, proxy_for, user_agent


@pytest.mark.parametrize(
    "url",
    [
        "https://api.pinecone.io",
        "api.pinecone.io",
        "http://localhost:8080",
        "http://127.0.0.1:1",
        "http://[::1]:1/base",
        "http://127.8.9.1",
    ],
)
def test_safe_base_urls_are_taken(url: str) -> None:
    assert check_base_url(url, allow_http=False).host


@pytest.mark.parametrize(
    "url",
    [
        "http://api.pinecone.io",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://localhost.",
        "http://127.0.0.1@evil.example",
        "http://127.1",
        "http://2130706433",
        "http://0.0.0.0",
        "http://[::ffff:10.0.0.1]",
        "https://user:password@api.pinecone.io",
        "https://api.pinecone.io?x=1",
        "https://api.pinecone.io#x",
        "ftp://localhost",
        "https://",
        "https://[",
    ],
)
def test_base_urls_that_would_show_the_key_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url, allow_http=False)
    assert "password" not in str(caught.value)


def test_plain_http_elsewhere_has_to_be_allowed() -> None:
    assert check_base_url("http://gateway.example", allow_http=True).host == "gateway.example"


@pytest.mark.parametrize("key", ["", "sec ret", "secret\n", "sec\r\nX: 1", "sécret", "\x7f"])
def test_keys_that_cannot_stand_in_a_header_are_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_api_key(key)
    assert "sec" not in str(caught.value)


def test_the_key_is_in_no_repr() -> None:
    assert "pcsk" not in repr(check_api_key("pcsk_1"))


def test_the_environments_proxy_is_used_for_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert str(proxy_for(check_base_url("https://api.pinecone.io", allow_http=False))) == "http://proxy.example:3128"
    assert proxy_for(check_base_url("http://localhost:1", allow_http=False)) is None
    monkeypatch.setenv("no_proxy", "api.pinecone.io")
    assert proxy_for(check_base_url("https://api.pinecone.io", allow_http=False)) is None
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    with pytest.raises(ConfigurationError, match="socks5"):
        proxy_for(check_base_url("https://api.pinecone.io", allow_http=False))


@pytest.mark.parametrize("tag", ["a\r\nb", "", "ü", "a;b"])
def test_source_tags_are_checked(tag: str) -> None:
    with pytest.raises(ConfigurationError):
        user_agent(tag)
