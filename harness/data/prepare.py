"""Bringing a data set into the data root: from its public address, or from files that are already on disk."""

from __future__ import annotations

import email.message
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.data.atomic import write_atomic_log
from harness.data.datasets import Counts, DatasetSpec, Form, count, find_files, known, read_files
from harness.data.synthetic import SYNTHETIC
from harness.errors import InputError, nearest
from harness.files import file_digest, whole_file, writing

__all__ = ["Prepared", "Progress", "download", "prepare"]

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there and the bytes in all, where known."""

CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT = 30
PARTIAL, NOTHING_LEFT = 206, 416


@dataclass(frozen=True)
class Prepared:
    """What lies in the data root now."""

    name: str
    folder: Path
    files: dict[str, str]
    """File name -> SHA-256."""
    counts: Counts
    """Before anything is dropped."""
    published: Counts | None
    differences: dict[str, tuple[int, int]]
    """Count -> (published, found); empty where all agree."""
    notes: tuple[str, ...]


def prepare(name: str, root: Path, source: Path | None = None, progress: Progress | None = None) -> Prepared:
    """Puts data set ``name`` into ``root/NAME`` and counts it.

    With ``source`` its files are copied from that folder (or from one a level below), or out of the archive that its
    publishers offer. Without, what lies under ``root`` already is counted, and else it is downloaded; an interrupted
    download goes on where it stopped.

    Raises:
        InputError: an unknown name, files that are not there, a download that failed or has the wrong checksum.
    """
    if name not in known():
        if name.partition(":")[0] in SYNTHETIC:
            raise InputError(f"data set '{name}' is made when it is used; there is nothing to prepare")
        raise InputError(f"unknown data set '{name}'; {nearest(name, known())}")
    spec = known()[name]
    form, files = _obtain(spec, root, source, progress)
    raw = read_files(spec, form, files)
    if spec.prepare_atomic and form in spec.forms and form.files["events"].endswith(".json.gz"):
        write_atomic_log(raw, root / spec.folder / f"{spec.folder}.inter")
    counts = count(raw)
    return Prepared(
        name=name,
        folder=files["events"].parent,
        files=raw.files,
        counts=counts,
        published=form.published,
        differences=form.published.differences(counts) if form.published else {},
        notes=raw.notes,
    )


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetches ``url`` into ``target``, which appears only once it is whole.

    What has arrived is kept beside it, and the next attempt or call asks for the rest only.

    Raises:
        InputError: the server can't be reached or refuses, the connection broke too often, or the file has
            another size or checksum than it should (it is then removed).
    """
    part = target.with_name(f".{target.name}.part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(url, part, target.name, progress)
                break
            except urllib.error.HTTPError as error:
                raise InputError(
                    f"cannot download {url}: the server says {error.code} {error.reason}{_BY_HAND}"
                ) from None
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                if attempt == ATTEMPTS:
                    reason = getattr(error, "reason", None) or error
                    raise InputError(
                        f"cannot download {url}: {reason}; check the connection and repeat the command, which goes on "
                        f"where it stopped{_BY_HAND}"
                    ) from None
        problem = _problem(part, size, sha256, md5)
        if problem:
            part.unlink()
            raise InputError(f"the download of {url} has {problem} and was removed; repeat the command{_BY_HAND}")
        part.replace(target)


_BY_HAND = "; or fetch the file by other means and name its folder with --from"


def _fetch(url: str, part: Path, name: str, progress: Progress | None) -> None:
    """One attempt to complete ``part``."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == NOTHING_LEFT and _total(error.headers) == there:
            return
        if error.code == NOTHING_LEFT and there:
            # What is there belongs to another version of the file: begin anew.
            part.unlink()
            return _fetch(url, part, name, progress)
        raise
    with response:
        if response.status != PARTIAL:
            there = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        with open(part, "ab" if there else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                there += len(chunk)
                if progress:
                    progress(name, there, total)
    if total is not None and there < total:
        raise ConnectionError(f"the connection broke after {there:,} of {total:,} bytes")
    return None


def _total(headers: email.message.Message) -> int | None:
    """The size of the whole file that a Content-Range header names, as in ``bytes */1234``."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _problem(file: Path, size: int | None, sha256: str | None, md5: str | None) -> str | None:
    """What tells ``file`` from what was published."""
    found = file.stat().st_size
    if size is not None and found != size:
        return f"{found:,} bytes instead of {size:,}"
    if sha256 is not None and (digest := file_digest(file)) != sha256:
        return f"the SHA-256 {digest} instead of {sha256}"
    if md5 is not None:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "md5").hexdigest()
        if digest != md5:
            return f"the MD5 {digest} instead of {md5}"
    return None


def _obtain(
    spec: DatasetSpec, root: Path, source: Path | None, progress: Progress | None
) -> tuple[Form, dict[str, Path]]:
    folder = root / spec.folder
    if source is not None:
        return _take(spec, root, source)
    try:
        form, files = find_files(spec, root)
        # A download may have been stopped between two files.
        if len(files) == len(form.files) or files["events"].parent != folder:
            return form, files
    except InputError:
        if not spec.downloads:
            raise
    for item in spec.downloads:
        target = folder / item.file
        if not target.exists():
            download(item.url, target, size=item.size, sha256=item.sha256, md5=item.md5, progress=progress)
        _unpack(target, item.members, folder)
    return find_files(spec, root)


def _take(spec: DatasetSpec, root: Path, source: Path) -> tuple[Form, dict[str, Path]]:
    """Copies what is on disk already: a folder of files, or the publishers' archive."""
    folder = root / spec.folder
    archive = next((item for item in spec.downloads if item.members and item.file == source.name), None)
    if source.is_file() and archive is not None:
        problem = _problem(source, archive.size, archive.sha256, archive.md5)
        if problem:
            raise InputError(f"{source} has {problem}; fetch it again from {archive.url}")
        _unpack(source, archive.members, folder)
        return find_files(spec, root)
    if not source.is_dir():
        names = " or ".join(item.file for item in spec.downloads if item.members)
        raise InputError(
            f"{source} is not a folder; name the one that holds the files of '{spec.name}' with --from"
            + (f", or its archive {names}" if names else "")
        )
    form, files = find_files(spec, source, given=True)
    copies = {part: folder / path.name for part, path in files.items()}
    for part, path in files.items():
        if path.resolve() != copies[part].resolve():
            with whole_file(copies[part]) as aside:
                shutil.copyfile(path, aside)
    return form, copies


def _unpack(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Takes ``members`` out of a zip or tar archive."""
    if not members:
        return
    try:
        zipped = zipfile.is_zipfile(archive)
        with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as opened:
            for member in members:
                inside = opened.open(member) if isinstance(opened, zipfile.ZipFile) else opened.extractfile(member)
                if inside is None:
                    raise KeyError(f"{member} is not a file")
                with inside, whole_file(folder / Path(member).name) as aside, open(aside, "wb") as file:
                    shutil.copyfileobj(inside, file, CHUNK)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, KeyError) as error:
        raise InputError(
            f"{archive} is not an archive with {', '.join(members)} ({error}); delete it and repeat"
        ) from None
