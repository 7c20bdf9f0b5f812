"""Credentials in URLs are remembered, not written down."""

from __future__ import annotations

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.url_secrets import remember_credentials, remembered_credentials


def test_they_are_taken_out_and_found_again() -> None:
    """For the URL, for all below it, and for no other."""
    assert remember_credentials("https://me:p%40ss@one.example/channel/") == "https://one.example/channel/"
    for url in ("https://one.example/channel", "https://one.example/channel/linux-64/x.conda"):
        found = remembered_credentials(url)
        assert found is not None
        assert (found.username, found.secret) == ("me", "p@ss")
    for url in ("https://one.example/channels", "https://one.example:8443/channel", "http://one.example/channel"):
        assert remembered_credentials(url) is None


def test_the_closest_counts() -> None:
    """Two channels of one host may have a password each."""
    remember_credentials("https://me:outer@two.example/a")
    remember_credentials("https://me:inner@two.example/a/b")
    outer, inner = (remembered_credentials(f"https://two.example/a/{name}/x") for name in ("c", "b"))
    assert outer is not None
    assert inner is not None
    assert (outer.secret, inner.secret) == ("outer", "inner")


def test_a_repository_of_git_is_asked_over_https() -> None:
    """The prefix of the version control system is not part of where it is."""
    assert remember_credentials("git+https://token@three.example/own.git") == "git+https://three.example/own.git"
    found = remembered_credentials("https://three.example/own.git")
    assert found is not None
    assert found.username == "token"


@pytest.mark.parametrize(
    "url", ["conda-forge", "./dist/a.whl", "ssh://git@four.example/x", "git+ssh://git@four.example/x"]
)
def test_what_has_no_secret_stays_as_it_is(url: str) -> None:
    """Names, paths and the user of an SSH URL, which is needed."""
    assert remember_credentials(url) == url
    assert remembered_credentials(url) is None


def test_a_malformed_url_is_named_without_its_password() -> None:
    """A placeholder that somebody forgot to fill in, above all."""
    with pytest.raises(InvalidValueError, match=r"'https://\[HOST/x\.whl' as a URL") as caught:
        remember_credentials("https://me:hush@[HOST/x.whl")
    assert "hush" not in str(caught.value)
