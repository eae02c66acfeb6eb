"""Downloads from a real server that misbehaves: the right bytes or one sentence, never a wrong file under the name."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fetch import server as http
from tests.fetch.server import Server, Step, serving

from twinrun.fetch.download import Digest, Patience, download
from twinrun.study.errors import BusyError, InputError, MismatchError, ResourceError, TwinrunError

CONTENT = random.Random(1).randbytes(700_000)
OTHER = random.Random(2).randbytes(700_000)
QUICK = Patience(connect_seconds=2, read_seconds=0.3, tries=3, pause_seconds=0.01)
MD5 = Digest("md5", hashlib.md5(CONTENT).hexdigest(), "its publisher")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as running:
        yield running


def get(server: Server, folder: Path, digest: Digest | None = None) -> bytes:
    download(server.url, folder / "x.bin", digest, patience=QUICK)
    assert sorted(path.name for path in folder.iterdir()) == ["x.bin"], "nothing is left beside it"
    return (folder / "x.bin").read_bytes()


RECOVERS: dict[str, list[Step]] = {
    "a good server": [],
    "drops in the middle": [http.drop(0.5)],
    "drops again and again": [http.drop(0.3)] * 8,
    "drops at once, twice": [http.drop(0.0)] * 2,
    "stalls": [http.stall],
    "stalls twice": [http.stall, http.stall],
    "answers 503, then well": [http.status(503, Retry_After="0"), http.drop(0.4), http.status(503)],
    "sends a piece of the range": [http.drop(0.5), http.piece, http.piece],
    "ignores the range": [http.drop(0.5), http.ignore_range],
    "sends the wrong range": [http.drop(0.5), http.wrong_range],
    "says that the range is beyond the end": [http.drop(0.5), http.status(416, Content_Range="bytes */10")],
    "announces more than it sends, once": [http.says(len(CONTENT) + 1000)],
    "redirects": [http.redirect("/elsewhere")],
    "has another file in between": [http.drop(0.5), http.change(OTHER, '"two"')(http.drop(0.5)),
                                    http.change(CONTENT, '"three"')(http.well)],
}  # fmt: skip


@pytest.mark.parametrize("known", [True, False], ids=["digest known", "digest unknown"])
@pytest.mark.parametrize("case", RECOVERS)
def test_right_bytes_in_the_end(case: str, known: bool, server: Server, tmp_path: Path) -> None:
    server.script = list(RECOVERS[case])
    assert get(server, tmp_path, MD5 if known else None) == CONTENT
    assert not server.script


def test_only_what_is_missing_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.script = [http.drop(0.5)]
    get(server, tmp_path)
    (_, first), (_, second) = server.requests
    assert "Range" not in first
    assert second["Range"].startswith("bytes=")
    assert int(second["Range"][6:-1]) > 300_000
    assert second["If-Range"] == '"one"'


def test_a_whole_answer_to_a_range_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    server.script = [http.drop(0.5), http.ignore_range]
    assert get(server, tmp_path) == CONTENT
    assert len(server.requests) == 2


def test_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.script = [http.drop(0.5), *[http.status(503)] * 3]
    with pytest.raises(InputError, match="given up after several tries: it answers 503") as caught:
        download(server.url, tmp_path / "x.bin", patience=QUICK)
    assert "goes on where it was" in caught.value.hint
    assert not (tmp_path / "x.bin").exists()
    assert (tmp_path / "x.bin.part").stat().st_size > 300_000
    assert get(server, tmp_path) == CONTENT
    assert server.requests[-1][1]["Range"]


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    server.script = [http.drop(0.5), *[http.status(503)] * 3]
    with pytest.raises(InputError):
        download(server.url, tmp_path / "x.bin", patience=QUICK)
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path) == CONTENT


def test_without_a_validator_and_digest_it_starts_over(tmp_path: Path) -> None:
    with serving(CONTENT, etag="") as server:
        server.script = [http.drop(0.5), http.change(OTHER, "")(http.well)]
        assert get(server, tmp_path) == OTHER, "two files must never be joined"
        assert all("Range" not in headers for _, headers in server.requests)


def test_joined_pieces_of_two_files_are_noticed_by_the_digest(tmp_path: Path) -> None:
    with serving(OTHER, etag="") as server:
        server.script = [http.drop(0.5), http.change(CONTENT, "")(http.well)]
        assert get(server, tmp_path, MD5) == CONTENT
        assert len(server.requests) == 3


REFUSED: dict[str, tuple[list[Step], str]] = {
    "it is not there": ([http.status(404)], "it answers 404"),
    "it needs an account": ([http.status(403)], "it answers 403"),
    "a page that says so": ([http.status(200, Content_Type="text/html; charset=utf-8")], "a web page instead of"),
    "a page in disguise": ([http.page], "a web page and no data"),
    "always 503": ([http.status(503)] * 9, "given up after several tries: it answers 503"),
    "drops without a byte": ([http.drop(0.0)] * 9, "given up after several tries"),
    "always another range": ([http.wrong_start] * 9, "given up .* another part of the file"),
    "always beyond the end": ([http.status(416)] * 9, "given up .* fewer bytes"),
    "redirects in a circle": ([http.redirect("/file.bin")] * 40, "redirects in a circle"),
    "redirects away from the web": ([http.redirect("file:///etc/passwd")], "not an address"),
    "compressed on the way": ([http.status(200, Content_Encoding="gzip")], "another encoding"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_one_sentence_in_the_end(case: str, server: Server, tmp_path: Path) -> None:
    script, message = REFUSED[case]
    server.script = list(script)
    with pytest.raises(TwinrunError, match=message) as caught:
        download(server.url, tmp_path / "x.bin", patience=QUICK)
    assert caught.value.hint
    assert not (tmp_path / "x.bin").exists()


def test_a_length_that_is_too_short(server: Server, tmp_path: Path) -> None:
    server.script = [http.says(1000)]
    with pytest.raises(MismatchError, match=r"its MD5 is .* but its publisher says"):
        download(server.url, tmp_path / "x.bin", MD5, patience=QUICK)
    assert not (tmp_path / "x.bin").exists()
    assert get(server, tmp_path, MD5) == CONTENT, "and nothing of it is used again"


def test_another_file_under_the_address(tmp_path: Path) -> None:
    with serving(OTHER) as server, pytest.raises(MismatchError, match=MD5.hexadecimal):
        download(server.url, tmp_path / "x.bin", MD5, patience=QUICK)
    assert not (tmp_path / "x.bin").exists()


def test_it_does_not_fit(server: Server, tmp_path: Path) -> None:
    server.script = [http.says(10**15)]
    with pytest.raises(InputError, match=r"1000000\.0 GB are still to come and do not fit"):
        download(server.url, tmp_path / "x.bin", patience=QUICK)


def test_nobody_answers_and_no_address(tmp_path: Path) -> None:
    with serving(CONTENT) as server:
        gone = server.url
    with pytest.raises(InputError, match=r"given up after several tries: .*[Cc]onnection refused"):
        download(gone, tmp_path / "x.bin", patience=QUICK)
    with pytest.raises(InputError, match="not an address"):
        download("htp://x/y", tmp_path / "x.bin", patience=QUICK)


def test_two_at_a_time(server: Server, tmp_path: Path) -> None:
    def second(_: http.Handler) -> None:
        with pytest.raises(BusyError):
            download(server.url, tmp_path / "x.bin", patience=QUICK)
        http.well(_)

    server.script = [second]
    assert get(server, tmp_path) == CONTENT


def test_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    server.script = [http.drop(0.5)]
    download(server.url, tmp_path / "x.bin", patience=QUICK, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_body_without_an_end_is_ended(server: Server, tmp_path: Path) -> None:
    for step in (http.endless, http.says(6_000_000)):
        server.script = [step]
        with pytest.raises(InputError, match=r"more than 0\.005 GB, which is no file that is meant"):
            download(server.url, tmp_path / "x.bin", patience=QUICK, most_bytes=5_000_000)
        assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_what_the_server_says_never_steers_the_terminal(server: Server, tmp_path: Path) -> None:
    steering = "\x1b]0;owned\x07\x1b[2J"
    for script in (
        [http.says_of_itself(404, steering)], [http.says_of_itself(503, steering)] * 3,
        [http.redirect(f"ftp://x/{steering}")], [http.redirect(f"http://[{steering}/")],
    ):  # fmt: skip
        server.script = script
        with pytest.raises(InputError) as caught:
            download(server.url, tmp_path / "x.bin", patience=QUICK)
        assert not {"\x1b", "\x07"} & set(str(caught.value))


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "http://[::1", "http://x:99999/", "gopher://x"],
)
def test_redirects_to_what_is_no_address_of_the_web(place: str, server: Server, tmp_path: Path) -> None:
    server.script = [http.redirect(place)]
    with pytest.raises(InputError, match="not an address"):
        download(server.url, tmp_path / "x.bin", patience=QUICK)


LONG = "9" * 5000


@pytest.mark.parametrize(
    "step",
    [
        http.status(503, Retry_After="\u00b2"), http.status(503, Retry_After=LONG), http.status(503, Retry_After="-1"),
        http.raw_length(LONG), http.raw_length("\u00b2"), http.raw_length("much"),
        http.status(206, Content_Range=f"bytes 0-{LONG}/{LONG}"), http.status(416, Content_Range=f"bytes */{LONG}"),
    ],
)  # fmt: skip
def test_numbers_in_headers_that_are_none(step: Step, server: Server, tmp_path: Path) -> None:
    server.script = [step]
    assert get(server, tmp_path, MD5) == CONTENT


@pytest.mark.parametrize("note", ["[]", "{", "3", '{"url": 1}', '{"validator": [], "url": "URL", "total": "many"}', ""])
def test_a_note_of_another_shape_is_no_note(note: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(OTHER[:1000])
    (tmp_path / "x.bin.part.json").write_text(note.replace("URL", server.url))
    assert get(server, tmp_path) == CONTENT
    assert "Range" not in server.requests[0][1]


def test_a_full_disk_keeps_what_came(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [http.drop(0.5)]
    usage = iter([10**12] * 3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": next(usage, 10)})())
    with pytest.raises(ResourceError, match="do not fit"):
        download(server.url, tmp_path / "x.bin", patience=QUICK)
    monkeypatch.undo()
    assert (tmp_path / "x.bin.part").stat().st_size > 200_000
    assert get(server, tmp_path) == CONTENT
    assert "Range" in server.requests[-1][1]
