import zipfile
from pathlib import Path

import pytest

from prebuilt.core.errors import ResolveError
from prebuilt.lock.source_tree import needs_compiler
from prebuilt.testing.python_index import make_sdist


@pytest.mark.parametrize(
    ("project", "setup", "why"),
    [
        ("[build-system]\nrequires = ['setuptools>=61', 'wheel']\n", "setup()", None),
        ("[build-system]\nrequires = ['setuptools', 'Cython >= 3', 'NumPy']\n", "", "it is built with cython, numpy"),
        ("[build-system]\nrequires = ['maturin>=1,<2']\n", None, "it is built with maturin"),
        (None, "setup(ext_modules = [Extension('a', ['a.c'])])", "its setup.py makes extension modules (ext_modules)"),
        (None, "setup(name='x')", None),
        ("[project]\nname = 'x'\n", None, None),
        ("[build-system]\nrequires = ['not a = requirement']\n", None, None),
    ],
)
def test_signs_in_a_folder_and_in_a_zip(tmp_path: Path, project: str | None, setup: str | None, why: str | None):
    """Build tools and setup.py tell that a compiler will be needed."""
    folder = tmp_path / "alpha-1.0"
    folder.mkdir()
    files = {name: text for name, text in (("pyproject.toml", project), ("setup.py", setup)) if text is not None}
    with zipfile.ZipFile(tmp_path / "alpha-1.0.zip", "w") as archive:
        archive.writestr("alpha-1.0/README", "")
        for name, text in files.items():
            (folder / name).write_text(text)
            archive.writestr(f"alpha-1.0/{name}", text)
    assert needs_compiler(folder) == why
    assert needs_compiler(tmp_path / "alpha-1.0.zip") == why


def test_signs_in_an_sdist(tmp_path: Path):
    """Only files at the top of an sdist count."""
    assert needs_compiler(make_sdist(tmp_path, "a", "1.0", files={"sub/setup.py": "cythonize("})) is None
    assert needs_compiler(make_sdist(tmp_path, "b", "1.0", files={"setup.py": "cythonize("})) is not None


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_archive(tmp_path: Path, content: bytes):
    """A file that cannot be read is named."""
    (tmp_path / "a-1.0.tar.gz").write_bytes(content)
    with pytest.raises(ResolveError, match=r"a-1\.0\.tar\.gz"):
        needs_compiler(tmp_path / "a-1.0.tar.gz")


def test_malformed_project_file(tmp_path: Path):
    """A pyproject.toml that is no TOML is an error."""
    (tmp_path / "pyproject.toml").write_text("= =")
    with pytest.raises(ResolveError):
        needs_compiler(tmp_path)
