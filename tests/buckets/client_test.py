"""Objects in both services, on servers of their own."""

import http.client
import io
import os
import subprocess
import sys

import pytest

from tests.support.bucket_data import write_records
from tests.support.bucket_servers import BUCKET, Place
from trainer.buckets import client, objects, url
from trainer.buckets.objects import ConflictError, MissingError, RefusedError, UnavailableError
from trainer.errors import UserError
from trainer.run_dir import bucket_connection


def test_an_object_is_created_once_and_replaced_by_version(place):
    bucket = place.connect()
    first = bucket.create("a", b"one")
    with pytest.raises(ConflictError):
        bucket.create("a", b"two")
    second = bucket.replace("a", b"two", first)
    with pytest.raises(ConflictError):
        bucket.replace("a", b"three", first)
    assert bucket.read("a") == (b"two", second)


def test_a_deleted_object_is_missing(place):
    bucket = place.connect()
    bucket.create("a", b"")
    bucket.delete("a")
    bucket.delete("a")
    with pytest.raises(MissingError):
        bucket.read("a")
    with pytest.raises(MissingError):
        bucket.download("a", io.BytesIO())


def test_names_are_those_of_the_folder_alone(place):
    bucket = place.connect()
    for name in ("b/2", "b/1", "b-1", "a ü/x+y%"):
        bucket.upload(name, io.BytesIO(b"x"), 1)
    assert bucket.names("") == ["a ü/x+y%", "b-1", "b/1", "b/2"]
    assert bucket.names("b/") == ["b/1", "b/2"]
    assert bucket.names("b") == ["b-1", "b/1", "b/2"]
    target = io.BytesIO()
    bucket.download("a ü/x+y%", target)
    assert target.getvalue() == b"x"


def test_a_listing_tells_sizes_and_times_as_the_objects_do(place):
    objects = place.connect()
    contents = {"a/b=1,c=30%+é.txt": b"hello", "empty": b"", ".hidden/x": b"12"}
    for name, content in contents.items():
        objects.create(name, content)
    stats = dict(objects.stats())
    assert {name: stat.size for name, stat in stats.items()} == {
        name: len(content) for name, content in contents.items()
    }
    found, stat = objects.read_range("a/b=1,c=30%+é.txt", 1, 4)
    assert (found, stat) == (b"ell", stats["a/b=1,c=30%+é.txt"])
    with open(os.devnull, "wb") as file:
        assert objects.download(".hidden/x", file) == stats[".hidden/x"]
    with pytest.raises(MissingError):
        objects.read_range("missing", 0, 1)


def test_an_object_whose_name_is_no_path_is_named(place):
    odd = Place(place.scheme, place.proxy, f"odd/{place.folder}")  # Other tests list all runs.
    odd.connect().create("good", b"1")
    connection = http.client.HTTPConnection("127.0.0.1", place.proxy.port)
    connection.request("PUT", f"/{BUCKET}/{odd.folder}/a//b", b"2")
    assert connection.getresponse().status == 200
    connection.close()
    for call in (lambda: list(odd.connect().stats()), lambda: odd.connect().names("")):
        with pytest.raises(UserError, match=r"name cannot be a path: .*a//b.*\nRename or del"):
            call()


def test_a_part_of_a_file_is_uploaded(place):
    bucket, file = place.connect(), io.BytesIO(b"0123456789")
    file.seek(3)
    bucket.upload("part", file, 4)
    assert bucket.read("part")[0] == b"3456"


def test_a_large_file_is_uploaded_in_pieces(place, monkeypatch):
    if place.scheme == "gs":
        pytest.skip("this server does not accept uploads in pieces")
    monkeypatch.setattr(client, "_SINGLE_BYTES", 2**20)
    content = os.urandom(2**20 * 20 + 5)
    place.connect().upload("large", io.BytesIO(content), len(content))
    target = io.BytesIO()
    place.connect().download("large", target)
    assert target.getvalue() == content
    assert len([r for r in place.proxy.requests if "partNumber" in r.path]) > 1


def test_the_conditions_of_a_service_are_tried(place):
    bucket = place.connect()
    objects.check_conditions(bucket)
    assert bucket.names("") == []


def test_a_service_without_conditions_is_refused(place):
    bucket = place.connect()

    class Careless(type(bucket)):
        def create(self, name, content):
            self.delete(name)
            return super().create(name, content)

    with pytest.raises(UserError, match="overwrites an object although the request forbids it"):
        objects.check_conditions(Careless(url.parse(place.url)))


def test_conditions_are_tried_again_if_an_answer_is_lost(place):
    place.proxy.rule = lambda request: "after" if request.number == 1 else None
    objects.check_conditions(place.connect())
    assert place.connect().names("") == []


def test_an_existing_object_is_not_written_again(place):
    bucket = place.connect()
    bucket.upload("a", io.BytesIO(b"one"), 3)
    with pytest.raises(UnavailableError, match="exists already"):
        bucket.upload("a", io.BytesIO(b"two"), 3)
    assert bucket.read("a")[0] == b"one"


def test_a_bucket_with_versions_can_be_used(place):
    if place.scheme == "gs":
        pytest.skip("this service has generations of all objects")
    place.enable_versions()
    objects.check_conditions(place.connect())


def test_a_full_disk_is_not_an_error_of_the_bucket(place):
    bucket = place.connect()
    bucket.create("a", b"x" * 100)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        bucket.download("a", full)


@pytest.mark.parametrize(
    ("scheme", "variable", "value"),
    [
        ("gs", "GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist"),
        ("gs", "GOOGLE_APPLICATION_CREDENTIALS", "kind.json"),
        ("s3", "AWS_ENDPOINT_URL", "minio:9000"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, monkeypatch, scheme, variable, value):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    (tmp_path / "kind.json").write_text('{"type": "external_account"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"(?s){scheme}://bucket/x cannot be used: .*credentials"):
        bucket_connection.connect(url.parse(f"{scheme}://bucket/x"))


@pytest.mark.parametrize("status", [301, 400, 501])
def test_an_answer_that_will_not_change_is_a_refusal(place, status):
    bucket = place.connect()
    place.proxy.rule = lambda request: status
    with pytest.raises(RefusedError):
        bucket.names("")


def test_a_missing_bucket_is_refused(place):
    bucket = client.connect(url.parse(f"{place.scheme}://not-{BUCKET}/x"))
    with pytest.raises(RefusedError, match="the bucket does not exist"):
        bucket.create("a", b"")


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_permission_is_refused(place, status):
    bucket = place.connect()
    place.proxy.rule = lambda request: status
    for call in (
        lambda: bucket.read("a"),
        lambda: bucket.create("a", b""),
        lambda: bucket.names(""),
    ):
        with pytest.raises(RefusedError):
            call()


@pytest.mark.parametrize("verdict", ["drop", 429, 500, 503])
def test_a_request_is_repeated(place, verdict):
    bucket = place.connect()
    place.proxy.rule = lambda request: verdict if request.number < 3 else None
    assert bucket.names("") == []
    assert len(place.proxy.requests) == 3


@pytest.mark.parametrize("verdict", ["drop", 429, 503])
def test_a_bucket_that_does_not_answer_is_unavailable(place, verdict):
    bucket = place.connect()
    place.proxy.rule = lambda request: verdict
    with pytest.raises(UnavailableError) as raised:
        bucket.read("a")
    assert not isinstance(raised.value, RefusedError)
    assert "\n" not in str(raised.value)


def test_a_server_that_does_not_exist_is_unavailable(place):
    bucket = place.connect()
    place.proxy.close()
    with pytest.raises(UnavailableError):
        bucket.names("")


def test_obstore_is_named_if_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(client, "obstore", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[cloud\]'"):
        client.connect(url.parse("gs://bucket/x"))


def test_without_a_bucket_no_client_is_imported(tmp_path):
    write_records(tmp_path / "records", {"train": 20, "test": 10}, shards=1, size=(8, 8))
    program = (
        "import sys, trainer.main, trainer.commands.train; from trainer.data import sources; "
        f"sources.load('colour', 'train', {str(tmp_path / 'records')!r}, 8); "
        "assert not {'obstore', 'zstandard'} & {*sys.modules}; import os; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
