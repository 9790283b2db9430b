"""Stores: the same promises of a folder and of a bucket, and what only a folder has."""

import gc
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import make_bucket, start_moto

from dptmat.data.storage import LocalStore, Span, is_url, open_store
from dptmat.errors import UserError

CONTENT = bytes(range(256)) * 40
AWKWARD = (
    *("a b.jpg", "a+b.jpg", "a%20b.jpg", "a%b.jpg", "a&b=c.jpg", "what?.jpg", "#1.jpg", "it's (2) [x]{y}~.jpg"),
    *("Übergrößen/日本/é.jpg", "a;b,c@d:e.jpg", 'quote"s.jpg', "back\\slash.jpg", "a/a.jpg", "a-a.jpg", "a.a/x", "A"),
)


@pytest.fixture(scope="module")
def moto():
    pytest.importorskip("moto.server")
    server, url = start_moto()
    yield url
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path, monkeypatch):
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(tmp_path / "folder with blank")
    pytest.importorskip("obstore")
    url = request.getfixturevalue("moto")
    make_bucket(monkeypatch, url, "photos")
    return open_store(f"s3://photos/prefix with blank %20 ü+/{os.path.basename(tmp_path)}/")


def put(store, name, content=CONTENT):
    store.write(name, lambda file: file.write(content))


def test_a_file_is_read_byte_for_byte(store):
    put(store, "a/b.bin")
    assert store.read("a/b.bin") == CONTENT
    assert store.read("a/b.bin", 10_000) == CONTENT[10_000:]
    assert store.read("a/b.bin", 5, 0) == b""
    assert store.read("a/b.bin", len(CONTENT)) == b""
    for offset, length in ((0, 1), (255, 3), (len(CONTENT) - 1, 1), (0, len(CONTENT))):
        piece = store.read("a/b.bin", offset, length)
        assert type(piece) is bytes
        assert piece == CONTENT[offset : offset + length]
    assert store.size("a/b.bin") == len(CONTENT)


@pytest.mark.parametrize(("offset", "length"), [(len(CONTENT) - 5, 100), (len(CONTENT), 1), (10**9, 10)])
def test_a_range_beyond_the_end_is_an_error(store, offset, length):
    put(store, "a.bin")
    with pytest.raises(OSError, match="was cut short"):
        store.read("a.bin", offset, length)
    (found,) = store.read_many([Span("a.bin", offset, length)])
    assert isinstance(found, OSError)
    assert "was cut short" in str(found)


def test_a_file_that_is_missing_is_named(store):
    for ask in (store.read, store.size, lambda name: store.read(name, 5, 5)):
        with pytest.raises(FileNotFoundError, match="none.jpg"):
            ask("none.jpg")


def test_many_are_read_in_the_order_asked_for_and_fail_alone(store):
    for name in ("one", "two"):
        put(store, name, CONTENT + name.encode())
    spans = [Span(name, start, 700) for start in range(0, len(CONTENT), 997) for name in ("two", "one")]
    spans[5:5] = [Span("none", 0, 7), Span("one", len(CONTENT), 100), Span("one", 3, 0), *spans[:2]]
    found = store.read_many(spans)
    assert isinstance(found[5], FileNotFoundError)
    assert "was cut short" in str(found[6])
    contents = {"one": CONTENT + b"one", "two": CONTENT + b"two"}
    for i, span in enumerate(spans):
        if i not in (5, 6):
            whole = contents[span.name][span.offset : span.offset + span.length]
            assert found[i] == (whole if len(whole) == span.length else found[i])
            assert isinstance(found[i], bytes) == (len(whole) == span.length)
    assert store.read_many([]) == []


def test_awkward_names_come_back_as_they_were_in_the_order_of_their_bytes(store):
    assert list(store.names()) == []
    for i, name in enumerate(AWKWARD):
        put(store, name, b"x" * i)
    assert list(store.names()) == sorted(
        ((name, i) for i, name in enumerate(AWKWARD)), key=lambda pair: os.fsencode(pair[0])
    )
    for i, name in enumerate(AWKWARD):
        assert store.read(name) == b"x" * i
        store.delete(name)
    assert list(store.names()) == []


def test_what_fails_on_the_way_leaves_the_old_file(store):
    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write("a/new", fail)
    assert list(store.names()) == []
    put(store, "a/old")
    with pytest.raises(ZeroDivisionError):
        store.write("a/old", fail)
    assert list(store.names()) == [("a/old", len(CONTENT))]
    assert store.read("a/old") == CONTENT
    put(store, "a/old", b"new")
    assert store.read("a/old") == b"new"


def test_a_file_that_is_there_is_not_replaced_unless_asked(store):
    store.write("a", lambda file: file.write(b"first"), replace=False)
    with pytest.raises(FileExistsError, match="a"):
        store.write("a", lambda file: file.write(b"second"), replace=False)
    assert store.read("a") == b"first"
    assert list(store.names()) == [("a", 5)]  # no temporary file


def test_one_of_many_writers_makes_the_file(store):
    def write(i):
        try:
            store.write("marker", lambda file: file.write(b"%d" % i), replace=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(8)))
    if isinstance(store, LocalStore):  # moto looks, and then writes
        assert sum(made) == 1
        assert store.read("marker") == b"%d" % made.index(True)
    assert [name for name, _ in store.names()] == ["marker"]


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete("none")
    put(store, "a/b")
    store.delete("a/b")
    store.delete("a/b")
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


def test_a_store_goes_to_another_process(store):
    put(store, "a")
    again = pickle.loads(pickle.dumps(store))
    assert (again.url, again.remote) == (store.url, store.remote)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(store.read, ("a", 5, 20)) == CONTENT[5:25]


def test_many_threads_read_at_once(store):
    names = [f"{i:04}" for i in range(40)]
    for name in names:
        put(store, name, name.encode() * 100)

    def read(name):
        return store.read(name, 4, 8) == store.read_many([Span(name, 40, 8)])[0] == name.encode() * 2

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, names * 2))


def test_a_large_file_is_sent_in_parts(moto, monkeypatch):
    import boto3

    from dptmat.data import object_store

    make_bucket(monkeypatch, moto, "large")
    monkeypatch.setattr(object_store, "_PART", 5 << 20)
    store, content = open_store("s3://large"), os.urandom(12 << 20)
    put(store, "big", content)
    assert store.read("big", 1 << 20, 9 << 20) == content[1 << 20 : 10 << 20]
    assert boto3.client("s3").head_object(Bucket="large", Key="big")["ETag"].strip('"').endswith("-3")
    with pytest.raises(FileExistsError):
        store.write("big", lambda file: file.write(content), replace=False)


def open_files(folder):
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(link) and os.readlink(link).startswith(str(folder)) for link in links)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors by /proc")
def test_a_folder_keeps_few_files_open_and_closes_them(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}").write_bytes(b"12345")
    store = LocalStore(tmp_path)
    assert store.read_many([Span(f"{i}", 1, 2) for i in range(300)]) == [b"23"] * 300
    assert 0 < open_files(tmp_path) <= 200
    store.close()
    assert open_files(tmp_path) == 0
    assert store.read("7") == b"12345"
    del store
    gc.collect()
    assert open_files(tmp_path) == 0


def test_a_file_that_was_replaced_is_not_mixed_with_the_old_one(tmp_path):
    old, new = b"o" * 4096, b"n" * 4096
    (tmp_path / "a").write_bytes(old)
    store = LocalStore(tmp_path)
    head = store.read("a", 0, 100)
    (tmp_path / "b").write_bytes(new)
    os.replace(tmp_path / "b", tmp_path / "a")
    assert head + store.read("a", 100, 3996) in (old, new)
    put(store, "a", b"own")
    assert store.read("a") == b"own"


def test_a_range_is_read_while_other_threads_push_its_file_out(tmp_path):
    for i in range(400):
        (tmp_path / f"{i}").write_bytes(f"{i:05}".encode() * 2000)
    store, wrong, end = LocalStore(tmp_path), [], threading.Event()

    def read(seed):
        i = seed
        while not end.is_set():
            i = (i * 7 + 3) % 400
            if store.read(f"{i}", 5, 9000) != f"{i:05}".encode() * 1800:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    end.wait(0.5)
    end.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_follow_links_but_not_in_circles(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "x").write_bytes(b"1")
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "up").symlink_to(tmp_path / "circle")
    (tmp_path / "circle" / "y").write_bytes(b"12")
    (tmp_path / "circle" / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert list(LocalStore(tmp_path).names()) == [("circle/link/x", 1), ("circle/y", 2), ("real/deep/x", 1)]


def test_names_leave_out_what_goes_meanwhile(tmp_path):
    for name in ("a", "b", "c/d", "e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    names = LocalStore(tmp_path).names()
    assert next(names) == ("a", 1)
    (tmp_path / "b").unlink()
    shutil.rmtree(tmp_path / "c")
    assert list(names) == [("e", 1)]


def test_a_file_in_the_place_of_a_folder_is_not_taken_for_the_file_itself(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(NotADirectoryError, match="'.*/a'"):
        LocalStore(tmp_path).write("a/b", lambda file: None, replace=False)


def test_names_need_not_be_text(tmp_path):
    name = os.fsdecode(b"\xff\xfe.jpg")
    (tmp_path / name).write_bytes(b"1")
    store = LocalStore(tmp_path)
    assert list(store.names()) == [(name, 1)]
    assert store.read(name) == b"1"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OSError, match="'.*/a'"):
        LocalStore(tmp_path).read("a", 0, 5)


def test_a_folder_is_given_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("x/").url == open_store(Path("x")).url == str(tmp_path / "x")
    assert not open_store("x").remote


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"{scheme}://x/y", True) for scheme in ("s3", "gs", "az", "abfss", "https", "ftp", "S3")),
        *((text, False) for text in ("/a/b", "a", "C:/a", "C:\\a", "a/s3://b", "s3:/a", "", "list.txt", "://a")),
    ],
)
def test_an_address_is_told_from_a_path(text, expected):
    assert is_url(text) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ftp://host/x", r"`data` .* ftp://; give a path, or one of s3://.*gs://"),
        ("file:///x", r"`data` .* file://; give a path"),
        (Path("s3://bucket/x"), r"`data` begins with s3:/; .* no Path"),
        ("", r"`data` is empty; give the path of a folder"),
        (__file__, r"`data` .*test_storage.py is no folder; point it at the folder"),
    ],
)
def test_what_is_no_store_is_refused_in_a_line(given, message):
    with pytest.raises(UserError, match=message) as raised:
        open_store(given)
    assert "\n" not in str(raised.value)


def test_without_the_extra_it_is_named():
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from dptmat.data.storage import open_store\n"
        "open_store('s3://bucket/x', 'out')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith(
        "`out` is a s3:// address, which needs the package obstore; install it: pip install 'dptmat[remote]'"
    )
