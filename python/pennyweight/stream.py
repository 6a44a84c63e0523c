"""Brings a model of the hub file by file (`--stream`): the program asks for a file
of weights when it needs it and releases it afterwards, and the next one is fetched
meanwhile. The disk holds two of them at most. src/run/streamed.h has the protocol.

The folder that the program opens has a stub of each file of weights: it has the
file's length, with header and small tensors in place and holes elsewhere. Whole
files stand in another folder for as long as they are used."""

import contextlib
import fcntl
import json
import shutil
import socket
import tempfile
import threading
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pennyweight.fetch import COMMIT, NEEDED, WELCOME, digest, stoppable_bars
from pennyweight.hub import Refused, checked_token, explain, patiently, shown

WEIGHTS = "model*.safetensors"
# As checkpoint/shard_provider.h has them.
ALWAYS_THERE = 64 << 10
HELD = 2
# Small tensors that lie nearer than this are asked for together.
GAP = 256 << 10
FIRST = 64 << 10  # bytes that are asked for first: most headers end in them
LONGEST_HEADER = 100_000_000


def read_range(repo, name, commit, begin, end):
    """Bytes begin .. end - 1 of a file of the hub."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (build_hf_headers, get_session,
                                       hf_raise_for_status)

    def ask():
        headers = build_hf_headers() | {"Range": f"bytes={begin}-{end - 1}"}
        with get_session().stream(
                "GET", hf_hub_url(repo, name, revision=commit), headers=headers,
                timeout=30, follow_redirects=True) as answer:
            hf_raise_for_status(answer)
            if begin and answer.status_code != 206:
                raise Refused("io", "the hub sends no parts of files, which "
                              "--stream needs; run without it")
            got = b""
            for piece in answer.iter_bytes():
                got += piece
                if len(got) >= end - begin:
                    break
        return got[:end - begin]

    got = patiently(ask)
    if len(got) < end - begin:
        raise Refused("corrupt", f"{shown(name)} is cut short at the hub")
    return got


def near(spans):
    """Groups sorted spans into lists, within which gaps are at most GAP bytes."""
    lists = []
    for span in spans:
        if lists and span[0] - lists[-1][-1][1] <= GAP:
            lists[-1].append(span)
        else:
            lists.append([span])
    return lists


def small_spans(name, header, size):
    """Where the small tensors of a file stand, [(begin, end)] in order. `header` is
    the beginning of the file, up to the end of its header."""
    try:
        entries = json.loads(header[8:])
        spans = sorted(
            [len(header) + offset for offset in entry["data_offsets"]]
            for key, entry in entries.items() if key != "__metadata__")
        # The program refuses what is amiss in a header, and names it.
        return [(begin, end) for begin, end in spans
                if len(header) <= begin < end <= size
                and end - begin <= ALWAYS_THERE]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Refused("corrupt", f"{shown(name)} has a header that is none"
                      ) from None


def write_stub(path, size, read):
    """Writes a stub: a file of that size with header and small tensors, which
    `read(begin, end)` gives. It gets its name when it is complete."""
    start = read(0, min(FIRST, size))
    length = 8 + int.from_bytes(start[:8], "little")
    if length > min(size, LONGEST_HEADER):
        raise Refused("corrupt", f"{shown(path.name)} is no safetensors file")
    if length > len(start):
        start += read(len(start), length)
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        file.write(start[:length])
        for together in near(small_spans(path.name, start[:length], size)):
            first, last = together[0][0], max(end for _, end in together)
            data = start[first:last]
            if len(data) < last - first:
                data += read(first + len(data), last)
            for begin, end in together:
                file.seek(begin)
                file.write(data[begin - first:end - first])
        file.truncate(size)
    draft.replace(path)


def in_place(path):
    """Where a stub of the file has data: the header, and small tensors."""
    with path.open("rb") as file:
        length = 8 + int.from_bytes(file.read(8), "little")
        file.seek(0)
        header = file.read(length)
    return [(0, length), *small_spans(path.name, header, path.stat().st_size)]


def is_stub_of(stub, whole):
    """Whether the stub has the same data as the whole file where it has any. It was
    fetched without a checksum, and may have been damaged by a power cut."""
    with stub.open("rb") as one, whole.open("rb") as other:
        for begin, end in in_place(whole):
            one.seek(begin)
            other.seek(begin)
            if one.read(end - begin) != other.read(end - begin):
                return False
    return True


class Coming:
    """A file that is being fetched. Once `done` is set, it has a path or an error."""

    def __init__(self):
        self.path: Path | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()


class Stream:
    """One model that is streamed. Each file is fetched by a thread of its own, since
    a download can't be ended from outside, but its thread can be left."""

    def __init__(self, name):
        from huggingface_hub import HfApi, constants, snapshot_download
        self.repo, _, revision = name.partition("@")
        if constants.is_offline_mode():
            raise Refused("not_found", "HF_HUB_OFFLINE is set, and --stream fetches")
        checked_token()
        commit = patiently(lambda: HfApi().repo_info(
            self.repo, revision=revision or "main", timeout=30)).sha
        if not COMMIT.fullmatch(commit or ""):
            raise Refused("corrupt", "the hub's answer names no commit")
        self.commit = commit
        self.root = (Path(constants.HF_HUB_CACHE).expanduser() / ".pennyweight-stream"
                     / f"models--{self.repo.replace('/', '--')}--{commit}")
        self.folder, self.arriving = self.root / "model", self.root / "arriving"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.alone = self.lock()
        self.files = {
            file.path: file for file in patiently(lambda: list(HfApi().list_repo_tree(
                self.repo, revision=commit, recursive=True)))
            if hasattr(file, "size")}
        self.shards = sorted(
            path for path in self.files if fnmatch(path, WEIGHTS) and "/" not in path)
        self.stopped = threading.Event()
        self.bars = stoppable_bars(self.stopped)
        for shard in self.shards:  # whole files that a killed run has left
            self.remove(shard)
        patiently(lambda: snapshot_download(
            self.repo, revision=commit, local_dir=self.folder,
            allow_patterns=[pattern for pattern in NEEDED["model"] + WELCOME["model"]
                            if pattern != WEIGHTS], tqdm_class=self.bars))
        self.check_small_files()
        for shard in self.shards:
            self.make_stub(shard)
        self.guard = threading.RLock()
        self.coming: dict[str, Any] = {}  # files on the disk, or on their way
        self.held: set[str] = set()  # files that the program uses
        self.last, self.step = -1, 1
        self.place = Path(tempfile.mkdtemp(prefix="pennyweight-"))
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.server.bind(str(self.place / "socket"))
        except OSError as error:  # such as of a path over some 100 bytes
            shutil.rmtree(self.place, ignore_errors=True)
            raise Refused("io", f"can't make a socket in {shown(self.place, 300)} "
                          f"({shown(error)}); set TMPDIR to another folder") from None
        self.server.listen(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def answer(self):
        return {"folder": str(self.folder), "socket": str(self.place / "socket")}

    def lock(self):
        file = (self.root / ".lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("io", "another pennyweight streams this model just now; "
                          "wait for it") from None
        return file

    def checksum(self, name):
        file = self.files[name]
        return file.lfs.sha256 if file.lfs else file.blob_id

    def check_small_files(self):
        for name in self.files:
            path = self.folder / name
            if fnmatch(name, WEIGHTS) or not path.is_file():
                continue
            if digest(path, self.checksum(name)) not in (self.checksum(name), None):
                shutil.rmtree(self.folder)
                raise Refused("corrupt", f"{shown(name)} arrived damaged (its checksum "
                              "is not the hub's); run again to fetch it anew")

    def make_stub(self, name):
        path, size = self.folder / name, self.files[name].size
        if not path.is_file() or path.stat().st_size != size:
            write_stub(path, size, lambda begin, end: read_range(
                self.repo, name, self.commit, begin, end))
        # A file of small tensors alone never comes by itself.
        whole = sum(end - begin for begin, end in in_place(path)) == size
        if whole and digest(path, self.checksum(name)) not in (
                self.checksum(name), None):
            self.damaged(name)

    def damaged(self, name):
        """Removes a stub whose data is not the file's, and says so."""
        (self.folder / name).unlink()
        raise Refused("corrupt", f"small tensors of {shown(name)} arrived damaged "
                      "(they are not the file's); run again to fetch them anew")

    # What follows is about whole files.

    def download(self, name):
        from huggingface_hub import hf_hub_download
        # The library tries again by itself.
        path = Path(hf_hub_download(
            self.repo, name, revision=self.commit, local_dir=self.arriving,
            tqdm_class=self.bars))
        if digest(path, self.checksum(name)) not in (self.checksum(name), None):
            self.remove(name)
            raise Refused("corrupt", f"{shown(name)} arrived damaged (its checksum is "
                          "not the hub's); run again to fetch it anew")
        if not is_stub_of(self.folder / name, path):
            self.remove(name)
            self.damaged(name)
        return path

    def remove(self, name):
        (self.arriving / name).unlink(missing_ok=True)

    def begin(self, name):
        """Starts to fetch a file."""
        coming = Coming()

        def work():
            try:
                coming.path = self.download(name)
            except BaseException as error:  # is raised where someone waits
                coming.error = error
            coming.done.set()

        self.coming[name] = coming
        threading.Thread(target=work, daemon=True).start()

    def drop(self, name):
        """Removes a file, which may still be on its way: it waits for that."""
        coming = self.coming.pop(name)
        coming.done.wait()
        self.remove(name)

    def guess(self):
        """Begins to fetch the file that the program will need next, if there is
        room: the one beside the last, in the direction in which it goes."""
        at = self.last + self.step
        if (0 <= at < len(self.shards) and len(self.coming) < HELD
                and self.shards[at] not in self.coming):
            self.begin(self.shards[at])

    def fetch(self, name):
        if name not in self.shards:
            raise Refused("not_found", f"it has no file {shown(name)}")
        with self.guard:
            early = self.coming.get(name)
            if early and early.done.is_set() and early.error:
                self.drop(name)  # the hub may have come back meanwhile
            if name not in self.coming:
                for other in set(self.coming) - self.held:
                    self.drop(other)
                self.begin(name)
            coming = self.coming[name]
            coming.done.wait()
            if coming.error:
                self.drop(name)
                raise coming.error
            self.held.add(name)
            at = self.shards.index(name)
            if self.last >= 0 and at != self.last:
                self.step = 1 if at > self.last else -1
            self.last = at
            self.guess()
            return {"path": str(coming.path)}

    def release(self, name):
        with self.guard:
            if name in self.held:
                self.held.remove(name)
                self.drop(name)
                self.guess()
        return {}

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                with client, client.makefile("rw") as lines:
                    for line in lines:
                        lines.write(json.dumps(self.reply(json.loads(line))) + "\n")
                        lines.flush()

    def reply(self, request):
        try:
            if "fetch" in request:
                return self.fetch(request["fetch"])
            return self.release(request["release"])
        except Exception as error:
            code, message = explain(error)
            return {"code": code, "message": message}

    def close(self, finished):
        """Is called after the run. If that has not finished, the small files, the
        stubs and files that have come in part stay, for the run that goes on."""
        self.stopped.set()
        with contextlib.suppress(OSError):
            self.server.close()
        shutil.rmtree(self.place, ignore_errors=True)
        if finished:
            shutil.rmtree(self.root, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.root.parent.rmdir()  # where no other streams
        else:
            for name in self.shards:
                self.remove(name)
        self.alone.close()


class Streams:
    """The streamed models of one command."""

    def __init__(self):
        self.open: list[Stream] = []

    def answer_for(self, name: str) -> "dict[str, Any]":
        """The entry for a name that run/fetched.h reads, as fetch.answer_for."""
        try:
            stream = Stream(name)
        except Exception as error:
            code, message = explain(error)
            return {"code": code, "message": message}
        self.open.append(stream)
        return stream.answer()

    def close(self, finished: bool) -> None:
        for stream in self.open:
            stream.close(finished)
