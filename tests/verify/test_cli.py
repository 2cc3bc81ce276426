"""The command line: exit statuses, and one clear line for everything that a user may get wrong."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from verify.cli import main

MODULE = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from functools import partial
from jaxtyping import Array, Bool, Float, Int, Key
from verify import Arg, Spec

X = {"x": Arg(dims="n")}

def custom(primal, backward):
    fn = jax.custom_vjp(primal)
    fn.defvjp(lambda *a: (primal(*a), a), backward)
    return fn

def _right(residuals, ct):
    return (2 * residuals[0] * ct,)

def _square(x: Float[Array, "n"]):
    return x * x

def _raising(residuals, ct):
    raise ValueError("boom from the backward")

square = custom(_square, _right)
half = custom(_square, lambda res, ct: (res[0] * ct,))
only_large = custom(_square, lambda res, ct: (2 * res[0] * ct * (1 + 1e-6 * (res[0].size > 3)),))
raising = custom(_square, _raising)
two_cts = custom(_square, lambda res, ct: (ct, ct))
no_tuple = custom(_square, lambda res, ct: 2 * res[0] * ct)
wrong_shape = custom(_square, lambda res, ct: (jnp.sum(ct),))
no_rule = jax.custom_vjp(_square)
nan = Spec(name="nan", fn=custom(lambda x: jnp.log(-1 - x * x), lambda res, ct: (ct * 2 * res[0] / (1 + res[0] ** 2),)), args=X)
inf = Spec(name="inf", fn=custom(lambda x: x + jnp.inf, lambda res, ct: (ct,)), args=X)
half_spec = Spec(name="other", fn=half, args=X)
one_nan = Spec(name="one_nan", fn=custom(lambda x: jnp.sqrt(x - 0.5), lambda res, ct: (ct / (2 * jnp.sqrt(res[0] - 0.5)),)), args={"x": Arg(dims="4", low=0.0, high=1.0)})
unannotated = lambda x, y: x * y
number = 3
class Layer:
    def __call__(self, x):
        return x
def integers(i: Int[Array, "n"], j: Int[Array, "n"]): return i * j
def masks(key: Key[Array, ""], m: Bool[Array, "n"]): return m
def contradictory(x: Float[Array, "*n"], y: Float[Array, "n"]): return x
def no_dims(x: Float[Array, "n!"]): return x
def prints(x: Float[Array, "n"]):
    print("PRINTED BY THE FUNCTION")
    return x * x
def leaves(x: Float[Array, "n"]): sys.exit(0)
def fails(x: Float[Array, "n"]): raise RuntimeError("the primal is broken")
def whole(x: Float[Array, "n"]): return (x > 0).astype(int)
def typed(x: Float[Array, "n"], *, k: int = 2): return x * k
unknown_dim = Spec(name="unknown_dim", fn=square, args=X, sizes={"rows": (1, 3)})
wrong_option = Spec(name="wrong_option", fn=typed, options={"k": ("two",)})
unknown_option = Spec(name="unknown_option", fn=typed, options={"kk": (2,)})
other_arity = Spec(name="other_arity", fn=square, reference=lambda x, y: x * y)
other_shape = Spec(name="other_shape", fn=square, reference=lambda x: jnp.sum(x * x))
other_outputs = Spec(name="other_outputs", fn=square, reference=lambda x: (x * x, x))
whole_reference = Spec(name="whole_reference", fn=square, reference=lambda x: (x * x).astype(int))
raising_reference = Spec(name="raising_reference", fn=square, reference=lambda x: 1 / 0)
impossible = Spec(name="impossible", fn=square, domain=lambda sizes, options: False)
bad_domain = Spec(name="bad_domain", fn=square, domain=lambda sizes, options: sizes["rows"] > 1)
bad_sample = Spec(name="bad_sample", fn=square, args={"x": Arg(dims="n", sample=lambda rng, sizes, dtype: 1 / 0)})
too_large = Spec(name="too_large", fn=square, args={"x": Arg(dims="1000000000000")})
def product(x: Float[Array, "n d"], w: Float[Array, "k o"]): return x @ w
misspelled_gap = Spec(name="misspelled_gap", fn=half, known_gaps={"gradiant": "no reason"})
"""


@pytest.fixture(scope="module", autouse=True)
def rules(tmp_path_factory):
    """A module `cli_rules` with one example of everything, and three that do not import."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "cli_rules.py").write_text(MODULE)
    (folder / "cli_broken.py").write_text('from verify import Arg\n\nfine = Arg(dims="n")\nwrong = Arg(dims="n", dtype="flaot32")\n')
    (folder / "cli_raises.py").write_text("raise RuntimeError('at import')\n")
    (folder / "cli_needs.py").write_text("import no_such_module_anywhere\n")
    (folder / "cli_syntax.py").write_text("def f(:\n")
    (folder / "cli_none.py").write_text("from cli_rules import half\nnumber = 3\n")  # a rule of another module
    (folder / "cli_exits.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder / "cli_rules.py"


def verify(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def run(name, *args, cases=3):
    return verify("run", name, "--cases", cases, *args)


def refused(result, *words):
    """Exit 2, no traceback, and all the words in what the user sees."""
    assert result.exit_code == 2, f"exit {result.exit_code}: {result.output[-300:]}"
    seen = " ".join(result.output.split())
    assert "Traceback" not in seen and "internal fault" not in seen
    for word in words:
        assert word in seen, f"{word!r} is not in: {seen}"
    return result


def test_a_log_shows_how_far_it_is():
    """Where stderr is no terminal there is no bar, and many operations take minutes."""
    result = verify("run", "cli_rules:square", "cli_rules:half", "--cases", 2)
    told = [re.sub(r"[0-9.]+ s", "_", line) for line in result.stderr.strip().splitlines()]
    assert told == ["cli_rules:square PASS _ (1 of 2)", "cli_rules:half FAIL _ (2 of 2)"]
    assert verify("run", "cli_rules:square", "cli_rules:half", "--cases", 2, "--quiet").stderr == ""


def test_a_file_and_a_module_stand_for_what_they_hold(tmp_path, monkeypatch):
    """Every spec; without any, every rule that is defined there, once, not those that are imported."""
    rules = "import jax\nfrom jaxtyping import Array, Float\nfrom cli_rules import half\n@jax.custom_vjp\n"
    rules += 'def cube(x: Float[Array, "n"]): return x**3\ncube.defvjp(lambda x: (x**3, x), lambda x, ct: (3 * x**2 * ct,))\nalias = cube\n'
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "cli_cubes.py").write_text(rules)
    (tmp_path / "cli_specs.py").write_text(
        'from verify import Arg, Spec\nfrom cli_rules import half, square\nhalved = Spec(name="a", fn=half, args={"x": Arg("n")})\nright = square\n'
    )
    monkeypatch.chdir(tmp_path)

    def names(*args):
        return [v["name"] for v in json.loads(verify("run", *args, "--cases", 2, "--json", "-").stdout)["verdicts"]]

    assert names("cli_specs.py", "cli_specs:halved") == names("cli_specs") == names("cli_specs.py:halved") == ["cli_specs:halved"]
    assert names("deep/cli_cubes.py") == names(tmp_path / "deep" / "cli_cubes.py") == ["deep.cli_cubes:cube"]
    assert "cli_specs:halved" in verify("power", "cli_specs.py", "--limit", 1, "--cases", 2).output
    assert verify("explain", "cli_specs.py").stdout == verify("explain", "cli_specs:halved").stdout
    one_line(verify("explain", "cli_rules.py"), "no operation or check")
    one_line(verify("explain", "cli_rules"), "choose one of cli_rules:", ", cli_rules:half_spec, ")
    monkeypatch.chdir(tmp_path / "deep")
    one_line(verify("run", "../cli_specs.py"), "not below the working directory")


def test_what_a_module_prints_is_not_the_report(tmp_path, monkeypatch):
    (tmp_path / "cli_loud.py").write_text(
        'print("PRINTED AT IMPORT")\nfrom cli_rules import square as rule\nfrom verify import Spec\nloud = Spec(name="l", fn=rule)\n'
    )
    monkeypatch.chdir(tmp_path)
    result = verify("run", "cli_loud.py", "--cases", 2, "--json", "-")
    assert [v["name"] for v in json.loads(result.stdout)["verdicts"]] == ["cli_loud:loud"]
    assert "PRINTED AT IMPORT" in result.stderr


def one_line(result, *words):
    refused(result, *words)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layernorm", ["layernorm", 'Did you mean "layer_norm"?']),
        ("qqqqq", ["qqqqq", "Known: attention"]),
        ("", ["no operation"]),
        ("no_such_module_here:f", ["no module 'no_such_module_here'"]),
        ("no_such_module_here.sub:f", ["no module 'no_such_module_here'"]),
        ("cli_rules.sub:f", ["no module 'cli_rules.sub'"]),
        ("cli_none", ["cli_none has no Spec", "cli_none:name"]),
        ("no_file.py", ["no file no_file.py"]),
        ("cli_broken:rule", ["importing cli_broken failed at cli_broken.py:4: SpecError", "flaot32"]),
        ("cli_rules.square", ["cli_rules is a module", "cli_rules:square"]),
        ("cli_rules:squar", ["'squar'", 'Did you mean "square"?']),
        ("cli_rules:square.deeper", ["deeper"]),
        ("cli_rules:", ["cli_rules"]),
        (":f", ["no module name"]),
        ("a b:f", ["no module name"]),
        ("./cli_rules.py:square", ["no module name", "pkg.mod:name"]),
        ("cli_rules.py:square", ["file path"]),
        ("cli_rules:number", ["of type int", "not a Spec or a function"]),
        ("cli_rules:Layer", ["class"]),
        ("cli_raises:f", ["importing cli_raises failed", "RuntimeError", "at import"]),
        ("cli_needs:f", ["no_such_module_anywhere", "not installed"]),
        ("cli_syntax:f", ["SyntaxError"]),
        ("cli_exits:f", ["importing cli_exits failed", "SystemExit"]),
        ("layer_norm\x1b[2J", ["no operation"]),
    ],
)
def test_names_that_name_nothing(name, words):
    result = verify("run", name, "--cases", 2)
    one_line(result, *words)
    assert "\x1b" not in result.output


UNUSABLE = [
    ("unannotated", ["'x'", "no jaxtyping annotation", "verify.check"]),
    ("integers", ["floating-point", "i: int32", "j: int32"]),
    ("masks", ["floating-point", "key: key", "m: bool"]),
    ("contradictory", ["'n'", "'*n'"]),
    ("no_dims", ["'n!'"]),
    ("unknown_dim", ["'rows'", "no dimension", "n"]),
    ("wrong_option", ["'k'", "'two'", "int"]),
    ("unknown_option", ["'kk'", 'Did you mean "k"?']),
    ("other_arity", ["reference(x, y)", "'y'"]),
    ("other_shape", ["the reference returns", "the function"]),
    ("other_outputs", ["the reference returns", "the function"]),
    ("whole_reference", ["reference", "no floating-point"]),
    ("raising_reference", ["the reference raises ZeroDivisionError", "cli_rules.py"]),
    ("fails", ["RuntimeError", "the primal is broken", "cli_rules.py:"]),
    ("whole", ["no floating-point"]),
    ("impossible", ["domain"]),
    ("bad_domain", ["domain", "rows"]),
    ("bad_sample", ["sample", "ZeroDivisionError"]),
    ("too_large", ["too_large", "large"]),
    ("no_rule", ["defvjp"]),
    ("product", ["raises TypeError", "If d and k are one size, give them one name"]),
    ("misspelled_gap", ["misspelled_gap: known_gaps:", "gradiant", 'Did you mean "gradient"?']),
]


@pytest.mark.parametrize(("name", "words"), UNUSABLE, ids=[name for name, _ in UNUSABLE])
def test_functions_and_specs_that_cannot_be_run(name, words):
    refused(run(f"cli_rules:{name}"), *words)


def test_an_interrupted_run_reports_what_it_has(monkeypatch, tmp_path):
    verdicts = importlib.import_module("verify.cli")._verdicts

    def interrupted(specs, *rest):
        yield from verdicts({"cli_rules:square": specs["cli_rules:square"]}, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr("verify.cli._verdicts", interrupted)
    result = verify("run", "cli_rules:square", "cli_rules:half", "--cases", 3, "--json", tmp_path / "r.json")
    assert result.exit_code == 130 and "interrupted after 1 of 2 operations" in result.stderr and "1 PASS" in result.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert [verdict["name"] for verdict in report["verdicts"]] == ["cli_rules:square"] and report["run"]["operations"] == 2


def test_checks_that_do_not_apply_are_no_verdict_and_it_is_said():
    result = run("cli_rules:square", "--check", "tangent")
    assert result.exit_code == 3 and "none of the checks that were asked for applies" in " ".join(result.stdout.split())


def test_what_cannot_be_run_is_also_said_on_stderr():
    """The report is for reading or for a file; the reason for exit status 2 belongs on stderr."""
    result = refused(run("cli_rules:unannotated", "--json", "-"))
    assert len(result.stderr.strip().splitlines()) == 1 and "no jaxtyping annotation" in result.stderr


def test_one_spec_that_cannot_be_run_does_not_lose_the_others():
    result = verify("run", "cli_rules:unannotated", "cli_rules:square", "--cases", 3, "--json", "-")
    assert result.exit_code == 2
    assert [v["status"] for v in json.loads(result.stdout)["verdicts"]] == ["ERROR", "PASS"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "linear", "--seed", "-1"], ["--seed"]),
        (["run", "linear", "--seed", str(2**63)], ["--seed"]),
        (["run", "linear", "--seed", "x"], ["--seed"]),
        (["run", "linear", "--cases", "0"], ["--cases"]),
        (["run", "linear", "--cases", "-1"], ["--cases"]),
        (["run", "linear", "--jobs", "0"], ["--jobs"]),
        (["run", "linear", "--check", "gradiant"], ["'gradiant'", 'Did you mean "gradient"?']),
        (["run", "linear", "--check", "V999"], ["'V999'"]),
        (["run", "linear", "--nonsense"], ["--nonsense"]),
        (["runn", "linear"], ['"runn"', 'Did you mean "run"?']),
        (["explain", "layernorm"], ["layernorm", 'Did you mean "layer_norm"?']),
        (["explain", "gradiant"], ["gradiant", 'Did you mean "gradient"?']),
        (["explain"], ["NAME"]),
        (["replay"], ["ADDRESS"]),
        (["replay", "linear"], ["address 'linear'", "NAME/SEED/INDEX"]),
        (["replay", "linear/0"], ["NAME/SEED/INDEX"]),
        (["replay", "linear/-1/0"], ["NAME/SEED/INDEX"]),
        (["replay", f"linear/{2**63}/0"], ["NAME/SEED/INDEX"]),
        (["replay", "linear/0/0@n"], ["n=3,batch=2x1"]),
        (["replay", "linear/0/0@zzz=3"], ["zzz=3", "linear"]),
        (["replay", "liner/0/0"], ['Did you mean "linear"?']),
        (["run", "linear", "--json", "/no/such/folder/report.json"], ["/no/such/folder", "not a writable folder"]),
        (["run", "linear", "--junit", "/no/such/folder/report.xml"], ["/no/such/folder"]),
        (["replay", "linear/0/0", "--json", "/no/such/folder/report.json"], ["/no/such/folder"]),
        (["run", "linear", "--config", "/no/such/verify.toml"], ["/no/such/verify.toml", "No such file"]),
    ],
)
def test_usage(args, words):
    refused(verify(*args), *words)


def test_a_far_index_is_refused_or_answered_quickly():
    """`replay linear/0/999999999` must not draw a thousand million sizes first."""
    done = subprocess.run(
        [sys.executable, "-m", "verify.cli", "replay", "linear/0/99999999"], capture_output=True, text=True, check=False, timeout=8
    )
    assert done.returncode in (0, 2)


def test_a_folder_is_no_report(tmp_path):
    refused(verify("run", "linear", "--json", tmp_path), str(tmp_path), "folder")


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_report_in_a_link_loop_is_refused_before_the_work(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(run("cli_rules:square", "--json", tmp_path / "a" / "report.json"), "cannot write")


def test_config_mistakes_reach_the_user(tmp_path):
    path = tmp_path / "verify.toml"
    path.write_text("casse = 3\n")
    one_line(verify("run", "--config", path), str(path), "'casse'", 'Did you mean "cases"?')
    path.write_text('checks = ["gradiant"]\nspecs = ["linear"]\n')
    one_line(verify("run", "--config", path), "'gradiant'")


def test_config_is_used_and_the_command_line_wins(tmp_path):
    path = tmp_path / "a b\u00e4.toml"
    path.write_bytes(b'\xef\xbb\xbfspecs = ["cli_rules:square"]\r\ncases = 2\r\nseed = 5\r\nchecks = ["gradient"]\r\n')
    one = json.loads(verify("run", "--config", path, "--json", "-").stdout)["verdicts"][0]
    assert (one["name"], one["cases"], {f["check"] for f in one["findings"]}) == ("cli_rules:square", 2, {"gradient"})
    other = json.loads(verify("run", "cli_rules:half", "--config", path, "--cases", 3, "--seed", 6, "--json", "-").stdout)["verdicts"][0]
    assert (other["name"], other["cases"], other["status"]) == ("cli_rules:half", 3, "FAIL")
    assert "/6/" in other["address"]


def test_an_empty_list_of_checks_is_not_success(tmp_path):
    path = tmp_path / "verify.toml"
    path.write_text('specs = ["cli_rules:square"]\nchecks = []\ncases = 2\n')
    assert verify("run", "--config", path).exit_code in (2, 3)


def test_pass():
    result = run("cli_rules:square")
    assert result.exit_code == 0, result.output
    assert "PASS" in result.stdout and "\x1b" not in result.output and result.stderr == ""


def test_fail_says_what_and_where_and_replays():
    result = run("cli_rules:half")
    assert result.exit_code == 1
    assert "FAIL cli_rules:half" in result.stdout and "times 0.5" in result.stdout
    address = next(line for line in result.stdout.splitlines() if "verify replay" in line).split("replay ")[-1].strip().strip("'")
    again = verify("replay", address)
    assert again.exit_code == 1 and "FAIL" in again.stdout


def test_a_spec_is_called_in_the_report_what_it_was_called_on_the_command_line():
    result = run("cli_rules:half_spec")
    line = next(line for line in result.stdout.splitlines() if "verify replay" in line)
    assert line.split()[-1].startswith("cli_rules:half_spec/0/") and verify("replay", line.split()[-1]).exit_code == 1


def test_only_those_who_ask_get_the_table_and_what_to_read_is_the_derivation():
    short, long = run("cli_rules:half").stdout, run("cli_rules:half", "-v").stdout
    assert "error caught" not in short.split("FAIL", 1)[1] and "error caught" in long.split("FAIL", 1)[1]
    flowing = " ".join(short.split())  # the lines break where the number of checks that fail lets them
    assert "(-v: a table)" in flowing and "(verify explain cli_rules:half)" in flowing


def test_a_shrunken_address_replays():
    """The mistake needs four elements: the smallest case has exactly that many, and its address says so."""
    first = json.loads(run("cli_rules:only_large", "--json", "-", cases=8).stdout)["verdicts"][0]
    assert first["status"] == "FAIL" and first["smallest_case"].startswith("n=4")
    again = verify("replay", first["address"], "--json", "-")
    assert again.exit_code == 1
    second = json.loads(again.stdout)["verdicts"][0]
    wrong = [next(f for f in record["findings"] if f["status"] == "FAIL" and f["check"] == "gradient") for record in (first, second)]
    assert {key: wrong[0][key] for key in ("got", "want", "index")} == {key: wrong[1][key] for key in ("got", "want", "index")}


def test_replay_of_a_right_case_passes():
    assert verify("replay", "cli_rules:square/3/1").exit_code == 0


def test_every_printed_finding_address_replays():
    record = json.loads(run("cli_rules:half", "--json", "-", cases=6).stdout)["verdicts"][0]
    addresses = {f["address"] for f in record["findings"] if f["status"] == "FAIL"}
    assert addresses
    for address in addresses:
        assert verify("replay", address).exit_code == 1, address


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", ["ValueError", "boom from the backward"]),
        ("two_cts", ["the backward returns 2 cotangents for 1 argument;"]),
        ("no_tuple", ["the backward returns one value that is no tuple for 1 argument"]),
        ("wrong_shape", ["the backward returns a cotangent of shape () for x, whose shape is ("]),
    ],
)
def test_a_rule_that_raises_is_wrong(name, words, rules):
    result = run(f"cli_rules:{name}")
    assert result.exit_code == 1, result.output
    seen = " ".join(result.stdout.split())
    for word in words:
        assert word in seen
    assert "Traceback" not in result.output


def test_a_rule_that_raises_shows_the_users_line(rules):
    result = run("cli_rules:raising", "--json", "-")
    message = json.loads(result.stdout)["verdicts"][0]["findings"][0]["message"]
    line = next(number for number, text in enumerate(MODULE.splitlines(), 1) if "boom from" in text)
    assert f"{rules}:{line}" in message and 'raise ValueError("boom from the backward")' in message


@pytest.mark.parametrize("name", ["nan", "inf"])
@pytest.mark.filterwarnings("error")
def test_a_value_that_is_not_finite_is_said_and_is_no_success(name):
    result = run(f"cli_rules:{name}")
    assert result.exit_code == 3, result.output
    seen = " ".join(result.stdout.split())
    assert f"is {name}" in seen and "INCONCLUSIVE" in seen


def test_some_values_that_are_not_finite():
    result = run("cli_rules:one_nan", cases=6)
    assert result.exit_code == 3, result.output
    assert "nan" in result.stdout


def test_skipping_everything_is_no_success():
    result = verify("run", "cli_rules:square", "--cases", 2, "--check", "structure")
    assert result.exit_code == 3, result.output


@pytest.mark.parametrize("name", ["square", "half", "prints", "unannotated", "nan"])
def test_json_on_stdout_is_nothing_but_json(name):
    result = run(f"cli_rules:{name}", "--json", "-")
    record = json.loads(result.stdout)
    assert set(record) == {"schema", "environment", "run", "verdicts"} and len(record["verdicts"]) == 1
    assert record["verdicts"][0]["name"].endswith(name)


def test_a_function_that_exits_is_no_success():
    """`sys.exit(0)` in a user's function must not become verify's own exit status 0."""
    refused(run("cli_rules:leaves"), "SystemExit")


def test_reports_are_written_whole(tmp_path):
    import junitparser

    paths = tmp_path / "a b.json", tmp_path / "ü.xml"
    result = run("cli_rules:half", "--json", paths[0], "--junit", paths[1])
    assert result.exit_code == 1 and "FAIL" in result.stdout
    assert json.loads(paths[0].read_text())["verdicts"][0]["status"] == "FAIL"
    assert junitparser.JUnitXml.fromfile(str(paths[1])).failures or sum(
        suite.failures for suite in junitparser.JUnitXml.fromfile(str(paths[1]))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.json", "ü.xml"]


def test_junit_on_stdout_is_nothing_but_xml():
    from xml.etree import ElementTree

    result = run("cli_rules:square", "--junit", "-")
    ElementTree.fromstring(result.stdout)


def test_json_and_junit_cannot_both_have_stdout():
    refused(run("cli_rules:square", "--junit", "-", "--json", "-"), "stdout")


def test_the_same_seed_gives_the_same_report():
    first, again, other = (
        json.loads(run("cli_rules:half", "--seed", seed, "--json", "-").stdout)["verdicts"][0]["findings"] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_list():
    result = verify("list")
    assert result.exit_code == 0
    for word in ("layer_norm", "linear", "attention", "gradient", "V003"):
        assert word in result.stdout
    record = json.loads(verify("list", "--json").stdout)
    assert {"linear", "mlp"} <= set(record["operations"]) and record["checks"]["V003"] == "gradient"


@pytest.mark.parametrize("name", ["V001", "gradient", "vmap"])
def test_explain_a_check(name):
    result = verify("explain", name)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) > 3


def test_explain_an_operation():
    result = verify("explain", "linear")
    assert result.exit_code == 0
    for word in ("Worked example", "dL/d", "autodiff", "finite differences", "What the spec claims"):
        assert word in result.stdout


def test_explain_a_function_of_ones_own():
    result = verify("explain", "cli_rules:square")
    assert result.exit_code == 0 and "dL/dx" in result.stdout


def test_explain_what_cannot_be_run():
    refused(verify("explain", "cli_rules:unannotated"), "no jaxtyping annotation")
    refused(verify("explain", "cli_rules:fails"), "the primal is broken")


def test_doctor():
    result = verify("doctor")
    assert result.exit_code == 0, result.output
    assert "a wrong rule fails" in result.stdout and "BAD" not in result.stdout


def test_help_and_version():
    for args in (["--help"], ["-h"], ["run", "-h"], ["--version"]):
        assert verify(*args).exit_code == 0
    assert verify().exit_code == 2 and "Usage" in verify().output


def test_a_reader_that_goes_away_is_no_fault(tmp_path):
    code = "import sys; sys.argv = ['verify', 'list']; from verify.cli import main; main()"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" | head -c 5; exit ${{PIPESTATUS[0]}}'],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr and "internal fault" not in done.stderr


def test_an_own_fault_is_4_and_is_called_so(monkeypatch):
    module = importlib.import_module("verify.runner")
    monkeypatch.setattr(module, "run_spec", lambda *a, **k: 1 / 0)
    result = run("cli_rules:square")
    assert result.exit_code == 4 and "internal fault" in result.stderr and result.stdout == ""


def test_processes_give_the_same_verdict(rules):
    here = json.loads(run("cli_rules:half", "--json", "-", "--jobs", 1, cases=4).stdout)["verdicts"][0]["findings"]
    environment = {**os.environ, "PYTHONPATH": str(Path(rules).parent)}
    command = [sys.executable, "-m", "verify.cli", "run", "cli_rules:half", "--cases", "4", "--jobs", "2", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, env=environment)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdicts"][0]["findings"] == here
