"""A hub on loopback, as huggingface_hub speaks to it, and ways for it to fail.

Two servers, as the real one is two: the hub proper, which lists and changes one
repository and sends its small files, and a file store of another origin, to
which it sends the reader and the writer of weights. The token belongs to the
first and must never reach the second.
"""

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

TOKEN = "hf_secret"
KEPT = 64 << 20  # bytes of an object that are kept, and not its checksum alone


class Request:
    def __init__(self, handler, store):
        self.method = handler.command
        self.path = unquote(urlsplit(handler.path).path)
        self.range = handler.headers.get("Range")
        self.authorization = handler.headers.get("Authorization")
        self.store = store


class Hub:
    """files: name -> bytes, of model or data set org/tiny."""

    def __init__(self, files=None):
        self.exists = files is not None  # whether the repository does
        self.files = dict(files or {})
        self.commit = "0123456789abcdef0123456789abcdef01234567"
        self.private = False
        self.branches = {"main", "v1"}
        self.requests = []
        self.token = None  # if set, requests must have it
        self.gated = False
        self.failing = {}  # part of a path -> statuses of the next answers
        # Downloads; `name` is a file's.
        self.cuts = {}  # name -> lengths after which the connection breaks
        self.garbled = set()  # names of files of which other bytes are sent
        self.wrong_size = set()  # names of files with a size that is not theirs
        self.pause = 0  # seconds before each 64 KiB of a large file
        self.dead = False  # if set, no connection is answered, not even open ones
        self.sends_parts = True  # whether a Range is heeded
        # Uploads.
        self.may_create = self.may_write = True
        self.objects = {}  # sha256 -> bytes, or None where they are too many
        self.parts = {}  # sha256 -> {number: bytes}
        self.commits = []  # headers of all commits
        self.chunk_size = None  # if set, files are sent in parts of so many bytes
        self.refused_commit = None  # (status, message)
        self.card_errors = []
        self.ignored = set()  # names that the repository's .gitignore has
        self.stall = None  # bytes of a body after which nothing is sent any more
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.hub = self.start(store=False)
        self.store = self.start(store=True)

    def start(self, store):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def serve(self):
                try:
                    owner.serve(self, store)
                except ConnectionError:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = serve

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    @staticmethod
    def address(server):
        return f"http://127.0.0.1:{server.server_address[1]}"

    @property
    def endpoint(self):
        return self.address(self.hub)

    def close(self):
        self.released.set()
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()

    def downloads(self, name):
        return [request for request in self.requests
                if request.method == "GET" and request.path.endswith("/" + name)]

    def puts(self):
        return [request for request in self.requests if request.method == "PUT"]

    # What follows answers one request.

    def serve(self, handler, store):
        if self.dead:
            raise ConnectionError
        request = Request(handler, store)
        self.requests.append(request)
        if handler.command == "PUT" and store:
            return self.put(handler, request)
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        for part, statuses in self.failing.items():
            if part in request.path and statuses:
                return self.answer(handler, statuses.pop(0))
        if store:
            return self.send(handler, request, request.path[1:])
        if request.path.startswith("/complete/"):  # a signed address
            return self.change(handler, request.path, json_of(body))
        if self.token and request.authorization != f"Bearer {self.token}":
            return self.answer(handler, 401, {"error": "Invalid credentials"})
        if handler.command == "POST":
            return self.change(handler, request.path, json_of(body))
        self.show(handler, request)

    def answer(self, handler, status, value=None, headers=None):
        body = b"" if value is None else json.dumps(value).encode()
        headers = dict(headers or {})
        if isinstance(value, dict) and "error" in value:
            headers["X-Error-Message"] = value["error"]
        handler.send_response(status)
        for key, text in headers.items():
            handler.send_header(key, text)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def show(self, handler, request):
        parts = urlsplit(handler.path).path[1:].split("/")
        if parts[0] == "datasets":
            parts = parts[1:]
        if not self.exists or ["org", "tiny"] not in (parts[:2], parts[2:4]):
            return self.answer(
                handler, 404, headers={"X-Error-Code": "RepoNotFound"})
        if parts[0] != "api":
            if self.gated:
                return self.answer(
                    handler, 403, headers={"X-Error-Code": "GatedRepo"})
            return self.resolve(handler, request, unquote("/".join(parts[4:])))
        revision = unquote("/".join(parts[5:])) or "main"
        if revision not in self.branches | {self.commit}:
            return self.answer(
                handler, 404, headers={"X-Error-Code": "RevisionNotFound"})
        if parts[4:5] == ["tree"]:
            return self.answer(handler, 200, [
                self.entry(name) for name in self.files])
        self.answer(handler, 200, {
            "id": "org/tiny", "sha": self.commit, "private": self.private,
            "siblings": [{"rfilename": name} for name in self.files]})

    def is_large(self, name):
        return name.endswith(".safetensors") or name == "large.txt"

    def entry(self, name):
        facts = {"type": "file", "path": name, "size": len(self.files[name]),
                 "oid": self.git_hash(name)}
        if self.is_large(name):
            facts["lfs"] = {"oid": self.sha256(name), "pointerSize": 100,
                            "size": facts["size"]}
        return facts

    def sha256(self, name):
        return hashlib.sha256(self.files[name]).hexdigest()

    def git_hash(self, name):
        data = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def resolve(self, handler, request, name):
        if name not in self.files:
            return self.answer(
                handler, 404, headers={"X-Error-Code": "EntryNotFound"})
        if not self.is_large(name):
            return self.send(handler, request, name)
        size = len(self.files[name]) + (name in self.wrong_size)
        self.answer(handler, 302, headers={
            "X-Repo-Commit": self.commit, "ETag": '"of the redirect"',
            "X-Linked-Etag": f'"{self.sha256(name)}"', "X-Linked-Size": str(size),
            "Location": f"{self.address(self.store)}/{quote(name)}"})

    def send(self, handler, request, name):
        data = self.files[name]
        if name in self.garbled:
            data = bytes(byte ^ 1 for byte in data)
        asked = request.range if self.sends_parts else None
        first, end = 0, len(data)
        if asked:
            begin, _, last = asked[6:].partition("-")
            first, end = int(begin), int(last) + 1 if last else len(data)
        whole_size, data = len(data), data[:end]
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(data) - first))
        handler.send_header("X-Repo-Commit", self.commit)
        handler.send_header("ETag", f'"{self.git_hash(name)}"')
        if asked:
            handler.send_header(
                "Content-Range", f"bytes {first}-{len(data) - 1}/{whole_size}")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        whole = data = data[first:]
        if self.cuts.get(name):
            data = data[:self.cuts[name].pop(0)]
        if self.stall is not None and self.is_large(name):
            data = data[:self.stall]
        step = 64 << 10 if self.pause and self.is_large(name) else max(1, len(data))
        for at in range(0, len(data), step):
            time.sleep(self.pause)
            if self.dead:
                raise ConnectionError
            handler.wfile.write(data[at:at + step])
        handler.wfile.flush()
        if len(data) < len(whole):
            handler.close_connection = True
            if self.stall is not None:
                self.stalled.set()
                self.released.wait()

    def change(self, handler, path, request):
        if path == "/api/repos/create":
            if self.exists or not self.may_create:
                return self.answer(
                    handler, 409 if self.exists else 403,
                    {"error": "can't create", "url": f"{self.endpoint}/org/tiny"})
            self.exists = True
            self.private = request.get("visibility") == "private"
            return self.answer(handler, 200, {"url": f"{self.endpoint}/org/tiny"})
        if path == "/api/validate-yaml":
            errors = [{"message": text} for text in self.card_errors]
            warned = [] if "license" in request["content"] else [
                {"message": "no licence"}]
            return self.answer(handler, 400 if errors else 200,
                               {"errors": errors, "warnings": warned})
        if path.startswith("/complete/"):
            parts = self.parts.pop(request["oid"])
            data = b"".join(parts[number] for number in sorted(parts))
            return self.keep(handler, request["oid"], data)
        if not self.may_write:
            return self.answer(handler, 403, {"error": "no write access"})
        if path.startswith("/api/models/org/tiny/preupload/"):
            return self.answer(handler, 200, {"files": [
                {"path": file["path"],
                 "uploadMode": "lfs" if self.is_large(file["path"]) else "regular",
                 "shouldIgnore": file["path"] in self.ignored}
                for file in request["files"]]})
        if path.startswith("/api/models/org/tiny/commit/"):
            return self.take_commit(handler, request)
        if path == "/org/tiny.git/info/lfs/objects/batch":
            return self.answer(handler, 200, {"objects": [
                self.actions(item["oid"], item["size"])
                for item in request["objects"]]})
        self.answer(handler, 404)

    def actions(self, oid, size):
        answer = {"oid": oid, "size": size}
        if oid in self.objects:
            return answer
        address = f"{self.address(self.store)}/{oid}"
        upload = {"href": f"{address}?signed"}
        if self.chunk_size:
            self.parts[oid] = {}
            count = -(-size // self.chunk_size)
            upload = {"href": f"{self.endpoint}/complete/{oid}", "header": {
                "chunk_size": str(self.chunk_size),
                **{str(n): f"{address}/{n}" for n in range(count, 0, -1)}}}
        return answer | {"actions": {"upload": upload}}

    def put(self, handler, request):
        length = int(handler.headers["Content-Length"])
        name = request.path[1:].split("/")
        hasher, blocks, done = hashlib.sha256(), [], 0
        while done < length:
            if self.stall is not None and done >= self.stall:
                self.stalled.set()
                self.released.wait()
                handler.close_connection = True
                return
            block = handler.rfile.read(min(1 << 18, length - done))
            if not block:
                return  # the writer went away
            hasher.update(block)
            done += len(block)
            if length <= KEPT:
                blocks.append(block)
        for part, statuses in self.failing.items():
            if part == "store" and statuses:
                return self.answer(handler, statuses.pop(0))
        data = b"".join(blocks)
        if len(name) == 2:
            self.parts[name[0]][int(name[1])] = data
            return self.answer(handler, 200, headers={"ETag": f'"{name[1]}"'})
        if length > KEPT:
            data = None
        self.keep(handler, name[0], data, hasher)

    def keep(self, handler, oid, data, hasher=None):
        hasher = hasher or hashlib.sha256(data)
        if hasher.hexdigest() != oid:
            return self.answer(handler, 400, {"error": "other bytes"})
        self.objects[oid] = data
        self.answer(handler, 200)

    def take_commit(self, handler, lines):
        if self.refused_commit:
            status, text = self.refused_commit
            return self.answer(handler, status, {"error": text})
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]
            else:
                self.files[value["path"]] = self.objects[value["oid"]]
        self.commits.append(lines[0]["value"])
        self.commit = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        self.answer(handler, 200, {
            "commitOid": self.commit,
            "commitUrl": f"{self.endpoint}/org/tiny/commit/{self.commit}"})


def json_of(body):
    """The value of a body: of one line, or a list of those of several lines."""
    lines = [json.loads(line) for line in body.splitlines()]
    return lines if len(lines) > 1 else lines[0] if lines else None
