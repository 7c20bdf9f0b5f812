"""A command ``docker`` that plays what the real one said, and remembers how it was called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.testing.plain_request import plain_request

REFERENCE = "registry.example/team/image:tag"

_PROGRAM = """\
#!{python}
import json, os, pathlib, sys, time
folder = pathlib.Path(__file__).parent
play = json.loads((folder / "play.json").read_text())
arguments = sys.argv[1:]
verb = arguments[1] if len(arguments) > 1 else ""
call = {{"arguments": arguments, "environ": dict(os.environ)}}
config = pathlib.Path(os.environ.get("DOCKER_CONFIG", "/nowhere"))
if (config / "config.json").exists():
    call["config"] = json.loads((config / "config.json").read_text())
    call["modes"] = [oct(path.stat().st_mode & 0o777) for path in (config, config / "config.json")]
    call["entries"] = sorted(path.name for path in config.iterdir())
said = play.get(verb, {{}})
if verb == "build":
    (folder / "context.tar").write_bytes(sys.stdin.buffer.read())
    if said.get("metadata"):
        pathlib.Path(arguments[arguments.index("--metadata-file") + 1]).write_text(json.dumps(said["metadata"]))
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
sys.stdout.write(said.get("stdout", ""))
sys.stderr.write(said.get("stderr", ""))
sys.stderr.flush()
time.sleep(said.get("sleep_s", 0))
sys.exit(said.get("status", 0))
"""

INSPECT = """\
Name:          {name}
Driver:        {driver}
Last Activity: 2026-11-23 21:50:54 +0000 UTC

Nodes:
Name:             {name}0
Endpoint:         tcp://127.0.0.1:38961
Status:           {status}
BuildKit version: {buildkit}
Platforms:        linux/amd64, linux/amd64/v2, linux/386
Labels:
 org.mobyproject.buildkit.worker.executor:         oci
GC Policy rule#0:
 All:            false
 Keep Duration:  48h0m0s
"""
"""As buildx 0.29 says it."""

DESCRIPTOR = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": "sha256:bb4204b1259558f20bd17ec93003ad48962b036dc6e17cb306f8b54faee2bd1a",
    "size": 782,
    "platform": {"architecture": "amd64", "os": "linux"},
}


@dataclass(frozen=True)
class FakeDocker:
    """The folder of the fake, first in PATH."""

    folder: Path

    def plays(self, verb: str, **said: Any) -> None:
        """Have ``docker buildx <verb>`` say `stdout` and `stderr`, sleep `sleep_s`, and end with `status`."""
        path = self.folder / "play.json"
        play = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**play, verb: said}))

    def has_builder(
        self, name: str = "r0", driver: str = "remote", *, buildkit: str = "v0.34.2", status: str = "running"
    ) -> None:
        """Have the builder be there."""
        self.plays("inspect", stdout=INSPECT.format(name=name, driver=driver, buildkit=buildkit, status=status))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def build(self) -> dict[str, Any]:
        """How the last build was called."""
        return next(call for call in reversed(self.calls) if call["arguments"][1] == "build")

    @property
    def options(self) -> list[str]:
        """The arguments of the last build."""
        return list(self.build["arguments"])

    @property
    def context(self) -> bytes:
        """The last build's standard input."""
        return (self.folder / "context.tar").read_bytes()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """A ``docker`` with buildx 0.29 and a remote builder, whose builds succeed; the user has a configuration and no login."""
    folder, own = tmp_path / "bin", tmp_path / "own"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    helper = folder / "docker-credential-desktop"
    helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    helper.chmod(0o755)
    (own / "contexts").mkdir(parents=True)
    (own / "config.json").write_text(json.dumps({"auths": {"ghcr.io": {}}, "credsStore": "desktop"}))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("DOCKER_CONFIG", str(own))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    fake = FakeDocker(folder)
    fake.plays("version", stdout="github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-4\n")
    fake.has_builder()
    fake.plays("build", metadata={"containerimage.descriptor": DESCRIPTOR})
    return fake


@pytest.fixture
def make_request() -> Callable[..., BuildRequest]:
    """Return what makes requests, with other fields of the request or the spec."""

    def make(platform: str = "linux/amd64", spec: Mapping[str, Any] | None = None, **changes: Any) -> BuildRequest:
        return replace(plain_request(REFERENCE, platform=platform, spec=spec), **changes)

    return make
