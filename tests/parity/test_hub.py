"""Models and data sets by hub id, from a hub on loopback: the `pennyweight` that
pip installs fetches them through huggingface_hub, and the program reads them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "python")]
from hub_client import BIN, command, environment, fails, run, succeeds  # noqa: E402
from hub_server import TOKEN, Hub  # noqa: E402

DEMO = ROOT / "assets/demo"
WEIGHTS = "model.safetensors"
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json",
          "modeling.py", "extra/odd name?.json", WEIGHTS}


@pytest.fixture
def hub():
    files = {path.name: path.read_bytes() for path in DEMO.iterdir()}
    server = Hub({name: files[name] for name in files if name in NEEDED} | {
        "README.md": b"---\nlicense: mit\n---\n", "NOTICE.md": b"not for us",
        "modeling.py": b"raise SystemExit('executed')",
        "extra/odd name?.json": b"{}", "pytorch_model.bin": b"nor this"})
    yield server
    server.close()


def inspect(hub, home, name="org/tiny", **extra):
    return run(hub, home, "inspect", name, "--json", **extra)


def folder_of(done):
    events = [json.loads(line) for line in succeeds(done).stdout.splitlines()]
    return Path(events[-1]["result"]["folder"])


def repository(home, kind="models"):
    return home / f"hub/{kind}--org--tiny"


def snapshot(hub, home):
    return repository(home) / "snapshots" / hub.commit


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")
            if path.is_file()}


def blobs(home):
    return {path.name for path in (repository(home) / "blobs").iterdir()
            if "." not in path.name}


def test_fetches_what_mlx_lm_would_and_the_card(hub, tmp_path):
    done = inspect(hub, tmp_path)
    folder = folder_of(done)
    assert done.stderr == ""
    assert folder == snapshot(hub, tmp_path)
    assert names_in(folder) == NEEDED | {"README.md"}
    for name in NEEDED:
        assert (folder / name).read_bytes() == hub.files[name]
    assert not (repository(tmp_path) / ".pennyweight-checked").exists()
    hub.requests.clear()
    assert folder_of(inspect(hub, tmp_path)) == folder
    assert not any("/resolve/" in request.path for request in hub.requests)


def test_a_folder_asks_no_hub(hub, tmp_path):
    assert folder_of(inspect(hub, tmp_path, DEMO)) == DEMO
    assert fails(inspect(hub, tmp_path, "nothing"), 3,
                 "neither a folder nor a hub id")
    assert hub.requests == []


def test_a_cut_connection_is_taken_up_where_it_broke(hub, tmp_path):
    cut = 11_000_000  # more than a block of the library
    hub.files["large.txt"] = os.urandom(2_500_000) * 10
    hub.cuts["large.txt"] = [cut, cut]
    folder = folder_of(inspect(hub, tmp_path))
    assert (folder / "large.txt").read_bytes() == hub.files["large.txt"]
    ranges = [request.range for request in hub.downloads("large.txt")]
    assert len(ranges) == 3 and ranges[0] is None
    starts = [int(text[6:-1]) for text in ranges[1:]]
    assert 0 < starts[0] <= cut < starts[1] <= 2 * cut


def test_files_that_are_whole_outlast_a_kill(hub, tmp_path):
    hub.stall = 1000
    process = subprocess.Popen(command("inspect", "org/tiny", "--quiet"),
                               env=environment(hub, tmp_path))
    assert hub.stalled.wait(60)
    while len(blobs(tmp_path)) < len(NEEDED):
        time.sleep(0.02)
    process.kill()
    process.wait()
    hub.stall = None
    hub.requests.clear()
    # What a kill leaves is not trusted: its checksum is looked at.
    damaged = repository(tmp_path) / "blobs" / hub.git_hash("tokenizer.json")
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert fails(inspect(hub, tmp_path), 4, "tokenizer.json", "damaged")
    assert [request.path for request in hub.requests if request.method == "GET"
            and "/api/" not in request.path] == [f"/{WEIGHTS}"]
    folder = folder_of(inspect(hub, tmp_path))
    assert (folder / "tokenizer.json").read_bytes() == hub.files["tokenizer.json"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_user_can_stop_while_the_hub_is_silent(hub, tmp_path, stop):
    hub.stall = 1000
    process = subprocess.Popen(
        command("inspect", "org/tiny", "--json"), text=True,
        env=environment(hub, tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)
    assert hub.stalled.wait(60)
    start = time.monotonic()
    process.send_signal(stop)
    out, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 3
    assert process.returncode == 130
    assert errors == "error: [hub] org/tiny: stopped by the user\n"
    assert json.loads(out)["code"] == "cancelled"
    assert list(tmp_path.rglob("*.incomplete")) == []
    assert not (snapshot(hub, tmp_path) / WEIGHTS).exists()
    hub.stall = None
    folder_of(inspect(hub, tmp_path))


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_bytes_that_are_not_the_hubs_are_refused(hub, tmp_path, name):
    hub.garbled.add(name)
    assert fails(inspect(hub, tmp_path), 4, name, "damaged")
    assert not (snapshot(hub, tmp_path) / name).is_symlink()
    assert fails(inspect(hub, tmp_path, HF_HUB_OFFLINE="1"), 3, "incomplete")
    hub.garbled.clear()
    folder_of(inspect(hub, tmp_path))


def test_a_wrong_size_is_refused(hub, tmp_path):
    hub.wrong_size.add(WEIGHTS)
    assert fails(inspect(hub, tmp_path), 4, "damaged")
    assert not (snapshot(hub, tmp_path) / WEIGHTS).exists()


def test_a_revision(hub, tmp_path):
    tag = folder_of(inspect(hub, tmp_path, "org/tiny@v1"))
    assert tag == snapshot(hub, tmp_path)
    assert any(request.path.endswith("/revision/v1") for request in hub.requests)
    assert os.listdir(repository(tmp_path) / "refs") == ["v1"]
    # A commit can't change: once it is whole, nothing is asked.
    hub.requests.clear()
    assert folder_of(inspect(hub, tmp_path, f"org/tiny@{hub.commit}")) == tag
    assert hub.requests == []
    assert fails(inspect(hub, tmp_path, "org/tiny@gone"), 3, "no such revision")
    assert fails(inspect(hub, tmp_path, "org/tiny@../x"), 3,
                 "neither a folder nor a hub id")


def test_offline_uses_the_cache_alone(hub, tmp_path):
    assert fails(inspect(hub, tmp_path, HF_HUB_OFFLINE="1"), 3,
                 "not in the cache", "HF_HUB_OFFLINE")
    readme = hub.files.pop("README.md")  # as mlx-lm leaves it, without the card
    folder = folder_of(inspect(hub, tmp_path))
    hub.files["README.md"] = readme
    hub.requests.clear()
    assert folder_of(inspect(hub, tmp_path, HF_HUB_OFFLINE="1")) == folder
    assert hub.requests == []


def test_without_a_network_the_cache_is_used_and_said(hub, tmp_path):
    folder = folder_of(inspect(hub, tmp_path))
    hub.close()
    gone = inspect(hub, tmp_path)
    assert folder_of(gone) == folder
    warning = json.loads(gone.stdout.splitlines()[0])
    assert warning["event"] == "warning" and "cache" in warning["message"]
    assert fails(inspect(hub, tmp_path / "other"), 5, "can't reach the hub",
                 "network")


def test_a_passing_failure_is_tried_again(hub, tmp_path):
    hub.failing = {"/revision/": [503], "/resolve/": [500]}
    folder_of(inspect(hub, tmp_path))
    assert hub.failing == {"/revision/": [], "/resolve/": []}


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, tmp_path):
    hub.token = TOKEN
    assert fails(inspect(hub, tmp_path), 5, "401", "HF_TOKEN")
    hub.requests.clear()
    hub.cuts[WEIGHTS] = [1000]  # the second try as well
    folder_of(inspect(hub, tmp_path, HF_TOKEN=TOKEN))
    at_hub = {r.authorization for r in hub.requests if not r.store}
    assert at_hub == {f"Bearer {TOKEN}"}
    assert {r.authorization for r in hub.requests if r.store} == {None}


def test_a_token_is_never_quoted(hub, tmp_path):
    bad = inspect(hub, tmp_path, HF_TOKEN="hf_se\x01cret word")
    assert fails(bad, 2, "token")
    assert "cret" not in bad.stderr + bad.stdout


def test_says_what_is_wrong(hub, tmp_path):
    assert fails(inspect(hub, tmp_path, "org/other"), 3, "no such repository")
    assert fails(inspect(hub, tmp_path, HF_ENDPOINT="ftp://x"), 2, "HF_ENDPOINT")
    hub.files = {"weights.bin": b"x"}
    assert fails(inspect(hub, tmp_path), 3, "no file that is of use")
    assert not any(repository(tmp_path).glob(".penny*"))
    hub.files = {WEIGHTS: b"x"}
    hub.gated = True
    hub.commit = "f" * 40
    assert fails(inspect(hub, tmp_path), 5, "403", "terms", "HF_TOKEN")


@pytest.mark.parametrize("commit", ["../../evil", "a/b", "main"])
def test_a_commit_that_is_none_is_refused(hub, tmp_path, commit):
    hub.commit = commit
    assert fails(inspect(hub, tmp_path), 4, "no commit")
    assert list(tmp_path.rglob("*evil*")) == []


def test_the_program_alone_says_how_to_get_a_folder(hub, tmp_path):
    def alone(*words):
        return subprocess.run([BIN, *words], text=True, capture_output=True,
                              env=environment(hub, tmp_path))

    assert fails(alone("inspect", "org/tiny@v1"), 3,
                 "hf download org/tiny --revision v1 --local-dir", "pip install")
    assert fails(alone("evaluate", str(DEMO), "--data-path", "org/rows"), 3,
                 "hf download org/rows --repo-type dataset")
    assert fails(alone("upload", "out", "--repo", "org/tiny"), 6, "pip install")
    assert hub.requests == []


def test_a_model_and_a_data_set(hub, tmp_path):
    """The card says the id and the licence, the report the data set's name."""
    hub.files |= {"README.md": b"---\nlicense: apache-2.0\n---\n", "train.jsonl":
                  json.dumps({"text": "once upon a time " * 400}).encode()}
    out = tmp_path / "out"
    report = tmp_path / "report.json"
    done = succeeds(run(
        hub, tmp_path, "gptq", "--model", "org/tiny@v1", "--mlx-path", out,
        "--data-path", "org/tiny", "--num-samples", 4, "--sequence-length", 64,
        "--report", report))
    assert done.stderr.startswith("fetch: org/tiny@v1\nfetch: org/tiny\n")
    assert "%|" not in done.stderr  # a bar is for a terminal
    card = (out / "README.md").read_text()
    assert "base_model: org/tiny\n" in card and "license: apache-2.0" in card
    assert "# org/tiny@v1 for MLX" in card
    assert json.loads(report.read_text())["data"] == "data set org/tiny"
    rows = repository(tmp_path, "datasets") / "snapshots" / hub.commit
    assert {"train.jsonl", "config.json"} <= names_in(rows)
    assert "modeling.py" not in names_in(rows)


def hub_names(*words):
    done = subprocess.run([BIN, "--hub-names", *map(str, words)], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_which_options_take_ids(tmp_path):
    """Asked of the program itself, for each option that speaks of the hub."""
    seen = set()
    for name in re.findall(r"^  ([a-z-]+) ", subprocess.run(
            [BIN, "--help"], text=True, capture_output=True).stdout, re.M):
        text = subprocess.run([BIN, name, "--help"], text=True,
                              capture_output=True).stdout
        for flag, words, about in re.findall(
                r"^  (?:-\w,)?(--[\w-]+)(.*?)(?: {2,}|\n {10,})"
                r"((?:.*\n(?= {10}))*.*)", text,
                re.M):
            if "hub" in about and name != "upload":
                assert "MODEL" in words or "DATA" in words, (name, flag)
                seen.add(flag)
    assert seen == {"--model", "--data-path"}
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({
        "pennyweight": "0", "model": {"name": "m", "fingerprint": "0"},
        "target": {}, "stages": ["gptq"], "widths": {},
        "data": {"data-path": "org/rows", "fit": 1, "gate": 1, "report": 1,
                 "fingerprint": "0"},
        "sizes": {"block_gate": 1, "gptq_sequences": 1, "fold_every": 1,
                  "learn_steps": 1, "dwq_sequences": 1, "dwq_epochs": 1}}))
    found = hub_names("quantize", "org/m", "-o", "o", "--recipe", recipe)
    assert (found["model"], found["dataset"]) == (["org/m"], ["org/rows"])
    found = hub_names("evaluate", "org/m@v1", "--reference=org/full", "--data-path",
                      "org/rows@x", "--json")
    assert found == {"model": ["org/m@v1", "org/full"], "dataset": ["org/rows@x"],
                     "text": False, "progress": False}
    found = hub_names("convert", "-m", "org/m", "-q", "--stream")
    assert found["stream"] is True
    found = hub_names("dwq", "-m", DEMO, "--quantized-model", "org/small",
                      "--mlx-path", "org/out")
    assert found == {"model": ["org/small"], "dataset": [], "text": True,
                     "progress": True}
    for path in ("self", "gone/notes.txt", "../x", "/gone"):
        assert hub_names("gptq", "--model", DEMO, "--mlx-path", "out",
                         "--data-path", path)["dataset"] == []


def test_the_calibration_text(hub, tmp_path, monkeypatch):
    from pennyweight import fetch
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "TEXT_ADDRESS", hub.address(hub.store) + "/text")
    hub.files["text"] = "once upon a time — ".encode() * 100
    assert fetch.fetch_text() == ""
    path = tmp_path / fetch.TEXT
    assert path.read_bytes() == hub.files["text"]
    assert fetch.fetch_text() == "" and len(hub.requests) == 1
    for change in ({"text": b"\xff"}, {}):
        path.unlink(missing_ok=True)
        hub.files = change
        assert fetch.fetch_text() != ""
        assert list(path.parent.iterdir()) == []
    done = run(hub, tmp_path, "evaluate", DEMO, "--num-samples", 2,
               "--sequence-length", 64, HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in succeeds(done).stderr
