"""Fetches hub ids and gives their folders. huggingface_hub finds files, fetches
them, locks the cache and resumes downloads; what it leaves out is here: files are
compared with their checksums, there is a warning where a copy in the cache is
used because the hub is out of reach, and Ctrl-C is heard at once and leaves no
part of a file."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import resource
import signal
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.hub import (STOPS, Refused, checked_token, explain, on_stop,
                             passes, patiently, quieten, shown)

if TYPE_CHECKING:
    from pennyweight.stream import Streams

# The variable that run/fetched.h reads.
FETCHED = "PENNYWEIGHT_FETCHED"
COMMIT = re.compile(r"[0-9a-f]{40}")
# The files that mlx-lm fetches of a model (among them code, which an output gets
# and nothing here runs), and those that can hold rows of a data set.
NEEDED = {
    "model": ["*.json", "*.jsonl", "*.jinja", "*.py", "*.tiktoken", "*.txt",
              "tokenizer.model", "tiktoken.model", "model*.safetensors"],
    "dataset": ["*.json", "*.jsonl", "*.parquet", "*.txt"]}
# Files that are fetched, too: the card, for the licence, SentencePiece models,
# which have any name, and the heads that our own outputs keep in a file of theirs.
# Other clients fetch none of them, so that a copy in the cache counts as whole
# without them.
WELCOME = {"model": ["README.md", "*.model", "*.model.v*", "mtp.safetensors"],
           "dataset": []}

# As in mlx_lm/quant/utils.py (mlx-lm 0.32.2).
TEXT = ".cache/mlx-lm/calibration_v5.txt"
TEXT_ADDRESS = (
    "https://gist.githubusercontent.com/tristandruyen/"
    "9e207a95c7d75ddf37525d353e00659c/raw/"
    "571fda718462de863e5a0171078c175420c7649a/calibration_data_v5_rc.txt")


def digest(path, name):
    """The checksum of a file by which a blob of that kind is named: SHA-256 for one
    in the store of large files, git's hash for one in the repository. None where
    `name` is neither."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        hasher = hashlib.sha256()
    elif COMMIT.fullmatch(name):
        hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    else:
        return None
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def remove_blob(repository, blob):
    """Removes a blob and all links to it, and gives the name of one of these."""
    names = [path for path in sorted(repository.glob("snapshots/*/**/*"))
             if path.is_symlink() and os.path.realpath(path.parent / os.readlink(
                 path)) == os.path.realpath(blob)]
    for path in [*names, blob]:
        path.unlink(missing_ok=True)
    return names[0].name if names else blob.name


@contextlib.contextmanager
def arrivals_checked(repository):
    """Compares each blob that arrives in the meantime with its name, since the
    library compares sizes alone. Blobs that a killed run has left are compared by
    the next run: `marker` has the names of those that were there before it."""
    blobs, marker = repository / "blobs", repository / ".pennyweight-checked"

    def names():
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(blobs)
                    if not name.endswith(".incomplete")}
        return set()

    known = names()
    with contextlib.suppress(OSError):  # a cache may be read-only
        if marker.exists():
            known &= set(marker.read_text().split())
        repository.mkdir(parents=True, exist_ok=True)
        marker.write_text("\n".join(known))
    try:
        yield
    finally:
        damaged = [remove_blob(repository, blobs / name)
                   for name in sorted(names() - known)
                   if digest(blobs / name, name) not in (name, None)]
        with contextlib.suppress(OSError):
            marker.unlink()
            repository.rmdir()  # where nothing has come
        if damaged:
            raise Refused("corrupt", f"{shown(damaged[0])} arrived damaged (its "
                          "checksum is not the hub's); run again to fetch it anew")


def fetch(kind, name, warn, bars=None):
    """The folder of `org/name[@revision]` in the hub's cache. `bars` is the class
    of the library's bars, where not its own."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    repo, _, revision = name.partition("@")
    revision = revision or "main"
    wanted = {"repo_id": repo, "repo_type": kind, "revision": revision}

    def cached():
        return snapshot_download(**wanted, local_files_only=True,
                                 allow_patterns=NEEDED[kind])

    if constants.is_offline_mode():
        return cached()
    checked_token()
    if not COMMIT.fullmatch(revision):
        try:
            commit = patiently(lambda: HfApi().repo_info(**wanted, timeout=30)).sha
        except Exception as error:
            if not passes(error):
                raise
            with contextlib.suppress(LocalEntryNotFoundError):
                folder = cached()
                warn(f"{explain(error)[1]}; the copy in the cache is used")
                return folder
            raise
        if not COMMIT.fullmatch(commit or ""):
            raise Refused("corrupt", "the hub's answer names no commit")
    repository = (Path(constants.HF_HUB_CACHE).expanduser()
                  / f"{kind}s--{repo.replace('/', '--')}")
    with arrivals_checked(repository):
        folder = patiently(lambda: snapshot_download(
            **wanted, allow_patterns=NEEDED[kind] + WELCOME[kind],
            tqdm_class=bars))
    if not os.path.isdir(folder):
        raise Refused("not_found", "the repository holds no file that is of use here")
    return folder


def fetch_text():
    """Puts mlx-lm's calibration text where mlx-lm does. Says why that failed, or
    is empty."""
    path = Path.home() / TEXT
    if path.exists():
        return ""
    from huggingface_hub import constants
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(TEXT_ADDRESS, timeout=20) as answer:
            text = answer.read().decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        draft.unlink(missing_ok=True)
        return shown(error, 200) or type(error).__name__
    return ""


def remove_parts():
    """Removes the files that this process is just writing into the cache. Its
    threads go on meanwhile, but can open no others: the limit stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    for number in range(3, min(soft, 1 << 14)):
        with contextlib.suppress(OSError):
            if hasattr(fcntl, "F_GETPATH"):  # macOS
                path = fcntl.fcntl(number, fcntl.F_GETPATH, bytes(1024))
                path = os.fsdecode(path.rstrip(b"\0"))
            else:
                path = os.readlink(f"/proc/self/fd/{number}")
            if path.endswith(".incomplete"):
                os.unlink(path)


def is_first():
    """Whether this is the first of the processes that mpirun has started, which
    speaks for all."""
    variables = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return all(os.environ.get(name, "0") == "0" for name in variables)


def answer_for(kind, name, bars=None):
    """The entry for a name that run/fetched.h reads: its folder, or an error."""
    answer = {}
    try:
        answer["folder"] = fetch(
            kind, name, lambda text: answer.update(warning=text), bars)
    except Exception as error:
        code, message = explain(error)
        answer = {"code": code, "message": message}
    return answer


def streams_for(names):
    """What brings models file by file, where that is asked for; or None."""
    if not names.get("stream"):
        return None
    from pennyweight.stream import Streams
    return Streams()


def hand_over(names: "dict[str, Any]") -> "Streams | None":
    """Fetches what is named, and puts the answers where the command line of this
    process reads them. Errors are answers, too, which the program reports in its
    own way. When the user stops this, the process executes itself again with that
    as the answer, since threads that fetch can't be ended. The caller closes the
    result, if there is one, after the run."""
    answers = {"model": {}, "dataset": {}}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def set_variable():
        os.environ[FETCHED] = json.dumps(answers)

    def stop():
        # Threads that can open nothing any more may fail as they clean up.
        sys.unraisablehook = lambda _: None
        remove_parts()
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after a bar
        for kind in answers:  # for all names, so that no run begins
            answers[kind] = dict.fromkeys(
                names[kind], {"code": "cancelled", "message": "stopped by the user"})
        set_variable()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    if names["text"] and (why := fetch_text()):
        os.environ["PENNYWEIGHT_NO_TEXT"] = why
    if not names["model"] and not names["dataset"]:
        return None
    streams = streams_for(names)
    release = on_stop(stop)
    shows = names["progress"] and is_first()
    quieten(bars=shows)
    for kind in answers:
        for name in names[kind]:
            if shows:
                print(f"fetch: {name}", file=sys.stderr)
            answers[kind][name] = (
                streams.answer_for(name) if streams and kind == "model"
                else answer_for(kind, name))
    release()
    set_variable()
    return streams


def stoppable_bars(stopped):
    """The library's bars, which raise once `stopped` is set: a download has no other
    place at which it could be stopped."""
    from huggingface_hub.utils import tqdm

    class Bars(tqdm):
        def update(self, n=1):
            if stopped.is_set():
                raise Refused("cancelled", "stopped by the user")
            return super().update(n)

    return Bars


@contextlib.contextmanager
def library_quiet(bars):
    """Has the library say nothing while this lasts, and show bars only if `bars`."""
    import huggingface_hub
    from huggingface_hub.utils import (are_progress_bars_disabled,
                                       disable_progress_bars, enable_progress_bars)
    verbosity = huggingface_hub.logging.get_verbosity()
    disabled = are_progress_bars_disabled()
    huggingface_hub.logging.set_verbosity_error()
    if not bars:
        disable_progress_bars()
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)
        if not bars and not disabled:
            enable_progress_bars()


def fetch_here(names: "dict[str, Any]", answers: "dict[str, dict[str, Any]]",
               shows: bool) -> "Streams | None":
    """Does what hand_over() does, in a process that is the user's. A thread fetches
    while this one waits and so hears Ctrl-C; a download ends at its next bytes."""
    if names["text"] and (why := fetch_text()):
        os.environ["PENNYWEIGHT_NO_TEXT"] = why
    if not names["model"] and not names["dataset"]:
        return None
    stopped = threading.Event()
    streams = streams_for(names)

    def work():
        bars = stoppable_bars(stopped)
        for kind in answers:
            for name in names[kind]:
                if not stopped.is_set():
                    answers[kind][name] = (
                        streams.answer_for(name) if streams and kind == "model"
                        else answer_for(kind, name, bars))

    with library_quiet(bars=shows and is_first()):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
        except BaseException:
            stopped.set()
            thread.join(2)
            raise
    return streams
