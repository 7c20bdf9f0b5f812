import hashlib
from pathlib import Path

import pytest

from prebuilt.core.errors import ResolveError
from prebuilt.lock.wheelhouse import WheelHouse
from prebuilt.testing.python_index import make_wheel


def test_wheels_are_kept_by_hash(tmp_path: Path):
    """A wheel that came in is found by its hash and name, whatever becomes of the original."""
    house = WheelHouse(tmp_path / "house")
    path = make_wheel(tmp_path, "Al_Pha", "1.0")
    data = path.read_bytes()
    wheel = house.add(path)
    path.unlink()
    assert (wheel.name, wheel.version, wheel.url) == ("al-pha", "1.0", "")
    assert (wheel.sha256, wheel.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    kept = house.path(wheel.sha256, wheel.filename)
    assert kept is not None
    assert kept.read_bytes() == data


def test_same_name_with_other_content(tmp_path: Path):
    """Two wheels of one name and different content do not meet."""
    house = WheelHouse(tmp_path / "house")
    one = house.add(make_wheel(tmp_path / "1", "alpha", "1.0", files={"a.py": "1"}))
    two = house.add(make_wheel(tmp_path / "2", "alpha", "1.0", files={"a.py": "2"}))
    assert house.path(one.sha256, one.filename) != house.path(two.sha256, two.filename)


def test_absent_wheel(tmp_path: Path):
    """A wheel that never came in is None."""
    assert WheelHouse(tmp_path).path("0" * 64, "alpha-1.0-py3-none-any.whl") is None


@pytest.mark.parametrize("name", ["alpha.whl", "alpha-1.0-py3-none-any.whl"])
def test_what_is_no_wheel(tmp_path: Path, name: str):
    """A name that is no wheel's, and a file that is not there, are refused by name."""
    with pytest.raises(ResolveError, match=name):
        WheelHouse(tmp_path).add(tmp_path / "nowhere" / name)
