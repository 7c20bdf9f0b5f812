import pytest
from packaging.tags import Tag

from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Target
from prebuilt.lock.targets import PythonTarget


def target(platform: str, glibc: str | None = None, python: str = "3.11.7") -> PythonTarget:
    """Return a target with its Python."""
    return PythonTarget(target=Target(platform=Platform.parse(platform), glibc=glibc), python_version=python)


@pytest.mark.parametrize(
    ("platform", "glibc", "uv"),
    [
        ("linux/amd64", "2.36", "x86_64-manylinux_2_36"),
        ("linux/amd64", "2.41", "x86_64-manylinux_2_40"),
        ("linux/amd64", "2.30", "x86_64-manylinux_2_28"),
        ("linux/arm64", "2.27", "aarch64-manylinux_2_17"),
        ("linux/arm64", None, "aarch64-manylinux_2_17"),
        ("darwin/arm64", None, "aarch64-apple-darwin"),
        ("darwin/amd64", None, "x86_64-apple-darwin"),
    ],
)
def test_uv_platform_is_never_newer_than_the_target(platform: str, glibc: str | None, uv: str):
    """The nearest platform that uv knows and the target can run."""
    assert target(platform, glibc).uv_platform == uv


def test_tags_are_of_the_target():
    """Tags reach up to the target's glibc and Python, with stable ABIs of older Pythons, without musl."""
    tags = target("linux/arm64", "2.36", "3.12.1").tags
    assert tags[Tag("cp312", "cp312", "manylinux_2_36_aarch64")] == 0
    assert Tag("cp38", "abi3", "manylinux2014_aarch64") in tags
    assert Tag("py3", "none", "any") in tags
    assert Tag("cp312", "cp312", "manylinux_2_37_aarch64") not in tags
    assert Tag("cp312", "cp312t", "manylinux_2_17_aarch64") not in tags
    assert not [tag for tag in tags if "musl" in tag.platform or "x86_64" in tag.platform]


def test_a_higher_build_number_wins_a_tie():
    """Of two builds of one wheel the later one ranks better."""
    on = target("linux/amd64", "2.36")
    first, second = on.rank("alpha-1.0-py3-none-any.whl"), on.rank("alpha-1.0-2-py3-none-any.whl")
    assert first is not None
    assert second is not None
    assert second < first
    assert on.rank("alpha-1.0-cp310-cp310-linux_x86_64.whl") is None


def test_no_marker_variable_is_the_hosts():
    """Every variable of the specification is the target's."""
    on = target("darwin/arm64", python="3.9.2")
    assert on.fulfils("sys_platform == 'darwin' and platform_system == 'Darwin' and platform_machine == 'arm64'")
    assert on.fulfils("python_full_version == '3.9.2' and implementation_version == '3.9.2' and os_name == 'posix'")
    assert on.fulfils("platform_release == '' and platform_version == ''")
    assert not on.fulfils("extra == 'x'")
    assert on.fulfils(None)
