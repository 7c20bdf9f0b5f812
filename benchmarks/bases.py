"""The base images of a benchmark, made from this machine's own Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import uv

from prebuilt.core.platforms import Platform
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.buildkit import BuildKit


def push_base(host: str) -> str:
    """Push a base image with this machine's Python to the registry at `host`; return its reference."""
    return push_base_image(open_repository(f"{host}/base"), tag="python", platforms=[Platform.host()])


def push_base_with_uv(base: str, buildkit: BuildKit, folder: Path) -> str:
    """Push the base image with uv in it, as a ready-made build stage would have; return its reference."""
    folder.mkdir(parents=True)
    shutil.copy(uv.find_uv_bin(), folder / "uv")
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY uv /usr/local/bin/uv\n", encoding="utf-8")
    reference = f"{base}-uv"
    command = [
        *(str(buildkit.buildctl), "--addr", buildkit.address, "build", "--frontend=dockerfile.v0"),
        *(f"--local=context={folder}", f"--local=dockerfile={folder}"),
        f"--output=type=image,name={reference},push=true",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return reference
