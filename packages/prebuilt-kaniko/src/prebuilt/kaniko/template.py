"""A pod template of the user's, laid over the pod that a build would have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prebuilt.core.errors import SettingError
from prebuilt.kaniko.config import TEMPLATE_SETTING

_KEYS = ("mountPath", "name")
"""What tells the items of a list from each other, as in Kubernetes' own strategic merge: a mount's name is its volume's, which may have others."""


def read_template(path: Path) -> dict[str, Any]:
    """Return ``metadata`` and ``spec`` of a YAML file: those of a Pod, a PodTemplate's ``template``, or just the two.

    Raises:
        SettingError: The file cannot be read, or is something else.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _error(path, str(error)) from error
    data = data.get("template", data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not {"metadata", "spec"} & data.keys():
        raise _error(path, "it has neither metadata nor spec")
    parts = {name: data.get(name) or {} for name in ("metadata", "spec")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise _error(path, "metadata or spec is no mapping")
    return parts


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid upon it.

    Mappings are merged. Lists whose items have a ``mountPath`` or a ``name`` are merged by it, the first that all have; other
    lists are joined. A null removes what `base` has, everything else replaces it.
    """
    merged = dict(base)
    for key, value in over.items():
        there = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge(there if isinstance(there, Mapping) else {}, value)
        elif isinstance(value, list) and isinstance(there, list):
            merged[key] = _merge_lists(there, value)
        else:
            merged[key] = value
    return merged


def _merge_lists(base: list[Any], over: list[Any]) -> list[Any]:
    key = next((key for key in _KEYS if all(isinstance(i, Mapping) and key in i for i in (*base, *over))), None)
    if key is None:
        return [*base, *over]
    merged = {item[key]: item for item in base}
    for item in over:
        merged[item[key]] = merge(merged.get(item[key], {}), item)
    return list(merged.values())


def _error(path: Path, reason: str) -> SettingError:
    return SettingError(
        TEMPLATE_SETTING, at=str(path), reason=reason, remedy="name a YAML file with the metadata and spec of a pod"
    )
