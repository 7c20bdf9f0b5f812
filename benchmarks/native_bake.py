"""One bake by the native builder, as a process of its own: requirements in, one line of JSON with times and bytes out.

Usage: native_bake.py REPOSITORY BASE_IMAGE NAME==VERSION...
"""

from __future__ import annotations

import json
import sys
import time

_BEGAN_S = time.perf_counter()

from prebuilt.core.bake import Baker, StepImage  # noqa: E402 - imports are part of what is measured
from prebuilt.core.documents import FolderDocuments  # noqa: E402
from prebuilt.core.platforms import Platform  # noqa: E402
from prebuilt.core.progress import LineProgress  # noqa: E402
from prebuilt.core.requirements import Requirements, Target  # noqa: E402
from prebuilt.core.settings import Settings  # noqa: E402
from prebuilt.core.storage import cache_dir  # noqa: E402
from prebuilt.lock.interpreter import find_interpreter  # noqa: E402
from prebuilt.lock.resolver import LockResolver  # noqa: E402
from prebuilt.native.builder import NativeBuilder  # noqa: E402
from prebuilt.oci.base import BaseImageLookup  # noqa: E402
from prebuilt.oci.registry import RepositoryRegistry  # noqa: E402


def main(repository: str, base_image: str, *packages: str) -> None:
    """Bake the packages onto the base image and print what it took."""
    settings = Settings.load()
    registry = RepositoryRegistry(repository)
    documents = registry.documents()
    baker = Baker(
        resolver=LockResolver(settings),
        bases=BaseImageLookup(settings, documents, FolderDocuments(cache_dir(settings) / "documents")),
        registry=registry,
        builder=NativeBuilder(settings),
        documents=documents,
        progress=LineProgress(lambda line: print(line, file=sys.stderr)),
        has_bytecode=lambda xy: find_interpreter(xy) is not None,
    )
    requirements = Requirements(
        python=f"3.{sys.version_info.minor}",
        target=Target(platform=Platform.host()),
        pypi=dict(package.split("==") for package in packages),
    )
    image = baker.bake([StepImage(step="step", requirements=requirements, base_image=base_image)])["step"]
    took = {"seconds": time.perf_counter() - _BEGAN_S, "reference": image.reference, "reused": image.reused}
    print(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
