"""Which builder and which registry are used, and when an engine is asked for that."""

from __future__ import annotations

import contextlib
import json
import socketserver
import sys
import tempfile
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest

from metaflow_extensions.prebuilt.deploy.backends import choose_backends, registry_is_chosen
from metaflow_extensions.prebuilt.deploy.default_builder import DefaultBuilder
from prebuilt.core.errors import PluginError, SettingError
from prebuilt.core.progress import LineProgress
from prebuilt.core.settings import Settings
from prebuilt.docker import LocalDockerBuildService
from prebuilt.native.builder import NativeBuilder
from prebuilt.testing.served import serving

SERVICE, REGISTRY = "METAFLOW_PREBUILT_BUILD_SERVICE", "METAFLOW_PREBUILT_IMAGE_REGISTRY"
GENERAL, HUB_USER = "METAFLOW_PREBUILT_REGISTRY", "METAFLOW_PREBUILT_DOCKERHUB_USER"


@pytest.fixture
def said():
    """Return a function that chooses backends by environment variables, with the lines that it said as an attribute."""

    def choose(**environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return choose_backends(Settings(environ, {}), LineProgress(choose.lines.append))

    with pytest.MonkeyPatch.context() as monkeypatch:  # a selected class reads the process's own settings
        choose.lines = []
        yield choose


@pytest.fixture
def built(monkeypatch):
    """Return the names of the builders that built, in order, in place of what they would do."""
    built = []
    for kind in (LocalDockerBuildService, NativeBuilder):
        monkeypatch.setattr(kind, "build", lambda self, *_: built.append(type(self).__name__))
        monkeypatch.setattr(kind, "build_and_push", lambda self, *_: built.append(type(self).__name__))
    return built


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Take time for an engine that answers: a busy machine may let it wait."""
    monkeypatch.setattr("prebuilt.docker.engine._PROBE_TIMEOUT_S", 60.0)


@pytest.fixture
def socket_path():
    """Return where an engine may listen; a test's own folder may be deeper than the 107 bytes that a socket's name has."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"{folder}/docker.sock"


@contextlib.contextmanager
def engine(path):
    """Give an engine that says its version and nothing else; ``connections`` counts who came."""
    counted = SimpleNamespace(connections=0, host=f"unix://{path}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"ApiVersion": "1.41"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Write nothing."""

    class Server(socketserver.ThreadingUnixStreamServer):
        def verify_request(self, *_):
            counted.connections += 1  # in the order of connections: handlers are threads, and may be late
            return True

    with serving(Server(path, Handler)):
        yield counted


def build(builder, base="docker.io/library/python"):
    """Have a builder build something on an image of the repository `base`."""
    builder.build(SimpleNamespace(spec=SimpleNamespace(base=SimpleNamespace(repository=base))), None)


class TestChoice:
    def test_the_embedded_pair_steps_in_where_nothing_is_configured(self, said):
        """No registry is configured, so images go to a folder; one line says so and names both settings."""
        chosen = said()
        assert type(chosen.builder).__name__ == "NativeBuilder"
        assert type(chosen.registry).__name__ == "LayoutRegistry"
        assert len(said.lines) == 1
        assert REGISTRY in said.lines[0]
        assert SERVICE in said.lines[0]

    def test_what_is_set_is_taken_without_a_word(self, said):
        """An explicit choice needs no explanation."""
        said(**{REGISTRY: "layout", SERVICE: "native"})
        assert said.lines == []

    @pytest.mark.parametrize("name", [REGISTRY, SERVICE])
    def test_what_is_set_is_never_overridden(self, said, name):
        """A name that is not installed is an error that names the right setting."""
        with pytest.raises(PluginError, match=f"(?s)nowhere.*{name}"):
            said(**{name: "nowhere"})

    def test_an_account_chooses_docker_hub(self, said):
        """The documented default is used where its account is set."""
        chosen = said(**{HUB_USER: "ada"})
        assert chosen.registry.repository == "docker.io/ada/metaflow-prebuilt"
        assert isinstance(chosen.builder, DefaultBuilder)
        assert said.lines == []

    def test_docker_hub_by_name_wants_its_account(self, said):
        """Who names the default registry is told what it needs; nothing else steps in."""
        with pytest.raises(SettingError, match=HUB_USER):
            said(**{REGISTRY: "dockerhub"})

    def test_a_repository_chooses_the_general_registry(self, said):
        """METAFLOW_PREBUILT_REGISTRY is enough, and stronger than the account of the default."""
        chosen = said(**{GENERAL: "ghcr.io/team/flows", HUB_USER: "ada"})
        assert chosen.registry.repository == "ghcr.io/team/flows"

    def test_a_named_registry_is_stronger_than_a_repository(self, said):
        """METAFLOW_PREBUILT_IMAGE_REGISTRY decides where both are set."""
        chosen = said(**{REGISTRY: "layout", GENERAL: "ghcr.io/team/flows"})
        assert type(chosen.registry).__name__ == "LayoutRegistry"

    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({}, False),
            ({REGISTRY: "layout"}, True),
            ({GENERAL: "ghcr.io/team/flows"}, True),
            ({HUB_USER: "ada"}, False),
        ],
    )
    def test_whether_somebody_chose(self, environ, expected):
        """Locks of local steps go to a registry only if somebody named one."""
        assert registry_is_chosen(Settings(environ, {})) is expected


class TestDefaultBuilder:
    def test_an_engine_that_answers_builds(self, said, built, socket_path):
        """The documented default is used where an engine answers, which is asked once, when there is something to build."""
        with engine(socket_path) as docker:
            builder = said(**{GENERAL: "ghcr.io/team/flows", "DOCKER_HOST": docker.host}).builder
            assert builder.image_identity_suffix() == ""
            assert docker.connections == 0
            build(builder)
            asked = docker.connections
            assert asked > 0
            build(builder)
            builder.build_and_push("FROM scratch", {}, "r/i:t", {}, print)
            assert docker.connections == asked
        assert built == ["LocalDockerBuildService"] * 3
        assert said.lines == []

    def test_without_an_engine_the_embedded_one_builds(self, said, built, socket_path):
        """Where no engine answers, images are built without one; one line, when it is so, says why and what chooses another."""
        builder = said(**{GENERAL: "ghcr.io/team/flows", "DOCKER_HOST": f"unix://{socket_path}"}).builder
        assert said.lines == []
        build(builder)
        build(builder)
        assert built == ["NativeBuilder"] * 2
        (line,) = said.lines
        assert line == (
            f"prebuilt: images are built without Docker: there is no such socket at unix://{socket_path} (DOCKER_HOST)"
            f" ({SERVICE} names another builder)"
        )

    def test_bytecode_is_made_where_either_builder_can(self, said):
        """Both images are one, so the one that needs an interpreter of this machine decides; a build stage has its own."""
        builder = said(**{GENERAL: "ghcr.io/team/flows"}).builder
        chosen = said(**{GENERAL: "ghcr.io/team/flows", SERVICE: "docker"}).builder
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert (builder.makes_bytecode(here), chosen.makes_bytecode(here)) == (True, True)
        assert (builder.makes_bytecode("3.99"), chosen.makes_bytecode("3.99")) == (False, True)

    def test_a_base_in_a_folder_needs_no_engine(self, said, built, socket_path):
        """What an engine cannot see is built without one, engine or not; other images still go to the engine."""
        with engine(socket_path) as docker:
            builder = said(**{GENERAL: "ghcr.io/team/flows", "DOCKER_HOST": docker.host}).builder
            build(builder, "oci:/srv/bases")
            build(builder, "oci:/srv/bases")
            assert docker.connections == 0
            build(builder)
        assert built == ["NativeBuilder", "NativeBuilder", "LocalDockerBuildService"]
        assert len(said.lines) == 1
        assert "the base image is in oci:/srv/bases, a folder of this machine" in said.lines[0]

    def test_a_damaged_configuration_of_docker_is_no_obstacle(self, said, built, tmp_path):
        """Who did not ask for Docker need not mend its configuration."""
        builder = said(
            **{GENERAL: "ghcr.io/team/flows", "DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "gone"}
        ).builder
        build(builder)
        assert built == ["NativeBuilder"]
        assert "'gone'" in said.lines[0]

    def test_a_builder_that_is_set_is_taken(self, said, built, tmp_path):
        """METAFLOW_PREBUILT_BUILD_SERVICE=docker means it, engine or no engine."""
        chosen = said(
            **{GENERAL: "ghcr.io/team/flows", SERVICE: "docker", "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
        )
        assert type(chosen.builder) is LocalDockerBuildService
        assert said.lines == []
