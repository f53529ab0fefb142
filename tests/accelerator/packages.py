"""What must travel to a machine without a network, and how it is used there: a folder of wheels."""

import importlib.util
import os
import sys
import zipfile
from pathlib import Path

# Package -> what is imported. A PyTorch image has the rest: torch, torchvision, tensorboard, scipy, scikit-learn, …
CARRIED = {
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "antlr4-python3-runtime": "antlr4",
    "msgspec": "msgspec",
    "plotly": "plotly",
    "narwhals": "narwhals",
    "platformdirs": "platformdirs",
    "viztracer": "viztracer",
    "objprint": "objprint",
}
EXPECTED = (
    "torch", "torchvision", "numpy", "scipy", "sklearn", "tensorboard", "psutil", "rich", "jinja2", "PIL", "yaml",
    "pytest", "hypothesis",
)  # fmt: skip
WHEELS = Path(".wheels")


def missing() -> list[str]:
    """Packages that cannot be imported."""
    names = {**CARRIED, **{name: name for name in EXPECTED}}
    return [package for package, module in names.items() if importlib.util.find_spec(module) is None]


def unpack(wheels: Path, folder: Path) -> None:
    """Put the content of all wheels into `folder` and onto the search path, of child processes too; no pip needed."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    importlib.invalidate_caches()
