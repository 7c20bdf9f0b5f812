"""Files that two packages own."""

from __future__ import annotations

from prebuilt.native.owners import overlaps, owned


def test_each_pair_of_owners_is_named_once_with_the_winner() -> None:
    """The order of layers decides who wins; absent packages are no error."""
    files = {
        "numpy": frozenset({"lib/a.py", "lib/b.py"}),
        "pandas": frozenset({"lib/c.py"}),
        "other": frozenset({"lib/a.py", "lib/b.py"}),
    }
    assert overlaps(["numpy", "absent", "pandas", "other"], files) == [
        "numpy and other both own lib/a.py and 1 more; that of other is used"
    ]


def test_bytecode_is_not_counted() -> None:
    """Where its source is one of two, nobody wants to read that its bytecode is too."""
    assert owned(["lib/a.py", "lib/__pycache__/a.pyc"]) == {"lib/a.py"}
