"""The environments that are baked: what an ML step asks for."""

from __future__ import annotations

SMALL = {"six": "1.16.0", "requests": "2.32.3"}

A = {"pandas": "2.2.3", "scikit-learn": "1.5.2", "pyarrow": "18.1.0"}
"""11 wheels, about 390 MB of files."""

B = {**A, "xgboost": "2.1.3", "matplotlib": "3.9.3"}
"""21 wheels, about 970 MB of files."""

ENVIRONMENTS = {"small": SMALL, "A": A, "B": B}

CHANGES = {"small": {"six": "1.17.0"}, "A": {"scikit-learn": "1.5.1"}, "B": {"scikit-learn": "1.5.1"}}
"""One package of each environment, in another version: what a second deploy of a changed flow costs."""

SMALL_CHANGES = {"small": {"six": "1.15.0"}, "A": {"threadpoolctl": "3.4.0"}, "B": {"threadpoolctl": "3.4.0"}}
"""One small package in another version: its group of small packages is made anew."""


def requirement_lines(packages: dict[str, str]) -> str:
    """Return the packages as lines of a requirements.txt."""
    return "".join(f"{name}=={version}\n" for name, version in packages.items())
