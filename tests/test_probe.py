"""Why an image cannot be decoded is said in a few words, file by file."""

from dptmat.pipelines.probe import find_unreadable


def test_a_file_that_cannot_be_decoded_does_not_hide_the_next(photographs, tmp_path):
    text, missing = str(tmp_path / "text"), str(tmp_path / "missing")
    (tmp_path / "text").write_bytes(b"text" * 100)
    good = [str(path) for path in sorted(photographs.iterdir())[:3]]
    found = list(find_unreadable([good[0], text, good[1], missing, text, good[2]], None))
    assert [path for path, _ in found] == [text, missing, text]
    assert found[0] == found[2]
    assert found[0][1].startswith("cannot be decoded (")
    assert "\n" not in found[0][1]
    assert found[1][1] == "No such file or directory"
