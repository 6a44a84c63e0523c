"""A hub on loopback: the few routes that a client uses, and ways to fail."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """files: name -> bytes. Counts what was asked of it."""

    def __init__(self, files, token=None):
        self.files = dict(files)
        self.token = token
        self.requests = []  # (path, range header, authorization)
        self.sent = {}  # name -> bytes sent over all requests
        self.cut_after = {}  # name -> bytes after which the line goes dead
        self.wrong_checksum = set()
        self.listing = None  # overrides the names
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                hub.serve(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def etag(self, name):
        digest = hashlib.sha256(self.files[name]).hexdigest()
        return "0" * 64 if name in self.wrong_checksum else digest

    def serve(self, handler):
        wanted = handler.headers.get("Range")
        authorization = handler.headers.get("Authorization")
        self.requests.append((handler.path, wanted, authorization))
        if self.token and authorization != f"Bearer {self.token}":
            return self.answer(handler, 401, b"")
        path = handler.path.split("?")[0]
        if path.startswith(("/api/models/org/tiny/revision/",
                            "/api/datasets/org/tiny/revision/")):
            names = self.listing or list(self.files)
            body = {"sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in names]}
            return self.answer(handler, 200, json.dumps(body).encode())
        marker = f"/org/tiny/resolve/{COMMIT}/"
        name = path.split(marker)[1] if marker in path else None
        if name not in self.files:
            return self.answer(handler, 404, b"")
        return self.send_file(handler, name, wanted)

    def answer(self, handler, status, body):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def send_file(self, handler, name, wanted):
        data = self.files[name]
        first, last = 0, len(data) - 1
        if wanted:
            first, end = wanted.removeprefix("bytes=").split("-")
            first, last = int(first), min(int(end or last), last)
        body = data[first:last + 1]
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", f'"{self.etag(name)}"')
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Accept-Ranges", "bytes")
        if wanted:
            handler.send_header(
                "Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.end_headers()
        probe = wanted == "bytes=0-0"
        limit = None if probe else self.cut_after.get(name)
        if limit is not None and len(body) > limit:
            body = body[:limit]
            handler.close_connection = True
        if not probe:
            self.sent[name] = self.sent.get(name, 0) + len(body)
        handler.wfile.write(body)
        handler.wfile.flush()
        if limit is not None:
            handler.connection.close()
