"""Base URL, proxy, API key and user agent of requests, and their validation."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import urllib.request

from yarl import URL

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._version import __version__

_OTHER_SCHEMES = ("socks", "socks4", "socks4a", "socks5", "socks5h")

_NO_PROXY_URL = (
    "{} must be an address such as http://user:password@host:3128; in the user and the password, special"
    " characters must be escaped: # is %23, / is %2F, ? is %3F, @ is %40"
)


class ApiKey:
    """Holds the API key and hides it from `repr`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<api key>"

    def reveal(self) -> str:
        """The key itself, for the request header."""
        return self._value


class Proxy:
    """A proxy; credentials are kept apart from the address, so that the address can be shown.

    Attributes:
        url: the address, without credentials.
        headers: headers of requests to the proxy: `Proxy-Authorization` if there are credentials.
    """

    __slots__ = ("headers", "url")

    def __init__(self, url: URL) -> None:
        self.url = url.with_user(None)
        self.headers: dict[str, str] = {}
        if url.user is not None or url.password is not None:
            credentials = f"{url.user or ''}:{url.password or ''}"
            # Source: RFC 7617, 2.
            self.headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    def __repr__(self) -> str:
        return f"<Proxy {self.name}>"

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"{self.url.host}:{self.url.port}"


def proxy_for(url: URL) -> Proxy | None:
    """The proxy for `url` from the environment; `None` for plain HTTP, where the proxy would see the key.

    Raises:
        ConfigurationError: the environment names an invalid proxy, or one of a kind that aiohttp does not support.
    """
    if url.scheme != "https" or _is_excepted(url):
        return None
    proxies = urllib.request.getproxies()
    scheme = "https" if proxies.get("https") else "all"
    found = proxies.get(scheme)
    if not found:
        return None
    source = _source_of(f"{scheme}_proxy")
    problem = None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
        if proxy.scheme not in ("http", "https"):
            kind = f"a proxy of scheme {proxy.scheme}" if proxy.scheme in _OTHER_SCHEMES else "a proxy of another scheme"
            problem = f"{source} must name an http or https proxy, got {kind}"
        elif not proxy.host or not proxy.port or proxy.path not in ("", "/") or proxy.query_string or proxy.fragment:
            problem = _NO_PROXY_URL.format(source)
        elif ":" in (proxy.user or ""):
            problem = f"{source} must name a user without a colon: HTTP's basic authentication cannot carry one"
    except ValueError:
        problem = _NO_PROXY_URL.format(source)
    if problem is not None:
        # Not chained, because the cause holds a part of the value.
        raise ConfigurationError(problem)
    return Proxy(proxy)


def _is_excepted(url: URL) -> bool:
    """Whether `NO_PROXY` or the system's equivalent names the host of `url`, with or without its port."""
    host = url.host or ""
    names = (f"[{host}]:{url.port}", host) if ":" in host else (f"{host}:{url.port}",)
    return any(urllib.request.proxy_bypass(name) for name in names)


def _source_of(name: str) -> str:
    """Where `urllib` found a proxy: an environment variable, lower case before upper case, or the system settings."""
    for variable in (name, name.upper()):
        if os.environ.get(variable):
            return f"the environment variable {variable}"
    return "the system's proxy setting"


def check_base_url(text: str, *, allow_http: bool) -> URL:
    """Parse the base URL, and check that the API key may be sent there.

    Raises:
        ConfigurationError: it is not an http or https URL; has credentials, a query or a fragment; or is plain HTTP to
            another machine without `allow_http`.
    """
    url: URL | None = None
    # Suppressed, not chained, because the cause holds a part of the value.
    with contextlib.suppress(ValueError):
        url = URL(text if "://" in text else f"https://{text}")
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("base_url must be an http or https URL with a host")
    if url.user is not None or url.password is not None:
        raise ConfigurationError("base_url must not hold credentials")
    if url.query_string or url.fragment:
        raise ConfigurationError("base_url must not hold a query or a fragment")
    if url.scheme == "http" and not allow_http and not _is_loopback(url.host):
        raise ConfigurationError(
            "base_url must not be plain HTTP to another machine, which would show the key to the network; "
            "use https, or pass allow_http=True"
        )
    return url


def ip_address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host as an IP address; `None` if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = ip_address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def check_api_key(value: str) -> ApiKey:
    """Wrap the API key, and check that a header can carry it.

    Raises:
        ConfigurationError: it is empty or has a character that a header cannot carry; the message does not show the key.
    """
    if not value:
        raise ConfigurationError("the API key must not be empty: set PINECONE_API_KEY or pass api_key")
    if refused := re.search("[^!-~]", value):
        raise ConfigurationError(
            f"the API key has a character at position {refused.start()} of {len(value)} that a header cannot carry; look for"
            " spaces or a line end around it"
        )
    return ApiKey(value)


def user_agent(source_tag: str | None) -> str:
    """The `User-Agent` header; a source tag names the calling integration.

    Raises:
        ConfigurationError: the tag has a character outside letters, digits, space and `_:-`.
    """
    name = f"pinecone-embed-async/{__version__}"
    if source_tag is None:
        return name
    tag = source_tag.strip().lower().replace(" ", "_")
    if not re.fullmatch("[a-z0-9_:-]+", tag):
        raise ConfigurationError("source_tag must have only letters, digits, spaces and _:-")
    return f"{name}; source_tag={tag}"
