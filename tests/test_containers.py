"""Where images lie in tars, Parquet and TFRecord files: against the programs that write and read them."""

import bz2
import gzip
import io
import logging
import lzma
import random
import struct
import subprocess
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dptmat.data.containers import find_images, is_container, read_images
from dptmat.data.storage import LocalStore, open_store
from dptmat.data.stored_file import StoredFile
from dptmat.errors import UserError


class CountingStore(LocalStore):
    """A folder that counts what is asked of it; ``remote`` is what it is told."""

    def __init__(self, folder, *, remote=False):
        super().__init__(folder)
        self.remote = remote
        self.requests = []  # (offset, length) of each

    def read(self, name, offset=0, length=None):
        content = super().read(name, offset, length)
        self.requests.append((offset, len(content)))
        return content


def encoded(seed, side=24, form="JPEG"):
    """An image file of noise: content that is like no other."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


NAMES = [
    "train/n01440764/a.JPEG", "b.png", "with spaces and ünïcode/d é.jpg", "l" * 90 + "/" + "n" * 150 + ".jpg",
    "deep/" * 60 + "e.webp", "n" * 251 + ".jpg", "../up.jpg", "/root.jpg", "no-bytes.jpg",
]  # fmt: skip
IMAGES = {name: encoded(k, 8 + 3 * k, "PNG" if name.endswith("png") else "JPEG") for k, name in enumerate(NAMES)}
IMAGES["no-bytes.jpg"] = b""


def write_tar(path, members, form=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5  # which pax writes as a record
            tar.addfile(member, io.BytesIO(content))


def found(path, **kwargs):
    """The images that are found in a file, with their contents by the ranges and by `read_images`: one and the same."""
    others = Counter()
    content = path.read_bytes()
    by_range = [
        (k, content[at : at + n]) for k, at, n in find_images(CountingStore(path.parent, **kwargs), path.name, others)
    ]
    assert list(read_images(CountingStore(path.parent, **kwargs), path.name)) == by_range
    return by_range, others


def refusal(path):
    with pytest.raises(UserError) as error:
        list(find_images(CountingStore(path.parent), path.name))
    message = str(error.value)
    assert path.name in message
    assert len(message.splitlines()) == 1
    return message


# --- tar


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_python(tmp_path, form, remote):
    write_tar(tmp_path / "a.tar", {**IMAGES, "a.json": b"{}", "a.cls": b"7"}, form)
    by_range, others = found(tmp_path / "a.tar", remote=remote)
    assert by_range == list(IMAGES.items())
    assert others == {".json": 1, ".cls": 1}


def test_ustar_with_a_prefix(tmp_path):
    members = {"p" * 120 + "/" + "n" * 90 + ".jpg": encoded(1), "b.jpg": encoded(2)}
    write_tar(tmp_path / "a.tar", members, tarfile.USTAR_FORMAT)
    assert found(tmp_path / "a.tar")[0] == list(members.items())


def test_tars_from_before_there_were_magic_words(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.jpg": encoded(1)}, tarfile.USTAR_FORMAT)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[257:265] = bytes(8)
    content[148:156] = b"%06o\0 " % sum(content[:148] + b" " * 8 + content[156:512])
    (tmp_path / "a.tar").write_bytes(content)
    assert found(tmp_path / "a.tar")[0] == [("a.jpg", encoded(1))]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_tars_of_gnu_tar(tmp_path, form):
    if "GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("tar is another one here")
    root = tmp_path / "root"
    names = ["x/a.JPG", "x/ü ü.png", "b.jpg"] + ([] if form in ("v7", "ustar") else ["y/" * 70 + "c.jpg"])
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(k))
    (root / "._b.jpg").write_bytes(b"litter")
    (root / "b.txt").write_text("a caption")
    (root / "link.jpg").symlink_to("b.jpg")
    (root / "twin.jpg").hardlink_to(root / "b.jpg")
    subprocess.run(["tar", f"--format={form}", "--sort=name", "-cf", tmp_path / "a.tar", "-C", root, "."], check=True)
    by_range, others = found(tmp_path / "a.tar")
    assert by_range == [
        (f"./{name}", encoded(names.index(name))) for name in ["b.jpg", *sorted(set(names) - {"b.jpg"})]
    ]
    assert others == {".txt": 1, "links": 2, "names that begin with a dot": 1}


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"])
def test_sparse_members_are_left_out(tmp_path, form):
    for name in ("hole.jpg", "more.jpg"):
        with open(tmp_path / name, "wb") as file:
            for k in range(40 if name == "more.jpg" else 2):  # more parts than a header has room for
                file.seek(k << 17)
                file.write(b"\xff" * 4096)
            file.truncate(50 << 17)
    (tmp_path / "z.jpg").write_bytes(encoded(1))
    words = ["tar", "-S", *f"--format={form}".split(), "-cf", "a.tar", "hole.jpg", "more.jpg", "z.jpg"]
    subprocess.run(words, cwd=tmp_path, check=True)
    if (tmp_path / "a.tar").stat().st_size > 2 << 20:
        pytest.skip("this file system has no holes")
    assert found(tmp_path / "a.tar") == ([("z.jpg", encoded(1))], {"sparse files": 2})


def test_a_size_beyond_eight_gigabytes_is_read(tmp_path):
    huge = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("film.bin")
        member.size = huge
        with open(tmp_path / "a.tar", "wb") as file:
            file.write(member.tobuf(form))
            file.seek(huge, 1)  # a hole
            last = tarfile.TarInfo("a.jpg")
            last.size = 3
            file.write(last.tobuf(form) + b"jpg".ljust(512, b"\0") + bytes(1024))
        (image,) = find_images(CountingStore(tmp_path), "a.tar")
        assert image.offset > huge
        assert CountingStore(tmp_path).read("a.tar", image.offset, image.length) == b"jpg"


def test_a_tar_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    images = [encoded(k) for k in range(5)]
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:
        for k, image in enumerate(images):
            writer.write({"__key__": f"{k:06d}", "jpg": image, "json": b"{}"})
    by_range, others = found(tmp_path / "a.tar")
    assert by_range == [(f"{k:06d}.jpg", image) for k, image in enumerate(images)]
    assert others == {".json": 5}
    theirs = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False)
    assert [(sample["__key__"] + ".jpg", sample["jpg"]) for sample in theirs] == by_range


def test_a_tar_without_members_has_no_images(tmp_path):
    tarfile.open(tmp_path / "a.tar", "w").close()
    assert found(tmp_path / "a.tar") == ([], {})


def test_of_a_local_tar_the_headers_alone_are_read(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{k}.png": encoded(k, 200, "PNG") for k in range(20)})
    store = CountingStore(tmp_path)
    assert len(list(find_images(store, "a.tar"))) == 20
    assert sum(length for _, length in store.requests) < 0.1 * store.size("a.tar")


def test_a_remote_tar_is_read_once_by_few_requests(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{k}.png": bytes([k]) * 100_000 for k in range(200)})
    store = CountingStore(tmp_path, remote=True)
    assert len(list(read_images(store, "a.tar"))) == 200
    assert len(store.requests) == 3  # of 8 MB
    assert sum(length for _, length in store.requests) == store.size("a.tar")
    assert len(set(store.requests)) == len(store.requests)


def test_a_tar_cut_short_says_where(tmp_path):
    write_tar(tmp_path / "whole.tar", {"a.jpg": encoded(1), "b.jpg": encoded(2)})
    whole = (tmp_path / "whole.tar").read_bytes()
    (first, second) = find_images(CountingStore(tmp_path), "whole.tar")
    for end in (second.offset - 100, second.offset + 5, first.offset + 5):
        (tmp_path / "a.tar").write_bytes(whole[:end])
        assert "cut short at byte" in refusal(tmp_path / "a.tar")


def test_a_tar_that_ends_between_members_is_told(tmp_path, caplog):
    write_tar(tmp_path / "whole.tar", {"a.jpg": encoded(1), "b.jpg": encoded(2)})
    second = list(find_images(CountingStore(tmp_path), "whole.tar"))[1]
    (tmp_path / "a.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[: second.offset - 512])
    assert found(tmp_path / "a.tar")[0] == [("a.jpg", encoded(1))]
    assert "may have been cut short" in caplog.text


def test_tars_joined_by_cat_are_told(tmp_path, caplog):
    write_tar(tmp_path / "one.tar", {"a.jpg": encoded(1)})
    (tmp_path / "a.tar").write_bytes((tmp_path / "one.tar").read_bytes() * 2)
    assert len(found(tmp_path / "a.tar")[0]) == 1
    assert "what follows is left out" in caplog.text


def test_a_damaged_header_is_no_end(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.jpg": encoded(1), "b.jpg": encoded(2)})
    second = list(find_images(CountingStore(tmp_path), "a.tar"))[1]
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[second.offset - 512] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    assert "no header of a tar" in refusal(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["a.jpg"]  # which is why tarfile does not do


# --- Parquet


def write_parquet(path, values, **kwargs):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [
        value if value is None or isinstance(value, dict) else {"bytes": value[1], "path": value[0]} for value in values
    ]
    table = pyarrow.table({"image": pyarrow.array(rows, kind), "label": list(range(len(rows)))})
    options = {"compression": "none", "use_dictionary": False, **kwargs}
    parquet.write_table(table, path, **options)


PHOTOGRAPHS = [(f"n/{k}.png", encoded(k, 10 + 7 * k, "PNG")) for k in range(40)]
LAYOUTS = {
    "one page": {},
    "row groups": {"row_group_size": 7},
    "small pages": {"data_page_size": 1000, "write_batch_size": 1},
    "new pages": {"data_page_size": 20_000, "write_batch_size": 3, "data_page_version": "2.0"},
    "new small pages in row groups": {"data_page_size": 1, "row_group_size": 11, "data_page_version": "2.0"},
    "no statistics": {"write_statistics": False, "row_group_size": 20},
    "checksums and indices": {"write_page_checksum": True, "write_page_index": True},
    "other columns compressed": {"compression": {"image.bytes": "none", "image.path": "snappy", "label": "gzip"}},
    "paths in a dictionary": {"use_dictionary": ["image.path", "label"]},
}


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parquet_as_hugging_face_writes_it(tmp_path, layout, remote):
    write_parquet(tmp_path / "a.parquet", PHOTOGRAPHS, **LAYOUTS[layout])
    assert found(tmp_path / "a.parquet", remote=remote) == (PHOTOGRAPHS, {})


def test_rows_without_an_image_are_counted(tmp_path):
    rows = [None, PHOTOGRAPHS[0], {"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": "b"}, PHOTOGRAPHS[1]]
    rows += [{"bytes": b"GIF89a", "path": None}, {"bytes": PHOTOGRAPHS[2][1], "path": None}, PHOTOGRAPHS[1]]
    for layout in LAYOUTS.values():
        write_parquet(tmp_path / "a.parquet", rows, **layout)
        by_range, others = found(tmp_path / "a.parquet")
        assert by_range == [*PHOTOGRAPHS[:2], ("6", PHOTOGRAPHS[2][1]), PHOTOGRAPHS[1]]
        assert others == {"rows without bytes": 2, "empty": 1, "a GIF file": 1}


def test_large_images_in_parquet(tmp_path):
    rows = [(str(k), encoded(k, side, "BMP")) for k, side in enumerate((700, 10, 900, 650))]
    for layout in LAYOUTS.values():
        write_parquet(tmp_path / "a.parquet", rows, **layout)
        assert found(tmp_path / "a.parquet")[0] == rows


def test_equal_images_have_ranges_of_their_own(tmp_path):
    write_parquet(tmp_path / "a.parquet", [PHOTOGRAPHS[0]] * 9, data_page_size=1000, write_batch_size=2)
    places = [image.offset for image in find_images(CountingStore(tmp_path), "a.parquet")]
    assert np.all(np.diff(places) >= len(PHOTOGRAPHS[0][1]))


@pytest.mark.parametrize("size", ["binary", "large_binary"])
def test_a_column_of_bytes_alone(tmp_path, size):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"jpg": pyarrow.array([c for _, c in PHOTOGRAPHS], getattr(pyarrow, size)()), "embedding": [b"\0"] * 40}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    assert found(tmp_path / "a.parquet")[0] == [(str(k), content) for k, (_, content) in enumerate(PHOTOGRAPHS)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"compression": "snappy"}, "SNAPPY"),
        ({"compression": "zstd", "row_group_size": 9}, "ZSTD"),
        ({"use_dictionary": True}, "DICTIONARY"),
        ({"column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}}, "DELTA_LENGTH_BYTE_ARRAY"),
        ({"column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"}}, "DELTA_BYTE_ARRAY"),
    ],
)
def test_other_columns_are_refused_and_yet_read_for_packing(tmp_path, options, word):
    write_parquet(tmp_path / "a.parquet", PHOTOGRAPHS, **options)
    message = refusal(tmp_path / "a.parquet")
    assert word in message
    assert "dptmat pack --no-reencode" in message
    assert list(read_images(CountingStore(tmp_path), "a.parquet")) == PHOTOGRAPHS


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"url": ["http://a"], "caption": ["a"]}, "no column of encoded images: url string, caption string"),
        ({"jpg": [b"a"], "png": [b"b"]}, "several columns of bytes: jpg, png"),
        ({"one": [b"a"], "two": [b"b"], "label": [1]}, "several columns of bytes: one, two"),
        ({"image": [b"raw pixels"]}, "column image holds no encoded image: the last value is text"),
    ],
)
def test_parquet_without_one_column_of_images(tmp_path, columns, words):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    assert words in refusal(tmp_path / "a.parquet")


def test_a_remote_parquet_is_read_about_once(tmp_path):
    rows = [(f"{k}.bmp", encoded(k, 800, "BMP")) for k in range(30)]  # 58 MB
    write_parquet(tmp_path / "a.parquet", rows, row_group_size=15)
    store = CountingStore(tmp_path, remote=True)
    assert len(list(find_images(store, "a.parquet"))) == 30
    assert sum(length for _, length in store.requests) < 1.02 * store.size("a.parquet")
    assert len(store.requests) < 20


def test_an_error_of_the_store_stays_what_it_is(tmp_path):
    class Away(OSError):
        pass

    class Store(CountingStore):
        def read(self, name, offset=0, length=None):
            if len(self.requests) == self.most:
                raise Away("the store is away")
            return super().read(name, offset, length)

    write_parquet(tmp_path / "a.parquet", PHOTOGRAPHS, row_group_size=7)
    store = CountingStore(tmp_path)
    list(find_images(store, "a.parquet"))
    away = Store(tmp_path)
    for away.most in range(len(store.requests)):
        away.requests.clear()
        with pytest.raises(Away):
            list(find_images(away, "a.parquet"))


def test_an_old_pyarrow_is_named_and_not_the_file_blamed(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", PHOTOGRAPHS)
    monkeypatch.setattr(pyarrow, "__version__", "18.1.0")
    assert "pyarrow 18.1.0 is too old" in refusal(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'dptmat[parquet]'" in refusal(tmp_path / "a.parquet")


# --- TFRecord


def field(number, content):
    """A field of bytes in the wire format of protocol buffers."""
    length, digits = len(content), b""
    while length > 127:
        digits, length = digits + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + digits + bytes([length]) + content


def example(**features):
    """A tf.train.Example of features of bytes or of one integer below 128."""
    entries = b""
    for name, value in features.items():
        feature = field(3, field(1, bytes([value]))) if isinstance(value, int) else field(1, field(1, value))
        entries += field(1, field(1, name.replace("__", "/").encode()) + field(2, feature))
    return field(1, entries)


def masked_crc(data):
    """CRC-32C bit by bit, turned and moved as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def record(content):
    head = struct.pack("<Q", len(content))
    return head + struct.pack("<I", masked_crc(head)) + content + struct.pack("<I", 0)


def test_the_checksum_is_the_published_one():
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32  # RFC 3720's CRC


@pytest.mark.parametrize("remote", [False, True])
def test_tfrecords_like_those_of_imagenet(tmp_path, remote):
    named = [
        example(image__height=7, image__encoded=content, image__filename=name.encode(), image__format=b"PNG")
        for name, content in PHOTOGRAPHS
    ]
    (tmp_path / "train-00000-of-01024").write_bytes(b"".join(map(record, named)))
    assert found(tmp_path / "train-00000-of-01024", remote=remote) == (PHOTOGRAPHS, {})


@pytest.mark.parametrize("name", ["image", "image_raw", "jpeg", "whatever"])
def test_tfrecords_with_another_feature(tmp_path, name):
    content = [example(thumbs=b"\0" * 30, label=3, **{name: image}) for _, image in PHOTOGRAPHS]
    (tmp_path / "a.tfrecord").write_bytes(b"".join(map(record, [*content, example(label=3)])))
    by_range, others = found(tmp_path / "a.tfrecord")
    assert by_range == [(str(k), image) for k, (_, image) in enumerate(PHOTOGRAPHS)]
    assert others == {"records without an image": 1}


def test_the_usual_feature_comes_before_another_image(tmp_path):
    both = example(a_mask=encoded(1), image__encoded=encoded(2), z_mask=encoded(3))
    (tmp_path / "a.tfrecord").write_bytes(record(both))
    assert found(tmp_path / "a.tfrecord")[0] == [("0", encoded(2))]


def test_tfrecords_without_images(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(record(example(image_raw=bytes(3072), label=3)) * 2)
    assert "no encoded image (features of bytes: image_raw)" in refusal(tmp_path / "a.tfrecord")


def test_a_field_beyond_its_record_is_refused(tmp_path):
    content = bytearray(example(image=encoded(1)))
    at = content.index(encoded(1)) - 2  # of its length, two bytes
    length = content[at] & 127 | content[at + 1] << 7
    content[at : at + 2] = bytes([(length + 100) & 127 | 128, (length + 100) >> 7])
    (tmp_path / "a.tfrecord").write_bytes(record(bytes(content)) + record(example(image=encoded(2))))
    assert "a field has" in refusal(tmp_path / "a.tfrecord")


# --- an object store


def test_images_are_found_in_an_object_store(tmp_path):
    pytest.importorskip("obstore")
    from stores import FaultyServer

    server = FaultyServer()
    write_tar(tmp_path / "a.tar", IMAGES)
    write_parquet(tmp_path / "b.parquet", PHOTOGRAPHS, row_group_size=9)
    server.objects = {f"bucket/{name}": (tmp_path / name).read_bytes() for name in ("a.tar", "b.parquet")}
    store = open_store(f"{server.url}/bucket")
    assert list(read_images(store, "a.tar")) == list(IMAGES.items())
    assert list(find_images(store, "b.parquet")) == list(find_images(LocalStore(tmp_path), "b.parquet"))
    server.objects["bucket/a.tar"] = server.objects["bucket/a.tar"][:5000]
    assert "cut short" in until_refused(find_images(store, "a.tar"))[1]
    with pytest.raises(FileNotFoundError):
        list(find_images(store, "c.tar"))


# --- what else a file may be


def test_nothing_is_read_beyond_the_end(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    for remote in (False, True):
        file = StoredFile(CountingStore(tmp_path, remote=remote), "a")
        assert file.at(90, 10) == bytes(range(90, 100))
        assert file.at(100, 0) == b""
        for offset, length in ((90, 11), (101, 0), (-1, 2), (0, -1), (1 << 70, 1)):
            with pytest.raises(UserError, match="cut short"):
                file.at(offset, length)


def test_packed_files_are_refused_by_what_they_are(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.jpg": encoded(1)})
    tar = (tmp_path / "a.tar").read_bytes()
    for name, content, words in [
        ("a.tar", gzip.compress(tar), "a gzip archive that holds a tar"),
        ("a.tgz", gzip.compress(tar), "a gzip archive that holds a tar"),
        ("a.tar.bz2", bz2.compress(tar), "a bzip2 archive that holds a tar"),
        ("a.tar.xz", lzma.compress(tar), "an xz archive that holds a tar"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(99), "a Zstandard archive that holds a tar"),
        ("a.tfrecord", gzip.compress(record(example(image=encoded(1)))), "a gzip archive that holds a TFRecord file"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert f"{name} is {words}" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!doctype html><title>404", "is an HTML page"),
        (encoded(1), "is a JPEG file"),
        (bytes(1 << 20), "nothing but zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"\x01\x02\x03\x04" * 200, "is of another kind; expected a tar, a Parquet file or a TFRecord file"),
    ],
)
def test_other_files(tmp_path, content, words):
    (tmp_path / "a.tar").write_bytes(content)
    assert words in refusal(tmp_path / "a.tar")


def test_a_file_is_what_its_head_says(tmp_path):
    write_tar(tmp_path / "a.parquet", {"a.jpg": encoded(1)})
    write_parquet(tmp_path / "a.tar", PHOTOGRAPHS)
    assert found(tmp_path / "a.parquet")[0] == [("a.jpg", encoded(1))]
    assert found(tmp_path / "a.tar")[0] == PHOTOGRAPHS


def test_names_of_containers():
    for name in ("a.tar", "x/A.TAR", "train-00000-of-01024", "a.tfrecord-00001-of-00002", "b.parquet", "c.tfrec"):
        assert is_container(name)
    for name in ("a.jpg", "tar", "a.tar.gz", "a.txt"):
        assert not is_container(name)


def test_what_is_left_out_is_logged_once(tmp_path, caplog):
    write_tar(tmp_path / "a.tar", {"a.jpg": encoded(1), "a.json": b"", "b.json": b"", "README": b""})
    with caplog.at_level(logging.INFO):
        list(find_images(CountingStore(tmp_path), "a.tar"))
    assert [record.getMessage().partition("a.tar")[2] for record in caplog.records] == [
        ": left out beside its images: .json (2), no ending (1)"
    ]


FUZZ = 100  # files of each kind


def fuzz_seeds(folder):
    write_tar(folder / "gnu", {name: IMAGES[name] for name in NAMES[:5]})
    write_tar(folder / "pax", {name: IMAGES[name] for name in NAMES[:5]}, tarfile.PAX_FORMAT)
    write_parquet(folder / "parquet", PHOTOGRAPHS[:12], row_group_size=5, data_page_size=1000, write_batch_size=1)
    named = [example(image__encoded=content, image__filename=name.encode(), n=3) for name, content in PHOTOGRAPHS[:8]]
    (folder / "tfrecord").write_bytes(b"".join(map(record, named)))


def spoil(content, places, draw):
    """A file with some bytes changed at telling places or anywhere, cut short, or with a part taken out or doubled."""
    content, what = bytearray(content), draw.randrange(5)
    place = draw.choice(places) + draw.randrange(-40, 600) if draw.random() < 0.7 else draw.randrange(len(content))
    place = min(max(place, 0), len(content) - 1)
    if what == 0:
        return content[:place]
    if what == 1:
        return content[:place] + content[place + draw.randrange(1, 1000) :]
    if what == 2:
        return content[:place] + content[max(place - draw.randrange(1, 1000), 0) :]
    for k in range(draw.randrange(1, 5)):
        content[min(place + k, len(content) - 1)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return content


def until_refused(images):
    """What an iterator gives until it refuses to go on, and its message then."""
    given = []
    try:
        for image in images:
            given.append(image)
    except UserError as error:
        return given, str(error)
    return given, ""


@pytest.mark.parametrize("kind", ["gnu", "pax", "parquet", "tfrecord"])
def test_damaged_files_give_ranges_within_them_or_a_line(tmp_path, kind):
    fuzz_seeds(tmp_path)
    content, draw = (tmp_path / kind).read_bytes(), random.Random(kind)
    places = [image.offset - 300 for image in find_images(CountingStore(tmp_path), kind)] + [0, len(content) - 400]
    for _ in range(FUZZ):
        spoilt = spoil(content, places, draw)
        (tmp_path / "a").write_bytes(spoilt)
        (ranges, refused), (images, _) = (
            until_refused(find(CountingStore(tmp_path), "a", Counter())) for find in (find_images, read_images)
        )
        assert len(refused.splitlines()) <= 1
        assert all(offset >= 0 and offset + length <= len(spoilt) for _, offset, length in ranges)
        assert [(k, spoilt[offset : offset + length]) for k, offset, length in ranges] == images[: len(ranges)]


@pytest.mark.parametrize("kind", ["gnu", "pax", "parquet", "tfrecord"])
def test_files_cut_short_give_a_part_of_the_ranges_and_a_line(tmp_path, kind):
    fuzz_seeds(tmp_path)
    content, whole = (tmp_path / kind).read_bytes(), list(find_images(CountingStore(tmp_path), kind))
    last = sum(whole[-1][1:])
    for end in sorted(random.Random(0).sample(range(last), 100)):
        (tmp_path / "a").write_bytes(content[:end])
        ranges, refused = until_refused(find_images(CountingStore(tmp_path), "a"))
        assert ranges == [image for image in whole[: len(ranges)] if sum(image[1:]) <= end]
        assert refused or end % 512 == 0  # of a tar
