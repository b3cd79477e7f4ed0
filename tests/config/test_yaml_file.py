"""Reading YAML: the traps of YAML 1.1, duplicates, line numbers and broken files."""

import math

import pytest

from raytricks.config.yaml_file import parse_scalar, read_yaml
from raytricks.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write f.yaml in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str | bytes) -> str:
        (tmp_path / "f.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "f.yaml"

    return _write


def read(path):
    problems: list[str] = []
    return read_yaml(path, problems), problems


def read_error(path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


SCALARS = [
    ("1e-3", 0.001),
    ("1E5", 1e5),
    ("-.5", -0.5),
    ("3.", 3.0),
    ("12", 12),
    ("-0", 0),
    ("+7", 7),
    ("0x1F", 31),
    ("0o10", 8),
    ("010", "010"),
    ("00.5", "00.5"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("2024-01-01", "2024-01-01"),
    ("yes", "yes"),
    ("No", "No"),
    ("on", "on"),
    ("off", "off"),
    ("true", True),
    ("False", False),
    ("tRue", "tRue"),
    ("null", None),
    ("~", None),
    ("None", "None"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("nan", "nan"),
    ("<<", "<<"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("[1,2]", [1, 2]),
    ("[1e-3, [a, null], yes]", [0.001, ["a", None], "yes"]),
    ("[{a: 1e3}]", [{"a": 1000.0}]),
    ("9" * 5000, "9" * 5000),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalar_means_the_same_in_a_file_and_an_override(text, value, write):
    from_file = read(write(f"a: {text}\n"))[0].values["a"]
    for got in (from_file, parse_scalar(text)):
        assert got == value
        assert type(got) is type(value)


def test_scalar_nan_is_a_float():
    assert math.isnan(parse_scalar(".nan"))  # type: ignore[arg-type]
    assert parse_scalar("") is None
    assert parse_scalar("{a: {b: 1}}") == {"a": {"b": 1}}


@pytest.mark.parametrize("text", ["a: b", "/data/a #b", "*x", "&x", "!x", "@x", "- a", "%x"])
def test_parse_scalar_takes_other_text_as_typed(text):
    assert parse_scalar(text) == text


@pytest.mark.parametrize("text", ["[1,", "{a: 1", '"abc', "[1] 2", "[*a]", "[" * 1000])
def test_parse_scalar_rejects_what_is_not_closed(text):
    with pytest.raises(ConfigError):
        parse_scalar(text)


def test_read_yaml_gives_dotted_keys_and_lines(write):
    content, problems = read(write("# head\na:\n  b: 1\n  c: {d: 2,\n      e: [3]}\nf.g: 4\nh:\ni: {}\n"))
    assert content.values == {"a.b": 1, "a.c.d": 2, "a.c.e": [3], "f.g": 4, "h": None, "i": {}}
    assert content.lines == {"a.b": 3, "a.c.d": 4, "a.c.e": 5, "f.g": 6, "h": 7, "i": 8}
    assert problems == []


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n", "{}", b"\xef\xbb\xbf"])
def test_read_yaml_takes_an_empty_file_as_no_keys(text, write):
    assert read(write(text))[0].values == {}


@pytest.mark.parametrize("text", ["\ufeffa: 1\r\nb: 2\r\n", "a: 1\rb: 2", "---\na: 1\nb: 2\n...\n"])
def test_read_yaml_takes_any_line_ends_and_marks(text, write):
    assert read(write(text))[0].values == {"a": 1, "b": 2}


def test_read_yaml_reports_every_duplicate_with_both_lines(write):
    text = "x: 1\ntricks:\n  mixup:\n    alpha: 1\n    alpha: 2\nx: 2\ntricks.mixup.alpha: 3\ntricks: {}\n"
    content, problems = read(write(text))
    assert problems == [
        "f.yaml:5: tricks.mixup.alpha is set twice (first on line 4)",
        "f.yaml:6: x is set twice (first on line 1)",
        "f.yaml:7: tricks.mixup.alpha is set twice (first on line 4)",
        "f.yaml:8: tricks is set twice (first on line 2)",
    ]
    assert content.values == {"x": 1, "tricks.mixup.alpha": 1}


def test_read_yaml_reports_a_key_that_is_no_word(write):
    assert read(write("? [a, b]\n: 1\n"))[1] == ["f.yaml:1: a key must be one word, like recipe.epochs"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a:\n  b: {c: 1\nd: 2\n", "f.yaml:3:2: expected ',' or '}'"),
        ("a: 1\n b: 2\n", "f.yaml:2:3: mapping values are not allowed here"),
        ("a:\n\tb: 1\n", "f.yaml:2:1: found character '\\t'"),
        ('a: "b\n', "f.yaml:2:1: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: but found another document"),
        ("a: &x 1\n", "f.yaml:1:4: anchors (&) and aliases (*) are not supported"),
        ("a: *x\n", "f.yaml:1:4: anchors (&)"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1:4: tags are not supported"),
        ("- 1\n- 2\n", "f.yaml:1: must hold keys, like recipe.epochs: 120, got a list"),
        ("\nhello\n", "f.yaml:2: must hold keys, like recipe.epochs: 120, got a single value"),
        (b"a: \xff\n", "f.yaml: is not a text file in UTF-8"),
        (b"a: \x00\n", "f.yaml: is not a text file in UTF-8"),
        ("[" * 1000, "f.yaml: nested too deeply"),
    ],
)
def test_read_yaml_names_the_place_of_a_broken_file(text, start, write):
    assert read_error(write(text)).startswith(start)


def test_read_yaml_suggests_a_file_of_the_same_folder_or_of_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("configs/resnet50.yaml", "mine/digits.yaml"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    hint = "; did you mean configs/resnet50.yaml?"
    assert read_error("nope.yaml") == "no such config file nope.yaml"
    assert read_error("resnet50.yml") == f"no such config file resnet50.yml{hint}"
    assert read_error("mine/digit.yaml").endswith("; did you mean mine/digits.yaml?")
    assert read_error("absent/resnet5O.yaml").endswith(hint)


def test_read_yaml_rejects_a_directory_and_a_bad_path(tmp_path):
    assert read_error(tmp_path) == f"{tmp_path} is a directory; give the config file itself"
    assert read_error("a\0b").startswith("cannot read ")
