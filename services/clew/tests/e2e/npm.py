"""Packages from npm for tests that need JavaScript, installed once per version of package.json."""

import os
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).parent / "js"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "clew" / "js"


def script(name):
    """The path of a script of ours with its packages beside it; skips where there is no npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = (SOURCE / "package.json").read_text()
    stamp = CACHE / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.copy(SOURCE / "package.json", CACHE / "package.json")
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
                                  cwd=CACHE, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not finish in time: is there a network?")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the packages: {done.stderr[-500:]}")
        stamp.write_text(wanted)
    shutil.copy(SOURCE / name, CACHE / name)
    return CACHE / name
