"""The images that a Dockerfile is built on: builders pull them, and need a login, and maybe a scheme, for each of their registries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.reference import is_layout, parse_reference

_FROM = re.compile(r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?", re.IGNORECASE | re.MULTILINE)
_SCRATCH = "scratch"


def pulled_repositories(dockerfile: str) -> tuple[str, ...]:
    """Return the repositories of the images in ``FROM``, each once, in order.

    Stages, ``scratch`` and image layouts are none; what depends on a build argument is not known here, and left out.
    """
    return tuple(dict.fromkeys(_repositories(dockerfile)))


def _repositories(dockerfile: str) -> Iterator[str]:
    stages = {_SCRATCH}
    for found in _FROM.finditer(dockerfile):
        image, stage = found[1], found[2]
        if image.lower() not in stages and "$" not in image:
            try:
                repository = parse_reference(image).repository
            except InvalidValueError:  # the builder will say so, with the line
                continue
            if not is_layout(repository):
                yield repository
        if stage:
            stages.add(stage.lower())
