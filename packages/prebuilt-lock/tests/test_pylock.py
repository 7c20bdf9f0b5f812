from pathlib import Path

from prebuilt.lock.pylock import parse_pylock

NAMED = """\
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "alpha"
version = "1.0"
wheels = [{ name = "alpha-1.0-py3-none-any.whl", url = "https://index.example/download?id=7", size = 835, hashes = {} }]
"""


def test_name_of_a_file_whose_url_does_not_say_it(tmp_path: Path):
    """A file is called what the index calls it, whatever its URL ends with."""
    ((wheel,),) = (package.wheels for package in parse_pylock(NAMED, tmp_path))
    assert (wheel.filename, wheel.is_wheel) == ("alpha-1.0-py3-none-any.whl", True)
