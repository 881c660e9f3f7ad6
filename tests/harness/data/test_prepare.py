from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile

import pytest

from harness.data import datasets, prepare
from harness.data.config import DataConfig
from harness.data.datasets import Counts, Download, Form, load
from harness.data.readers import amazon_reviews, json_sequences, movielens_dat
from harness.errors import InputError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; breaks the connection after ``limit`` bytes of a body, as often as ``breaks`` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.limit, self.breaks = 0, 0
        self.requests: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        server: Server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: server.limit]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server():
    with Server() as server:
        server.files["/file.bin"] = CONTENT
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_appears_whole(server, tmp_path):
    seen = []
    target = tmp_path / "new" / "file.bin"
    prepare.download(
        f"{server.address}/file.bin", target, size=len(CONTENT), sha256=SHA, progress=lambda *args: seen.append(args)
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.limit, server.breaks = 300_000, 2
    prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", sha256=SHA)
    assert server.requests == [None, "bytes=300000-", "bytes=600000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_with_the_next_call(server, tmp_path):
    server.limit, server.breaks = 100_000, prepare.ATTEMPTS
    with pytest.raises(InputError, match=r"broke after 300,000 of 1,048,576 bytes.*goes on where it stopped") as caught:
        prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", sha256=SHA)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file.bin").exists()
    prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", sha256=SHA)
    assert server.requests[-1] == "bytes=300000-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.ranges = False
    (tmp_path / ".file.bin.part").write_bytes(b"something else")
    prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", sha256=SHA)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_complete_or_too_long(server, tmp_path, part):
    (tmp_path / ".file.bin.part").write_bytes(part)
    prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", sha256=SHA)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.requests) == (1 if part == CONTENT else 2)


@pytest.mark.parametrize(
    ("expected", "message"),
    [({"sha256": "0" * 64}, "has the SHA-256 .* instead of 000"), ({"size": 5}, "has 1,048,576 bytes instead of 5")],
)
def test_a_wrong_file_is_removed(server, tmp_path, expected, message):
    with pytest.raises(InputError, match=message):
        prepare.download(f"{server.address}/file.bin", tmp_path / "file.bin", **expected)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_address_is_said(server, tmp_path):
    with pytest.raises(InputError, match="the server says 404"):
        prepare.download(f"{server.address}/none", tmp_path / "none")
    assert len(server.requests) == 1


def test_being_offline_is_said(tmp_path):
    with Server() as server:
        address = server.address  # nobody answers there once the server is closed
    with pytest.raises(InputError, match=r"cannot download .*[Rr]efused.*check the connection.*--from") as caught:
        prepare.download(f"{address}/file.bin", tmp_path / "file.bin")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a part of the path is a file|in the way"):
        prepare.download(f"{server.address}/file.bin", tmp_path / "file" / "file.bin")


EVENTS = json.dumps({"1": [1, 2, 3], "2": [3, 1, 2]}).encode()
ITEMS = json.dumps({"1": {"title": "a"}, "2": {"title": "b"}, "3": {"title": "c"}}).encode()


@pytest.fixture
def toy(server, monkeypatch):
    """A data set of two files on the server, which counts one event more than it has."""
    server.files |= {"/toy.inter.json": EVENTS, "/toy.item.json": ITEMS}
    spec = datasets.DatasetSpec(
        name="toy",
        title="Toy",
        url="http://example.org",
        licence="none",
        citation="none",
        forms=(Form({"events": "toy.inter.json", "items": "toy.item.json"}, json_sequences, Counts(2, 3, 7)),),
        text_fields=("title",),
        downloads=(
            Download(f"{server.address}/toy.inter.json", len(EVENTS), hashlib.sha256(EVENTS).hexdigest()),
            Download(f"{server.address}/toy.item.json"),
        ),
    )
    monkeypatch.setitem(datasets.known(), "toy", spec)
    return spec


def test_preparing_downloads_counts_and_reports_differences(server, toy, tmp_path):
    prepared = prepare.prepare("toy", tmp_path)
    assert prepared.counts == Counts(2, 3, 6)
    assert prepared.differences == {"events": (7, 6)}
    assert prepared.files["toy.inter.json"] == hashlib.sha256(EVENTS).hexdigest()
    assert prepared.folder == tmp_path / "toy"
    assert load("toy", DataConfig(), tmp_path).item_table["title"].tolist() == ["a", "b", "c"]
    requests = len(server.requests)
    assert prepare.prepare("toy", tmp_path).counts == prepared.counts
    assert len(server.requests) == requests  # nothing is fetched twice


def test_a_download_that_stopped_between_two_files_goes_on(server, toy, tmp_path):
    items = server.files.pop("/toy.item.json")
    with pytest.raises(InputError, match="404"):
        prepare.prepare("toy", tmp_path)
    server.files["/toy.item.json"] = items
    assert set(prepare.prepare("toy", tmp_path).files) == {"toy.inter.json", "toy.item.json"}
    assert len(server.requests) == 3


def test_preparing_from_files_on_disk_copies_them(server, toy, tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    (source / "below").mkdir(parents=True)
    (source / "below" / "toy.inter.json").write_bytes(EVENTS)
    prepared = prepare.prepare("toy", root, source)
    assert prepared.counts == Counts(2, 3, 6)
    assert [path.name for path in (root / "toy").iterdir()] == ["toy.inter.json"]
    assert server.requests == []


def test_preparing_from_a_folder_without_them_is_refused(toy, tmp_path):
    with pytest.raises(InputError, match=f"data set 'toy' is not under {tmp_path}"):
        prepare.prepare("toy", tmp_path / "root", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        prepare.prepare("toy", tmp_path / "root", tmp_path / "none")


def test_an_archive_is_unpacked(server, toy, monkeypatch, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml/ratings.dat", "1::2::5::978300760\n")
    server.files["/ml.zip"] = buffer.getvalue()
    spec = datasets.DatasetSpec(
        **{**vars(toy), "forms": (Form({"events": "ratings.dat"}, movielens_dat),), "downloads": ()}
    )
    address = f"{server.address}/ml.zip"
    for members in (("ml/ratings.dat",), ("ml/none.dat",)):
        download = Download(address, members=members)
        monkeypatch.setitem(datasets.known(), "toy", datasets.DatasetSpec(**{**vars(spec), "downloads": (download,)}))
        if members == ("ml/ratings.dat",):
            assert prepare.prepare("toy", tmp_path / "good").counts == Counts(1, 1, 1)
        else:
            with pytest.raises(InputError, match=r"is not an archive with ml/none\.dat"):
                prepare.prepare("toy", tmp_path / "bad")


def test_raw_amazon_files_become_atomic_files(toy, monkeypatch, tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    with gzip.open(source / "reviews_X_5.json.gz", "wt") as file:
        for item, moment in (("b", 3), ("a", 1), ("c", 2)):
            row = {"reviewerID": "u", "asin": item, "overall": 5.0, "unixReviewTime": moment}
            file.write(json.dumps(row) + "\n")
    with gzip.open(source / "meta_X.json.gz", "wt") as file:
        file.write("{'asin': 'a', 'title': 'The\\tA'}\n")
    form = Form({"events": "reviews_X_5.json.gz", "items": "meta_X.json.gz"}, amazon_reviews)
    spec = datasets.DatasetSpec(**{**vars(toy), "forms": (form,), "downloads": (), "prepare_atomic": True})
    monkeypatch.setitem(datasets.known(), "toy", spec)
    raw = load("toy", DataConfig(), source)
    prepare.prepare("toy", root, source)
    prepared = load("toy", DataConfig(), root)
    assert set(prepared.files) == {"toy.inter", "toy.item"}
    assert prepared.fingerprint == raw.fingerprint
    assert prepared.item_table["title"].tolist() == ["", "The A", ""]
    assert prepare.prepare("toy", root).counts == Counts(1, 3, 3)


@pytest.mark.parametrize("name", ["amazon-beauty", "amazon-sports", "amazon-scientific"])
def test_real_files_are_prepared_with_the_published_counts(real_data, tmp_path, name):
    prepared = prepare.prepare(name, tmp_path, real_data)
    assert prepared.differences == {}
    assert prepared.counts == prepared.published
    log, again = load(name, DataConfig(), real_data), load(name, DataConfig(), tmp_path)
    assert log.fingerprint == again.fingerprint


def test_names_without_anything_to_prepare(tmp_path):
    with pytest.raises(InputError, match="did you mean 'ml-1m'"):
        prepare.prepare("ml-1mm", tmp_path)
    with pytest.raises(InputError, match="made when it is used"):
        prepare.prepare("synthetic-clusters", tmp_path)
    with pytest.raises(InputError, match=r"put retailrocket\.events\.tsv"):
        prepare.prepare("retailrocket", tmp_path)
