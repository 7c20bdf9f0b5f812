"""Where the Docker Engine is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.docker.endpoint import Endpoint


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose Docker configuration is empty."""
    return {"HOME": str(tmp_path)}


def make_context(folder: Path, name: str, **docker: object) -> Path:
    """Store a context as ``docker context create`` does; return the folder of its certificates, which is not made."""
    stored = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / stored
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}}))
    return folder / "contexts" / "tls" / stored / "docker"


def test_without_configuration_it_is_the_usual_socket(environ: dict[str, str]) -> None:
    """With nothing set, the engine is where distributions put it."""
    found = Endpoint.find(environ)
    assert found.host == "unix:///var/run/docker.sock"
    assert found.socket == Path("/var/run/docker.sock")
    assert found.tls is None


def test_docker_host_wins(environ: dict[str, str], tmp_path: Path) -> None:
    """DOCKER_HOST is stronger than any context, as for the docker command."""
    make_context(tmp_path / ".docker", "remote", Host="ssh://builder")
    environ |= {"DOCKER_HOST": "tcp://10.1.2.3:2375", "DOCKER_CONTEXT": "remote"}
    assert str(Endpoint.find(environ)) == "tcp://10.1.2.3:2375 (DOCKER_HOST)"


def test_tls_of_docker_host(environ: dict[str, str], tmp_path: Path) -> None:
    """DOCKER_TLS_VERIFY asks for TLS, with the certificates of DOCKER_CERT_PATH or of Docker's folder."""
    environ |= {"DOCKER_HOST": "tcp://10.1.2.3:2376", "DOCKER_TLS_VERIFY": "1"}
    tls = Endpoint.find(environ).tls
    assert tls is not None
    assert (tls.folder, tls.verifies) == (tmp_path / ".docker", True)
    tls = Endpoint.find(environ | {"DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": "/certs"}).tls
    assert tls is not None
    assert (tls.folder, tls.verifies) == (Path("/certs"), False)


def test_current_context(environ: dict[str, str], tmp_path: Path) -> None:
    """The context of `docker context use` is followed, DOCKER_CONTEXT goes before it, and "default" means the socket."""
    folder = tmp_path / ".docker"
    make_context(folder, "colima", Host="unix:///colima.sock")
    make_context(folder, "remote", Host="ssh://builder")
    (folder / "config.json").write_text('{"currentContext": "colima"}')
    assert str(Endpoint.find(environ)) == "unix:///colima.sock (the Docker context colima)"
    assert Endpoint.find(environ | {"DOCKER_CONTEXT": "remote"}).host == "ssh://builder"
    assert Endpoint.find(environ | {"DOCKER_CONTEXT": "default"}).host == "unix:///var/run/docker.sock"


def test_certificates_of_a_context(environ: dict[str, str], tmp_path: Path) -> None:
    """A context with certificates uses them, and leaves out the check where it says so."""
    certificates = make_context(tmp_path / "docker", "lab", Host="tcp://lab:2376", SkipTLSVerify=True)
    certificates.mkdir(parents=True)
    tls = Endpoint.find(environ | {"DOCKER_CONFIG": str(tmp_path / "docker"), "DOCKER_CONTEXT": "lab"}).tls
    assert tls is not None
    assert (tls.folder, tls.verifies) == (certificates, False)


def test_unknown_context(environ: dict[str, str]) -> None:
    """A context that does not exist is an error that names it and says how to choose another."""
    with pytest.raises(SettingError, match=r"DOCKER_CONTEXT.*'gone'.*docker context use"):
        Endpoint.find(environ | {"DOCKER_CONTEXT": "gone"})


def test_damaged_configuration(environ: dict[str, str], tmp_path: Path) -> None:
    """A configuration that is no JSON is an error that names the file."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text("{")
    with pytest.raises(SettingError, match=r"\.docker/config\.json"):
        Endpoint.find(environ)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("unix:///var/run/docker.sock", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://localhost:2375", True),
        ("tcp://10.1.2.3:2375", False),
        ("ssh://user@builder", False),
    ],
)
def test_whose_loopback(host: str, is_here: bool) -> None:  # noqa: FBT001 - a parameter
    """An engine on another machine publishes ports there, not here."""
    assert Endpoint(host=host, origin="test").is_here is is_here
