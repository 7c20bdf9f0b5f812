"""Becomes ``__main__.py`` of the program of a build stage: unpacks the program and runs it. It stands on the standard library.

The program has to be real files: one of them is run by processes of its own. What the image has in its site-packages is not
for this program and is left out of sight.
"""

import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

_OLDEST = (3, 10)
_OTHERS = {"site-packages", "dist-packages"}


def main() -> int:
    """Run the program of the archive that this is in; return its exit status."""
    if sys.version_info < _OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(
            f"prebuilt: tried to run in a build stage at {sys.executable}: it needs Python 3.10 or newer, and this is {found}; "
            "set METAFLOW_PREBUILT_BUILD_IMAGE to another image\n"
        )
        return 1
    archive = Path(sys.argv[0]).resolve()
    standard = [path for path in sys.path if path != sys.argv[0] and not _OTHERS & set(Path(path).parts)]
    sys.path[:] = [str(unpacked(archive)), *standard]
    from prebuilt.lock.stage.run import run

    return run(archive.parent)


def unpacked(archive: Path) -> Path:
    """Return the folder with the files of `archive`, in ``tools`` beside it; written by rename unless it is there."""
    tools = archive.parent / "tools"
    folder = tools / f"program-{hashlib.sha256(archive.read_bytes()).hexdigest()[:16]}"
    if not folder.is_dir():
        tools.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tools) as scratch:
            with zipfile.ZipFile(archive) as files:
                files.extractall(f"{scratch}/program")
            Path(scratch, "program").rename(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
