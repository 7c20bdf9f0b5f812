"""What building from source tells the tools that it runs."""

import base64
import os
import subprocess

import pytest

from prebuilt.core.url_secrets import remember_credentials
from prebuilt.lock.source_build import git_login


def of_git(url: str) -> str:
    """Return the header that git would send to `url`."""
    command = ["git", "config", "--get-urlmatch", "http.extraHeader", url]
    environ = {**os.environ, **git_login("https://git.example/team/own.git")}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False).stdout.strip()


def test_git_is_told_the_credentials_of_one_repository(monkeypatch: pytest.MonkeyPatch):
    """As a header for its URL alone, which no process list shows; what the user tells git by variables stays."""
    for name, value in {"COUNT": "1", "KEY_0": "user.name", "VALUE_0": "me"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert git_login("https://git.example/team/own.git") == {}
    remember_credentials("git+https://me:t0ken@git.example/team/own.git")
    shown = base64.b64encode(b"me:t0ken").decode()
    assert of_git("https://git.example/team/own.git") == f"Authorization: Basic {shown}"
    assert of_git("https://git.example/other.git") == ""
    environ = {**os.environ, **git_login("https://git.example/team/own.git")}
    asked = subprocess.run(["git", "config", "user.name"], env=environ, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "me"
