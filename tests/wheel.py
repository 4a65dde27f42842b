"""Install a wheel beside the packages of this environment and run its command from elsewhere.

`python tests/wheel.py dist/maskdepth-*.whl`. An editable install hides a file that the wheel
forgot; here nothing of the checkout is on the path.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path


def main() -> None:
    """Try the wheel named on the command line."""
    (wheel,) = (Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "environment")
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, at=folder)
        purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                      at=folder).strip()  # fmt: skip
        # a path in a .pth is searched, but its own .pth files (our editable install) are not run
        Path(purelib, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
        where = run(python, "-c", "import cli; print(cli.__file__)", at=folder).strip()
        assert Path(where).is_relative_to(environment), f"cli comes from {where}, not the wheel"
        help_text = run(environment / "bin" / "maskdepth", "--help", at=folder)
        assert "convert" in help_text, help_text
        recipe = run(environment / "bin" / "maskdepth", "recipes", "004", at=folder)
        assert "004-depthmasknet8" in recipe, recipe
        modules = "shards.convert, pipeline.loader, models.predict, models.training.trainer"
        run(python, "-c", f"import {modules}", at=folder)
    sys.stdout.write(f"{wheel.name}: installs, runs and imports\n")


def run(*command: str | Path, at: str) -> str:
    """Standard output of a command that must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=at, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
