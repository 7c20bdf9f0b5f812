"""What the build stages of the suite run: it unpacks wheels, and needs the standard library alone. It is never imported here."""

from __future__ import annotations

import json
import pathlib
import zipfile

STAGE = pathlib.Path("/prebuilt")


def make(layer: dict[str, object], made: pathlib.Path) -> None:
    """Make the files of one layer below `made`."""
    prefix = made / str(layer["prefix"]).lstrip("/")
    base_python, packages = layer["base_python"], layer["packages"]
    if isinstance(base_python, dict):
        (prefix / "bin").mkdir(parents=True)
        (prefix / "bin" / "python3").symlink_to(base_python["path"])
        (prefix / "pyvenv.cfg").write_text(f"home = {pathlib.Path(base_python['path']).parent}\n")
    for package in packages if isinstance(packages, list) else []:
        with zipfile.ZipFile(STAGE / "packages" / package["sha256"] / package["filename"]) as wheel:
            wheel.extractall(prefix / str(layer["site_packages"]))


def main() -> None:
    """Make every layer that is not made yet."""
    for source in sorted(STAGE.glob("layers/*.json")):
        layer = json.loads(source.read_bytes())
        made = STAGE / "made" / layer["key"]
        if not made.exists():
            make(layer, made)


if __name__ == "__main__":
    main()
