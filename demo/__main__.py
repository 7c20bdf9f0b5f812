"""`python3 demo`: a flow is deployed into images and run inside them, twice, on a machine that has Python 3.10 and nothing else."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - whoever has an older one shall read this and not a SyntaxError
    raise SystemExit("Python 3.10 or newer is needed; this is %d.%d" % sys.version_info[:2])  # noqa: UP031 - as above

from pathlib import Path
from subprocess import CalledProcessError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import venv

try:
    environment = venv.ensure("demo", requirements=("pip",), packages=("metaflow", "testing"))
except (venv.NoEnvironmentError, CalledProcessError) as error:
    raise SystemExit(str(error)) from error
raise SystemExit(environment.run("python", str(Path(__file__).resolve().with_name("story.py"))))
