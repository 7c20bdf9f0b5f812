"""What bakes send to a real registry: only what it lacks, counted byte by byte on the way there."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.plan import LARGE_BYTES
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine, wanted_program
from prebuilt.testing.relay import Relay, relay

pytestmark = pytest.mark.registry

SMALL_CHANGE_BYTES = 150_000
"""Manifest, config, catalogue, lock, and the headers of all requests."""
MOST_OF_A_GROUP_BYTES = 8_000_000


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The line to a registry of this file's own."""
    with wanted_engine(), distribution_registry(tmp_path_factory.mktemp("registry")) as host, relay(host) as line:
        yield line


@pytest.fixture
def team(tmp_path: Path, make_bakery: Callable[..., Any], line: Relay) -> Any:
    """A bakery that pushes to a new repository."""
    return make_bakery(tmp_path / "machine", f"{line.address}/team/{secrets.token_hex(6)}")


def sent(line: Relay, bakery: Any, **asked: Any) -> tuple[int, Any]:
    """Bake, and return the bytes that this sent to the registry, and the image, which is valid."""
    line.forget()
    image = bakery.bake(**asked)
    count = line.sent_bytes
    image.validate()
    return count, image


def test_a_second_environment_sends_what_is_new(line: Relay, team: Any, pantry: Any) -> None:
    """From a machine with empty caches: shared layers are not built, not downloaded, not sent; a third run sends nothing."""
    extra = pantry.add_wheel("extra", size_bytes=4_500_000)
    hefty = pantry.index.project("hefty")[0].path
    with relay(pantry.index.url.split("/")[2]) as index_line:
        index = {"index": f"http://{index_line.address}/simple"}
        first_bytes, first = sent(line, team, pypi={"hefty": "1.0", "talker": ""}, **index)
        index_line.forget()
        more = {"pypi": {"hefty": "1.0", "talker": "", "extra": ""}, **index}
        second_bytes, second = sent(line, team.elsewhere("fresh"), **more)
        assert extra.stat().st_size < index_line.received_bytes < extra.stat().st_size + SMALL_CHANGE_BYTES
        third_bytes, third = sent(line, team.elsewhere("third"), **more)
    assert first_bytes > hefty.stat().st_size
    assert extra.stat().st_size < second_bytes < extra.stat().st_size + SMALL_CHANGE_BYTES
    assert layers(first) < layers(second)
    assert third_bytes < SMALL_CHANGE_BYTES / 10
    assert third.reused
    assert third.digest == second.digest


def test_a_changed_large_package_sends_itself(line: Relay, team: Any, pantry: Any) -> None:
    """At most 1.1 of its wheel, and small change; all other layers stay where they are in the image."""
    index, name = {"index": pantry.index.url}, f"big-{secrets.token_hex(4)}"
    source = "".join(f"def f{n}(x):\n    return [x * {n}, '{n}']\n" for n in range(4000))
    wheels = [
        pantry.add_wheel(name.replace("-", "_"), version, size_bytes=8_000_000, files={"code_of_it.py": source})
        for version in ("1.0", "2.0")
    ]
    _, first = sent(line, team, pypi={name: "1.0", "hefty": "", "talker": ""}, **index)
    count, second = sent(line, team.elsewhere("fresh"), pypi={name: "2.0", "hefty": "", "talker": ""}, **index)
    assert count <= 1.1 * wheels[1].stat().st_size + SMALL_CHANGE_BYTES
    assert len(layers(first) ^ layers(second)) == 2


def layers(image: Any) -> set[str]:
    """Return the digests of an image's layers."""
    return {layer.digest for layer in image.validate().manifest.layers}


def test_a_changed_small_package_sends_its_group(line: Relay, team: Any, pantry: Any) -> None:
    """At most 8 MB, also of packages that are nothing but source, which bytecode makes twice as large, and just small enough."""
    index, prefix = {"index": pantry.index.url}, f"s{secrets.token_hex(3)}"
    names = [f"{prefix}x{number}" for number in range(2)]
    for name in names:
        for version in ("1.0", "2.0") if name == names[0] else ("1.0",):
            lines = (f"w{n} = '{hashlib.shake_128(f'{name} {n}'.encode()).hexdigest(80)}'\n" for n in range(24_000))
            wheel = pantry.add_wheel(name, version, files={f"{name}/words.py": "".join(lines)})
            assert 0.7 * LARGE_BYTES < wheel.stat().st_size < LARGE_BYTES
    sent(line, team, pypi=dict.fromkeys(names, "1.0"), **index)
    count, _ = sent(line, team.elsewhere("fresh"), pypi=dict.fromkeys(names, "1.0") | {names[0]: "2.0"}, **index)
    assert count <= MOST_OF_A_GROUP_BYTES + SMALL_CHANGE_BYTES


def test_layers_of_a_base_in_the_same_registry_are_mounted(
    line: Relay, tmp_path: Path, make_bakery: Callable[..., Any], base_image: str, pantry: Any
) -> None:
    """Not a byte of them is sent, into no repository, and the image is whole."""
    wanted_program("skopeo", brought_by="apt-get install skopeo")
    base = f"{line.address}/base/{secrets.token_hex(4)}:python"
    copy = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false", base_image, f"docker://{base}")
    subprocess.run(copy, check=True, capture_output=True)
    bakery = make_bakery(tmp_path / "machine", f"{line.address}/mounted/{secrets.token_hex(6)}", base=base)
    count, image = sent(line, bakery, pypi={"talker": ""}, index=pantry.index.url)
    assert count < SMALL_CHANGE_BYTES
    assert image.repository.has_blob(image.validate().manifest.layers[0].digest)
