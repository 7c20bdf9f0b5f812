"""Runs are checked when they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.containers import ContainerRun, Mount

IMAGE = f"oci:/folder@sha256:{'0' * 64}"


def make(**fields: Any) -> ContainerRun:
    """Return a run with something changed."""
    return ContainerRun(**{"image": IMAGE, "command": ("true",), **fields})


def test_a_run_is_a_value() -> None:
    """It compares by value and does not follow the mapping that it was made of."""
    env = {"A": "b"}
    run = make(env=env)
    env["A"] = "c"
    assert run == make(env={"A": "b"})


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "oci:/folder:tag"},
        {"image": "oci:/folder"},
        {"image": "https://host/image"},
        {"command": ()},
        {"command": ("",)},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"workdir": "relative"},
        {"workdir": "/a/../b"},
        {"memory_mb": 0},
        {"cpus": -1.0},
        {"gpus": -1},
    ],
)
def test_what_cannot_be_run_is_refused(fields: dict[str, Any]) -> None:
    """A mistake is named before anything starts."""
    with pytest.raises(InvalidValueError):
        make(**fields)


@pytest.mark.parametrize(
    ("source", "target"), [("relative", "/x"), ("/x", "relative"), ("/x", "/"), ("/x", "//"), ("/x", "/a/../b")]
)
def test_mounts_have_absolute_ends(source: str, target: str) -> None:
    """And do not hide the whole image."""
    with pytest.raises(InvalidValueError):
        Mount(source=Path(source), target=target)
