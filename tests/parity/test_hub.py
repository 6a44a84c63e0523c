"""Models and data sets from a hub on loopback: cache, resume, checksums,
hostile answers. Needs the program probe_hub of the C++ tests
(PENNYWEIGHT_BUILD_DIR)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from hub_server import COMMIT, Hub

WEIGHTS = "model.safetensors"
SIZE = 700_001  # more than one buffer of the client


@pytest.fixture
def hub():
    noise = random.Random(1)
    server = Hub({
        "NOTICE.md": b"not for us",
        "README.md": b"---\nlicense: mit\n---\n",
        "modeling.py": b"raise SystemExit('executed')",
        WEIGHTS: noise.randbytes(SIZE),
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": noise.randbytes(5000),
        "extra/odd name?.json": b"{}",
        "empty.txt": b"",
    })
    yield server
    server.close()


WANTED = {WEIGHTS, "config.json", "tokenizer.json", "modeling.py",
          "extra/odd name?.json", "empty.txt", "README.md"}


class Result:
    def __init__(self, done):
        self.status = done.returncode
        self.error = done.stderr.strip()
        lines = done.stdout.splitlines()
        self.folder = next((Path(line[7:]) for line in lines
                            if line.startswith("folder ")), None)
        self.warnings = [line for line in lines if line.startswith("warning ")]
        self.events = [line.split(" ", 4)[1:] for line in lines
                       if line.startswith("event ")]


def environment(hub, home, **extra):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith("HF_") and not key.lower().endswith("_proxy")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint}
    return env | extra


def command(*words):
    folder = os.environ.get("PENNYWEIGHT_BUILD_DIR")
    if not folder:
        pytest.skip("PENNYWEIGHT_BUILD_DIR is not set")
    return [str(Path(folder) / "tests" / "probe_hub"), *words]


def resolve(hub, home, name="org/tiny", kind="model", stop=None, **extra):
    words = [kind, name] + ([] if stop is None else [str(stop)])
    done = subprocess.run(command(*words), env=environment(hub, home, **extra),
                          text=True, capture_output=True, timeout=120)
    return Result(done)


def fails(result, code, *texts):
    assert result.status == 1 and result.folder is None
    assert "\n" not in result.error
    assert result.error.startswith(code + " [hub] "), result.error
    for text in texts:
        assert text in result.error
    return True


def succeeds(result):
    assert result.status == 0, result.error
    return result


def repository(home, kind="models"):
    return home / f"hub/{kind}--org--tiny"


def snapshot(home):
    return repository(home) / "snapshots" / COMMIT


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")
            if path.is_file()}


def leftovers(home):
    return list(home.rglob("*.part"))


def wait_for_part(home, size):
    end = time.monotonic() + 60
    while not any(path.stat().st_size == size for path in leftovers(home)):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_fetches_all_that_mlx_lm_would(hub, tmp_path):
    result = succeeds(resolve(hub, tmp_path))
    assert result.folder == snapshot(tmp_path)
    assert names_in(result.folder) == WANTED
    for name in WANTED:
        assert (result.folder / name).read_bytes() == hub.files[name]
        assert (result.folder / name).is_symlink()
    assert (repository(tmp_path) / "refs/main").read_text() == COMMIT
    blobs = {path.name for path in (repository(tmp_path) / "blobs").iterdir()}
    assert blobs == {hub.sha256(n) if n == WEIGHTS else hub.git_hash(n)
                     for n in WANTED}
    assert hub.sent == {n: len(hub.files[n]) for n in WANTED - {"empty.txt"}}


def test_a_snapshot_is_whole_without_the_card(hub, tmp_path):
    """As mlx-lm and huggingface_hub leave it, with their record of the commit."""
    readme = hub.files.pop("README.md")
    succeeds(resolve(hub, tmp_path))
    hub.files["README.md"] = readme
    trees = repository(tmp_path) / "trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(
        json.dumps({"files": {name: {} for name in hub.files}}))
    offline = succeeds(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert names_in(offline.folder) == WANTED - {"README.md"}
    assert names_in(succeeds(resolve(hub, tmp_path)).folder) == WANTED


def test_progress_counts_bytes_up_to_the_whole(hub, tmp_path):
    events = succeeds(resolve(hub, tmp_path)).events
    counts = [int(done) for done, total, unit, name in events]
    whole = sum(len(hub.files[name]) for name in WANTED)
    assert counts == sorted(counts) and counts[-1] == whole
    assert events[-1][1:] == [str(whole), "bytes", WEIGHTS]


def test_a_second_run_asks_for_no_file(hub, tmp_path):
    succeeds(resolve(hub, tmp_path))
    hub.requests.clear()
    again = succeeds(resolve(hub, tmp_path))
    assert again.folder == snapshot(tmp_path)
    assert [request.path for request in hub.requests] == [
        "/api/models/org/tiny/revision/main"]


def test_an_unchanged_file_of_a_new_commit_is_not_fetched_again(hub, tmp_path):
    succeeds(resolve(hub, tmp_path))
    hub.sent.clear()
    hub.commit = "f" * 40
    hub.files["config.json"] = b'{"model_type": "qwen3"}'
    new = succeeds(resolve(hub, tmp_path))
    assert new.folder.name == "f" * 40
    assert names_in(new.folder) == WANTED
    assert hub.sent == {"config.json": len(hub.files["config.json"])}
    assert (snapshot(tmp_path) / "config.json").read_bytes() != (
        new.folder / "config.json").read_bytes()


def test_python_finds_the_same_snapshot(hub, tmp_path):
    succeeds(resolve(hub, tmp_path))
    code = ("from huggingface_hub import snapshot_download, scan_cache_dir;"
            "print(snapshot_download('org/tiny'));"
            "print([str(w) for w in scan_cache_dir().warnings])")
    env = environment(hub, tmp_path, HF_HUB_OFFLINE="1")
    found = subprocess.run([sys.executable, "-c", code], env=env, text=True,
                           capture_output=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [str(snapshot(tmp_path)), "[]"]


def test_a_cut_connection_is_taken_up_where_it_broke(hub, tmp_path):
    hub.cuts[WEIGHTS] = [300_000, 300_000]
    result = succeeds(resolve(hub, tmp_path))
    assert (result.folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    ranges = [r.range for r in hub.downloads() if r.name == WEIGHTS]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]
    assert hub.sent[WEIGHTS] == SIZE


def test_a_killed_download_goes_on_in_the_next_run(hub, tmp_path):
    hub.stall[WEIGHTS] = 500_000
    process = subprocess.Popen(command("model", "org/tiny"),
                               env=environment(hub, tmp_path),
                               stdout=subprocess.DEVNULL)
    wait_for_part(tmp_path, 500_000)
    process.kill()
    process.wait()
    assert not (snapshot(tmp_path) / WEIGHTS).exists()
    hub.stall.clear()
    hub.requests.clear()
    result = succeeds(resolve(hub, tmp_path))
    assert (result.folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert [r.range for r in hub.downloads()] == ["bytes=500000-"]
    assert leftovers(tmp_path) == []


def test_a_hub_that_goes_away_is_one_error_and_nothing_is_lost(hub, tmp_path):
    hub.cuts[WEIGHTS] = [400_000]
    hub.failing = []
    original = hub.send_body

    def then_die(handler, name, body):
        original(handler, name, body)
        if name == WEIGHTS:
            hub.failing = [503] * 100

    hub.send_body = then_die
    assert fails(resolve(hub, tmp_path), "io", "503", "run again")
    hub.send_body = original
    hub.failing = []
    # What has come so far is no snapshot.
    assert fails(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"), "not_found")
    hub.requests.clear()
    succeeds(resolve(hub, tmp_path))
    assert [r.range for r in hub.downloads()] == ["bytes=400000-"]


def test_the_user_can_stop(hub, tmp_path):
    stopped = resolve(hub, tmp_path, stop=400_000)
    assert stopped.error == "cancelled [fetch] stopped by the user"
    assert not (snapshot(tmp_path) / WEIGHTS).exists()
    succeeds(resolve(hub, tmp_path))
    assert any(r.range for r in hub.downloads() if r.name == WEIGHTS)


def test_a_part_that_is_whole_needs_no_more_bytes(hub, tmp_path):
    blobs = repository(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / (hub.sha256(WEIGHTS) + ".part")
    part.write_bytes(hub.files[WEIGHTS])
    succeeds(resolve(hub, tmp_path))
    assert WEIGHTS not in hub.sent


@pytest.mark.parametrize("size", [1000, SIZE, SIZE + 10])
def test_a_spoilt_part_is_fetched_anew(hub, tmp_path, size):
    blobs = repository(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / (hub.sha256(WEIGHTS) + ".part")
    part.write_bytes(b"\0" * size)
    result = succeeds(resolve(hub, tmp_path))
    assert (result.folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_server_without_ranges_is_no_trouble(hub, tmp_path):
    hub.ignores_ranges = True
    hub.cuts[WEIGHTS] = [300_000]
    result = succeeds(resolve(hub, tmp_path))
    assert (result.folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


@pytest.mark.parametrize("how", ["checksum", "size", "bytes"])
def test_damage_is_refused_and_not_kept(hub, tmp_path, how):
    if how == "checksum":
        hub.wrong_checksum.add(WEIGHTS)
    elif how == "size":
        hub.wrong_size.add(WEIGHTS)
    else:
        hub.garbled[WEIGHTS] = 1
    assert fails(resolve(hub, tmp_path), "corrupt", WEIGHTS, "damaged")
    assert not (snapshot(tmp_path) / WEIGHTS).exists()
    assert not (repository(tmp_path) / "refs/main").exists()
    assert leftovers(tmp_path) == []
    assert fails(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"), "not_found")
    hub.wrong_checksum.clear()
    hub.wrong_size.clear()
    succeeds(resolve(hub, tmp_path))


@pytest.mark.parametrize("name", [
    "../evil.json", "/tmp/evil.json", "a/../../evil.json", "a\\evil.json",
    "..\\evil.json", "evil\n.json", "evil\0.json", ""])
def test_a_hostile_listing_is_refused(hub, tmp_path, name):
    hub.listing = ["config.json", name]
    assert fails(resolve(hub, tmp_path), "corrupt", "outside")
    assert hub.sent == {}
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("commit", ["../../evil", "/evil", "a/b", ""])
def test_a_hostile_commit_is_refused(hub, tmp_path, commit):
    hub.commit = commit
    assert fails(resolve(hub, tmp_path), "corrupt")
    assert list(tmp_path.rglob("*evil*")) == []


def test_a_hostile_etag_is_refused(hub, tmp_path):
    hub.git_hash = lambda name: "../../evil"
    assert fails(resolve(hub, tmp_path), "corrupt", "etag")
    assert list(tmp_path.rglob("*evil*")) == []


def test_offline_uses_the_cache_alone(hub, tmp_path):
    assert fails(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"), "not_found",
                 "not in the cache", "HF_HUB_OFFLINE")
    assert hub.requests == []
    succeeds(resolve(hub, tmp_path))
    hub.requests.clear()
    offline = succeeds(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert offline.folder == snapshot(tmp_path)
    assert hub.requests == []


def test_offline_refuses_half_a_snapshot(hub, tmp_path):
    """As a cut run of another client leaves it: with a ref already."""
    folder = snapshot(tmp_path)
    folder.mkdir(parents=True)
    refs = repository(tmp_path) / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    (folder / "config.json").write_text("{}")
    missing = [(None, WEIGHTS),
               ("model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors")]
    for add, lacking in missing:
        if add:
            (folder / add).write_bytes(b"x")
        assert fails(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"), "not_found",
                     "incomplete", lacking)
    (folder / lacking).symlink_to("nowhere")
    assert fails(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"), "not_found",
                 lacking)
    (folder / lacking).unlink()
    (folder / lacking).write_bytes(b"x")
    succeeds(resolve(hub, tmp_path, HF_HUB_OFFLINE="1"))


def test_without_a_network_the_cache_is_used_and_said(hub, tmp_path):
    succeeds(resolve(hub, tmp_path))
    hub.close()
    gone = succeeds(resolve(hub, tmp_path))
    assert gone.folder == snapshot(tmp_path)
    assert len(gone.warnings) == 1 and "cache" in gone.warnings[0]
    other = tmp_path / "other"
    assert fails(resolve(hub, other), "io", "can't reach the hub", "network")


def test_a_passing_failure_is_tried_again(hub, tmp_path):
    hub.failing = [503]
    succeeds(resolve(hub, tmp_path))


def test_a_pinned_revision(hub, tmp_path):
    tag = succeeds(resolve(hub, tmp_path, "org/tiny@v1"))
    assert tag.folder == snapshot(tmp_path)
    assert (repository(tmp_path) / "refs/v1").read_text() == COMMIT
    assert not (repository(tmp_path) / "refs/main").exists()
    pinned = succeeds(resolve(hub, tmp_path, f"org/tiny@{COMMIT}"))
    assert pinned.folder == tag.folder
    # A commit can't change: once it is whole, nothing is asked.
    hub.requests.clear()
    succeeds(resolve(hub, tmp_path, f"org/tiny@{COMMIT}"))
    assert hub.requests == []
    assert fails(resolve(hub, tmp_path, "org/tiny@gone"), "not_found",
                 "no such revision")
    hub.revisions.add("refs/pr/1")
    succeeds(resolve(hub, tmp_path, "org/tiny@refs/pr/1"))


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, tmp_path):
    hub.token = "hf_secret"
    assert fails(resolve(hub, tmp_path), "io", "401", "HF_TOKEN")
    hub.requests.clear()
    succeeds(resolve(hub, tmp_path, HF_TOKEN="hf_secret"))
    at_hub = [r for r in hub.requests if not r.store]
    at_store = [r for r in hub.requests if r.store]
    assert at_hub and at_store
    assert {r.authorization for r in at_hub} == {"Bearer hf_secret"}
    assert {r.authorization for r in at_store} == {None}


def test_the_token_file_is_read(hub, tmp_path):
    hub.token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret\n")
    succeeds(resolve(hub, tmp_path))


def test_a_token_is_never_quoted(hub, tmp_path):
    bad = resolve(hub, tmp_path, HF_TOKEN="hf_se\x01cret word")
    assert fails(bad, "invalid_argument", "token")
    assert "cret" not in bad.error


def test_a_gated_repository_says_so(hub, tmp_path):
    hub.gated = True
    assert fails(resolve(hub, tmp_path), "io", "403", "terms", "HF_TOKEN")


def test_says_what_is_wrong(hub, tmp_path):
    assert fails(resolve(hub, tmp_path, "org/other"), "not_found",
                 "no such repository")
    for name in ("no/such/folder", "nothing", "../org/tiny", "org/tiny@../x",
                 "org/ti ny", "", str(tmp_path / "gone")):
        assert fails(resolve(hub, tmp_path, name), "not_found",
                     "neither a folder nor a hub id")
    assert fails(resolve(hub, tmp_path, HF_ENDPOINT="ftp://x"),
                 "invalid_argument", "HF_ENDPOINT")
    assert fails(resolve(hub, tmp_path, SSL_CERT_FILE=str(tmp_path / "none")),
                 "io", "SSL_CERT_FILE")
    hub.listing = ["weights.bin", "README.md"]
    assert fails(resolve(hub, tmp_path), "not_found", "no file that is of use")


def test_a_folder_is_used_as_it_is(hub, tmp_path):
    assert succeeds(resolve(hub, tmp_path, str(tmp_path))).folder == tmp_path
    assert hub.requests == []


def test_a_full_disk_is_one_error(hub, tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    blobs = repository(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / (hub.sha256(WEIGHTS) + ".part")).symlink_to(full)
    assert fails(resolve(hub, tmp_path), "io", "disk of the cache is full")
    assert not (snapshot(tmp_path) / WEIGHTS).exists()


def test_the_cache_can_lie_elsewhere(hub, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    result = succeeds(resolve(hub, tmp_path, HF_HUB_CACHE=str(elsewhere)))
    assert result.folder == elsewhere / "models--org--tiny/snapshots" / COMMIT


def test_two_at_once_fetch_each_byte_once(hub, tmp_path):
    both = [subprocess.Popen(command("model", "org/tiny"),
                             env=environment(hub, tmp_path),
                             stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert hub.sent[WEIGHTS] == SIZE
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_data_set(hub, tmp_path):
    hub.files["data/train.parquet"] = b"rows"
    result = succeeds(resolve(hub, tmp_path, kind="dataset"))
    assert result.folder == (
        repository(tmp_path, "datasets") / "snapshots" / COMMIT)
    assert names_in(result.folder) == WANTED - {
        WEIGHTS, "README.md", "modeling.py"} | {
        "data/train.parquet"}
    offline = resolve(hub, tmp_path, kind="dataset", HF_HUB_OFFLINE="1")
    assert succeeds(offline).folder == result.folder


def test_the_program_takes_a_hub_id(hub, tmp_path):
    """End to end, with the exit codes that --help promises."""
    program = os.environ.get("PENNYWEIGHT_BIN")
    if not program:
        pytest.skip("PENNYWEIGHT_BIN is not set")
    demo = ROOT / "assets/demo"
    hub.files = {path.name: path.read_bytes() for path in demo.iterdir()}

    def inspect(name):
        return subprocess.run([program, "inspect", name], text=True,
                              env=environment(hub, tmp_path),
                              capture_output=True, timeout=120)

    done = inspect("org/tiny")
    assert done.returncode == 0, done.stderr
    assert "llama" in done.stdout
    missing = inspect("org/other")
    assert missing.returncode == 3
    assert sum(line.startswith("error: ")
               for line in missing.stderr.splitlines()) == 1


def test_ctrl_c_is_heard_while_the_network_is_silent(hub, tmp_path):
    program = os.environ.get("PENNYWEIGHT_BIN")
    if not program:
        pytest.skip("PENNYWEIGHT_BIN is not set")
    hub.stall[WEIGHTS] = 500_000
    process = subprocess.Popen([program, "inspect", "org/tiny"], text=True,
                               env=environment(hub, tmp_path),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_part(tmp_path, 500_000)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert sum(line.startswith("error: ") for line in errors.splitlines()) == 1
