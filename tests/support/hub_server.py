"""A hub on loopback, and ways for it to fail.

Two servers, as the real one is two: the hub proper lists a repository and
sends small files (after a redirect inside itself), and sends the reader of
weights on to a file store of another origin.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Request:
    def __init__(self, handler, store):
        self.method = handler.command
        self.path = unquote(urlsplit(handler.path).path)
        self.range = handler.headers.get("Range")
        self.authorization = handler.headers.get("Authorization")
        self.store = store
        self.name = None  # of the file whose bytes it asks for


class Hub:
    """files: name -> bytes, of one commit of model or data set org/tiny."""

    def __init__(self, files):
        self.files = dict(files)
        self.commit = COMMIT
        self.requests = []
        self.sent = {}  # name -> bytes sent, over all requests
        self.token = None  # asked for where set
        self.listing = None  # overrides the names
        self.revisions = {"main", "v1", COMMIT}
        self.cuts = {}  # name -> lengths after which a connection breaks
        self.stall = {}  # name -> bytes after which nothing more comes
        self.wrong_checksum = set()
        self.wrong_size = set()
        self.garbled = {}  # name -> times that other bytes are sent
        self.ignores_ranges = False
        self.failing = []  # statuses of the next answers
        self.gated = False
        self.released = threading.Event()
        self.hub = self.start(store=False)
        self.store = self.start(store=True)

    def start(self, store):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                request = Request(self, store)
                owner.requests.append(request)
                owner.serve(self, request)

            do_HEAD = do_GET

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def address(self, server):
        return f"http://127.0.0.1:{server.server_address[1]}"

    @property
    def endpoint(self):
        return self.address(self.hub)

    def close(self):
        self.released.set()
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()

    def downloads(self):
        return [request for request in self.requests
                if request.method == "GET" and request.name]

    # What follows answers one request.

    def serve(self, handler, request):
        if self.failing:
            return self.answer(handler, self.failing.pop(0))
        if request.store:
            return self.send(handler, request, request.path[1:])
        if self.token and request.authorization != f"Bearer {self.token}":
            return self.answer(handler, 401)
        parts = request.path[1:].split("/")
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self.list(handler, parts)
        if parts[:3] == ["api", "resolve-cache", "models"]:
            return self.send(handler, request, "/".join(parts[3:]))
        if parts[0] == "datasets":
            parts = parts[1:]
        name = "/".join(parts[4:])
        if parts[:4] != ["org", "tiny", "resolve", self.commit] or (
                name not in self.files):
            return self.answer(handler, 404, {"X-Error-Code": "EntryNotFound"})
        if self.gated:
            return self.answer(handler, 403, {"X-Error-Code": "GatedRepo"})
        if name.endswith(".safetensors"):
            return self.answer(handler, 302, self.facts(name) | {
                "X-Linked-Etag": f'"{self.sha256(name)}"',
                "X-Linked-Size": str(self.size(name)),
                "ETag": '"of the redirect"',
                "Location": f"{self.address(self.store)}/{quote(name)}"})
        return self.answer(handler, 307, self.facts(name) | {
            "Location": f"/api/resolve-cache/models/{quote(name)}"})

    def list(self, handler, parts):
        if parts[2:4] != ["org", "tiny"]:
            return self.answer(handler, 404, {"X-Error-Code": "RepoNotFound"})
        if "/".join(parts[5:]) not in {
                revision.replace("/", "%2F") for revision in self.revisions
        } | self.revisions:
            return self.answer(
                handler, 404, {"X-Error-Code": "RevisionNotFound"})
        names = list(self.files) if self.listing is None else self.listing
        body = {"sha": self.commit,
                "siblings": [{"rfilename": name} for name in names]}
        return self.answer(handler, 200, body=json.dumps(body).encode())

    def sha256(self, name):
        digest = hashlib.sha256(self.files[name]).hexdigest()
        return "0" * 64 if name in self.wrong_checksum else digest

    def git_hash(self, name):
        data = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def size(self, name):
        return len(self.files[name]) + (name in self.wrong_size)

    def facts(self, name):
        return {"X-Repo-Commit": self.commit,
                "ETag": f'W/"{self.git_hash(name)}"'}

    def answer(self, handler, status, headers=None, body=b""):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    def send(self, handler, request, name):
        if name not in self.files:
            return self.answer(handler, 404)
        request.name = name
        data = self.files[name]
        first = 0
        if request.range and not self.ignores_ranges:
            first = int(request.range.removeprefix("bytes=").split("-")[0])
        if first > 0 and first >= len(data):
            return self.answer(
                handler, 416, {"Content-Range": f"bytes */{len(data)}"})
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(data) - first))
        for key, value in self.facts(name).items():
            handler.send_header(key, value)
        if first:
            handler.send_header(
                "Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        if handler.command == "GET":
            self.send_body(handler, name, data[first:])

    def send_body(self, handler, name, body):
        if self.garbled.get(name, 0) > 0:
            self.garbled[name] -= 1
            body = bytes(byte ^ 1 for byte in body)
        whole = len(body)
        if self.cuts.get(name):
            body = body[:self.cuts[name].pop(0)]
        if name in self.stall:
            body = body[:self.stall[name]]
        self.sent[name] = self.sent.get(name, 0) + len(body)
        try:
            handler.wfile.write(body)
            handler.wfile.flush()
            if name in self.stall:
                self.released.wait()
        except OSError:
            pass  # the client went away
        if len(body) < whole:
            handler.close_connection = True
