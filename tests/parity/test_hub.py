"""Models from a hub on loopback: cache, resume, checksums, hostile answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from hub_server import COMMIT, Hub

BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
NAMES = ["config.json", "model.safetensors", "tokenizer.json",
         "tokenizer_config.json", "special_tokens_map.json"]


@pytest.fixture
def hub():
    files = {name: (ROOT / "assets/demo" / name).read_bytes()
             for name in NAMES if (ROOT / "assets/demo" / name).exists()}
    files["modeling.py"] = b"raise SystemExit('executed')"
    server = Hub(files)
    yield server
    server.close()


def inspect(hub, home, name="org/tiny", **extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint} | extra
    return subprocess.run([BIN, "inspect", name], env=env, text=True,
                          capture_output=True, timeout=120)


def snapshot(home):
    return home / "hub/models--org--tiny/snapshots" / COMMIT


def downloads(hub):
    return [path for path, wanted, _ in hub.requests
            if "/resolve/" in path and wanted != "bytes=0-0"]


def test_fetches_once_and_never_code(hub, tmp_path):
    first = inspect(hub, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "llama" in first.stdout
    assert (snapshot(tmp_path) / "config.json").exists()
    assert not (snapshot(tmp_path) / "modeling.py").exists()
    assert len(downloads(hub)) >= len(hub.files) - 1
    assert sum(hub.sent.values()) == sum(
        len(data) for name, data in hub.files.items() if name != "modeling.py")

    hub.requests.clear()
    again = inspect(hub, tmp_path)
    assert again.returncode == 0
    assert downloads(hub) == []

    hub.requests.clear()
    offline = inspect(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0
    assert hub.requests == []


def test_python_finds_the_same_snapshot(hub, tmp_path):
    assert inspect(hub, tmp_path).returncode == 0
    code = ("from huggingface_hub import snapshot_download as s;"
            "print(s('org/tiny', allow_patterns=['config.json']))")
    env = dict(os.environ, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    found = subprocess.run([sys.executable, "-c", code], env=env, text=True,
                           capture_output=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(snapshot(tmp_path))


def test_resumes_where_the_line_went_dead(hub, tmp_path):
    whole = len(hub.files["model.safetensors"])
    hub.cut_after["model.safetensors"] = whole // 2
    cut = inspect(hub, tmp_path)
    # The client itself tries again from where it stopped, so it may finish.
    if cut.returncode != 0:
        assert cut.stderr.count("\n") <= 1 + cut.stderr.count("fetch:")
        hub.cut_after.clear()
        assert inspect(hub, tmp_path).returncode == 0
    assert hub.sent["model.safetensors"] == whole


def test_a_wrong_checksum_is_refused_and_not_kept(hub, tmp_path):
    hub.wrong_checksum.add("model.safetensors")
    bad = inspect(hub, tmp_path)
    assert bad.returncode == 4
    assert "model.safetensors" in bad.stderr and "damaged" in bad.stderr
    assert not (snapshot(tmp_path) / "model.safetensors").exists()
    offline = inspect(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.returncode == 3
    hub.wrong_checksum.clear()
    assert inspect(hub, tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json",
                                  "a/../../evil.json", "a\\evil.json"])
def test_a_hostile_listing_is_refused(hub, tmp_path, name):
    hub.listing = [name, *NAMES]
    bad = inspect(hub, tmp_path)
    assert bad.returncode == 4
    assert "outside" in bad.stderr
    assert list(tmp_path.rglob("evil*")) == []


def test_says_what_is_wrong(hub, tmp_path):
    missing = inspect(hub, tmp_path, name="org/other")
    assert missing.returncode == 3
    assert "no such repository" in missing.stderr
    nonsense = inspect(hub, tmp_path, name="no/such/folder")
    assert nonsense.returncode == 3
    assert "neither a folder nor a hub id" in nonsense.stderr
    offline = inspect(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.returncode == 3
    for done in (missing, nonsense, offline):
        errors = [l for l in done.stderr.splitlines() if l.startswith("error: ")]
        assert len(errors) == 1


def test_the_token_is_needed_and_used(hub, tmp_path):
    hub.token = "hf_secret"
    refused = inspect(hub, tmp_path)
    assert refused.returncode == 5
    assert "HF_TOKEN" in refused.stderr
    assert inspect(hub, tmp_path, HF_TOKEN="hf_secret").returncode == 0


def test_without_a_network_the_cache_is_used_and_said(hub, tmp_path):
    assert inspect(hub, tmp_path).returncode == 0
    hub.close()
    gone = inspect(hub, tmp_path)
    assert gone.returncode == 0
    assert "warning: " in gone.stderr and "cache" in gone.stderr
