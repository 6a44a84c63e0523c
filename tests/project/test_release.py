"""What is released agrees with itself: versions, pins, and the workflow."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()


def pins(text):
    return dict(re.findall(r"^\W*([a-z_-]+)(?:\[\w+\])?==([\d.]+)", text, re.M))


def test_one_version():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"^version = \"(.*)\"", PROJECT, re.M)[1] == re.search(
        r"project\(pennyweight VERSION (\S+)", cmake)[1]


def test_a_clone_is_built_by_what_the_wheel_is():
    wheel = pins(PROJECT)
    for name in ("build", "wheel"):
        for package, version in pins(
                (ROOT / f"tools/requirements-{name}.txt").read_text()).items():
            assert wheel.get(package, version) == version, package
    assert {"mlx", "nanobind", "scikit-build-core", "huggingface_hub"} <= set(wheel)


def test_workflow():
    text = (ROOT / ".github/workflows/wheels.yml").read_text()
    for platform in ("linux-x86_64", "linux-aarch64", "macos-arm64"):
        assert f"name: {platform}" in text
    actionlint = shutil.which("actionlint")
    if not actionlint:
        pytest.skip("no actionlint on this system")
    done = subprocess.run([actionlint], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout
