"""Images of containers on this machine, by digest where that can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from prebuilt.core.bake import BakedImage, pinned
from prebuilt.core.errors import RegistryError
from prebuilt.core.settings import Settings


def by_digest(
    images: Mapping[str, BakedImage], settings: Settings, note: Callable[[str], None]
) -> dict[str, BakedImage]:
    """Return `images`, by step, with digests in place of tags: outside backends need not say what was pushed, but the registry may.

    Asked is with what Docker's configuration has, as it is when the task starts. Where there is no answer a tag stays one, and the user
    is told: an engine with logins of its own can run it.
    """
    unknown = {image.reference for image in images.values() if image.descriptor is None}
    references = {reference: _resolved(reference, settings, note) for reference in sorted(unknown)}
    return {
        step: replace(image, reference=references.get(image.reference, image.reference))
        for step, image in images.items()
    }


def _resolved(tag: str, settings: Settings, note: Callable[[str], None]) -> str:
    from prebuilt.oci.open import open_repository
    from prebuilt.oci.reference import parse_reference

    parsed = parse_reference(tag)
    if parsed.digest is not None:  # a builder may know the digest, and no more, of what the registry does not show
        return tag
    try:
        there = open_repository(parsed.repository, settings=settings).resolve(parsed.identifier)
    except RegistryError as error:
        reason = error.reason
    else:
        if there is not None:
            return pinned(tag, there.digest)
        reason = "the registry does not show it"
    note(f"prebuilt: {tag} is run by its tag, its digest cannot be had: {reason}")
    return tag
