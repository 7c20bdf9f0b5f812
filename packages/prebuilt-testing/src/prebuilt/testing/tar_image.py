"""Images of hand-made tars, whatever these hold, and of one static program: made in milliseconds."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from prebuilt.core.platforms import Platform
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.engines.process import EngineError

_SEARCHED = ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static")
_NEVER = ("/never/used",)  # flows name the program that runs
_APPLETS = "cat chmod cp dd echo env false grep head id kill ls mkdir mv od ps pwd readlink rm seq sh sleep stat sync test touch trap true wc"


class TarLayer:
    """A layer's tar, written member by member; nothing is checked, since some tests need what no tool would write."""

    def __init__(self) -> None:
        """Start empty."""
        self._file = io.BytesIO()
        self._archive = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115 - closed by `data`

    def add(self, path: str, kind: bytes = tarfile.REGTYPE, *, data: bytes = b"", **attributes: Any) -> TarLayer:  # noqa: ANN401 - as TarInfo
        """Add a member; `attributes` are those of :class:`tarfile.TarInfo`. Returns itself."""
        info = tarfile.TarInfo(path)
        info.type, info.size = kind, len(data)
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for name, value in attributes.items():
            setattr(info, name, value)
        self._archive.addfile(info, io.BytesIO(data))
        return self

    def folder(self, path: str, **attributes: Any) -> TarLayer:  # noqa: ANN401
        """Add a folder."""
        return self.add(path, tarfile.DIRTYPE, **attributes)

    def symlink(self, path: str, target: str) -> TarLayer:
        """Add a symbolic link."""
        return self.add(path, tarfile.SYMTYPE, linkname=target)

    def hardlink(self, path: str, target: str) -> TarLayer:
        """Add a hard link."""
        return self.add(path, tarfile.LNKTYPE, linkname=target)

    @property
    def data(self) -> bytes:
        """The tar, to which nothing can be added any more."""
        self._archive.close()
        return self._file.getvalue()


def busybox_layer() -> TarLayer:
    """Return a layer with a shell and the commands that tests need, of one static program.

    Raises:
        EngineError: The program is not installed.
    """
    program = next(
        (path for path in (*_SEARCHED, shutil.which("busybox") or "") if path and Path(path).is_file()), None
    )
    if program is None or b"/ld-linux" in Path(program).read_bytes():
        raise EngineError(
            "find a static busybox", reason="it is not installed", remedy="apt-get install busybox-static"
        )
    layer = TarLayer().folder("bin").add("bin/busybox", data=Path(program).read_bytes(), mode=0o755)
    for name in _APPLETS.split():
        layer.symlink(f"bin/{name}", "busybox")
    return (
        layer.folder("tmp", mode=0o1777)
        .folder("root")
        .folder("etc")
        .add("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n")
    )


def push_tar_image(
    repository: Repository,
    layers: Sequence[TarLayer],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str = "",
    entrypoint: Sequence[str] = _NEVER,
    compression: str = "gzip",
    diff_ids: Sequence[str] | None = None,
    architecture: str | None = None,
) -> str:
    """Push an image of `layers`, bottom first; return its reference by digest. `compression` may be ``none``, too.

    `diff_ids` and `architecture` are for images that lie.
    """
    tars = [layer.data for layer in layers]
    config = {
        "os": "linux",
        "architecture": architecture or Platform.host().architecture,
        "config": {
            "Env": [f"{name}={value}" for name, value in (env or {"PATH": "/bin"}).items()],
            "Entrypoint": list(entrypoint),
            **({"Cmd": ["/never/used"]} if entrypoint == _NEVER else {}),
            **({"WorkingDir": workdir} if workdir else {}),
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": diff_ids or [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
    }
    manifest = ImageManifest(
        config=push_bytes(repository, json.dumps(config).encode(), OCI_CONFIG),
        layers=tuple(push_bytes(repository, *_compressed(tar, compression)) for tar in tars),
    )
    pushed = repository.put_manifest(manifest.descriptor.digest, OCI_MANIFEST, manifest.to_bytes())
    return f"{repository.name}@{pushed.digest}"


def _compressed(tar: bytes, compression: str) -> tuple[bytes, str]:
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0), OCI_LAYER_GZIP
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(tar), OCI_LAYER_ZSTD
    return tar, OCI_LAYER
