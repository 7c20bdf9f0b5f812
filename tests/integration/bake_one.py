"""Bakes one image in a process of its own, by the whole path from requirements to the registry. Its argument is an order in JSON.

Tests run it as other users, several at once, and kill it. It prints what came out as JSON, and progress on standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from prebuilt.core.bake import Baker, StepImage
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.registry import RepositoryRegistry


def say(line: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def bake(order: dict[str, Any]) -> dict[str, Any]:
    """Return what came out of an order: ``repository``, ``base``, ``platform``, ``compression``, and ``asked`` of requirements.

    The builder is the native one, or the order's ``builder``. An ``index`` in ``asked`` is where wheels come from.
    """
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in order["asked"].items()}
    if "index" in asked:
        os.environ["UV_DEFAULT_INDEX"] = asked.pop("index")
    settings = Settings.load()
    registry = RepositoryRegistry(order["repository"], settings=settings)
    documents = registry.documents()
    progress = LineProgress(say)
    resolver = LockResolver(settings, note=progress.note)
    baker = Baker(
        resolver=resolver,
        bases=BaseImageLookup(
            settings, documents, FolderDocuments(cache_dir(settings) / "documents"), note=progress.note
        ),
        registry=registry,
        builder=BUILD_SERVICES.get(order["builder"]) if "builder" in order else NativeBuilder(settings),
        documents=documents,
        progress=progress,
        compression=order["compression"],
        has_bytecode=lambda xy: find_interpreter(xy) is not None,
        materials=LockMaterials(
            settings=settings, locks=Locks(resolver=resolver, documents=documents, progress=progress)
        ),
    )
    requirements = Requirements(target=Target(platform=Platform.parse(order["platform"])), **asked)
    step = StepImage(step="step", requirements=requirements, base_image=order["base"])
    image = baker.bake([step])["step"]
    assert image.descriptor is not None
    return {
        "reference": image.reference,
        "digest": image.descriptor.digest,
        "reused": image.reused,
        "bytecode": image.spec.bytecode,
        "lock": image.spec.lock.to_bytes().decode(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bake(json.loads(sys.argv[1]))))
