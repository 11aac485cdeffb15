"""Where requests go and what they carry: the base URL, the proxy, the key and the user agent, each checked."""

from __future__ import annotations

import ipaddress
import urllib.request

from yarl import URL

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._version import __version__


class ApiKey:
    """Holds the key so that no repr shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<api key>"

    def reveal(self) -> str:
        """The key itself, for the header."""
        return self._value


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for `url`; never one for plain HTTP, which would show it the key.

    Raises:
        ConfigurationError: the proxy is of a kind that aiohttp does not speak.
    """
    if url.scheme != "https" or urllib.request.proxy_bypass(url.host or ""):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get("https") or proxies.get("all")
    if not found:
        return None
    proxy = URL(found if "://" in found else f"http://{found}")
    if proxy.scheme not in ("http", "https"):
        raise ConfigurationError(f"the environment names a proxy of scheme {proxy.scheme!r}; only http and https work")
    return proxy


def check_base_url(text: str, *, allow_http: bool) -> URL:
    """The parsed base URL, if the key may be sent there.

    Raises:
        ConfigurationError: it is no URL, holds credentials, or is plain HTTP to another host than this one.
    """
    problem = None
    try:
        url = URL(text if "://" in text else f"https://{text}")
    except ValueError:
        problem = "base_url is not a URL"
    if problem is None:
        if url.scheme not in ("http", "https") or not url.host:
            problem = "base_url must be an http or https URL with a host"
        elif url.user is not None or url.password is not None:
            problem = "base_url must not hold credentials"
        elif url.query_string or url.fragment:
            problem = "base_url must not hold a query or a fragment"
        elif url.scheme == "http" and not allow_http and not _is_loopback(url.host):
            problem = (
                "base_url is plain HTTP to another machine, which would show the key to the network; "
                "use https, or pass allow_http=True"
            )
    if problem is not None:
        raise ConfigurationError(problem)
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_api_key(value: str) -> ApiKey:
    """The key, if it can stand in a header.

    Raises:
        ConfigurationError: it is empty or has a character that a header cannot carry; the key is not shown.
    """
    if not value:
        raise ConfigurationError("the API key is empty")
    for position, character in enumerate(value):
        if not "!" <= character <= "~":
            raise ConfigurationError(
                f"the API key has a character at position {position} of {len(value)} that a header cannot "
                "carry; look for spaces or a line end around it"
            )
    return ApiKey(value)


def user_agent(source_tag: str | None) -> str:
    """The `User-Agent` header; a source tag names the integration that calls.

    Raises:
        ConfigurationError: the tag has a character outside letters, digits, space and `_:-`.
    """
    name = f"pinecone-embed-async/{__version__}"
    if source_tag is None:
        return name
    tag = source_tag.strip().lower().replace(" ", "_")
    if not tag or not all(part.isascii() and (part.isalnum() or part in "_:-") for part in tag):
        raise ConfigurationError("source_tag takes letters, digits, spaces and _:-")
    return f"{name}; source_tag={tag}"
