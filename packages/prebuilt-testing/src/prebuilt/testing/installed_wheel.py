"""Wheels of distributions that are installed here: real ones, with compiled code, for an index on loopback."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path

_LEFT_OUT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # what installers wrote
_TIME = (2020, 1, 1, 0, 0, 0)


def installed_wheel(folder: Path, name: str) -> Path:
    """Write a wheel of the distribution `name` into `folder`, which is made, and return its path.

    It is the wheel that was installed, without scripts that lie outside of site-packages; the bytes are not those of its index.
    """
    installed = distribution(name)
    record = f"{_stem(installed)}.dist-info/RECORD"
    rows = io.StringIO()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_stem(installed)}-{_tags(installed)}.whl"
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_STORED
    ) as wheel:  # rattler is large, and all of this is for one test run
        for file in _files(installed):
            data = Path(str(installed.locate_file(file))).read_bytes()
            wheel.writestr(zipfile.ZipInfo(str(file), _TIME), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            csv.writer(rows, lineterminator="\n").writerow([file, f"sha256={digest}", len(data)])
        wheel.writestr(zipfile.ZipInfo(record, _TIME), f"{rows.getvalue()}{record},,\n")
    return path


def _stem(installed: Distribution) -> str:
    return f"{re.sub(r'[-_.]+', '_', installed.metadata['Name']).lower()}-{installed.version}"


def _tags(installed: Distribution) -> str:
    """Return the tags of its WHEEL as one compressed set.

    Source: https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/#compressed-tag-sets
    """
    stated = Parser().parsestr(installed.read_text("WHEEL") or "").get_all("Tag", [])
    parts = zip(*(tag.split("-") for tag in stated), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)


def _files(installed: Distribution) -> Iterator[PackagePath]:
    for file in sorted(installed.files or ()):
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in _LEFT_OUT:
            yield file
