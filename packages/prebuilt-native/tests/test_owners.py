"""Files that two packages own."""

from __future__ import annotations

from prebuilt.native.owners import Owners


def test_each_pair_of_owners_is_named_once_with_the_winner() -> None:
    """The order of layers decides who wins; bytecode is not counted; absent packages are no error."""
    owners = Owners()
    owners.add("numpy", ["lib/a.py", "lib/b.py", "lib/__pycache__/a.pyc"])
    owners.add("pandas", ["lib/c.py"])
    owners.add("other", ["lib/a.py", "lib/b.py", "lib/__pycache__/a.pyc"])
    assert owners.overlaps(["numpy", "absent", "pandas", "other"]) == [
        "numpy and other both own lib/a.py and 1 more; that of other is used"
    ]


def test_one_package_never_overlaps_with_itself() -> None:
    """A conda package and a wheel of one name are told apart by their layers, not here."""
    owners = Owners()
    owners.add("a", ["x"])
    owners.add("a", ["x", "y"])
    assert owners.overlaps(["a", "a"]) == []
