"""A hub of one's own: the endpoints that huggingface_hub asks, on 127.0.0.1, with faults on demand.

It answers as the real one does: texts with their git hash as ETag, large files by a redirect to another host that takes
no token, 401 for what is missing as for what is private, and it honours ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
LARGE = (".safetensors", ".parquet", ".bin")
"""Kept in LFS, whatever their size."""


@dataclass
class Repo:
    """Commits by hash, each a folder; names of branches and tags; who may read."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    range: str
    has_token: bool


@dataclass
class Fault:
    """What the next ``times`` requests whose method and path hold the words meet.

    ``drop``: the connection breaks after so many bytes. ``stall``: silence after so many bytes, until the hub closes.
    ``status``: an error instead of an answer.
    """

    words: str
    times: int = 1
    status: int = 0
    drop: int | None = None
    stall: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeHub:
    """The server; use it in a ``with``. ``endpoint`` is its address."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        handler = type("Bound", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering: the hub is down from now on."""
        if not self.closing.is_set():
            self.closing.set()
            self.server.shutdown()
            self.server.server_close()

    def put(self, name: str, files: Mapping[str, bytes | str], ref: str = "main", **rights: bool) -> str:
        """Commit a folder to ``org/name`` or ``datasets/org/name``; ``ref`` moves to it. Returns the commit."""
        folder = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        commit = hashlib.sha1(repr((name, sorted(folder.items()))).encode()).hexdigest()
        repo = self.repos.setdefault(name, Repo(**rights))
        repo.commits[commit] = folder
        repo.refs[ref] = commit
        return commit

    def fail(self, words: str, **fault: Any) -> None:
        """Meet coming requests with a fault."""
        self.faults.append(Fault(words, **fault))

    def paths(self, method: str = "GET") -> list[str]:
        """What was asked so far."""
        return [asked.path for asked in self.asked if asked.method == method]

    def fault_for(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.words in request:
                fault.times -= 1
                return fault
        return None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range", ""), has_token))
        self.fault = self.hub.fault_for(f"{self.command} {path}")
        if self.fault and self.fault.status:
            return self.say(self.fault.status, headers=self.fault.headers)
        if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            return self.say(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        if found := re.fullmatch(r"/cdn/(\w+)", path):
            return self.send_large(found[1], leaked=has_token)
        for pattern, act in (
            (r"/api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)(?:/revision/(.+))?", self.tell_repo),
            (r"/api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)/refs()", self.tell_refs),
            (r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.send_file),
        ):
            if found := re.fullmatch(pattern, path):
                return self.for_readers(act, found[1], *(part or "main" for part in found.groups()[1:]))
        self.say(404)

    def for_readers(self, act: Any, name: str, revision: str, *rest: str) -> None:
        repo, has_token = self.hub.repos.get(name), bool(self.headers.get("Authorization"))
        if repo is None or (repo.is_private and not has_token):
            code = 404 if has_token else 401
            return self.say(code, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = revision if revision in repo.commits else repo.refs.get(revision, "")
        if not commit and act != self.tell_refs:
            return self.say(404, headers={"X-Error-Code": "RevisionNotFound"})
        act(name, repo, commit, *rest)

    def tell_repo(self, name: str, repo: Repo, commit: str) -> None:
        siblings = [self.sibling(path, data) for path, data in sorted(repo.commits[commit].items())]
        bare = name.removeprefix("datasets/")
        self.say_json({"id": bare, "modelId": bare, "sha": commit, "gated": repo.is_gated, "siblings": siblings})

    def sibling(self, path: str, data: bytes) -> dict[str, Any]:
        told: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_hash(data)}
        if path.endswith(LARGE):
            told["lfs"] = {"size": len(data), "sha256": sha256(data), "pointerSize": 135}
        return told

    def tell_refs(self, name: str, repo: Repo, commit: str) -> None:
        branches = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha} for ref, sha in repo.refs.items()]
        self.say_json({"branches": branches, "tags": [], "converts": []})

    def send_file(self, name: str, repo: Repo, commit: str, path: str) -> None:
        if repo.is_gated and not self.headers.get("Authorization"):
            return self.say(401, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        if path not in repo.commits[commit]:
            return self.say(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = repo.commits[commit][path]
        if path.endswith(LARGE):
            where = f"http://localhost:{self.hub.server.server_port}/cdn/{sha256(data)}"
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "Location": where}
            return self.say(302, headers={"X-Repo-Commit": commit, **linked})
        self.send(data, {"X-Repo-Commit": commit, "ETag": f'"{git_hash(data)}"'})

    def send_large(self, digest: str, *, leaked: bool) -> None:
        if leaked:
            return self.say(400, headers={"X-Error-Message": "a token reached the storage host"})
        files = (
            data for repo in self.hub.repos.values() for folder in repo.commits.values() for data in folder.values()
        )
        self.send(next(data for data in files if sha256(data) == digest), {"ETag": f'"{digest}"'})

    def send(self, data: bytes, headers: Mapping[str, str]) -> None:
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if start:
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.say(206, data[start:], {**headers, "Content-Range": span})
        self.say(200, data, headers)

    def say_json(self, value: Any) -> None:
        self.say(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def say(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.pour(body)

    def pour(self, body: bytes) -> None:
        fault = self.fault
        broken = next((at for at in (fault.drop, fault.stall) if at is not None), None) if fault else None
        try:
            self.wfile.write(body if broken is None else body[:broken])
            self.wfile.flush()
        except OSError:  # whoever asked has gone
            self.close_connection = True
            return
        if fault and fault.stall is not None:
            while not self.hub.closing.is_set():
                time.sleep(0.02)
        if broken is not None:
            self.close_connection = True
