"""Builders of Dockerfiles are called as their signatures ask, and every way of failing is an error that says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from prebuilt.core.build_service import (
    KEPT_LINES,
    BuildOutput,
    BuildRequest,
    DockerBuildService,
    DockerfileBuildOptions,
)
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials
from prebuilt.core.errors import BuildError, CancelledError, RegistryUnreachableError
from prebuilt.core.lock import Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.progress import LineProgress
from prebuilt.core.spec import ImageSpec
from prebuilt.core.tree import BytesContent

PROGRAM_BYTES = b"PK\x03\x04"
Received = dict[str, Any]


class Materials:
    """Two files, one of them the program."""

    @contextmanager
    def gather(self, spec: ImageSpec, progress: Any, *, check: Callable[[], None]) -> Iterator[BuildMaterials]:
        """Give them."""
        del spec, progress
        check()
        yield BuildMaterials(files={PROGRAM: BytesContent(PROGRAM_BYTES), "tools.txt": BytesContent(b"uv==0.13.9\n")})


@dataclass
class Bench:
    """A request, and the lines that a user sees."""

    request: BuildRequest
    lines: list[str]

    def build(self, builder: DockerBuildService) -> Descriptor | None:
        """Build the request."""
        return builder.build(self.request, LineProgress(self.lines.append).image("start"))


@pytest.fixture
def bench(spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]) -> Bench:
    """Return a bench with an image of one wheel."""
    spec = spec_of(wheel("six"))
    request = BuildRequest(
        spec=spec,
        plan=plan_layers(spec),
        reference="reg.example/x:t",
        push_credentials={"token": "hush"},
        materials=Materials(),
    )
    return Bench(request, [])


class Of02(DockerBuildService):
    """As 0.2 had it: five arguments."""

    def __init__(self) -> None:
        self.received: Received = {}

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Any,
    ) -> bool:
        """Record what came."""
        self.received = {name: value for name, value in locals().items() if name != "self"}
        return True


class Of03(Of02):
    """As 0.3 had it: a platform more."""

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Any,
        target_platform: str | None = None,
    ) -> bool:
        """Record what came."""
        self.received = {name: value for name, value in locals().items() if name != "self"}
        return True


class Renamed(Of02):
    """With names of its own, in the published order."""

    def build_and_push(self, text: str, files: Any, tag: str, login: Any, say: Any, timeout: int = 60) -> bool:
        """Record what came."""
        assert timeout == 60
        self.received = dict(
            zip(
                ("dockerfile", "context_files", "image_tag", "push_credentials", "echo"),
                (text, files, tag, login, say),
                strict=True,
            )
        )
        return True


class OnlyKeywords(Of02):
    """Takes whatever comes by name."""

    def build_and_push(self, **published: Any) -> bool:
        """Record what came."""
        self.received = published
        return True


class SomeKeywords(Of02):
    """Names what it uses, and takes the rest."""

    def build_and_push(self, dockerfile: str, context_files: dict[str, Any], *, image_tag: str, **others: Any) -> bool:
        """Record what came."""
        self.received = {"dockerfile": dockerfile, "context_files": context_files, "image_tag": image_tag, **others}
        return True


class KeywordOnly(Of02):
    """In an order of its own."""

    def build_and_push(
        self,
        *,
        echo: Any,
        image_tag: str,
        dockerfile: str,
        context_files: dict[str, Any],
        push_credentials: dict[str, Any],
        target_platform: str,
    ) -> bool:
        """Record what came."""
        self.received = {name: value for name, value in locals().items() if name != "self"}
        return True


class Wrapped(Of03):
    """Hands everything on, as a decorator does."""

    def build_and_push(self, *args: Any, **kwargs: Any) -> bool:
        """Record what came."""
        return super().build_and_push(*args, **kwargs)


FORMS = [
    (Of02, False),
    (Of03, True),
    (Renamed, False),
    (OnlyKeywords, True),
    (SomeKeywords, True),
    (KeywordOnly, True),
    (Wrapped, True),
]


@pytest.mark.parametrize(("kind", "takes_platform"), FORMS)
def test_a_class_is_called_as_its_signature_asks(kind: type[Of02], takes_platform: bool, bench: Bench) -> None:  # noqa: FBT001
    """Both published generations, names of its own, keywords: each gets what was published, and a platform if it takes one."""
    builder = kind()
    assert bench.build(builder) is None
    received = builder.received
    with bench.request.as_dockerfile("plain", LineProgress(print).image("x")) as rendered:
        assert received["dockerfile"] == rendered.dockerfile
        assert received["context_files"] == {name: content.open().read() for name, content in rendered.context.items()}
    assert received["image_tag"] == "reg.example/x:t"
    assert received["push_credentials"] == {"token": "hush"}
    assert received.get("target_platform") == ("linux/amd64" if takes_platform else None)


def test_what_a_class_is_given_is_its_own(bench: Bench) -> None:
    """Published types: a str, a dict of bytes, a dict; changing them changes nothing of ours."""
    builder = Of03()
    bench.build(builder)
    dockerfile, context = builder.received["dockerfile"], builder.received["context_files"]
    assert (type(dockerfile), type(context), {type(data) for data in context.values()}) == (str, dict, {bytes})
    assert context[PROGRAM] == PROGRAM_BYTES
    assert "Dockerfile" not in context
    builder.received["push_credentials"].clear()
    assert bench.request.push_credentials == {"token": "hush"}


def test_a_builder_that_says_that_it_is_a_buildkit_gets_its_form(bench: Bench) -> None:
    """What dockerfile_build_options says decides about the form."""

    class BuildKit(Of03):
        def dockerfile_build_options(self) -> DockerfileBuildOptions:
            return DockerfileBuildOptions(buildkit_deferred_input_mounts=True)

    builder = BuildKit()
    bench.build(builder)
    assert "--mount=type=bind" in builder.received["dockerfile"]


class Speaking(Of02):
    """Says what a test tells it to, then does it."""

    def __init__(self, *said: Any, end: Callable[[], Any] = lambda: False) -> None:
        super().__init__()
        self.said, self.end = said, end

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Any,
    ) -> bool:
        """Record what came."""
        for message in self.said:
            echo(message, err=True, nl=False, fg="red")
        return self.end()


def raising(error: BaseException) -> Callable[[], Any]:
    """Return a function that raises `error`."""

    def end() -> Any:
        raise error

    return end


def test_what_is_echoed_is_shown_as_it_comes(bench: Bench) -> None:
    """Messages of many lines, with keywords, colours and progress bars, become plain lines with the step's name before them."""
    bench.build(Speaking("one\ntwo  ", b"thr\xc3\xa9e", "\x1b[36mINFO\x1b[0m four\rfive\n\n", "", 6, end=lambda: True))
    said = ["one", "two", "thrée", "INFO four", "five", "6"]
    assert bench.lines == ["start: building with Speaking", *(f"start | {line}" for line in said)]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda: False, "it returned False"),
        (lambda: None, "it returned None"),
        (raising(OSError(28, "No space left")), "OSError: .*No space left"),
        (raising(KeyError("x")), "KeyError: 'x'"),
        (raising(SystemExit(2)), "SystemExit: 2"),
    ],
)
def test_a_failure_names_the_builder_and_shows_what_it_said(end: Callable[[], Any], reason: str, bench: Bench) -> None:
    """False, nothing at all, an exception, an exit: one BuildError with the reason and the last lines."""
    with pytest.raises(
        BuildError, match=rf"Speaking at reg\.example/x:t: {reason}; see what it said\nno space"
    ) as caught:
        bench.build(Speaking("no space", end=end))
    assert caught.value.output == ("no space",)
    if isinstance(caught.value.__cause__, BaseException):
        assert type(caught.value.__cause__).__name__ in reason


def test_the_password_to_push_with_is_not_shown(bench: Bench) -> None:
    """Neither by a line of a builder, nor by a command that fails, whose arguments are in the error."""
    bench.request = replace(bench.request, push_credentials={"username": "me", "password": "hush"})
    failed = subprocess.CalledProcessError(1, ["docker", "login", "--username", "me", "--password", "hush"])
    with pytest.raises(BuildError, match=r"CalledProcessError: .*'--password', '\*\*\*'") as caught:
        bench.build(Speaking("login with hush", end=raising(failed)))
    assert "hush" not in f"{caught.value} {bench.lines}"


def test_a_silent_failure_says_that_it_was_silent(bench: Bench) -> None:
    """Where the builder said nothing, the error says where to look."""
    with pytest.raises(BuildError, match="it returned False; it said nothing; look into its own log"):
        bench.build(Speaking())


def test_an_error_shows_the_last_lines(bench: Bench) -> None:
    """The user has seen all of them; the error repeats the end."""
    with pytest.raises(BuildError) as caught:
        bench.build(Speaking(*(f"line {n}" for n in range(200))))
    assert caught.value.output == tuple(f"line {n}" for n in range(200 - KEPT_LINES, 200))
    assert sum("| line" in line for line in bench.lines) == 200


@pytest.mark.parametrize(
    "error",
    [
        RegistryUnreachableError("push", at="reg.example", reason="refused"),
        CancelledError("build", reason="Ctrl-C"),
        KeyboardInterrupt(),
    ],
)
def test_errors_of_ours_and_ctrl_c_pass_through(error: BaseException, bench: Bench) -> None:
    """A backend that speaks our errors is not translated, and nobody is kept from stopping it."""
    with pytest.raises(type(error)) as caught:
        bench.build(Speaking(end=raising(error)))
    assert caught.value is error


def test_a_cancelled_request_is_not_built(bench: Bench) -> None:
    """Nothing is rendered, nothing is called."""
    bench.request.cancellation.cancel()
    builder = Of03()
    with pytest.raises(CancelledError):
        bench.build(builder)
    assert builder.received == {}


def test_a_folder_is_no_place_to_push_to(bench: Bench) -> None:
    """A class that was written for registries would push to a host named oci: it is told before it starts."""
    bench.request = replace(bench.request, reference="oci:/images:t")
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_IMAGE_REGISTRY"):
        bench.build(Of03())


def test_a_base_in_a_folder_cannot_be_pulled(bench: Bench) -> None:
    """No builder of Dockerfiles finds it there, whatever its own error would say."""
    base = replace(bench.request.spec.base, repository="oci:/images")
    bench.request = replace(bench.request, spec=replace(bench.request.spec, base=base))
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_BASE_IMAGE"):
        bench.build(Of03())


def test_no_secret_is_in_a_request_that_is_shown(bench: Bench) -> None:
    """What a registry gave for pushing is not in the repr."""
    assert "hush" not in repr(bench.request)


class BuiltIn(Of03):
    """As ours are: typed."""

    def build(self, request: BuildRequest, progress: Any) -> Descriptor:
        """Return something."""
        return Descriptor(media_type="m", digest="sha256:" + "a" * 64, size=1)


class Customised(BuiltIn):
    """What a user made of a built-in class by its published method."""

    def build_and_push(self, dockerfile: str, *args: Any, **kwargs: Any) -> bool:
        """Record what came."""
        return super().build_and_push(f"{dockerfile}# of the site\n", *args, **kwargs)


class Mixin:
    """The same, mixed in."""

    build_and_push = Of03.build_and_push


def test_a_subclass_of_a_builtin_is_called_where_it_overrides(bench: Bench) -> None:
    """The published method of the most derived class is used, not the typed one of the class that it came from."""
    customised = Customised()
    assert bench.build(customised) is None
    assert customised.received["dockerfile"].endswith("# of the site\n")
    assert bench.build(BuiltIn()) is not None


def test_so_are_its_subclasses_and_mixins(bench: Bench) -> None:
    """However the published method got in front of the typed one."""

    class Below(Customised):
        pass

    class Mixed(Mixin, BuiltIn):
        pass

    class Typed(Customised):
        def build(self, request: BuildRequest, progress: Any) -> Descriptor:
            return Descriptor(media_type="m", digest="sha256:" + "b" * 64, size=1)

    for kind in (Below, Mixed):
        builder = kind()
        assert bench.build(builder) is None
        assert builder.received
    assert bench.build(Typed()) is not None


def test_output_may_come_from_any_thread() -> None:
    """Builders read their tools' output in threads."""
    import threading

    lines: list[str] = []
    output = BuildOutput(LineProgress(lines.append).image("s"))
    threads = [threading.Thread(target=lambda n=n: [output(f"{n} {i}") for i in range(100)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines) == 400
    assert len(output.last_lines) == KEPT_LINES


def test_print_is_an_echo() -> None:
    """Without a message there is nothing to say."""
    lines: list[str] = []
    output = BuildOutput(LineProgress(lines.append).image("s"))
    output(file=sys.stderr)
    assert lines == []


def test_output_shows_no_secret() -> None:
    """A password in a URL, or a signature, that a tool prints goes neither to the user's terminal nor into an error."""
    lines: list[str] = []
    output = BuildOutput(LineProgress(lines.append).image("s"))
    output(
        "Looking in indexes: https://deploy:s3cr3t@pypi.example.org/simple\nGET https://x.example.org/?Signature=s3cr3t"
    )
    assert len(lines) == 2
    assert "https://pypi.example.org/simple" in lines[0]
    assert "s3cr3t" not in "".join((*lines, *output.last_lines))
