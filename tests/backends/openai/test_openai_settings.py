"""Which server is meant by a base URL."""

from __future__ import annotations

import re

import pytest

from vision_backends.backends.openai import OpenAIBackend
from vision_backends.backends.openai.settings import BaseUrl
from vision_backends.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "host", "official"),
    [
        ("https://api.openai.com/v1", "api.openai.com", True),
        ("https://eu.api.openai.com/v1/", "eu.api.openai.com", True),
        ("https://API.openai.com./v1", "API.openai.com.", True),
        ("https://api.openai.com.evil.test/v1", "api.openai.com.evil.test", False),
        (" http://localhost:8000/v1 ", "localhost:8000", False),
        ("http://[::1]:8000/v1", "[::1]:8000", False),
    ],
)
def test_addresses_are_read(url, host, official):
    """Only OpenAI's own hosts are official."""
    address = BaseUrl.parse(url)
    assert (address.host, address.official) == (host, official)
    assert not address.url.endswith("/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://x.test", "http://", "http://[", "http://x.test:99999/v1", "file:///etc/passwd"),
        *("https://api.openai。com/v1", "https://x.test\\.api.openai.com/v1", "https://api.openai.com\t.x.test/v1"),
    ],
)
def test_what_is_no_address_is_refused(url):
    """The error names the value."""
    with pytest.raises(ConfigError, match=re.escape(f"base_url = {url!r} is not")):
        BaseUrl.parse(url)


@pytest.mark.parametrize(
    "url", ["https://me:hunter22@x.test/v1", "ftp://me:hunter22@x.test", "https://x.test/v1?key=hunter22"]
)
def test_an_address_with_a_password_is_refused_without_showing_it(url):
    """It would end up in logs and in the names of vector spaces."""
    with pytest.raises(ConfigError) as caught:
        BaseUrl.parse(url)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://api.openai.com/v1", "http://eu.api.openai.com:443/v1", "HTTP://API.OPENAI.COM./v1"]
)
def test_openai_is_not_asked_unencrypted(url):
    """Key and pictures could be read on the way; other servers may lie in a network of one's own."""
    with pytest.raises(ConfigError, match="unencrypted"):
        OpenAIBackend(api_key="key", base_url=url)
    assert BaseUrl.parse("http://gpu.test:8000/v1").url == "http://gpu.test:8000/v1"
