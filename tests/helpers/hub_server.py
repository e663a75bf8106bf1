"""A Hugging Face Hub in memory, behind a local HTTP server: what the real `huggingface_hub` client needs of it.

Point `HF_ENDPOINT` at `HubServer.url` before `huggingface_hub` is imported. Like the real one, the Hub answers for
small files itself, under their git id, and sends the client to a storage of another origin for large ones (LFS), under
their SHA-256; and it tells nobody of a private repo that there is one. Xet is not offered.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote


TOKEN, USER = "hf_test", "user"  # the one user there is
LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Repo:
    """A git repository: commits (path -> content), and branches, tags and pull requests that point to them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({}, "initial commit")

    def commit(self, changes: dict[str, bytes | None], message: str = "", ref: str = "main", parent: str = "") -> str:
        """Adds, replaces or (None) removes files on top of `parent` (default: `ref`), moves `ref`, returns the sha."""
        parent = parent or self.refs.get(ref, "")
        files = {**self.commits.get(parent, {}), **changes}
        tree = {path: data for path, data in sorted(files.items()) if data is not None}
        described = [len(self.commits), parent, message, {path: _git_id(data) for path, data in tree.items()}]
        sha = hashlib.sha1(json.dumps(described).encode()).hexdigest()
        self.commits[sha] = tree
        self.messages[sha] = message
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit behind a branch, tag, pull request or sha."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.find(revision) or ""]


class HubServer:
    """The Hub (`url`) and its storage (another port), while the `with` block lasts or until `stop`.

    Attributes:
        repos (`dict`): by id.
        requests (`list`): `METHOD path` of each request so far.
        tokens (`list`): what each request to the storage had in its `Authorization`.
        tamper: changes what is sent of a file, given path and content; a `HEAD` still tells of the true one.
        breaks (`bool`): whether the size that is announced is the true one even where less is sent.
        after: called with `METHOD path` after each answer.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: list[str | None] = []
        self.honest()
        self._servers: list[ThreadingHTTPServer] = []
        self._ports = [0, 0]

    def honest(self) -> None:
        """Back to no tampering, and no hook."""
        self.tamper: Callable[[str, bytes], bytes] = lambda path, data: data
        self.breaks = False
        self.after: Callable[[str], None] = lambda request: None

    def start(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", port), handler) for port in self._ports]
        self._ports = [server.server_address[1] for server in self._servers]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self._ports[1]}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.stop()


class _Refused(Exception):
    """An answer other than success, with the code by which the client tells its errors apart."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str):
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}


class _Handler(BaseHTTPRequestHandler):
    """One request. (HTTP/1.0: one connection each, so that a stopped server is gone at once.)"""

    hub: HubServer

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        self.query = parse_qs(query)
        self.body = self._read_body()
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for verb, pattern, route in _ROUTES:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    route(self, **{name: unquote(text) for name, text in match.groupdict().items()})
                    break
            else:
                raise _Refused(404, "", f"no such address: {request}")
        except _Refused as refused:
            self._send(refused.status, b"{}", refused.headers)
        self.hub.after(request)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests read `HubServer.requests`."""

    # ---- who may do what ----

    def _user(self) -> str | None:
        header = self.headers.get("Authorization")
        if header not in (None, f"Bearer {TOKEN}"):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return USER if header else None

    def _writable(self, repo: str) -> Repo:
        found = self._readable(repo)
        if self._user() != repo.split("/")[0] and "create_pr" not in self.query:
            raise _Refused(403, "", "you have no right to write here")
        return found

    def _readable(self, repo: str) -> Repo:
        user, found = self._user(), self.hub.repos.get(repo)
        if found is None or (found.private and user != repo.split("/")[0]):
            raise _Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if found.gated and user is None:
            raise _Refused(401, "GatedRepo", "Access to this repo is restricted")
        return found

    def _commit(self, repo: str, revision: str) -> str:
        sha = self._readable(repo).find(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", "Invalid rev id")
        return sha

    # ---- reading ----

    def info(self, repo: str, revision: str = "main") -> None:
        sha = self._commit(repo, revision)
        siblings = [{"rfilename": path} for path in self.hub.repos[repo].commits[sha]]
        self._json({"id": repo, "sha": sha, "private": self.hub.repos[repo].private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        sha = self._commit(repo, revision)
        self._json([_described(path, data) for path, data in self.hub.repos[repo].commits[sha].items()])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        sha = self._commit(repo, revision)
        data = self.hub.repos[repo].commits[sha].get(path)
        if data is None:
            raise _Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        if path.endswith(LFS_SUFFIXES):
            oid = hashlib.sha256(data).hexdigest()
            self.hub.objects[oid] = data
            linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": sha}
            self._send(302, b"", {**linked, "Location": f"{self.hub.storage}/objects/{oid}/{path}"})
        else:
            self._send_file(path, data, {"ETag": f'"{_git_id(data)}"', "X-Repo-Commit": sha})

    def download(self, oid: str, path: str) -> None:
        self.hub.tokens.append(self.headers.get("Authorization"))
        if oid not in self.hub.objects:
            raise _Refused(404, "", "no such object")
        self._send_file(path, self.hub.objects[oid], {"ETag": f'"{oid}"'})

    # ---- writing ----

    def create(self) -> None:
        wanted, user = json.loads(self.body), self._user()
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        owner = wanted["organization"] or user
        repo = f"{owner}/{wanted['name']}"
        exists = repo in self.hub.repos
        if owner != user:
            raise _Refused(403, "", f"you have no right to make a repo for {owner}")
        self.hub.repos.setdefault(repo, Repo(private=wanted.get("visibility") == "private"))
        self._json({"url": f"{self.hub.url}/{repo}"}, 409 if exists else 200)

    def branch(self, repo: str, revision: str) -> None:
        found = self._writable(repo)
        if revision.startswith("refs/"):
            raise _Refused(400, "", "Invalid reference for a branch")
        if revision in found.refs:
            raise _Refused(409, "", "Reference already exists")
        found.refs[revision] = found.refs["main"]
        self._json({})

    def check_card(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self._writable(repo)
        there = self.hub.repos[repo].commits[self._commit(repo, revision)]
        answers = []
        for path in (entry["path"] for entry in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            oid = _content_id(path, there[path]) if path in there else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self._readable(repo)
        objects = []
        for entry in json.loads(self.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.storage}/objects/{entry['oid']}"},
                "verify": {"href": f"{self.hub.url}/verify/{entry['oid']}"},
            }
            known = entry["oid"] in self.hub.objects
            objects.append({**entry, **({} if known else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content has another SHA-256")
        self.hub.objects[oid] = self.body
        self._json({})

    def verify(self, oid: str) -> None:
        if len(self.hub.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise _Refused(404, "", "no such object")
        self._json({})

    def commit(self, repo: str, revision: str) -> None:
        found, parent = self._writable(repo), self._commit(repo, revision)
        changes: dict[str, bytes | None] = {}
        message = ""
        for line in map(json.loads, self.body.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "header":
                message = value["summary"]
            elif kind == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                changes[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile" and value["path"] in found.commits[parent]:
                changes[value["path"]] = None
            else:
                raise _Refused(400, "", f"cannot do {line}")
        if "create_pr" in self.query:
            number = sum(ref.startswith("refs/pr/") for ref in found.refs) + 1
            sha = found.commit(changes, message, f"refs/pr/{number}", parent)
            extra = {"pullRequestUrl": f"{self.hub.url}/{repo}/discussions/{number}"}
        else:
            sha, extra = found.commit(changes, message, revision), {}
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha, **extra})

    # ---- HTTP ----

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        sent = data if self.command == "HEAD" else self.hub.tamper(path, data)
        self._send(200, sent, headers, len(data) if self.hub.breaks else len(sent))

    def _send(self, status: int, body: bytes, headers: dict[str, str], size: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if size is None else size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_REPO, _REVISION = r"(?P<repo>[^/]+/[^/]+?)", r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", rf"/api/models/{_REPO}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/{_REVISION}", _Handler.tree),
    ("GET", rf"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
    ("GET", r"/objects/(?P<oid>\w+)/(?P<path>.+)", _Handler.download),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.check_card),
    ("POST", rf"/api/models/{_REPO}/branch/{_REVISION}", _Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler.upload),
    ("POST", r"/verify/(?P<oid>\w+)", _Handler.verify),
]


def _described(path: str, data: bytes) -> dict[str, Any]:
    """A file as listings show it."""
    shown = {"type": "file", "path": path, "size": len(data), "oid": _git_id(data)}
    if path.endswith(LFS_SUFFIXES):
        shown["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return shown


def _content_id(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else _git_id(data)


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
