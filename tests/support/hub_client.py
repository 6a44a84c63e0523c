"""How the tests of the hub start `pennyweight` as pip installs it: with this
build's core, a cache of their own and a hub on loopback."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))


def environment(hub, home, **extra):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith("HF_") and not key.lower().endswith("_proxy")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",  # which has a protocol of its own
            "PYTHONPATH": str(ROOT / "python")}
    return {key: value for key, value in (env | extra).items() if value}


def command(*words):
    return [sys.executable, "-m", "pennyweight", *map(str, words)]


def run(hub, home, *words, **extra):
    return subprocess.run(
        command(*words), env=environment(hub, home, **extra), text=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=120)


def succeeds(done):
    assert done.returncode == 0, done.stderr
    return done


def fails(done, code, *texts):
    assert done.returncode == code, (done.returncode, done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: [") and done.stderr.count("error: ") == 1
    for text in texts:
        assert text in last, last
    return True
