"""`pennyweight upload` to a hub on loopback: what is sent, what is refused before
anything is, failures in one line, and nothing half where it is stopped."""

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
from hub_client import command, environment, fails, run, succeeds  # noqa: E402
from hub_server import TOKEN, Hub  # noqa: E402

SIZE = 700_001
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.fixture
def hub():
    server = Hub()
    server.token = TOKEN
    yield server
    server.close()
    assert {r.authorization for r in server.requests if r.store} <= {None}


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


def upload(hub, out, *flags, repo="org/tiny", **extra):
    return run(hub, out.parent / "home", "upload", out, "--repo", repo, *flags,
               **{"HF_TOKEN": TOKEN} | extra)


def test_publishes_every_file_but_hidden_ones(hub, folder):
    out, files = folder
    done = succeeds(upload(hub, out, "--json"))
    assert hub.files == files and not hub.private
    assert len(hub.puts()) == 2 and len(hub.commits) == 1
    assert done.stderr == ""
    assert json.loads(done.stdout)["result"] == {
        "url": f"{hub.endpoint}/org/tiny", "commit": hub.commit,
        "files": len(files), "bytes": sum(map(len, files.values()))}
    assert {r.authorization for r in hub.requests if not r.store} == {
        f"Bearer {TOKEN}"}


def test_message_branch_and_an_existing_repository(hub, folder):
    out, files = folder
    hub.exists = True
    hub.files = {"other.txt": b"stays"}
    hub.branches = {"next/one"}
    done = succeeds(upload(hub, out, "--revision", "next/one",
                           "--commit-message", 'All "new"\nweights'))
    assert hub.files == files | {"other.txt": b"stays"}
    assert hub.commits[0]["summary"] == 'All "new" weights'
    assert f"published at {hub.endpoint}/org/tiny, commit" in done.stdout


def test_weights_of_an_earlier_upload_go(hub, folder):
    """mlx-lm loads every model*.safetensors that it finds."""
    out, files = folder
    hub.exists = True
    stays = {"other.txt": b"", "adapters.safetensors": b"",
             "old/model.safetensors": b""}
    goes = {"model-00003-of-00003.safetensors": b"", "model.safetensors": b""}
    hub.files = stays | goes
    done = succeeds(upload(hub, out))
    assert hub.files == files | stays
    for name in goes:
        assert f"{name}, weights of an earlier upload, is deleted" in done.stderr


def test_in_parts(hub, folder):
    out, files = folder
    hub.chunk_size = 300_000
    succeeds(upload(hub, out))
    assert hub.files == files and len(hub.puts()) == 3 + 2


def test_what_is_there_is_not_sent_again(hub, folder):
    out, files = folder
    succeeds(upload(hub, out))
    hub.requests.clear()
    (out / "new.safetensors").write_bytes(b"new")
    result = out.parent / "result.json"
    done = succeeds(upload(hub, out, "--json", result, "--quiet"))
    assert json.loads(result.read_text())["commit"] == hub.commit
    assert done.stderr == "" and "published at" in done.stdout
    assert len(hub.puts()) == 1
    assert hub.files == files | {"new.safetensors": b"new"}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_nothing_half(hub, folder, stop):
    out, files = folder
    big = os.urandom(12 << 20)  # more than the system buffers for a socket
    (out / "zz.safetensors").write_bytes(big)
    hub.stall = SIZE + 1  # the shards arrive, of this one only a part
    process = subprocess.Popen(
        command("upload", out, "--repo", "org/tiny"), text=True,
        env=environment(hub, out.parent / "home", HF_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert hub.stalled.wait(60)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(stop)
    out_text, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 3
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert errors.count("error: [upload] stopped by the user") == 1
    assert out_text == "" and hub.commits == [] and hub.files == {}
    hub.stall = None
    hub.requests.clear()
    succeeds(upload(hub, out))
    assert len(hub.puts()) == 1
    assert hub.files == files | {"zz.safetensors": big}


def test_private(hub, folder):
    out, files = folder
    succeeds(upload(hub, out, "--private"))
    assert hub.private and hub.files == files
    succeeds(upload(hub, out, "--private"))
    hub.private = False
    hub.requests.clear()
    assert fails(upload(hub, out, "--private"), 2, "is public", "--private")
    assert hub.puts() == []


def test_tokens(hub, folder):
    out, files = folder
    assert fails(upload(hub, out, HF_TOKEN=""), 5, "no token", "HF_TOKEN",
                 hub.endpoint)
    assert hub.requests == []
    assert fails(upload(hub, out, HF_TOKEN="hf_bad"), 5, "401", "HF_TOKEN")
    assert fails(upload(hub, out, HF_TOKEN="two words"), 2, "token")
    assert hub.puts() == []
    hub.may_create = False
    assert fails(upload(hub, out), 5, "403", "can't create")
    hub.exists = True
    succeeds(upload(hub, out))  # a token that may write and not create
    assert hub.files == files


def test_says_what_is_wrong(hub, folder):
    out, _ = folder
    assert fails(upload(hub, out, HF_HUB_OFFLINE="1"), 2, "HF_HUB_OFFLINE")
    for repo in ("tiny", "org/tiny@main", "a/b/c", "../x", "org/"):
        assert fails(upload(hub, out, repo=repo), 2, "--repo")
    assert fails(upload(hub, out, "--revision", "../x"), 2, "--revision")
    assert fails(upload(hub, out, "--privat"), 2, "--privat", "--help")
    assert fails(upload(hub, out, "--json", out / "config.json"), 2, "--force")
    assert fails(upload(hub, out, "--json", out / "none/x"), 3, "none/x")
    assert hub.requests == []
    assert fails(upload(hub, out, "--revision", "gone"), 3, "no such revision")
    hub.may_write = False
    assert fails(upload(hub, out), 5, "403", "no write access")
    hub.card_errors = ["license is odd"]
    assert fails(upload(hub, out), 2, "README.md", "license is odd")
    assert hub.puts() == []
    done = upload(hub, out, "--json", HF_ENDPOINT="http://127.0.0.1:9")
    assert fails(done, 5, "can't reach the hub", "network")
    assert json.loads(done.stdout)["code"] == "io"


@pytest.mark.parametrize("status, code", [(400, 2), (403, 5), (409, 5), (413, 5)])
def test_a_commit_that_is_refused(hub, folder, status, code):
    out, _ = folder
    hub.refused_commit = (status, "bad file")
    assert fails(upload(hub, out), code, str(status), "bad file")
    assert hub.commits == []


def test_a_passing_failure_is_tried_again(hub, folder):
    out, files = folder
    hub.failing = {"/repos/create": [503], "/preupload/": [429],
                   "/objects/batch": [500], "store": [500]}
    succeeds(upload(hub, out))
    assert hub.failing == dict.fromkeys(hub.failing, [])
    assert hub.files == files


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
    for name in (b"back\\slash", b"\xff", b"\x1b[31m"):
        path = os.fsencode(out) + b"/" + name
        Path(os.fsdecode(path)).write_text("x")
        done = upload(hub, out)
        assert fails(done, 2, "name") and "\x1b" not in done.stderr
        os.unlink(path)
    os.mkfifo(out / "pipe")
    assert fails(upload(hub, out), 2, "pipe", "no regular file")
    assert hub.requests == []


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
    assert hub.requests == []
    link.unlink()
    link.symlink_to("config.json")
    succeeds(upload(hub, out))
    assert hub.files == files | {"link.txt": files["config.json"]}


def test_what_the_hub_remarks_is_said(hub, folder):
    out, _ = folder
    hub.ignored = {"empty.txt"}
    (out / "README.md").write_text("# no front matter")
    done = succeeds(upload(hub, out))
    assert ".gitignore leaves out empty.txt" in done.stderr
    assert "README.md" in done.stderr and "no licence" in done.stderr
    assert "empty.txt" not in hub.files


def peak_memory(hub, out):
    """By way of a small process: a child's peak counts its parent's size."""
    code = ("import resource, subprocess, sys;"
            "subprocess.run(sys.argv[1:], check=True, capture_output=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run(
        [sys.executable, "-c", code, *command("upload", out, "--repo", "org/tiny")],
        env=environment(hub, out.parent / "home", HF_TOKEN=TOKEN), text=True,
        check=True, capture_output=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_files_are_streamed_from_disk(hub, folder):
    """128 MB; with PENNYWEIGHT_SLOW=1 5 GB in two files."""
    out, _ = folder
    sizes = [128 << 20]
    if os.environ.get("PENNYWEIGHT_SLOW") == "1":
        sizes = [3 << 30, 2 << 30]
    before = peak_memory(hub, out)
    for size in sizes:
        with (out / f"big-{size}.safetensors").open("wb") as file:
            file.truncate(size)
    after = peak_memory(hub, out)
    print(f"peak memory {before >> 20} MiB, with {sum(sizes) >> 20} MiB more of "
          f"files {after >> 20} MiB")
    assert after < before + (24 << 20)


def test_what_was_uploaded_comes_back(hub, tmp_path):
    """The demo model up, down by its id, and looked at."""
    out = tmp_path / "out"
    home = tmp_path / "home"
    env = {"HF_TOKEN": TOKEN}
    succeeds(run(hub, home, "convert", "--model", ROOT / "assets/demo",
                 "--mlx-path", out, "-q"))
    succeeds(upload(hub, out))
    seen = [json.loads(succeeds(run(
        hub, home, "inspect", name, "--json", **env)).stdout.splitlines()[-1])
        for name in ("org/tiny", out)]
    folders = [Path(look["result"].pop("folder")) for look in seen]
    assert seen[0] == seen[1]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
