"""Base images are real systems: they run, and the same machine gives the same image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.core.errors import BaseImageError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import ContainerRun, Engine, open_engine
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, select_manifest
from prebuilt.oci.layer import read_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.base_image import BaseContents, make_base_image, push_base_image
from prebuilt.testing.interpreter import Interpreter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="base images are made of a Linux machine")

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
NO_PYTHON = BaseContents(with_python=False)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutRepository:
    """A layout with the plain base image, tagged `base`."""
    folder = tmp_path_factory.mktemp("layout")
    make_base_image(folder)
    return LayoutRepository(folder)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that needs neither root nor a daemon."""
    cache = tmp_path_factory.mktemp("cache")
    made = open_engine("rootless", Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(cache)}, {}))
    try:
        made.check()
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing can run here
        pytest.skip(f"no containers without a daemon: {error}")
    return made


def read(layout: LayoutRepository, reference: str) -> tuple[ImageManifest, ImageConfig, list[str]]:
    """Return manifest, config and the paths in all layers."""
    manifest = layout.get_manifest(reference)
    assert manifest is not None
    parsed = ImageManifest.parse(manifest.data)
    with layout.open_blob(parsed.config) as chunks:
        config = ImageConfig.parse(b"".join(chunks))
    paths = []
    for layer in parsed.layers:
        with layout.open_blob(layer) as chunks:
            paths += [member.info.name for member in read_layer(chunks, layer.media_type)]
    return parsed, config, paths


def output(engine: Engine, layout: LayoutRepository, tag: str, *command: str, tmp_path: Path) -> str:
    """Return what a command prints that runs in an image."""
    resolved = layout.resolve(tag)
    assert resolved is not None
    with (tmp_path / "out").open("w+") as file:
        run = ContainerRun(image=f"{layout.name}@{resolved.digest}", command=command)
        assert engine.run(run, stdout=file, stderr=subprocess.STDOUT) == 0, (tmp_path / "out").read_text()
    return (tmp_path / "out").read_text()


def test_python_runs_with_its_compiled_modules(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """OpenSSL, SQLite, ctypes and the rest find their libraries, and Python finds itself in /usr/local."""
    code = "import ssl, sqlite3, ctypes, json, lzma, bz2, zlib, uuid, sys; print(sys.version.split()[0], sys.prefix)"
    version = ".".join(map(str, sys.version_info[:3]))
    assert output(engine, layout, "base", "python", "-c", code, tmp_path=tmp_path) == f"{version} /usr/local\n"


def test_certificates_of_the_machine_are_trusted(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """A TLS context in the image knows authorities."""
    code = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 0)"
    assert output(engine, layout, "base", "python3", "-c", code, tmp_path=tmp_path) == "True\n"


def test_shell_commands_of_a_task_run(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """What Metaflow's own command lines call is there."""
    script = (
        "set -e; tar --version | head -1; date -Ins; echo a,b | cut -d, -f2 | tee /tmp/x; mkdir -p /tmp/y && cat /tmp/x"
    )
    lines = output(engine, layout, "base", "bash", "-c", script, tmp_path=tmp_path).splitlines()
    assert lines[0].startswith("tar (GNU tar)")
    assert lines[2:] == ["b", "b"]


def test_a_virtual_environment_can_be_made(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """The installation is whole enough for venv."""
    script = "python -m venv --without-pip /tmp/v && /tmp/v/bin/python -c 'import sys; print(sys.prefix)'"
    assert output(engine, layout, "base", "bash", "-c", script, tmp_path=tmp_path) == "/tmp/v\n"


def test_bytecode_is_used_where_it_was_asked_for(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """The standard library is not compiled anew in each container."""
    folder = Path(layout.name.removeprefix("oci:"))
    make_base_image(folder, tag="compiled", with_bytecode=True)
    code = "import os.path, json.scanner as module; print(os.path.isfile(module.__cached__))"
    assert output(engine, layout, "compiled", "python", "-B", "-c", code, tmp_path=tmp_path) == "True\n"


def test_the_same_machine_gives_the_same_image(layout: LayoutRepository, tmp_path: Path) -> None:
    """In another folder, at another time, it is the same digest."""
    make_base_image(tmp_path / "again", tag="other")
    assert LayoutRepository(tmp_path / "again").resolve("other") == layout.resolve("base")


def test_config_says_what_the_image_is(layout: LayoutRepository) -> None:
    """Platform, PATH and Python's version are in the config."""
    _, config, _ = read(layout, "base")
    assert config.platform_name == str(Platform.host())
    assert config.env["PATH"].split(":")[1] == "/usr/local/bin"
    assert config.env["PYTHON_VERSION"] == ".".join(map(str, sys.version_info[:3]))


def test_nothing_of_the_machine_but_the_standard_library_is_taken(layout: LayoutRepository) -> None:
    """No installed packages, tests, bytecode or home folders."""
    _, _, paths = read(layout, "base")
    assert not [path for path in paths if "site-packages" in path or "__pycache__" in path or path.endswith(".a")]
    assert {path.split("/")[0] for path in paths} >= {"usr", "etc", "tmp"}
    assert not [path for path in paths if path.startswith(("root/", "home/"))]


@pytest.mark.parametrize(
    ("option", "missing", "kept"),
    [
        ("with_bash", "usr/bin/bash", "usr/bin/tar"),
        ("with_tar", "usr/bin/tar", "usr/bin/bash"),
        ("with_python", "usr/local/bin/python3", "usr/bin/bash"),
    ],
)
def test_parts_can_be_left_out(layout: LayoutRepository, option: str, missing: str, kept: str) -> None:
    """For tests of bases in which no task could run."""
    contents = BaseContents(**{"with_python": False, option: False})
    push_base_image(layout, tag=option, platforms=[AMD64], contents=contents)
    _, config, paths = read(layout, option)
    assert missing not in paths
    assert kept in paths
    assert "PYTHON_VERSION" not in config.env


def test_files_can_be_divided_into_layers(layout: LayoutRepository) -> None:
    """The union is the same tree, and each layer is compressed as asked."""
    folder = Path(layout.name.removeprefix("oci:"))
    make_base_image(folder, tag="three", layers=3, compression="zstd", with_python=False)
    push_base_image(layout, tag="one", platforms=[Platform.host()], contents=NO_PYTHON)
    manifest, config, paths = read(layout, "three")
    assert [layer.media_type.rpartition("+")[2] for layer in manifest.layers] == ["zstd"] * 3
    assert len(config.diff_ids) == 3
    assert set(paths) == set(read(layout, "one")[2])


def test_an_image_can_claim_another_platform(layout: LayoutRepository) -> None:
    """For tests of bases that are not for the step's platform."""
    make_base_image(Path(layout.name.removeprefix("oci:")), tag="arm", platform=ARM64, with_python=False)
    assert read(layout, "arm")[1].platform_name == "linux/arm64"


def test_an_index_of_two_platforms_shares_layers(layout: LayoutRepository) -> None:
    """Each platform has a manifest of its own."""
    push_base_image(layout, tag="both", platforms=[AMD64, ARM64], contents=NO_PYTHON)
    stored = layout.get_manifest("both")
    assert stored is not None
    index = ImageIndex.parse(stored.data)
    images = [read(layout, select_manifest(index, platform).digest) for platform in (AMD64, ARM64)]
    assert [config.architecture for _, config, _ in images] == ["amd64", "arm64"]
    assert images[0][0].layers == images[1][0].layers


def test_debians_python_is_relocated(layout: LayoutRepository, engine: Engine, tmp_path: Path) -> None:
    """An interpreter that has its library in /usr/lib works from /usr/local as well."""
    debians = Path("/usr/bin/python3")
    if not debians.exists():
        pytest.skip("this machine has no /usr/bin/python3")
    make_base_image(Path(layout.name.removeprefix("oci:")), tag="debian", python=debians)
    code = "import ssl, sqlite3, ctypes, sys; print(sys.version.split()[0], sys.prefix)"
    expected = f"{Interpreter.inspect(debians).version} /usr/local\n"
    assert output(engine, layout, "debian", "python3", "-c", code, tmp_path=tmp_path) == expected


def test_the_interpreter_of_a_virtual_environment_is_its_base() -> None:
    """A virtual environment holds no standard library; its base does."""
    interpreter = Interpreter.inspect(Path(sys.executable))
    assert interpreter.prefix == Path(sys.base_prefix).resolve()
    assert (interpreter.library / "os.py").is_file()


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    """The message has its path."""
    with pytest.raises(BaseImageError, match="no-python"):
        Interpreter.inspect(tmp_path / "no-python")
