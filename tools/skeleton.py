"""A new package from template/."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

KINDS = ("registry", "builder")
_NAME = re.compile(r"[a-z][a-z0-9]*")


def write(root: Path, name: str, kinds: Iterable[str], *, into: Path | None = None) -> Path:
    """Write the skeleton of ``prebuilt-<name>`` and return its folder; `into` is the packages folder by default.

    Raises:
        ValueError: The name cannot be imported, a kind is unknown, or the package is there already.
    """
    chosen = [kind for kind in KINDS if kind in set(kinds)]
    unknown = set(kinds) - set(KINDS)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be imported: use lower-case letters and digits")
    if unknown or not chosen:
        raise ValueError(f"unknown kind {', '.join(sorted(unknown))}: a backend is a {' or a '.join(KINDS)}")
    folder = (into or root / "packages") / f"prebuilt-{name}"
    if folder.exists():
        raise ValueError(f"{folder.name} is there already")
    words = _words(name, chosen)
    for part in ("package", *chosen):
        _copy(root / "template" / part, folder, words)
    shutil.copy(root / "LICENSE", folder / "LICENSE")
    return folder


def _words(name: str, kinds: list[str]) -> dict[str, str]:
    """Return what the placeholders of the template stand for."""
    title = name.capitalize()
    points = {
        "builder": f'[project.entry-points."metaflow_prebuilt.build_services"]\n{name} = "prebuilt.{name}:{title}BuildService"\n',
        "registry": f'[project.entry-points."metaflow_prebuilt.image_registries"]\n{name} = "prebuilt.{name}:{title}Registry"\n',
    }
    classes = {"builder": f"{title}BuildService", "registry": f"{title}Registry"}
    return {
        "__name__": name,
        "__NAME__": name.upper(),
        "__Title__": title,
        "__what__": " and ".join(kinds),
        "__entry_points__\n": "\n".join(points[kind] for kind in sorted(kinds)),
        "__imports__\n": "".join(f"from prebuilt.{name}.{kind} import {classes[kind]}\n" for kind in sorted(kinds)),
        "__exported__": ", ".join(f'"{classes[kind]}"' for kind in sorted(kinds)),
    }


def _copy(source: Path, target: Path, words: dict[str, str]) -> None:
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        path = target / _filled(file.relative_to(source).as_posix(), words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(file.read_text(encoding="utf-8"), words), encoding="utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
