import traceback

import pytest

from pinecone_embed_async import ConfigurationError
from pinecone_embed_async._sending import check_api_key, check_base_url, user_agent
from pinecone_embed_async._sending.endpoint import proxy_for


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
def test_safe_base_urls_are_accepted(url: str) -> None:
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
        "https://user@api.pinecone.io",
        "https://:password@api.pinecone.io",
        "https://api.pinecone.io?x=1",
        "https://api.pinecone.io#x",
        "ftp://localhost",
        "https://",
        "https://[",
    ],
)
def test_base_urls_that_would_expose_the_key_are_rejected(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url, allow_http=False)
    assert "password" not in str(caught.value)


def test_plain_http_elsewhere_has_to_be_allowed() -> None:
    assert check_base_url("http://gateway.example", allow_http=True).host == "gateway.example"


@pytest.mark.parametrize("key", ["", "sec ret", "secret\n", "sec\r\nX: 1", "sécret", "\x7f"])
def test_keys_that_a_header_cannot_carry_are_rejected_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_api_key(key)
    assert "sec" not in str(caught.value)


def test_the_key_is_in_no_repr() -> None:
    assert "pcsk" not in repr(check_api_key("pcsk_1"))


SERVICE = check_base_url("https://api.pinecone.io", allow_http=False)


def test_the_environments_proxy_is_used_for_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    proxy = proxy_for(SERVICE)
    assert proxy is not None
    assert (str(proxy.url), proxy.headers) == ("http://proxy.example:3128", {})
    assert proxy_for(check_base_url("http://localhost:1", allow_http=False)) is None
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    with pytest.raises(
        ConfigurationError, match="https_proxy must name an http or https proxy, got a proxy of scheme socks5"
    ):
        proxy_for(SERVICE)


@pytest.mark.parametrize("excepted", ["api.pinecone.io", "api.pinecone.io:443", "a.example, .pinecone.io:443", "*"])
def test_no_proxy_names_hosts_with_or_without_their_port(excepted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert proxy_for(SERVICE) is None


@pytest.mark.parametrize(("excepted", "is_used"), [("gateway:8443", False), ("gateway:443", True), ("away:8443", True)])
def test_no_proxy_with_a_port_is_for_that_port(excepted: str, is_used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert (proxy_for(check_base_url("https://gateway:8443", allow_http=False)) is not None) is is_used


@pytest.mark.parametrize("excepted", ["::1", "[::1]", "[::1]:8443"])
def test_no_proxy_matches_ipv6_addresses_as_written(excepted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert proxy_for(check_base_url("https://[::1]:8443", allow_http=False)) is None


def test_a_proxys_credentials_are_kept_apart_from_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://us%40er:pa%23ss@proxy.example:3128/")
    proxy = proxy_for(SERVICE)
    assert proxy is not None
    assert proxy.url.user is None
    assert proxy.headers == {"Proxy-Authorization": "Basic dXNAZXI6cGEjc3M="}
    assert repr(proxy) == "<Proxy proxy.example:3128>"


@pytest.mark.parametrize(("user", "encoded"), [("us", "dXM6"), (":pw", "OnB3")])
def test_a_proxys_user_or_password_may_be_missing(user: str, encoded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"{user}@proxy.example:3128")
    proxy = proxy_for(SERVICE)
    assert proxy is not None
    assert (str(proxy.url), proxy.headers) == ("http://proxy.example:3128", {"Proxy-Authorization": f"Basic {encoded}"})


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "http://user:secret#more@proxy.example:3128",
        "http://user:12#secret@proxy.example:3128",
        "http://user:12/secret@proxy.example:3128",
        "user:12?secret@proxy.example:3128",
        "http://proxy.example:secret",
        "http://proxy.example:99999999",
        "http://secret@:3128",
        "http://secret@proxy.example:0",
        "http://",
        "http://[secret",
        "secret://proxy.example",
        "http://user%3Asecret:x@proxy.example:3128",
    ],
)
def test_an_invalid_proxy_variable_is_named_without_its_value(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"variable {variable} ") as caught:
        proxy_for(SERVICE)
    assert "secret" not in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_source_tag_is_written_in_lower_case_without_spaces() -> None:
    assert user_agent(" My_App:2 x-1 ").endswith("; source_tag=my_app:2_x-1")


@pytest.mark.parametrize("tag", ["a\r\nb", "", "ü", "a;b"])
def test_source_tags_are_checked(tag: str) -> None:
    with pytest.raises(ConfigurationError):
        user_agent(tag)
