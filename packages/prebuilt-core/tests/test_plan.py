"""Layer planning: complete, bounded, and stable under change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import CondaPackage, Wheel
from prebuilt.core.plan import GROUP_BYTES, LARGE_BYTES, MAX_LAYERS, LayerPlan, plan_layers
from prebuilt.core.spec import BasePython, ImageSpec


def packages_of(plan: LayerPlan) -> list[tuple[str, str]]:
    """Return kind and name of each package of the plan, in order."""
    return [(package.kind, package.name) for layer in plan.layers for package in layer.packages]


def mixed(wheel: Callable[..., Wheel], conda: Callable[..., CondaPackage], count: int = 120) -> list:
    """Return many small and some large packages of both kinds, with Python and runtime."""
    small = [wheel(f"small-{n}", 90_000 + n) for n in range(count)]
    large = [wheel(f"large-{n}", LARGE_BYTES * (n + 1)) for n in range(5)]
    conda_packages = [conda(f"lib-{n}", 400_000) for n in range(40)]
    python = [conda("python", 30_000_000, role="python"), conda("openssl", 3_500_000, role="python")]
    runtime = [conda("requests", 60_000, role="runtime"), conda("boto3", 14_000_000, role="runtime")]
    return small + large + conda_packages + python + runtime


def test_the_union_of_layers_is_the_lock(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel], conda: Callable[..., CondaPackage]
) -> None:
    """Every package is in exactly one layer; no layer is empty."""
    spec = spec_of(*mixed(wheel, conda), python_source="conda")
    plan = plan_layers(spec)
    assert sorted(packages_of(plan)) == sorted((package.kind, package.name) for package in spec.lock.packages)
    assert all(layer.packages for layer in plan.layers)
    assert len({layer.key for layer in plan.layers}) == len(plan.layers)


def test_order_is_python_runtime_conda_wheels(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel], conda: Callable[..., CondaPackage]
) -> None:
    """Wheels lie above conda packages, both above Python and runtime, so that a later owner of a file wins."""
    layers = plan_layers(spec_of(*mixed(wheel, conda), python_source="conda")).layers
    ranks = [(layer.packages[0].role == "user", layer.packages[0].kind) for layer in layers]
    assert ranks == sorted(ranks)
    assert [layer.name for layer in layers[:2]] == ["python", "runtime"]
    assert len(layers[0].packages) == len(layers[1].packages) == 2


def test_a_virtual_environment_starts_with_its_interpreter(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """Where the base's Python is used, the lowest layer leads to it."""
    assert plan_layers(spec_of(wheel("a"))).layers[0].kind == "interpreter"


def test_small_packages_share_groups_of_bounded_size(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """No group of more than one package is above the limit; large packages are alone."""
    layers = plan_layers(spec_of(*[wheel(f"p{n}", 700_000) for n in range(100)], wheel("big", LARGE_BYTES))).layers
    groups = [layer for layer in layers if len(layer.packages) > 1]
    assert groups
    assert all(layer.size_bytes <= GROUP_BYTES for layer in groups)
    assert ["big"] in [[package.name for package in layer.packages] for layer in layers]


def test_a_changed_small_package_changes_one_layer(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """All other keys stay."""
    packages = [wheel(f"p{n}", 200_000) for n in range(60)]
    before = {layer.key for layer in plan_layers(spec_of(*packages)).layers}
    after = {layer.key for layer in plan_layers(spec_of(wheel("p0", 200_100, version="2"), *packages[1:])).layers}
    assert len(after - before) == 1


def test_an_added_package_moves_no_package_outside_its_group(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """At most the two halves of one split group are new, wherever the name falls."""
    packages = [wheel(f"p{n}", 200_000) for n in range(60)]
    before = {layer.key for layer in plan_layers(spec_of(*packages)).layers}
    for n in range(20):
        after = {layer.key for layer in plan_layers(spec_of(*packages, wheel(f"new-{n}", 200_000))).layers}
        assert len(after - before) <= 2, n


def test_two_environments_share_the_layers_of_what_they_share(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """A large package's layer has the same key whatever else is there; another Python gives another key."""
    big = wheel("big", LARGE_BYTES)
    one = plan_layers(spec_of(big, wheel("a"))).layers
    two = plan_layers(spec_of(big, *[wheel(f"q{n}", 900_000) for n in range(30)])).layers
    on_312 = replace(spec_of(big).base, python=BasePython(path="/usr/local/bin/python3.12", version="3.12.1"))
    other = plan_layers(ImageSpec(lock=replace(spec_of(big).lock, python_version="3.12.1"), base=on_312)).layers
    keys = [{layer.name: layer.key for layer in layers}["big"] for layers in (one, two, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("base_layers", [1, 60, 100])
def test_the_number_of_layers_is_budgeted_with_the_base(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel], base_layers: int
) -> None:
    """Many large packages share layers where a layer for each would not fit; still none is lost."""
    spec = spec_of(*[wheel(f"p{n}", 4_000_000 + n * 300_000) for n in range(200)])
    spec = replace(spec, base=replace(spec.base, layer_count=base_layers))
    plan = plan_layers(spec)
    assert len(plan.layers) + base_layers <= MAX_LAYERS
    assert len(packages_of(plan)) == 200


def test_a_base_with_too_many_layers_is_refused(spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]) -> None:
    """The error names the base and the limit."""
    spec = spec_of(wheel("a"))
    with pytest.raises(InvalidValueError, match=f"python:3.11-slim.*{MAX_LAYERS}"):
        plan_layers(replace(spec, base=replace(spec.base, layer_count=MAX_LAYERS)))
