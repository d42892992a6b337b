"""Models and data sets by name: a folder that is here, or a repository on the Hugging Face hub.

Three laws. Only safetensors, JSON and tokenizer text of a model are ever fetched or read: unpickling runs whatever code
a file holds. One name means one commit, the one first met here, so that the same command gives the same answer with and
without a network, whatever the repository's owner does meanwhile. And a download that breaks goes on where it stood.

Files lie in the hub's own cache, in its own layout, shared with every other program that uses it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from seekling.errors import UserError
from seekling.remote.choice import ROWS, Listed, data_files, model_files

Tell = Callable[[str], None]
Draw = Callable[[int, int], None]
"""(bytes that are here, of how many): called from several threads, one at a time."""
Kind = Literal["model", "dataset"]

RESUMED_BYTES = 2**20
"""Files of this size are worth going on with after a break."""
PARALLEL = 4
SAYS_EVERY_S = 10.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./+-]*")
_HUB_NAME = re.compile(r"(?=.{3,96}$)(?!.*(?:--|\.\.|\.git$))\w[\w.-]*/\w[\w.-]*(?<![.-])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """What a name led to. ``commit`` is 40 hex digits, or "" for a local folder.

    ``files`` are those that count. All are in ``folder``, except weights that were listed only.
    """

    name: str
    folder: Path
    commit: str
    files: tuple[Listed, ...]

    @property
    def weights(self) -> tuple[Listed, ...]:
        """The safetensors files, in order."""
        return tuple(file for file in self.files if file.name.endswith(".safetensors"))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the files are."""
        return tuple(self.folder / file.name for file in self.files)


def _quiet(line: str) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Watch:
    """Whoever waits for a download."""

    tell: Tell
    draw: Draw | None
    stop_requested: Callable[[], bool]


def is_hub_name(name: str) -> bool:
    """Whether ``name`` has the form of a hub repository, ``org/name``."""
    return bool(_HUB_NAME.fullmatch(name))


def locate(
    model: str, revision: str = "", *, weights: bool = True,
    tell: Tell = _quiet, draw: Draw | None = None, stop_requested: Callable[[], bool] = _never,
) -> Source:  # fmt: skip
    """The model called ``model``: a local folder when there is one, else a hub repository, fetched when need be.

    ``weights=False`` fetches texts alone; the weights' names and sizes are listed all the same. ``draw`` shows bytes as
    they come; without it a terminal gets a bar and anything else a line now and then. Raises UserError for a name that
    leads nowhere, a model without safetensors weights, and whatever the network or the disk refuses; InterruptedError
    soon after ``stop_requested`` says yes.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _local(model, folder, revision, weights=weights)
    if not is_hub_name(model) or folder.exists():
        raise _no_name(model, folder)
    repo = _Repo(model, "model", _checked(revision))
    with _letters(repo):
        commit = _resolve(repo)
        listing = {name: file for name, file in _listing(repo, commit).items() if "/" not in name}
        index = functools.partial(_fetch_one, repo, commit)
        texts, shards = model_files(repo.id, listing, index, weights=weights)
        watch = _Watch(tell, draw, stop_requested)
        folder = _fetch(repo, commit, [*texts, *shards] if weights else texts, watch)
    return Source(model, folder, commit, (*texts, *shards))


def is_data_name(data: str) -> bool:
    """Whether ``data`` has the form of a hub data set: ``org/name``, or ``org/name:path`` for a part of it."""
    return is_hub_name(data.partition(":")[0]) and not data.partition(":")[0].endswith(ROWS)


def locate_data(
    data: str, revision: str = "", *, split: str = "train",
    tell: Tell = _quiet, draw: Draw | None = None, stop_requested: Callable[[], bool] = _never,
) -> Source:  # fmt: skip
    """The rows of a hub data set: its parquet, JSONL or JSON files of one split, in order.

    ``data`` is ``org/name``, or ``org/name:path`` with a file, a folder or a pattern inside the repository. Raises
    UserError listing what is there when the split is not, or when several parts could be meant; else as ``locate``.
    """
    name, _, path = data.partition(":")
    if not is_data_name(data):
        raise UserError(
            f'"{data}" is no data set of the hub', next_step=f"Write org/name, or org/name:{path or 'path'}."
        )
    repo = _Repo(name, "dataset", _checked(revision))
    with _letters(repo):
        commit = _resolve(repo)
        files = data_files(repo.id, _listing(repo, commit), path.strip("/"), split)
        folder = _fetch(repo, commit, files, _Watch(tell, draw, stop_requested))
    return Source(data, folder, commit, tuple(files))


def identity(name: str, revision: str = "", *, kind: Kind = "model") -> dict[str, Any]:
    """What a stage's fingerprint needs to know: ``{"commit": ...}`` on the hub, ``{"files": {name: sha256}}`` here.

    A commit stands for all its files. It is asked of the hub once; from then on the cache answers.
    """
    folder = Path(name).expanduser()
    if kind == "model" and folder.is_dir():
        return {"files": digests(locate(name, revision))}
    repo = _Repo(name.partition(":")[0], kind, _checked(revision))
    if not is_hub_name(repo.id):
        raise _no_name(name, folder)
    with _letters(repo):
        return {"commit": _resolve(repo)}


def digests(source: Source) -> dict[str, str]:
    """The SHA-256 of every file of a source, as the hub states it or as it is read here."""
    unread = [file for file in source.files if not file.digest]
    with ThreadPoolExecutor(PARALLEL) as pool:
        read = pool.map(lambda file: sha256_of(source.folder / file.name), unread)
        return {file.name: file.digest for file in source.files if file.digest} | {
            file.name: digest for file, digest in zip(unread, read, strict=True)
        }


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file. A file that has not changed is read once in a process."""
    try:
        facts = file.stat()
        return _sha256(str(file.resolve()), facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None


@functools.lru_cache(maxsize=4096)
def _sha256(file: str, num_bytes: int, mtime_ns: int) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# --- a local folder ---------------------------------------------------------------------------------------------------


def _local(model: str, folder: Path, revision: str, *, weights: bool) -> Source:
    if revision:
        raise UserError(
            f"{folder} is a folder: it has no revision {revision}",
            next_step="Leave the revision out, or name the model by its hub id.",
        )
    try:
        here = {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_file()}
        listing = {name: Listed(name, entry.stat().st_size) for name, entry in here.items()}
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
    texts, shards = model_files(str(folder), listing, lambda name: folder / name, weights=weights)
    return Source(model, folder, "", (*texts, *shards))


def _no_name(model: str, folder: Path) -> UserError:
    """Neither a folder nor a hub name: say which of the two was probably meant."""
    if folder.is_file():
        return UserError(f"{model} is a file; a model is a folder", next_step=f"Name its folder: {folder.parent}")
    with suppress(OSError):
        near = get_close_matches(folder.name, [entry.name for entry in folder.parent.iterdir() if entry.is_dir()], n=1)
        if near:
            return UserError(f"there is no folder {model}", next_step=f"Did you mean {folder.parent / near[0]}?")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        return UserError(f"there is no folder {model}", next_step="Check the path.")
    return UserError(
        f'"{model}" is neither a folder nor a model of the hub',
        next_step="Name a folder that holds config.json, or a hub model as org/name, e.g. Qwen/Qwen2.5-0.5B.",
    )


# --- a repository on the hub ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Repo:
    """A repository and the revision asked for ("" is its main branch)."""

    id: str
    kind: Kind
    revision: str

    @property
    def storage(self) -> Path:
        """Its folder in the hub's cache."""
        return _cache() / f"{self.kind}s--{self.id.replace('/', '--')}"

    @property
    def page(self) -> str:
        """Its address for a person."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'' if self.kind == 'model' else 'datasets/'}{self.id}"

    @property
    def called(self) -> str:
        """Its name in a letter."""
        return self.id if self.kind == "model" else f"data set {self.id}"

    def snapshot(self, commit: str) -> Path:
        """Where the files of a commit stand."""
        return self.storage / "snapshots" / commit


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _checked(revision: str) -> str:
    if revision and not _REVISION.fullmatch(revision):
        raise UserError(f"{revision!r} is no revision", next_step="Give a branch, a tag, or a commit of 40 digits.")
    return revision


def _resolve(repo: _Repo) -> str:
    """The commit a revision stands for: itself, or what the cache remembers, or what the hub says now."""
    if _COMMIT.fullmatch(repo.revision):
        return repo.revision
    reference = repo.storage / "refs" / (repo.revision or "main")
    with suppress(OSError):
        if _COMMIT.fullmatch(commit := reference.read_text().strip()):
            return commit
    info = _info(repo, repo.revision)
    _write(repo.storage / "trees-seekling" / f"{info.sha}.json", _told(info))
    _write(reference, str(info.sha))
    return str(info.sha)


def _listing(repo: _Repo, commit: str) -> dict[str, Listed]:
    """Every file of a commit. When the hub cannot be asked, what some other program left in the cache."""
    from huggingface_hub.errors import HTTPError

    file = repo.storage / "trees-seekling" / f"{commit}.json"
    with suppress(OSError, ValueError, TypeError):
        return {name: Listed(name, *facts) for name, facts in json.loads(file.read_text(encoding="utf-8")).items()}
    try:
        told = _told(_info(repo, commit))
    except (HTTPError, OSError) as error:
        snapshot = repo.snapshot(commit)
        if not snapshot.is_dir() or not _is_away(error):
            raise
        found = [path for path in sorted(snapshot.rglob("*")) if path.is_file()]
        return {(name := str(path.relative_to(snapshot))): Listed(name, path.stat().st_size) for path in found}
    _write(file, told)
    return {name: Listed(name, *facts) for name, facts in json.loads(told).items()}


def _info(repo: _Repo, revision: str) -> Any:
    from huggingface_hub import HfApi, constants

    return HfApi().repo_info(
        repo.id, repo_type=repo.kind, revision=revision or None,
        files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )  # fmt: skip


def _told(info: Any) -> str:
    """What the hub lists, as JSON: name to size and SHA-256. A name that leads out of the folder is not one."""
    plain = [file for file in info.siblings or () if not {"", ".", ".."} & set(file.rfilename.split("/"))]
    return json.dumps({file.rfilename: (file.size or 0, file.lfs.sha256 if file.lfs else "") for file in plain})


def _write(file: Path, text: str) -> None:
    """Write a note into the cache; a cache that cannot be written does without."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)


def _is_away(error: BaseException | None) -> bool:
    """Whether an error means that there was no hub to ask, rather than that the hub said no."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, HTTPError | OfflineModeIsEnabled)


# --- fetching ---------------------------------------------------------------------------------------------------------


def _fetch(repo: _Repo, commit: str, files: Sequence[Listed], watch: _Watch) -> Path:
    """Bring files of a commit into the cache. Returns the folder they stand in."""
    folder = repo.snapshot(commit)
    missing = [file for file in files if not (folder / file.name).is_file()]
    at = f"{repo.called} at {repo.revision or 'main'}" + ("" if repo.revision == commit else f", commit {commit[:12]}")
    if not missing:
        watch.tell(f"{at}: from the cache")
        return folder
    num_bytes = sum(file.num_bytes for file in missing)
    _require_room(repo, missing)
    watch.tell(f"{at}: fetching {len(missing)} of {len(files)} files, {_size(num_bytes)}")
    with _Meter(repo.called, num_bytes, watch) as meter, ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(_fetch_file, repo, commit, file, meter) for file in missing]
        try:
            while not _settled(tasks):
                meter.check()
        except BaseException:  # a failure, or someone asked to stop: whoever still works hears of it at its next piece
            meter.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return folder


def _settled(tasks: Sequence[Future[None]]) -> bool:
    """Whether all have finished, after a moment's wait. Raises what the first failure raised."""
    done, waiting = wait(tasks, timeout=0.2, return_when=FIRST_EXCEPTION)
    for task in done:
        task.result()
    return not waiting


def _fetch_file(repo: _Repo, commit: str, file: Listed, meter: _Meter) -> None:
    from huggingface_hub import constants

    meter.check()
    is_large = RESUMED_BYTES <= file.num_bytes <= constants.MAX_HTTP_DOWNLOAD_SIZE
    if is_large and file.digest:
        _fetch_blob(repo, commit, file, meter)
        _fetch_one(repo, commit, file.name)
    else:
        _fetch_one(repo, commit, file.name)
        meter.add(file.num_bytes)


def _fetch_one(repo: _Repo, commit: str, name: str) -> Path:
    """One file by the hub's own function, which begins a broken file anew, or links one that is there."""
    from huggingface_hub import hf_hub_download

    silent: Any = functools.partial(_bar, disable=True)
    return Path(hf_hub_download(repo.id, name, repo_type=repo.kind, revision=commit, tqdm_class=silent))


def _fetch_blob(repo: _Repo, commit: str, file: Listed, meter: _Meter) -> None:
    """A large file's content into the cache, going on from what an earlier command left; checked by its SHA-256.

    The hub's own function throws a partial file away, so this one keeps its own, under a name that says so. The address
    asked is the hub's, not the signed one it redirects to, which would have expired by the time of a retry.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = repo.storage / "blobs" / file.digest
    lock = _cache() / ".locks" / repo.storage.name / f"{file.digest}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    part: Any = functools.partial(_Part, meter)
    with WeakFileLock(lock):
        if blob.exists():
            return meter.add(file.num_bytes)
        partial = _partial(repo, file)
        with partial.open("ab") as handle:
            if (start := handle.tell()) > file.num_bytes:
                start = handle.truncate(0)
            http_get(
                hf_hub_url(repo.id, file.name, repo_type=repo.kind, revision=commit), handle,
                resume_size=start, headers=build_hf_headers(), expected_size=file.num_bytes, tqdm_class=part,
            )  # fmt: skip
        if sha256_of(partial) != file.digest:
            partial.unlink()
            raise UserError(f"{file.name} of {repo.called} was damaged on the way", next_step="Run the command again.")
        partial.replace(blob)


def _partial(repo: _Repo, file: Listed) -> Path:
    """Where a large file grows. The name is its content's, so nothing else can be continued by mistake."""
    return repo.storage / "blobs" / f"{file.digest}.seekling.incomplete"


def _bar(**how: Any) -> Any:
    from huggingface_hub import utils

    tqdm: Any = utils.tqdm
    return tqdm(**how)


class _Meter:
    """Bytes that have come, of all files together: drawn by whoever watches, else a bar, else a line now and then."""

    def __init__(self, name: str, num_bytes: int, watch: _Watch) -> None:
        self.stopped = threading.Event()
        hidden = True if watch.draw else None  # None: hidden where there is no terminal
        self._bar = _bar(total=num_bytes, unit="B", unit_scale=True, desc=name, disable=hidden, file=sys.stderr)
        self._name, self._of, self._watch = name, num_bytes, watch
        self._lock, self._done, self._fetched = threading.Lock(), 0, 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def check(self) -> None:
        """Raises InterruptedError when some other file failed, or a person asked to stop."""
        if self.stopped.is_set() or self._watch.stop_requested():
            raise InterruptedError

    def add(self, num_bytes: int, *, is_new: bool = True) -> None:
        """Count bytes; ``is_new`` when they came over the network just now."""
        self.check()
        with self._lock:
            self._done += num_bytes
            self._fetched += num_bytes if is_new else 0
            self._bar.update(num_bytes)
            if self._watch.draw:
                self._watch.draw(self._done, self._of)
            elif self._bar.disable:
                self._say(time.monotonic())

    def _say(self, now: float) -> None:
        if now - self._said >= SAYS_EVERY_S:
            self._said = now
            speed = _size(self._fetched / (now - self._began))
            self._watch.tell(f"{self._name}: {_size(self._done)} of {_size(self._of)}, {speed}/s")


class _Part:
    """What the transfer of one file reports to; the hub's functions take it for a progress bar."""

    def __init__(self, meter: _Meter, *, initial: int = 0, **_: object) -> None:
        self._meter = meter
        meter.add(initial, is_new=False)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, num_bytes: int) -> None:
        """Count a piece; a negative one was fetched in vain."""
        self._meter.add(num_bytes)


def _require_room(repo: _Repo, missing: Sequence[Listed]) -> None:
    """Raises UserError before the first byte when the disk cannot hold them all."""
    here = next(folder for folder in (_cache(), *_cache().parents) if folder.exists())
    begun = [partial for file in missing if (partial := _partial(repo, file)).exists()]
    wanted = sum(file.num_bytes for file in missing) - sum(partial.stat().st_size for partial in begun)
    free = shutil.disk_usage(here).free
    if wanted > free:
        raise UserError(
            f"{repo.called} needs {_size(wanted)} of disk, and {_size(free)} are free in {_cache()}", next_step=_ROOM
        )


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.{0 if unit == 'B' else 1}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


# --- letters ----------------------------------------------------------------------------------------------------------

_ROOM = "Free some space, or set HF_HOME to a folder on a larger disk. What was fetched is kept."
_AGAIN = "The same command goes on where this one stopped."


@contextmanager
def _letters(repo: _Repo) -> Iterator[None]:
    """Turn what the hub, the network and the disk say into letters. Never quotes a header: it may hold a token."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except InterruptedError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _letter(repo, error) from None


def _letter(repo: _Repo, error: Exception) -> UserError:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # says only that the cache has nothing; the cause says why
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(error, errors.GatedRepoError):
        return _gated(repo)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _no_repo(repo)
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(repo)
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repo, error.response.status_code)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UserError(
            f"{repo.called} is not whole in the cache ({_cache()}), and HF_HUB_OFFLINE forbids to ask the hub",
            next_step=f"Unset HF_HUB_OFFLINE once, or name a folder; {repo.id} is none here.",
        )
    if isinstance(error, OSError) and error.errno:
        return _disk(repo, error)
    return _unreachable(repo, error)


def _gated(repo: _Repo) -> UserError:
    from huggingface_hub import get_token

    step = "" if get_token() else " Then set HF_TOKEN, or log in once with `.venv/bin/hf auth login`."
    return UserError(
        f"{repo.called} is gated: its owner wants its terms accepted first",
        next_step=f"Accept them at {repo.page} (some owners answer by hand, later).{step}",
    )


def _no_repo(repo: _Repo) -> UserError:
    from huggingface_hub import get_token

    prefix = f"{repo.kind}s--"
    cached = [folder.name.removeprefix(prefix).replace("--", "/", 1) for folder in _cache().glob(f"{prefix}*")]
    near = get_close_matches(repo.id, cached, n=1, cutoff=0.8)
    hint = f"Did you mean {near[0]}? " if near and near[0] != repo.id else ""
    hidden = "that your token may not read" if get_token() else "without HF_TOKEN (or `.venv/bin/hf auth login`)"
    return UserError(
        f"the hub has no {repo.kind} {repo.id}, and there is no folder of that name here",
        next_step=f"{hint}Check the spelling, capitals too. A private repository {hidden} looks missing as well.",
    )


def _no_revision(repo: _Repo) -> UserError:
    from huggingface_hub import HfApi

    with suppress(Exception):  # a courtesy: without it the letter is shorter
        refs = HfApi().list_repo_refs(repo.id, repo_type=repo.kind)
        known = [ref.name for ref in (*refs.branches, *refs.tags)]
        shown = ", ".join(get_close_matches(repo.revision, known, n=3) or known[:8])
        return UserError(f"{repo.called} has no revision {repo.revision}", next_step=f"It has: {shown}")
    return UserError(f"{repo.called} has no revision {repo.revision}", next_step=f"See {repo.page}/commits")


def _refused(repo: _Repo, status: int) -> UserError:
    if status == 401:
        step = "Log in again with `.venv/bin/hf auth login`, or set HF_TOKEN anew (or unset it: most models need none)."
        return UserError(f"the hub does not accept your token (401) for {repo.called}", next_step=step)
    if status == 403:
        step = f"See {repo.page}; a fine-grained token must be given access to the repository."
        return UserError(f"the hub forbids access to {repo.called} (403)", next_step=step)
    if status == 404:
        return UserError(f"the hub no longer has a file of {repo.called} (404)", next_step=f"See {repo.page}/commits")
    if status == 429:
        step = f"Wait some minutes; with HF_TOKEN set, the limits are wider. {_AGAIN}"
        return UserError(f"the hub asks for fewer requests (429) while fetching {repo.called}", next_step=step)
    return UserError(f"the hub is in trouble ({status}) while asked for {repo.called}", next_step=f"Wait. {_AGAIN}")


def _unreachable(repo: _Repo, error: Exception) -> UserError:
    from huggingface_hub import constants

    said = (str(error).splitlines() or [""])[0][:120]
    return UserError(
        f"the hub did not answer, or broke off, while asked for {repo.called}",
        where=f"{constants.ENDPOINT} ({type(error).__name__}{f': {said}' if said else ''})",
        next_step=f"Check the network (HTTPS_PROXY, HF_ENDPOINT). {_AGAIN} Or name a folder; {repo.id} is none here.",
    )


def _disk(repo: _Repo, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"the disk became full while fetching {repo.called} into {_cache()}", next_step=_ROOM)
    return UserError(
        f"cannot write {error.filename or _cache()}: {error.strerror}",
        next_step="Set HF_HOME to a folder that is yours.",
    )
