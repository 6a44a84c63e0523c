"""`pennyweight upload` to a hub on loopback: small and large files, parts, what
is there already, failures that pass and that don't, and what comes back."""

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
from hub_server import Hub  # noqa: E402
from upload_server import TOKEN, UploadHub  # noqa: E402

BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
SIZE = 700_001
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.fixture
def hub():
    server = UploadHub()
    yield server
    server.close()
    assert server.complaints == []


@pytest.fixture
def folder(tmp_path):
    noise = random.Random(1)
    out = tmp_path / "out"
    (out / "sub folder").mkdir(parents=True)
    (out / ".cache").mkdir()
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": noise.randbytes(200_000),
        "empty.txt": b"",
        "empty.safetensors": b"",
        "sub folder/odd \"name\"?.json": b"{}",
        SHARDS[0]: noise.randbytes(SIZE),
        SHARDS[1]: noise.randbytes(SIZE // 2),
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode(),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)
    (out / ".hidden").write_bytes(b"x")
    (out / ".cache/config.json").write_bytes(b"x")
    return out, files


def environment(hub, home, **extra):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith("HF_") and not key.lower().endswith("_proxy")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": TOKEN}
    return {key: value for key, value in (env | extra).items() if value}


def command(out, *flags):
    return [BIN, "upload", str(out), "--repo", "org/tiny", *flags]


def upload(hub, out, *flags, repo=None, **extra):
    words = command(out, *flags)
    if repo is not None:
        words[words.index("org/tiny")] = repo
    return subprocess.run(
        words, env=environment(hub, out.parent / "home", **extra), text=True,
        capture_output=True, timeout=120)


def succeeds(done):
    assert done.returncode == 0, done.stderr
    return done


def fails(done, code, *texts):
    assert done.returncode == code, (done.returncode, done.stderr)
    errors = [line for line in done.stderr.splitlines()
              if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0]
    for text in texts:
        assert text in errors[0]
    assert TOKEN not in done.stderr
    return True


def puts(hub):
    return [call for call in hub.calls if call.method == "PUT"]


def test_publishes_every_file_but_hidden_ones(hub, folder):
    out, files = folder
    done = succeeds(upload(hub, out, "--json"))
    assert hub.tree == files
    assert len(puts(hub)) == 2 and len(hub.commits) == 1
    assert hub.exists and not hub.private
    assert hub.commits[0]["summary"]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    result = events[-1]["result"]
    whole = sum(len(data) for data in files.values())
    assert result["files"] == len(files)
    assert result["bytes"] == result["sent"] == whole
    assert result["url"] == f"{hub.endpoint}/org/tiny"
    assert len(result["commit"]) == 40
    counts = [event for event in events if event.get("stage") == "upload"]
    numbers = [event["done"] for event in counts]
    assert numbers == sorted(numbers)
    assert numbers[-1] == counts[-1]["total"] >= whole
    assert any(event.get("stage") == "checksum" for event in events)
    # The token is at the hub in each request, and never at the store.
    assert {call.authorization for call in hub.calls if not call.store} == {
        f"Bearer {TOKEN}"}
    assert {call.authorization for call in hub.calls if call.store} == {None}


def test_message_branch_and_an_existing_repository(hub, folder):
    out, files = folder
    hub.exists = True
    hub.tree = {"other.txt": b"stays"}
    hub.branches = {"next/one"}
    succeeds(upload(hub, out, "--revision", "next/one",
                    "--commit-message", 'All "new"\nweights'))
    assert hub.tree == files | {"other.txt": b"stays"}
    assert hub.commits[0]["summary"] == 'All "new" weights'


def test_weights_of_an_earlier_upload_go(hub, folder):
    """mlx-lm loads every model*.safetensors that it finds."""
    out, files = folder
    hub.exists = True
    stays = {"other.txt": b"", "adapters.safetensors": b"", "old/model.safetensors": b""}
    goes = {"model-00003-of-00003.safetensors": b"", "model.safetensors": b""}
    hub.tree = stays | goes
    done = succeeds(upload(hub, out))
    assert hub.tree == files | stays
    for name in goes:
        assert f"{name}, weights of an earlier upload, is deleted" in done.stderr


@pytest.mark.parametrize("chunk", [100_000, SIZE - 1, SIZE])
def test_parts(hub, folder, chunk):
    out, files = folder
    hub.chunk_size = chunk
    hub.verifies = True
    succeeds(upload(hub, out))
    assert hub.tree == files
    sizes = [len(files[name]) for name in SHARDS]
    assert len(puts(hub)) == sum(-(-size // chunk) for size in sizes)
    assert sum(call.path == "/verify" for call in hub.calls) == 2


def test_what_is_there_is_not_sent_again(hub, folder):
    out, files = folder
    succeeds(upload(hub, out))
    hub.calls.clear()
    (out / "copy.safetensors").write_bytes(files[SHARDS[0]])
    (out / "twice.safetensors").write_bytes(b"new")
    (out / "again.safetensors").write_bytes(b"new")
    done = succeeds(upload(hub, out, "--json"))
    assert [call.body for call in puts(hub)] == [b"new"]
    assert hub.tree["copy.safetensors"] == files[SHARDS[0]]
    assert hub.tree["twice.safetensors"] == hub.tree["again.safetensors"]
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    small = sum(len(data) for name, data in files.items()
                if name not in SHARDS)
    assert result["sent"] == small + 3


@pytest.mark.parametrize("where", [
    "/api/repos/create", "/api/validate-yaml", "/preupload/", "/objects/batch",
    "/1?", "/complete/", "/verify", "/commit/"])
@pytest.mark.parametrize("statuses", [[500, 503], [429]])
def test_a_passing_failure_is_tried_again(hub, folder, where, statuses):
    out, files = folder
    hub.chunk_size = 300_000
    hub.verifies = True
    hub.failing = {where: list(statuses)}
    succeeds(upload(hub, out))
    assert hub.failing == {where: []}
    assert hub.tree == files


@pytest.mark.parametrize("chunk", [None, 300_000])
def test_an_address_that_ran_out_is_asked_for_anew(hub, folder, chunk):
    out, files = folder
    hub.chunk_size = chunk
    hub.expired = 2
    succeeds(upload(hub, out))
    assert hub.tree == files


def test_a_store_that_stays_down_is_one_error(hub, folder):
    out, files = folder
    hub.failing = {"signature": [500] * 100}
    assert fails(upload(hub, out), 5, "file store answered 500", "run again")
    assert hub.commits == []
    hub.failing = {}
    succeeds(upload(hub, out))
    assert hub.tree == files


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_cut_upload_goes_on_in_the_next_run(hub, folder, kill):
    out, files = folder
    big = os.urandom(12 << 20)  # more than the system buffers for a socket
    (out / "zz.safetensors").write_bytes(big)
    hub.stall = SIZE + 1  # the shards arrive, of this one only a part
    process = subprocess.Popen(
        command(out), env=environment(hub, out.parent / "home"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert hub.stalled.wait(60)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(kill)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - start < 3
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert sum(line.startswith("error: ")
                   for line in errors.splitlines()) == 1
    assert hub.commits == [] and len(hub.objects) == 2
    hub.stall = None
    hub.calls.clear()
    succeeds(upload(hub, out))
    assert [call.body for call in puts(hub)] == [big]
    assert hub.tree == files | {"zz.safetensors": big}


def test_private(hub, folder):
    out, files = folder
    succeeds(upload(hub, out, "--private"))
    assert hub.private and hub.tree == files
    succeeds(upload(hub, out, "--private"))
    hub.private = False
    hub.calls.clear()
    assert fails(upload(hub, out, "--private"), 2, "is public", "--private")
    assert puts(hub) == []


def test_a_token_that_may_write_but_not_create(hub, folder):
    out, files = folder
    hub.may_create = False
    assert fails(upload(hub, out), 5, "403", "can't create", "--repo")
    hub.exists = True
    succeeds(upload(hub, out))
    assert hub.tree == files


def test_tokens(hub, folder):
    out, files = folder
    home = out.parent / "home"
    assert fails(upload(hub, out, HF_TOKEN=""), 5, "no token", "HF_TOKEN",
                 hub.endpoint)
    assert hub.calls == []
    assert fails(upload(hub, out, HF_TOKEN="hf_bad"), 5, "401", "HF_TOKEN")
    assert fails(upload(hub, out, HF_TOKEN="two words"), 2, "token")
    assert hub.tree == {} and puts(hub) == []
    home.mkdir(exist_ok=True)
    (home / "token").write_text(TOKEN + "\n")
    succeeds(upload(hub, out, HF_TOKEN=""))
    assert hub.tree == files


def test_says_what_is_wrong(hub, folder):
    out, _ = folder
    assert fails(upload(hub, out, HF_HUB_OFFLINE="1"), 2, "HF_HUB_OFFLINE")
    for repo in ("tiny", "org/tiny@main", "a/b/c", "../x", "org/"):
        assert fails(upload(hub, out, repo=repo), 2, "--repo")
    assert fails(upload(hub, out, "--revision", "../x"), 2, "--revision")
    assert hub.calls == []
    assert fails(upload(hub, out, repo="other/tiny"), 5, "403", "other/tiny")
    assert fails(upload(hub, out, "--revision", "gone"), 3, "no such branch")
    hub.may_write = False
    assert fails(upload(hub, out), 5, "403", "no write access")
    hub.card_errors = ["license is odd"]
    assert fails(upload(hub, out), 2, "README.md", "license is odd")
    assert puts(hub) == []
    assert fails(upload(hub, out, HF_ENDPOINT="http://127.0.0.1:9"), 5,
                 "can't reach the hub", "network")


@pytest.mark.parametrize("status, code, texts", [
    (400, 2, ["refuses the commit", "bad file"]),
    (403, 5, ["403", "bad file"]),
    (409, 5, ["409", "run again"]),
    (412, 5, ["412", "run again"]),
    (413, 5, ["413", "bad file"])])
def test_a_commit_that_is_refused(hub, folder, status, code, texts):
    out, _ = folder
    hub.refused_commit = (status, {"error": "bad file"})
    assert fails(upload(hub, out), code, *texts)
    assert hub.commits == []


def to(url):
    def tamper(objects):
        objects[0]["actions"]["upload"]["href"] = url
    return tamper


def header(**fields):
    def tamper(objects):
        objects[0]["actions"]["upload"]["header"] = fields
    return tamper


@pytest.mark.parametrize("tamper", [
    to("file:///etc/passwd"), to("ftp://x/y"), to(""), to(7), to(None),
    header(chunk_size="0"), header(chunk_size=-1), header(chunk_size="x"),
    header(chunk_size="400000"), header(chunk_size="999999", **{"2": "x"}),
    header(chunk_size="999999", **{"1": "file:///etc/passwd"}),
    list.pop, list.clear, lambda objects: objects[0].update(oid="0" * 64)])
def test_an_answer_that_makes_no_sense_is_refused(hub, folder, tamper):
    out, _ = folder
    hub.tamper = tamper
    assert fails(upload(hub, out), 4, "makes no sense")
    assert puts(hub) == [] and hub.commits == []


def test_a_file_that_the_hub_refuses_is_named(hub, folder):
    out, _ = folder
    hub.tamper = lambda objects: objects[1].update(
        error={"code": 422, "message": "too large"})
    assert fails(upload(hub, out), 5, SHARDS[1], "too large")


def test_an_unfinished_or_wrong_folder_is_refused(hub, folder, tmp_path):
    out, files = folder
    assert fails(upload(hub, tmp_path / "none"), 3, "not a folder")
    assert fails(upload(hub, out / "config.json"), 3, "not a folder")
    (out / SHARDS[1]).unlink()
    assert fails(upload(hub, out), 3, SHARDS[1], "index")
    for name in [SHARDS[0], "empty.safetensors",
                 "model.safetensors.index.json"]:
        (out / name).unlink()
    assert fails(upload(hub, out), 3, "no weights")
    (out / "model.safetensors").write_bytes(b"x")
    (out / "config.json").unlink()
    assert fails(upload(hub, out), 3, "config.json")
    (out / "config.json").write_text("{}")
    (out / "model.safetensors.index.json").write_text("[")
    assert fails(upload(hub, out), 4, "index.json")
    (out / "model.safetensors.index.json").unlink()
    (out / "back\\slash").write_text("x")
    assert fails(upload(hub, out), 2, "name")
    (out / "back\\slash").unlink()
    Path(os.fsdecode(os.fsencode(out) + b"/\xff")).write_text("x")
    assert fails(upload(hub, out), 2, "name")
    Path(os.fsdecode(os.fsencode(out) + b"/\xff")).unlink()
    os.mkfifo(out / "pipe")
    assert fails(upload(hub, out), 2, "pipe", "no regular file")
    assert hub.calls == []


def test_links(hub, folder, tmp_path):
    out, files = folder
    secret = tmp_path / "secret"
    secret.write_text("x")
    near = tmp_path / "out-beside"
    near.mkdir()
    (near / "x").write_text("x")
    link = out / "link.txt"
    for target in (secret, "../secret", near / "x", "/dev/null", "nowhere",
                   "link.txt", near):
        link.symlink_to(target)
        assert fails(upload(hub, out), 2, "link.txt", "outside the folder")
        link.unlink()
    link.symlink_to(out / "sub folder")
    assert fails(upload(hub, out), 2, "link.txt", "link to a folder")
    assert hub.calls == []
    link.unlink()
    link.symlink_to("config.json")
    succeeds(upload(hub, out))
    assert hub.tree == files | {"link.txt": files["config.json"]}


def test_what_the_repository_ignores_is_said(hub, folder):
    out, files = folder
    hub.ignored = {"empty.txt"}
    (out / "README.md").write_text("# no front matter")
    done = succeeds(upload(hub, out))
    assert ".gitignore leaves out empty.txt" in done.stderr
    assert "README.md: no licence" in done.stderr
    assert "empty.txt" not in hub.tree


def peak_memory(hub, out):
    """By way of a small process: a child's peak counts its parent's size."""
    code = ("import resource, subprocess, sys;"
            "subprocess.run(sys.argv[1:], check=True, capture_output=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run(
        [sys.executable, "-c", code, *command(out)], text=True, check=True,
        env=environment(hub, out.parent / "home"), capture_output=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_files_are_streamed_from_disk(hub, folder):
    """Neither a shard nor the commit is held whole."""
    out, _ = folder
    before = peak_memory(hub, out)
    (out / "big.safetensors").write_bytes(os.urandom(64 << 20))
    (out / "big.json").write_bytes(b" " * (64 << 20))
    assert peak_memory(hub, out) < before + (16 << 20)


def test_the_hub_here_is_one_that_huggingface_hub_can_use(hub, folder):
    """What is tested against speaks the protocol of the real one."""
    pytest.importorskip("huggingface_hub")
    out, files = folder
    hub.chunk_size = 300_000
    hub.verifies = True
    code = ("import sys; from huggingface_hub import HfApi; api = HfApi();"
            "api.create_repo('org/tiny', exist_ok=True);"
            "api.upload_folder(repo_id='org/tiny', folder_path=sys.argv[1],"
            "                  ignore_patterns=['.*'])")
    env = environment(hub, out.parent / "home", HF_HUB_DISABLE_XET="1")
    done = subprocess.run([sys.executable, "-c", code, str(out)], env=env,
                          text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = dict(hub.tree)
    assert theirs == files
    hub.tree.clear()
    hub.objects.clear()
    succeeds(upload(hub, out))
    assert hub.tree == theirs


def test_what_was_uploaded_comes_back(hub, tmp_path):
    """The demo model up, down through our own cache, and looked at."""
    out = tmp_path / "out"
    done = subprocess.run(
        [BIN, "convert", "--model", str(ROOT / "assets/demo"), "--mlx-path",
         str(out), "-q"], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    succeeds(upload(hub, out))
    there = Hub(hub.tree)
    try:
        env = environment(there, tmp_path / "other", HF_TOKEN="")
        seen = [subprocess.run([BIN, "inspect", name, "--json"], text=True,
                               env=env, capture_output=True, timeout=120)
                for name in ("org/tiny", str(out))]
        for look in seen:
            assert look.returncode == 0, look.stderr
        modules = [json.loads(look.stdout.splitlines()[-1])["result"]
                   for look in seen]
        for module in modules:
            del module["folder"]
        assert modules[0] == modules[1]
        home = tmp_path / "other/hub/models--org--tiny/snapshots"
        for path in home.glob("*/*"):
            assert path.read_bytes() == (out / path.name).read_bytes()
    finally:
        there.close()
