"""Make a Python environment on top of one that has PyTorch, with carried wheels and without a network.

    python3 benchmarks/gpu_environment.py .venv-gpu --wheels wheels/

Run it with the Python whose PyTorch is to be used. The new environment sees all packages of that Python, also if
that is an environment itself, and gets what it lacks of gpu_wheels.txt from the folder of wheels (`make gpu-wheels`),
then stochnorm, without the kernels for CPUs. It changes nothing in the other environment.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent


def make(folder: Path, wheels: Path) -> None:
    """Make the environment.

    Raises:
        subprocess.CalledProcessError: pip could not install a package; its message is above.
    """
    venv.EnvBuilder(clear=True, symlinks=True).create(folder)
    python = folder / "bin/python"
    own = Path(_output(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (own / "parent.pth").write_text("".join(f"{path}\n" for path in parents()))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    _run([*pip, "--find-links", wheels, "--requirement", HERE / "gpu_wheels.txt"])
    # Without a compiler stochnorm does without its kernels for CPUs, which would take a minute to build.
    environment = os.environ | {"CC": "false", "CXX": "false"}
    _run([*pip, "--no-build-isolation", "--editable", HERE.parent], env=environment)


def missing() -> list[str]:
    """Return what stochnorm needs that this Python lacks and that is not carried."""
    project = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'"(.+?)"', project.partition("\ndependencies = [")[2].partition("]")[0])
    there = {_name(found.name) for found in metadata.distributions() if found.name}
    carried = {_name(line) for line in (HERE / "gpu_wheels.txt").read_text(encoding="utf-8").splitlines()}
    return [line for line in needed if _name(line) not in there | carried]


def _name(requirement: str) -> str:
    """Return the name of the package in a requirement."""
    return re.split("[^a-z0-9.-]", requirement.lower().replace("_", "-"))[0]


def parents() -> list[str]:
    """Return the folders of packages of this Python."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    return [p for p in dict.fromkeys(paths) if p.endswith(("site-packages", "dist-packages")) and Path(p).is_dir()]


def _output(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _run(command: list[str | Path], env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the environment; replaced")
    parser.add_argument("--wheels", type=Path, required=True, help="folder of wheels")
    args = parser.parse_args()
    if not args.wheels.is_dir():
        parser.error(f"{args.wheels} is no folder; make gpu-wheels fills one where there is a network")
    if lacking := missing():
        sys.exit(
            f"not installed: {', '.join(lacking)}: run this with the Python that has PyTorch (make ... "
            "PYTHON=/path/to/python), or carry their wheels, too"
        )
    try:
        make(args.folder.absolute(), args.wheels.absolute())
    except subprocess.CalledProcessError as error:
        sys.exit(f"the environment could not be made: {error}")


if __name__ == "__main__":
    main()
