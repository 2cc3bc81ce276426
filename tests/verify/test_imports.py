"""What imports what: read from the source, and from a process that has just begun."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERIFY = sorted((ROOT / "verify").rglob("*.py"))
OPS = sorted((ROOT / "manual_vjp").rglob("*.py"))
PARTS = {"mlp": {"linear", "relu", "layer_norm"}}  # a composition, and what it may be made of


def imported(path):
    """Every module that a file imports, at any depth of the code."""
    names = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            names.add(base)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def test_there_is_something_to_read():
    assert len(VERIFY) > 30 and len(OPS) > 5


@pytest.mark.parametrize("path", VERIFY, ids=lambda path: str(path.relative_to(ROOT)))
def test_verify_never_imports_its_customer(path):
    assert not any(name.split(".")[0] == "manual_vjp" for name in imported(path))


@pytest.mark.parametrize("path", OPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_operations_know_only_the_spec(path):
    found = {name for name in imported(path) if name.split(".")[0] == "verify"}
    assert all(name == "verify.spec" or name.startswith("verify.spec.") for name in found), found


@pytest.mark.parametrize(
    "path", [path for path in OPS if path.parent.name == "ops" and path.stem != "__init__"], ids=lambda path: path.stem
)
def test_operations_do_not_import_one_another(path):
    others = {name.split(".")[2] for name in imported(path) if name.startswith("manual_vjp.ops.")} - {path.stem}
    assert others <= PARTS.get(path.stem, set()), f"{path.stem} imports {others}"


STAGES = [
    "spec",
    "sizes",
    "domains",
    "cases",
    "engine",
    "derive",
    "observe",
    "oracles",
    "checks",
    "judging",
    "diagnosis",
    "reproduce",
    "evidence",
    "blame",
    "runner",
    "api",
    "campaign",
    "cli",
]  # the way of the data
CAMPAIGN = [
    "config",
    "plan",
    "rows",
    "journal",
    "salvage",
    "summary",
    "digest",
    "worker",
    "contained",
    "executors",
    "supervisor",
    "view",
    "command",
    "upkeep",
]


@pytest.mark.parametrize("path", VERIFY, ids=lambda path: str(path.relative_to(ROOT)))
def test_left_never_imports_right(path):
    own = path.relative_to(ROOT / "verify").parts[0].removesuffix(".py")
    if own not in STAGES:
        return
    later = STAGES[STAGES.index(own) + 1 :]
    found = {name.split(".")[1] for name in imported(path) if name.startswith("verify.")}
    assert not found & set(later), f"{own} imports {found & set(later)}"


@pytest.mark.parametrize("path", [path for path in VERIFY if path.parent.name == "campaign"], ids=lambda path: path.stem)
def test_a_campaign_is_built_in_one_direction(path):
    if path.stem == "__init__":
        assert not imported(path) - {"__future__"}
        return
    later = CAMPAIGN[CAMPAIGN.index(path.stem) + 1 :]
    found = {name.split(".")[2] for name in imported(path) if name.startswith("verify.campaign.")}
    assert not found & set(later), f"{path.stem} imports {found & set(later)}"


@pytest.mark.parametrize("path", [path for path in VERIFY if path.parent.name == "report"], ids=lambda path: path.stem)
def test_reports_see_finished_records_only(path):
    found = {".".join(name.split(".")[:2]) for name in imported(path) if name.startswith("verify.")}
    assert found <= {"verify.records", "verify.report", "verify.printable"}, found


HEAVY = ("jax", "jaxlib", "numpy", "rich", "jinja2", "manual_vjp")


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import verify", HEAVY),
        ("import verify; verify.Spec, verify.Arg, verify.SpecError, verify.VjpMismatch, verify.InternalError, dir(verify)", HEAVY),
        ("import verify.spec, verify.errors, verify.sizes", ("jax", "jaxlib", "manual_vjp")),
        (
            "import verify.report.html, verify.report.json, verify.report.junit, verify.report.summary",
            ("jax", "jaxlib", "rich", "manual_vjp"),
        ),
        ("import verify.pytest_plugin", ("jax", "jaxlib", "manual_vjp")),
        ("import verify.config", ("jax", "jaxlib", "manual_vjp")),
        ("import verify.campaign.command", ("jax", "jaxlib", "rich", "distributed", "manual_vjp")),
        ("import verify.cli", ("jax", "jaxlib", "manual_vjp")),
        ("from verify.cli import main; main(['--help'], standalone_mode=False)", ("jax", "jaxlib", "manual_vjp")),
        ("from verify.cli import main; main(['run', '--help'], standalone_mode=False)", ("jax", "jaxlib", "manual_vjp")),
        ("from verify.cli import main; main(['--version'], standalone_mode=False)", ("jax", "jaxlib", "manual_vjp")),
    ],
)
def test_start_up_stays_light(code, forbidden):
    check = f"\nimport sys; print('FOUND', sorted(set({forbidden!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code + check], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("FOUND []"), done.stdout


def test_every_public_name_loads():
    import verify

    assert set(verify.__all__) <= set(dir(verify))
    for name in verify.__all__:
        assert getattr(verify, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = verify.nonsense


def test_the_public_surface_of_the_design():
    import verify

    assert {
        "check",
        "assert_vjp",
        "run",
        "replay",
        "parametrize",
        "Spec",
        "Arg",
        "Report",
        "SpecError",
        "VjpMismatch",
        "InternalError",
    } <= set(verify.__all__)


def test_no_public_name_is_a_module():
    """`import verify.check` would replace the function `verify.check`."""
    import verify

    modules = {path.stem for path in (ROOT / "verify").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(verify.__all__)
