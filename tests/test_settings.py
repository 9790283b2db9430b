"""Settings: every name, type and limit is checked, and what is printed is a file that says the same."""

import dataclasses
import logging
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from dptmat.config import settings
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import from_mapping, read_toml, setting, to_toml
from dptmat.errors import UserError
from dptmat.training.build import choose_micro_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tea:
    """Settings to try the checks on."""

    water: int = setting(dataclasses.MISSING, "Water.", unit="ML", low=1, high=2000)
    degrees: float = setting(80.0, "Temperature.", low=20.0)
    minutes: float = setting(3.0, "Time.", high=60.0)
    kind: str = setting("green", "Kind.", choices=("green", "black"))
    milk: bool = setting(False, "Whether there is milk.", formerly="cream")
    cup: str = setting("", "Where to put it.", unit="auto|FILE")

    def __post_init__(self):
        settings.check(self)


def make(**values):
    return from_mapping(Tea, {"water": 200, **values}, "tea.toml")


def test_defaults_stand_where_nothing_is_given():
    assert make() == Tea(water=200, degrees=80.0, minutes=3.0, kind="green", milk=False, cup="")
    assert make(degrees=20).degrees == 20  # a whole number where a fraction may stand; the limit itself is allowed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"degree": 80.0}, "tea.toml: unknown key 'degree'; did you mean degrees?"),
        ({"sugar": 1}, "unknown key 'sugar'; known keys: water, degrees, minutes, kind, milk, cup"),
        ({"water": "much"}, "must be of type int, got 'much'"),
        ({"water": 1.5}, "must be of type int, got 1.5"),
        ({"water": True}, "must be of type int, got True"),
        ({"degrees": True}, "must be of type float, got True"),
        ({"milk": 1}, "must be of type bool, got 1"),
        ({"kind": "white"}, "must be one of green, black; got 'white'"),
        ({"water": 0}, "must be 1 to 2000; got 0"),
        ({"water": 2001}, "must be 1 to 2000; got 2001"),
        ({"degrees": 19.0}, "must be 20.0 or more; got 19.0"),
        ({"minutes": 61.0}, "must be 60.0 or less; got 61.0"),
        ({"minutes": float("nan")}, "must be a finite number; got nan"),
        ({"degrees": float("inf")}, "must be a finite number; got inf"),
        ({"cup": "a\0b"}, "must be the path of a file or folder; got 'a\\x00b'"),
    ],
)
def test_a_wrong_value_ends_in_a_sentence(values, message):
    with pytest.raises(UserError) as raised:
        make(**values)
    assert message in str(raised.value)
    for name in values.keys() - {"degree", "sugar"}:
        assert name in str(raised.value)


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match="missing: .*water.*; give each as an option or as a key"):
        from_mapping(Tea, {}, "tea.toml")


def test_a_former_name_is_taken_with_a_note(caplog):
    with caplog.at_level(logging.WARNING, "dptmat"):
        assert make(cream=True) == make(milk=True)
    assert [record.getMessage() for record in caplog.records] == ["tea.toml: cream is called milk now"]


def test_paths_may_be_pathlibs_and_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert make(cup=Path("a/b")).cup == "a/b"
    assert make(cup="~/b").cup == "/home/me/b"


def test_what_is_printed_is_read_again(tmp_path):
    tea = make(degrees=1 / 3 + 80, kind="black", milk=True)
    (tmp_path / "tea.toml").write_text(to_toml(tea))
    assert from_mapping(Tea, read_toml(tmp_path / "tea.toml", "file"), "tea.toml") == tea


@pytest.mark.parametrize("content", [b"water = = 1", b"\xff\xfe", b"a = " + b"[" * 100_000, None])
def test_what_is_no_toml_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / "tea.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"--config .*tea\.toml cannot be read as TOML: "):
        read_toml(tmp_path / "tea.toml", "--config")


def needed_by(cls):
    """The settings without a default; of fine-tuning also foregrounds, which a data set may stand in for."""
    needed = {field.name: "x" for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    return {**needed, **({"fg": "x"} if cls is FinetuneConfig else {})}


def test_foregrounds_or_a_data_set_are_needed():
    others = {"bg": "x", "init": "random", "out": "x"}
    for given in ({"fg": "x"}, {"data": "x"}, {"data": "x", "fg": "x"}, {"fg": "x", "alpha": "x"}):
        FinetuneConfig(**others, **given)
    for given in ({}, {"alpha": "x"}, {"data": "", "fg": ""}):
        with pytest.raises(UserError, match="missing: `fg`; give the foregrounds, or as `data` a training set"):
            FinetuneConfig(**others, **given)


@pytest.mark.parametrize("cls", [PretrainConfig, FinetuneConfig])
def test_every_default_is_within_its_limits_and_explained(cls):
    needed = needed_by(cls)
    cls(**needed)
    for field in dataclasses.fields(cls):
        assert field.metadata["help"].endswith(".")
        assert field.type in (int, float, str, bool)


ODD = (float("inf"), -float("inf"), float("nan"), -1, 0, 0.0, 1e300, 10**30, 10**400, -(10**400), "1", None, True, [1])
NUMBERS = [
    (cls, field.name) for cls in (PretrainConfig, FinetuneConfig) for field in dataclasses.fields(cls)
    if field.type in (int, float)
]  # fmt: skip
WORDS = [
    (cls, field.name) for cls in (PretrainConfig, FinetuneConfig) for field in dataclasses.fields(cls)
    if field.type is str
]  # fmt: skip


def with_setting(cls, name, value):
    needed = needed_by(cls)
    return from_mapping(cls, {**needed, name: value}, "odd.toml")


def refusal(cls, name, value):
    """The sentence with which a value is refused, or the settings that it becomes a part of."""
    try:
        return None, with_setting(cls, name, value)
    except UserError as error:
        return str(error), None


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_every_number_is_taken_or_refused_in_a_line(cls, name):
    """What is taken can be written, is read as the same, and divides into micro-batches at once."""
    whole = next(field.type for field in dataclasses.fields(cls) if field.name == name) is int
    for value in ODD:
        sentence, taken = refusal(cls, name, value)
        if sentence is not None:
            assert f"`{name}`" in sentence
            assert len(sentence) < 300
            assert sentence.isprintable()
            continue
        assert isinstance(value, int if whole else int | float)
        assert abs(value) <= (2**64 if whole else 1e30)
        assert tomllib.loads(to_toml(taken))[name] == value
        if taken.batch_size % 2 == 0:
            assert choose_micro_batch(taken, 1, 2, 2) == (taken.micro_batch or 2)


@pytest.mark.parametrize(("cls", "name"), WORDS)
def test_every_word_is_taken_or_refused_in_a_line(cls, name):
    for value in ("a\0b", "a\nb", "\x1b[2J", "x" * 10**6, "", 3, None, ["a"], {"a": 1}, b"a", 10**400):
        sentence, taken = refusal(cls, name, value)
        if sentence is not None:
            assert f"`{name}`" in sentence
            assert len(sentence) < 300
            assert sentence.isprintable()
        else:
            assert getattr(taken, name) == value
            assert isinstance(value, str)
            assert "\0" not in value


def test_a_file_of_settings_has_an_end():
    with pytest.raises(UserError, match="--config /dev/zero cannot be read as TOML: it has more than 1048576 bytes"):
        read_toml("/dev/zero", "--config")
