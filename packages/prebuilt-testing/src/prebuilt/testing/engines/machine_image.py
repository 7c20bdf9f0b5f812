"""Images of servers, made on the spot of the programs that this machine has: the registry's, BuildKit's."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prebuilt.core.canonical import canonical_json
from prebuilt.core.platforms import Platform
from prebuilt.core.spec import DEFAULT_PATH
from prebuilt.core.tree import BytesContent, Entry, FileEntry, PathContent
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.layer import WrittenLayer, write_layer
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.engines.buildkit import VERSION, buildkit_programs
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.process import find_program
from prebuilt.testing.machine import COMMANDS, command_entries, files_of, library_entries, system_entries

_BUILDKIT_STATE = "/var/lib/buildkit"
_REGISTRY_CONFIG = """\
version: 0.1
log: {fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/registry}
http: {addr: ":5000"}
"""
# As in the official image: a configuration file, an action, or any command.
_REGISTRY_ENTRYPOINT = """\
#!/bin/sh
set -e
case "$1" in
  *.yaml|*.yml) set -- registry serve "$@" ;;
  serve|garbage-collect|help|-*) set -- registry "$@" ;;
esac
exec "$@"
"""
_REGISTRY_CHANGES = (
    'ENTRYPOINT ["/entrypoint.sh"]',
    'CMD ["/etc/docker/registry/config.yml"]',
    "VOLUME /var/lib/registry",
    "EXPOSE 5000",
)


def import_registry_image(docker: Docker, *, name: str = "registry:2") -> str:
    """Have the image ``registry:2`` in a Docker Engine that cannot pull it; return its name.

    Same program, entrypoint, port, volume and place of the configuration as the official image.

    Raises:
        EngineError: ``docker-registry`` is not installed, or the engine refused the image.
    """
    program = Path(find_program("docker-registry", brought_by="apt-get install docker-registry"))
    files = [
        FileEntry(path="usr/bin/registry", content=PathContent(program), executable=True),
        FileEntry(path="entrypoint.sh", content=BytesContent(_REGISTRY_ENTRYPOINT.encode()), executable=True),
        FileEntry(path="etc/docker/registry/config.yml", content=BytesContent(_REGISTRY_CONFIG.encode())),
    ]
    return _import(docker, name, files, [program], _REGISTRY_CHANGES)


def import_buildkit_image(docker: Docker, *, name: str = f"buildkit:{VERSION}") -> str:
    """Have an image of BuildKit in a Docker Engine, for builders of the driver ``docker-container``; return its name.

    Raises:
        EngineError: Go or runc is not installed, or the engine refused the image.
    """
    files, runc = _buildkit()
    return _import(docker, name, files, [runc], ('ENTRYPOINT ["buildkitd"]', f"VOLUME {_BUILDKIT_STATE}"))


def push_buildkit_image(repository: Repository) -> str:
    """Push the image of :func:`import_buildkit_image`, for builders of the driver ``kubernetes``; return its reference by digest.

    Raises:
        EngineError: Go or runc is not installed.
    """
    files, runc = _buildkit()
    with _layer(files, [runc]) as (path, layer):
        repository.push_blob(layer.descriptor, lambda: path.open("rb"))
    data = canonical_json(
        {
            "os": "linux",
            "architecture": Platform.host().architecture,
            "config": {
                "Env": [f"PATH={DEFAULT_PATH}"],
                "Entrypoint": ["buildkitd"],
                "Volumes": {_BUILDKIT_STATE: {}},
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    manifest = ImageManifest(config=push_bytes(repository, data, OCI_CONFIG), layers=(layer.descriptor,))
    pushed = repository.put_manifest(manifest.descriptor.digest, OCI_MANIFEST, manifest.to_bytes())
    return f"{repository.name}@{pushed.digest}"


def _buildkit() -> tuple[list[FileEntry], Path]:
    """Return BuildKit's programs as an image has them, and runc, which is one of them and needs libraries."""
    programs = buildkit_programs()
    runc = Path(find_program("runc", brought_by="apt-get install runc"))
    paths = [programs / "buildkitd", programs / "buildctl", runc]
    return [FileEntry(path=f"usr/bin/{path.name}", content=PathContent(path), executable=True) for path in paths], runc


def _import(
    docker: Docker, name: str, files: Sequence[FileEntry], programs: Sequence[Path], changes: Sequence[str]
) -> str:
    """Have an image of the layer of `files` and `programs` in an engine; `changes` are lines of a Dockerfile."""
    with _layer(files, programs) as (path, _):
        lines = [f"--change={line}" for line in (f"ENV PATH={DEFAULT_PATH}", *changes)]
        docker.ask("import", *lines, str(path), name)
    return name


@contextlib.contextmanager
def _layer(files: Sequence[FileEntry], programs: Sequence[Path]) -> Iterator[tuple[Path, WrittenLayer]]:
    """Give a layer of `files`, what `programs` need, and this machine's commands, and where it is for the time of the body."""
    commands = list(command_entries(COMMANDS))
    libraries = library_entries([*programs, *files_of(commands)])
    entries: list[Entry] = [*system_entries(), *commands, *libraries, *files]
    with tempfile.TemporaryDirectory(prefix="prebuilt-image-") as folder:
        path = Path(folder, "layer.tar.gz")
        with path.open("wb") as file:
            layer = write_layer(entries, file, compression="gzip")
        yield path, layer
