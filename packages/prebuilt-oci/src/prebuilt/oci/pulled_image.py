"""An image that a builder could not pull: which one it is, and which setting names another."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.reference import Reference, is_layout, parse_reference, split_repository

BASE_IMAGE = "METAFLOW_PREBUILT_BASE_IMAGE"
BUILD_IMAGE = "METAFLOW_PREBUILT_BUILD_IMAGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """It, for people.

    Attributes:
        noun: ``the base image``, or ``the build stage's image`` with its name.
        setting: Names another one.
        host: Of its registry; empty where it is not known.
    """

    noun: str
    setting: str
    host: str = ""

    @classmethod
    def find(cls, said: str | None, stage_image: str | None) -> PulledImage:
        """Return which of a build's two images a builder speaks of; the base where it cannot be told.

        Args:
            said: The image as the builder names it; None where it names none.
            stage_image: What the build stage runs in, where that is not the base.
        """
        pulled = _parsed(said)
        host = "" if pulled is None or is_layout(pulled.repository) else split_repository(pulled.repository)[0]
        if stage_image is not None and _is_same(pulled, _parsed(stage_image)):
            return cls(noun=f"the build stage's image {stage_image}", setting=BUILD_IMAGE, host=host)
        return cls(noun="the base image", setting=BASE_IMAGE, host=host)


def _parsed(image: str | None) -> Reference | None:
    try:
        return parse_reference(image) if image else None
    except InvalidValueError:  # the builder names it in its own way
        return None


def _is_same(pulled: Reference | None, other: Reference | None) -> bool:
    """Return whether both are one image; builders add the digest that a tag had."""
    if pulled is None or other is None or pulled.repository != other.repository:
        return False
    return pulled.digest == other.digest if other.tag is None else pulled.tag == other.tag
