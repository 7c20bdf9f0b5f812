"""What the name of a wheel's file says."""

from __future__ import annotations

import re
from typing import NamedTuple

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from prebuilt.core.errors import ResolveError

_UNDERSCORES = re.compile(r"_+")


class WheelName(NamedTuple):
    """The parts of a wheel's file name; the distribution's is normalised, and a build number left out is ``()``."""

    distribution: str
    version: Version
    build: tuple[()] | tuple[int, str]
    tags: frozenset[Tag]


def parse_wheel_name(filename: str) -> WheelName:
    """Return the parts of a wheel's file name; that of the distribution may be written with ``__``, as uv takes it.

    Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention

    Raises:
        ResolveError: It is not a wheel's.
    """
    distribution, dash, rest = filename.partition("-")
    try:
        return WheelName(*parse_wheel_filename(_UNDERSCORES.sub("_", distribution) + dash + rest))
    except InvalidWheelFilename as error:
        raise ResolveError("read the name of a wheel", at=filename, reason=str(error)) from error
