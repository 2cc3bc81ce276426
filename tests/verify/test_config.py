"""`--config`: what it takes, and what it says of what it does not take."""

import pytest

from verify import SpecError
from verify.config import RunConfig, load


def write(tmp_path, content):
    path = tmp_path / "verify.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(SpecError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message, "the message must name the file"
    assert "\n" not in message.strip()
    return message


def test_everything(tmp_path):
    config = load(write(tmp_path, 'specs = ["linear", "a.b:f"]\ncases = 7\nseed = 3\nchecks = ["gradient"]\n'))
    assert config == RunConfig(specs=("linear", "a.b:f"), cases=7, seed=3, checks=("gradient",))


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_empty_is_all_defaults(tmp_path, content):
    assert load(write(tmp_path, content)) == RunConfig()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfcases = 4\n", b"cases = 4\r\n", b"\xef\xbb\xbfcases = 4\r\nseed = 1\r\n"])
def test_byte_order_mark_and_windows_lines(tmp_path, content):
    assert load(write(tmp_path, content)).cases == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("casse = 4\n", ["casse", "cases"]),
        ("Seed = 4\n", ["Seed", "seed"]),
        ("zzz = 1\n", ["zzz", "specs"]),
        ("[specs]\na = 1\n", ["specs"]),
        ('cases = "4"\n', ["cases: wanted a whole number, got '4'"]),
        ("cases = 4.5\n", ["cases: wanted a whole number, got 4.5"]),
        ("cases = true\n", ["cases: wanted a whole number"]),
        ("specs = 'linear'\n", ["specs", "array"]),
        ("specs = [1]\n", ["specs", "str"]),
        ("seed = []\n", ["seed: wanted a whole number, got []"]),
        ("cases = 1\ncases = 2\n", ["TOML"]),
        ("cases =\n", ["TOML", "line 1"]),
        ("{}\n", ["TOML"]),
        ("checks = [\n" * 5000, ["TOML"]),
        (b"cases = 4 # \xff\n", ["UTF-8"]),
        (b"\xff\xfec\x00a\x00", ["UTF-8"]),
        (b"\x00\x00", ["TOML"]),
    ],
)
def test_refusals_name_the_file_the_key_and_what_was_wanted(tmp_path, content, words):
    message = refused(tmp_path, content)
    for word in words:
        assert word in message, message


def test_the_nearest_key_is_offered(tmp_path):
    assert 'Did you mean "checks"?' in refused(tmp_path, "check = []\n")


@pytest.mark.parametrize("content", ["cases = 0\n", "cases = -3\n", "seed = -1\n", f"seed = {2**63}\n"])
def test_numbers_that_make_no_sense_are_refused_here_or_by_the_run(tmp_path, content):
    """A file's numbers are held to the same bounds as the command line's."""
    from click.testing import CliRunner

    from verify.cli import main

    result = CliRunner().invoke(main, ["run", "linear", "--config", str(write(tmp_path, content))])
    assert result.exit_code == 2, result.output
    assert content.split(" ")[0] in result.stderr
    assert "Traceback" not in result.output


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.toml.*No such file"):
        load(tmp_path / "nowhere.toml")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SpecError, match="directory"):
        load(tmp_path)


def test_a_path_with_a_null_byte_is_refused(tmp_path):
    with pytest.raises(SpecError):
        load(f"{tmp_path}/a\0b")
