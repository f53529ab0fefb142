"""Fetch the wheels that `python -m tests.accelerator` may need: `python -m tests.accelerator.wheels [PYTHON]`.

PYTHON is the version on the machine with the device, 3.12 if not given. The wheels go to `.wheels/`, which git ignores.
"""

import importlib.metadata
import subprocess
import sys

from tests.accelerator.packages import CARRIED, WHEELS

PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 27, 28, 34)] + ["manylinux2014_x86_64"]
SOURCE_ONLY = "antlr4-python3-runtime"  # pure Python, without a wheel on PyPI


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else PYTHON
    for old in WHEELS.glob("*.whl"):
        old.unlink()
    versions = {name: f"{name}=={importlib.metadata.version(name)}" for name in CARRIED}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(WHEELS), versions.pop(SOURCE_ONLY)], check=True)
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    target += [f"--platform={name}" for name in PLATFORMS]
    subprocess.run([*pip, "download", "--no-deps", *target, "-d", str(WHEELS), *versions.values()], check=True)
    files = sorted(WHEELS.glob("*.whl"))
    for file in files:
        print(f"{file.stat().st_size / 2**20:6.1f} MiB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 2**20:6.1f} MiB in {WHEELS}/, for Python {python}")


if __name__ == "__main__":
    main()
