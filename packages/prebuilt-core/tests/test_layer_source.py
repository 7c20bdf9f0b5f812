"""The source of a layer is a document that says all of it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.layer_source import LayerSource
from prebuilt.core.lock import CondaPackage, Lock, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.spec import PREFIX, BaseImage, ImageSpec

MakeWheel = Callable[..., Wheel]


@pytest.fixture
def sources(
    spec_of: Callable[..., ImageSpec], wheel: MakeWheel, conda: Callable[..., CondaPackage]
) -> list[LayerSource]:
    """Return the sources of an image with the base's Python, a conda package and a wheel."""
    package = conda("zlib", depends=("libgcc >=13",), noarch="generic")
    spec = spec_of(package, wheel("six"))
    return [LayerSource.of(spec, layer) for layer in plan_layers(spec).layers]


def test_a_source_survives_its_document(sources: list[LayerSource]) -> None:
    """Reading what was written gives an equal value, and equal values give equal bytes."""
    for source in sources:
        assert LayerSource.parse(source.to_bytes()) == source
        assert LayerSource.parse(source.to_bytes()).to_bytes() == source.to_bytes()


def test_a_source_says_where_and_with_what(sources: list[LayerSource], base: BaseImage) -> None:
    """The layer that leads to the base's Python names it; layers of packages do not, and so outlive a change of it."""
    interpreter, *others = sources
    assert (interpreter.kind, interpreter.base_python) == ("interpreter", base.python)
    assert [source.base_python for source in others] == [None, None]
    assert {source.prefix for source in sources} == {PREFIX}
    assert {source.python_version for source in sources} == {"3.11.7"}
    assert [[package.name for package in source.packages] for source in sources] == [[], ["zlib"], ["six"]]


def test_a_source_holds_nothing_of_the_rest_of_the_image(
    spec_of: Callable[..., ImageSpec], lock_of: Callable[..., Lock], wheel: MakeWheel
) -> None:
    """Another package, another base, other labels, another time of resolution: a builder's cache of this layer stays valid."""
    large = wheel("torch", size_bytes=90_000_000)

    def source_in(spec: ImageSpec) -> bytes:
        [layer] = [layer for layer in plan_layers(spec).layers if layer.name == "torch"]
        return LayerSource.of(spec, layer).to_bytes()

    spec = spec_of(large)
    other_base = replace(spec.base, digest="sha256:" + "cd" * 32, layer_count=9)
    others = [
        spec_of(large, wheel("six")),
        replace(spec, base=other_base),
        replace(spec, labels={"team": "ml"}),
        replace(spec, lock=replace(spec.lock, resolver="uv 9")),
    ]
    assert {source_in(other) for other in others} == {source_in(spec)}


DAMAGED: list[Callable[[dict[str, Any]], Any]] = [
    lambda raw: {**raw, "format": 2},
    lambda raw: {name: value for name, value in raw.items() if name != "key"},
    lambda raw: {**raw, "packages": [{"kind": "wheel"}]},
    lambda raw: {**raw, "packages": ["six"]},
    lambda raw: {**raw, "packages": [{**raw["packages"][0], "sha256": "short"}]},
    lambda raw: {**raw, "platform": "plan9/mips"},
    lambda raw: [raw],
    lambda raw: "layer",
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_source_is_refused(damage: Callable[[dict[str, Any]], Any], sources: list[LayerSource]) -> None:
    """Damage is found when the document is read, and said."""
    raw = json.loads(sources[-1].to_bytes())
    with pytest.raises(InvalidValueError):
        LayerSource.parse(json.dumps(damage(raw)).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    """Half a file is not a source."""
    with pytest.raises(InvalidValueError, match="a layer's source"):
        LayerSource.parse(data)
