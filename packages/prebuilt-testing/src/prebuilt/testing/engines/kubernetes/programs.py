"""The programs of Kubernetes, built from its Go module the first time and kept in the cache folder. Standard library only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.golang import build_folder

# 1.31.0: later 1.31s have staging modules that the checksum database does not know, and newer minor releases want cgroup v2.
VERSION = "v1.31.0"

_SOURCE = Path(__file__).with_name("kube")
# Every program of Kubernetes reads them: without them it is version v0.0.0, whose feature gates are those of no release.
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_TAGS = ("grpcnotrace",)  # tracing keeps the linker from dropping unused methods: half the size


def kubernetes_programs() -> Path:
    """Return the folder that has ``kube``, which is all of Kubernetes, and ``pause``; builds them if it has not.

    Takes some eight minutes on two processors the first time.

    Raises:
        EngineError: The modules or Go cannot be got, or the build failed.
    """
    files = sorted(path for path in _SOURCE.rglob("*") if path.is_file())
    source = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    return kept(f"kubernetes-{VERSION}-{source[:8]}", _build)


def _build(folder: Path) -> None:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    told = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    values = {f"{package}.{name}": value for package in _VERSION_PACKAGES for name, value in told.items()}
    build_folder(_SOURCE, ".", "./pause", folder=folder, tags=_TAGS, values=values)
