"""The Dockerfile of an image: golden files for both forms, and what must hold for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.dockerfile import (
    PROGRAM,
    STAGE_FOLDER,
    BuildMaterials,
    DockerfileBuild,
    DockerfileForm,
    dockerfile_build,
    proxy_arguments,
)
from prebuilt.core.errors import BuildError, InvalidValueError
from prebuilt.core.layer_source import LayerSource
from prebuilt.core.lock import CondaPackage, Lock, Wheel
from prebuilt.core.loopback import is_loopback
from prebuilt.core.plan import plan_layers
from prebuilt.core.progress import LineProgress
from prebuilt.core.spec import BaseImage, ImageSpec
from prebuilt.core.tree import BytesContent

GOLDEN = Path(__file__).parent / "golden"
FORMS: tuple[DockerfileForm, ...] = ("buildkit", "plain")
FILES = {PROGRAM: BytesContent(b"PK"), "tools.txt": BytesContent(b"py-rattler==0.28.0\n"), "ca.pem": BytesContent(b"-")}
ODD = {
    "quoted": 'say "hi"',
    "dollar": "$HOME ${PATH:-x} \\$",
    "back": "C:\\dir\\",
    "accent": "Zoë, 東京",
    "empty": "",
    "#": " # ",
}


@dataclass(frozen=True)
class Case:
    """What a golden file is made from."""

    spec: ImageSpec
    materials: BuildMaterials

    def build(self, form: DockerfileForm) -> DockerfileBuild:
        """Render it."""
        return dockerfile_build(self.spec, plan_layers(self.spec), self.materials, form)


@pytest.fixture
def cases(
    wheel: Callable[..., Wheel],
    conda: Callable[..., CondaPackage],
    lock_of: Callable[..., Lock],
    base: BaseImage,
) -> dict[str, Case]:
    """Return each kind of image, by the name of its golden file."""
    listed = replace(base, index_digest="sha256:" + "1d" * 32)
    gpu = replace(base, reference="cuda", repository="gpu.example/cuda", python=None)
    wheels = (wheel("six"), wheel("torch", size_bytes=90_000_000))
    python = conda("python", size_bytes=30_000_000, role="python")
    of_conda = {"python_source": "conda"}
    usual = BuildMaterials(files=FILES)
    on_base = ImageSpec(lock=lock_of(*wheels), base=listed)
    return {
        "base-python": Case(on_base, usual),
        "single-platform-base": Case(replace(on_base, base=base), usual),
        "conda-python": Case(ImageSpec(lock=lock_of(python, conda("zlib"), **of_conda), base=gpu), usual),
        "mixed": Case(ImageSpec(lock=lock_of(python, conda("zlib"), *wheels, **of_conda), base=listed), usual),
        "travelling": Case(on_base, replace(usual, packages={wheels[0].sha256: BytesContent(b"wheel of six")})),
        "odd-values": Case(replace(on_base, env={"A": '"$A" \\'}, labels=ODD), usual),
        "build-image": Case(on_base, replace(usual, image="tools.example/python:3.11")),
    }


NAMES = ("base-python", "single-platform-base", "conda-python", "mixed", "travelling", "odd-values", "build-image")
EACH = pytest.mark.parametrize(("name", "form"), [(name, form) for name in NAMES for form in FORMS])


@EACH
def test_a_dockerfile_is_as_it_was(name: str, form: DockerfileForm, cases: dict[str, Case]) -> None:
    """A change of what is rendered is seen in review, line by line."""
    golden = (GOLDEN / f"{name}.{form}.Dockerfile").read_text(encoding="utf-8")
    assert cases[name].build(form).dockerfile == golden


def test_each_golden_file_is_compared() -> None:
    """No file of a case that is gone stays behind."""
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.{form}.Dockerfile" for name in NAMES for form in FORMS}


@EACH
def test_context_has_every_file_that_is_named(name: str, form: DockerfileForm, cases: dict[str, Case]) -> None:
    """Whoever has the Dockerfile and its context needs nothing else of ours."""
    build = cases[name].build(form)
    for source in named_in_context(build.dockerfile):
        assert any(file == source or file.startswith(f"{source}/") for file in build.context), source
    assert PROGRAM in build.context


def named_in_context(dockerfile: str) -> Iterator[str]:
    """Yield what the Dockerfile takes from its context."""
    for line in dockerfile.splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            source = line.split()[1]
            if source != ".":
                yield source
        yield from re.findall(r"source=([^, ]+)", line)


@EACH
def test_final_stage_runs_nothing(name: str, form: DockerfileForm, cases: dict[str, Case]) -> None:
    """Images of other platforms need no emulation, and each layer of the plan is one COPY, in its order."""
    case = cases[name]
    final = case.build(form).dockerfile.rpartition("FROM ")[2]
    assert case.spec.base.digest in final.splitlines()[0]
    assert "RUN" not in final
    copied = re.findall(rf"^COPY .*{STAGE_FOLDER}/made/([0-9a-f]+)/ /$", final, re.MULTILINE)
    assert copied == [layer.key for layer in plan_layers(case.spec).layers]


@EACH
def test_plain_form_has_nothing_that_old_builders_do_not_know(
    name: str, form: DockerfileForm, cases: dict[str, Case]
) -> None:
    """BuildKit's words are in BuildKit's form only."""
    words = ("--platform", "--mount", "--link", "$BUILDPLATFORM")
    text = cases[name].build(form).dockerfile
    assert [word in text for word in words[:3]] == [form == "buildkit"] * 3
    assert "# syntax" not in text  # a frontend from a registry is one more thing to reach


@EACH
def test_same_image_has_same_bytes(name: str, form: DockerfileForm, cases: dict[str, Case]) -> None:
    """The same spec and materials give the same Dockerfile, the same names in the same order, and the same contents."""
    case = cases[name]
    shuffled = replace(case.materials, files=dict(reversed(case.materials.files.items())))
    one, two = case.build(form), replace(case, materials=shuffled).build(form)
    assert one.dockerfile == two.dockerfile
    assert list(one.context) == list(two.context) == sorted(one.context)
    assert {name: content.open().read() for name, content in one.context.items()} == {
        name: content.open().read() for name, content in two.context.items()
    }


def test_context_holds_each_layer_once(cases: dict[str, Case]) -> None:
    """Every layer of the plan has its source, and packages travel only where the build stage cannot fetch them."""
    case = cases["travelling"]
    build = case.build("buildkit")
    layers = plan_layers(case.spec).layers
    expected = {f"layers/{layer.key}.json": LayerSource.of(case.spec, layer).to_bytes() for layer in layers}
    sources = {name: content.open().read() for name, content in build.context.items() if name.startswith("layers/")}
    assert sources == expected
    [travelling] = [name for name in build.context if name.startswith("packages/")]
    six = next(package for package in case.spec.lock.packages if package.name == "six")
    assert travelling == f"packages/{six.sha256}/{six.filename}"
    assert str(build.platform) == "linux/amd64"


@pytest.mark.parametrize("value", ODD.values())
def test_values_are_taken_literally(value: str, cases: dict[str, Case]) -> None:
    """Quotes, dollars and backslashes stand for themselves once Docker has read the line."""
    spec = replace(cases["base-python"].spec, env={"A": value}, labels={value or "empty": value})
    text = dockerfile_build(spec, plan_layers(spec), cases["base-python"].materials, "plain").dockerfile
    [written] = re.findall(r'^ENV A="(.*)"$', text, re.MULTILINE)
    assert as_docker_reads(written) == value
    labels = re.findall(r'^LABEL "((?:[^"\\]|\\.)*)"="(.*)"$', text, re.MULTILINE)
    assert (value or "empty", value) in [(as_docker_reads(name), as_docker_reads(text)) for name, text in labels]


def as_docker_reads(quoted: str) -> str:
    """Return what is inside double quotes as Docker does: a backslash takes a quote, a dollar or a backslash literally."""
    assert not re.search(r'(?<!\\)(?:\\\\)*[$"]', quoted)
    return re.sub(r'\\([\\"$])', r"\1", quoted)


@pytest.mark.parametrize("bad", ["a\nRUN evil", "a\rb", "a\0b", "\x1b[31m", "\x7f"])
@pytest.mark.parametrize("place", ["env", "labels", "label names"])
def test_control_characters_are_refused(bad: str, place: str, cases: dict[str, Case]) -> None:
    """A line break would start an instruction."""
    changes: dict[str, Any] = {"label names": {"labels": {bad: "x"}}}.get(place, {place: {"A": bad}})
    spec = replace(cases["base-python"].spec, **changes)
    with pytest.raises(InvalidValueError, match="control character"):
        dockerfile_build(spec, plan_layers(spec), cases["base-python"].materials, "buildkit")


@pytest.mark.parametrize("name", ["", "A B", "A=B", "$A", 'A"', "1A"])
def test_odd_names_of_variables_are_refused(name: str, cases: dict[str, Case]) -> None:
    """A name is not quoted, so it must be one word."""
    spec = replace(cases["base-python"].spec, env={name: "x"})
    with pytest.raises(InvalidValueError, match="variable's name"):
        dockerfile_build(spec, plan_layers(spec), cases["base-python"].materials, "plain")


@pytest.mark.parametrize("form", FORMS)
def test_a_python_that_the_program_does_not_run_on_is_refused(
    form: DockerfileForm, lock_of: Callable[..., Lock], base: BaseImage
) -> None:
    """Python 3.9 can be built by the native builder only, and the error says so."""
    spec = ImageSpec(lock=lock_of(python_version="3.9.18", python_source="conda"), base=base)
    with pytest.raises(BuildError, match=r"3\.10 or newer.*METAFLOW_PREBUILT_BUILD_SERVICE=native"):
        dockerfile_build(spec, plan_layers(spec), BuildMaterials(files=FILES), form)


def test_for_such_a_python_nothing_is_gathered(lock_of: Callable[..., Lock], base: BaseImage) -> None:
    """Its tools could not be resolved, which would be the wrong thing to read."""

    class Never:
        def gather(self, *_: object, **__: object) -> Never:
            raise AssertionError

    spec = ImageSpec(lock=lock_of(python_version="3.9.18", python_source="conda"), base=base)
    request = BuildRequest(spec=spec, plan=plan_layers(spec), reference="r.example/i:1", materials=cast("Any", Never()))
    with (
        pytest.raises(BuildError, match=r"3\.10 or newer"),
        request.as_dockerfile("plain", LineProgress(print).image("step")),
    ):
        pass


def test_another_python_than_the_base_has_compiles_in_its_own_image(cases: dict[str, Case]) -> None:
    """Bytecode is made by the environment's X.Y: the base's 3.11 does not serve an environment with 3.12."""
    case = cases["mixed"]
    spec = replace(case.spec, lock=replace(case.spec.lock, python_version="3.12.1"))
    build = dockerfile_build(spec, plan_layers(spec), case.materials, "plain")
    assert "FROM python:3.12-slim AS environment" in build.dockerfile
    assert build.stage_image == "python:3.12-slim"


@EACH
def test_only_an_image_beside_the_base_is_named(name: str, form: DockerfileForm, cases: dict[str, Case]) -> None:
    """Messages tell the build stage's image from the base where they are two."""
    of_its_own = {"conda-python": "python:3.11-slim", "build-image": "tools.example/python:3.11"}
    assert cases[name].build(form).stage_image == of_its_own.get(name)


@pytest.mark.parametrize("form", FORMS)
def test_a_builder_with_one_platform_pins_the_build_stage(form: DockerfileForm, cases: dict[str, Case]) -> None:
    """In the plain form, and the build stage alone; BuildKit's knows the build platform by itself."""
    case = cases["base-python"]
    plan = plan_layers(case.spec)
    usual, pinned = (
        dockerfile_build(case.spec, plan, case.materials, form, pin=pin).dockerfile.splitlines()
        for pin in (lambda image: image, lambda image: f"pinned/{image}")
    )
    changed = [(one, other) for one, other in zip(usual, pinned, strict=True) if one != other]
    stage = f"{case.spec.base.repository}@{case.spec.base.index_digest} AS environment"
    assert changed == ([(f"FROM {stage}", f"FROM pinned/{stage}")] if form == "plain" else [])


@pytest.mark.parametrize("form", FORMS)
def test_a_builder_may_set_the_labels_itself(form: DockerfileForm, cases: dict[str, Case]) -> None:
    """Then the Dockerfile sets none, and is as it was in all else."""
    case = cases["base-python"]
    usual = case.build(form).dockerfile.splitlines()
    without = dockerfile_build(case.spec, plan_layers(case.spec), case.materials, form, sets_labels=False)
    assert any(line.startswith("LABEL ") for line in usual)
    assert without.dockerfile.splitlines() == [line for line in usual if not line.startswith("LABEL ")]


def test_only_the_layers_that_changed_are_built_anew(cases: dict[str, Case], wheel: Callable[..., Wheel]) -> None:
    """With one package changed, every other layer's stage reads the same sources as before."""
    case = cases["base-python"]
    packages = [wheel("six", version="2.0") if p.name == "six" else p for p in case.spec.lock.packages]
    changed = replace(case, spec=replace(case.spec, lock=replace(case.spec.lock, packages=tuple(packages))))
    before, after = (
        set(re.findall(r"layers/[0-9a-f]+", each.build("buildkit").dockerfile)) for each in (case, changed)
    )
    assert (len(before - after), len(after - before)) == (1, 1)


def test_a_request_renders_inside_its_materials(cases: dict[str, Case]) -> None:
    """Materials are open while the Dockerfile is used, and closed after it."""
    case = cases["base-python"]
    closed: list[ImageSpec] = []

    class Source:
        @contextmanager
        def gather(self, spec: ImageSpec, progress: Any, *, check: Callable[[], None]) -> Iterator[BuildMaterials]:
            check()
            yield case.materials
            closed.append(spec)

    request = BuildRequest(spec=case.spec, plan=plan_layers(case.spec), reference="reg.example/x:t", materials=Source())
    with request.as_dockerfile("plain", LineProgress(print).image("step")) as build:
        assert build == case.build("plain")
        assert not closed
    assert closed == [case.spec]


def test_proxies_are_handed_on_in_both_spellings() -> None:
    """Builders know both, and forget them after the build."""
    environ = {
        "http_proxy": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "HOME": "/x",
    }
    assert proxy_arguments(environ) == {name: value for name, value in environ.items() if name != "HOME"}


@pytest.mark.parametrize(
    "proxy",
    [
        "http://127.0.0.1:3128",
        "localhost:3128",
        "http://me:secret@[::1]:3128",
        "socks5://127.8.9.1",
        "http://x.localhost",
    ],
)
def test_proxies_on_loopback_stay_here(proxy: str) -> None:
    """The loopback of a build stage is not this machine's."""
    assert proxy_arguments({"HTTPS_PROXY": proxy, "all_proxy": proxy}) == {}


@pytest.mark.parametrize("value", ["localhost", "127.0.0.1", "[::1],internal", "[::1", ".example,10.0.0.0/8"])
def test_what_needs_no_proxy_is_a_list_of_hosts(value: str) -> None:
    """It is handed on as it is, loopback or not."""
    assert proxy_arguments({"no_proxy": value}) == {"no_proxy": value}


def test_a_proxy_that_is_no_address_is_left_to_its_reader() -> None:
    """It fails where it is used, with a message about the proxy."""
    assert proxy_arguments({"HTTP_PROXY": "http://[::1"}) == {"HTTP_PROXY": "http://[::1"}
    assert proxy_arguments({"HTTP_PROXY": ""}) == {}


@pytest.mark.parametrize(
    ("host", "is_it"),
    [("127.0.0.1", True), ("[::1]", True), ("localhost", True), ("10.0.0.1", False), ("localhost.example", False)],
)
def test_loopback_is_known_by_name_and_address(host: str, is_it: bool) -> None:  # noqa: FBT001
    """Names and addresses that mean this machine."""
    assert is_loopback(host) is is_it
