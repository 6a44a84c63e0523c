"""A hub on loopback that takes uploads, and ways for it to fail.

Two servers, as the real one is two: the hub proper, which wants the token, and
a file store of another origin with signed addresses, which must never see it.
Strict: whatever is not as the protocol says it is noted in `complaints`.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS = "application/vnd.git-lfs+json"
TOKEN = "hf_secret"


class Call:
    def __init__(self, handler, body, store):
        self.method = handler.command
        self.path = urlsplit(handler.path).path
        self.headers = handler.headers
        self.authorization = handler.headers.get("Authorization")
        self.body = body
        self.store = store

    def json(self):
        return json.loads(self.body)


class UploadHub:
    """One repository org/tiny, which may be there or not."""

    def __init__(self):
        self.exists = False
        self.private = False
        self.may_create = True
        self.may_write = True
        self.branches = {"main"}
        self.objects = {}  # sha256 -> bytes
        self.tree = {}  # name -> bytes, of the branch
        self.commits = []  # headers of all commits
        self.chunk_size = None  # multipart where set
        self.verifies = False
        self.ignored = set()
        self.calls = []
        self.complaints = []
        self.arrived = 0  # bytes at the store
        self.failing = {}  # part of a path -> statuses of the next answers
        self.stall = None  # bytes of a PUT after which it reads no more
        self.tamper = None  # changes the answer of the batch endpoint
        self.refused_commit = None  # (status, body)
        self.card_errors = []
        self.parts = {}  # sha256 -> {number: bytes}
        self.expected = {}  # sha256 -> size
        self.expired = 0  # so many signatures are no more good
        self.signature = 0
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.hub = self.start(store=False)
        self.store = self.start(store=True)

    def start(self, store):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def serve(self):
                try:
                    owner.serve(self, store)
                except ConnectionError:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = serve

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

    def wants(self, truth, what):
        if not truth:
            self.complaints.append(what)
        return truth

    # What follows answers one request.

    def serve(self, handler, store):
        body = self.read(handler, store)
        call = Call(handler, body, store)
        self.calls.append(call)
        if store:
            self.wants(call.authorization is None, "token at the store")
        for part, statuses in self.failing.items():
            if part in handler.path and statuses:
                return self.answer(handler, statuses.pop(0))
        if store:
            return self.put(handler, call)
        if call.path.startswith("/complete/"):  # signed
            self.wants(call.authorization is None, "token to a signed address")
        elif call.authorization != f"Bearer {TOKEN}":
            return self.answer(handler, 401, {"error": "Invalid credentials"})
        self.route(handler, call)

    def read(self, handler, store):
        length = handler.headers.get("Content-Length")
        if handler.command == "GET":
            return b""
        self.wants("Transfer-Encoding" not in handler.headers, "chunked body")
        if not self.wants(length is not None, "no Content-Length"):
            return b""
        left, body = int(length), bytearray()
        while left > 0:
            if store and self.stall is not None and len(body) >= self.stall:
                self.stalled.set()
                self.released.wait()
                raise ConnectionError
            piece = handler.rfile.read(min(left, 1 << 16))
            if not piece:
                raise ConnectionError
            body += piece
            left -= len(piece)
        return bytes(body)

    def answer(self, handler, status, value=None, headers=None):
        body = b"" if value is None else json.dumps(value).encode()
        handler.send_response(status)
        for key, text in (headers or {}).items():
            handler.send_header(key, text)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def route(self, handler, call):
        api = "/api/models/org/tiny"
        if call.path == "/api/repos/create":
            return self.create(handler, call.json())
        if call.path == "/api/validate-yaml":
            return self.validate(handler, call.json())
        if not self.exists:
            return self.answer(handler, 404, {"error": "Repository not found"},
                               {"X-Error-Code": "RepoNotFound"})
        if call.path == api:
            return self.answer(
                handler, 200, {"id": "org/tiny", "private": self.private})
        if not self.may_write:
            return self.answer(handler, 403, {"error": "no write access"})
        for what, act in (("revision", self.list),
                          ("preupload", self.preupload),
                          ("commit", self.commit)):
            if call.path.startswith(f"{api}/{what}/"):
                revision = call.path.removeprefix(f"{api}/{what}/")
                self.wants("/" not in revision, "revision not escaped")
                if unquote(revision) not in self.branches:
                    return self.answer(handler, 404, {"error": "no revision"},
                                       {"X-Error-Code": "RevisionNotFound"})
                return act(handler, call)
        if call.path == "/org/tiny.git/info/lfs/objects/batch":
            return self.batch(handler, call)
        if call.path.startswith("/complete/"):
            return self.complete(handler, call)
        if call.path == "/verify":
            facts = call.json()
            data = self.objects.get(facts["oid"])
            good = data is not None and len(data) == facts["size"]
            return self.answer(handler, 200 if good else 404)
        self.wants(False, f"asked for {call.path}")
        self.answer(handler, 404)

    def create(self, handler, request):
        self.wants(request.get("type", "model") == "model", "type of the repository")
        if (request["organization"], request["name"]) != ("org", "tiny"):
            return self.answer(handler, 403, {"error": "not your namespace"})
        if not self.may_create:
            return self.answer(handler, 403, {"error": "can't create"})
        if self.exists:
            return self.answer(handler, 409, {"error": "You already created it"})
        self.exists = True
        self.private = request.get("private", False)
        self.answer(handler, 200, {"url": f"{self.endpoint}/org/tiny"})

    def list(self, handler, call):
        self.wants(call.method == "GET", "method of a revision")
        self.answer(handler, 200, {
            "siblings": [{"rfilename": name} for name in sorted(self.tree)]})

    def validate(self, handler, request):
        self.wants(request["repoType"] == "model", "type of the card")
        errors = [{"message": text} for text in self.card_errors]
        self.answer(handler, 400 if errors else 200,
                    {"errors": errors,
                     "warnings": [{"message": "no licence"}]
                     if "license" not in request["content"] else []})

    def preupload(self, handler, call):
        answers = []
        files = call.json()["files"]
        self.wants(len(files) <= 256, "too many files at once")
        for file in files:
            sample = base64.b64decode(file["sample"], validate=True)
            self.wants(len(sample) == min(512, file["size"]), "sample's size")
            large = file["path"].endswith(".safetensors")
            self.wants(not file["path"].startswith(("/", ".")), "odd path")
            answers.append({"path": file["path"],
                            "uploadMode": "lfs" if large else "regular",
                            "shouldIgnore": file["path"] in self.ignored})
        self.answer(handler, 200, {"files": answers})

    def signed(self, name):
        self.signature += 1
        return f"{self.address(self.store)}/{name}?signature={self.signature}"

    def batch(self, handler, call):
        request = call.json()
        self.wants(call.headers["Content-Type"] == LFS, "Content-Type of LFS")
        self.wants(call.headers["Accept"] == LFS, "Accept of LFS")
        self.wants(request["operation"] == "upload", "operation")
        self.wants(request["hash_algo"] == "sha256", "hash_algo")
        self.wants({"basic", "multipart"} <= set(request["transfers"]),
                   "transfers")
        self.wants(request["ref"]["name"] in self.branches, "ref")
        objects = []
        for item in request["objects"]:
            oid, size = item["oid"], item["size"]
            self.expected[oid] = size
            answer = {"oid": oid, "size": size}
            if oid not in self.objects:
                answer["actions"] = self.actions(oid, size)
            objects.append(answer)
        if self.tamper:
            self.tamper(objects)
        self.answer(handler, 200, {"transfer": "basic", "objects": objects})

    def actions(self, oid, size):
        if self.chunk_size:
            self.parts[oid] = {}
            count = -(-size // self.chunk_size)
            header = {"chunk_size": str(self.chunk_size)}
            for number in range(count, 0, -1):  # their order means nothing
                header[f"{number:05d}"] = self.signed(f"{oid}/{number}")
            upload = {"href": f"{self.endpoint}/complete/{oid}",
                      "header": header}
        else:
            upload = {"href": self.signed(oid), "header": {"X-Extra": "yes"}}
        actions = {"upload": upload}
        if self.verifies:
            actions["verify"] = {"href": f"{self.endpoint}/verify"}
        return actions

    def put(self, handler, call):
        self.wants(call.method == "PUT", "method at the store")
        number = int(handler.path.split("=")[1])
        if number <= self.expired:
            return self.answer(handler, 403)
        self.arrived += len(call.body)
        name = call.path[1:].split("/")
        if len(name) == 2:
            self.parts[name[0]][int(name[1])] = call.body
            etag = '"' + hashlib.md5(call.body).hexdigest() + '"'
            return self.answer(handler, 200, headers={"ETag": etag})
        self.wants(call.headers["X-Extra"] == "yes", "header of the action")
        self.answer(handler, 200 if self.keep(name[0], call.body) else 400)

    def keep(self, oid, data):
        good = self.wants(hashlib.sha256(data).hexdigest() == oid
                          and len(data) == self.expected[oid], "other bytes")
        if good:
            self.objects[oid] = data
        return good

    def complete(self, handler, call):
        request = call.json()
        oid = request["oid"]
        self.wants(call.path == f"/complete/{oid}", "address to complete")
        parts = self.parts[oid]
        self.wants([part["partNumber"] for part in request["parts"]]
                   == sorted(parts), "numbers of parts")
        for part in request["parts"]:
            digest = hashlib.md5(parts[part["partNumber"]]).hexdigest()
            self.wants(part["etag"] == f'"{digest}"', "etag of a part")
        sizes = [len(parts[number]) for number in sorted(parts)]
        self.wants(all(size == self.chunk_size for size in sizes[:-1]),
                   "size of a part")
        data = b"".join(parts[number] for number in sorted(parts))
        self.answer(handler, 200 if self.keep(oid, data) else 400)

    def commit(self, handler, call):
        if self.refused_commit:
            status, body = self.refused_commit
            return self.answer(handler, status, body)
        self.wants(call.headers["Content-Type"] == "application/x-ndjson",
                   "Content-Type of the commit")
        lines = [json.loads(line) for line in call.body.splitlines()]
        self.wants(lines[0]["key"] == "header", "the first line")
        tree = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                self.wants(value["encoding"] == "base64", "encoding")
                tree[value["path"]] = base64.b64decode(
                    value["content"], validate=True)
            elif line["key"] == "deletedFile":
                self.wants(value["path"] in self.tree, "deleted what is not")
                self.tree.pop(value["path"], None)
            elif self.wants(line["key"] == "lfsFile", "key of a line"):
                self.wants(value["algo"] == "sha256", "algo")
                data = self.objects.get(value["oid"])
                if data is None or len(data) != value["size"]:
                    return self.answer(
                        handler, 400, {"error": "LFS pointer to nothing"})
                tree[value["path"]] = data
        self.tree |= tree
        self.commits.append(lines[0]["value"])
        oid = hashlib.sha1(call.body).hexdigest()
        self.answer(handler, 200, {
            "commitOid": oid,
            "commitUrl": f"{self.endpoint}/org/tiny/commit/{oid}"})
