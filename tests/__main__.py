"""`python3 tests`: everything that continuous integration runs, on a machine that has Python 3.10 and nothing else."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - whoever has an older one shall read this and not a SyntaxError
    raise SystemExit("Python 3.10 or newer is needed; this is %d.%d" % sys.version_info[:2])  # noqa: UP031 - as above

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import checks

raise SystemExit(checks.main(sys.argv[1:]))
