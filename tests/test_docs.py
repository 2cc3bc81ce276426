"""Every block of Python and every command of the pages in docs/ runs, in the order of its page, and prints what stands there.

```text     right after a block of Python: what it prints.                    ```console   `$ command`, and what it prints.
```text     right after a block of Python: what it prints.                         ```console   `$ command`, and what it prints.
A line "..." stands for anything; numbers of seconds are not compared. ```sh and ```yaml are for people to run, and so is a block
under a line `<!-- not run: WHY -->` (a package that is not installed here).
"""

import contextlib
import importlib.util
import io
import linecache
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w+)\n(.*?)^```$", re.M | re.S)
RUN = ("python", "console", "diff")
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if "generated" not in p.parts and re.search(rf"^```({'|'.join(RUN)})$", p.read_text(), re.M)]
LONG = ("audit_program", "comparison", "pallas")  # half a minute each or more: read at night


def words(text: str) -> list[str]:
    """Without line breaks, and with any number of seconds alike."""
    return re.sub(r"\b\d+(\.\d+)? ?s\b", " SECONDS ", text).split()


def assert_prints(printed: str, wanted: str, where: str) -> None:
    pattern = " ".join(".*" if word == "..." else re.escape(word) for word in words(wanted))
    assert re.fullmatch(pattern, " ".join(words(printed))), f"{where} printed\n{printed}\nwhere the page has\n{wanted}"


def forget(folder: Path) -> None:
    """Modules of this folder are read anew when they are imported next."""
    for name in [name for name, module in sys.modules.items() if Path(getattr(module, "__file__", None) or "/").parent == folder]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, from which modules can be imported; none stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of a file that is mended within the second the old bytecode would be read
    yield tmp_path
    forget(tmp_path)


def command(line: str, folder: Path) -> str:
    """What a command of a page prints on stdout: `verify` in this process, which has JAX loaded, others in their own."""
    program, *arguments = shlex.split(line)
    if program == "verify":
        from verify.cli import main

        forget(folder)  # the page may have mended a module
        return CliRunner().invoke(main, arguments, env={"COLUMNS": "100"}).stdout
    assert program == "pytest", f"a page runs {program}; write ```sh for what only people run"
    done = subprocess.run(
        [sys.executable, "-m", program, "-p", "no:cacheprovider", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.relative_to(DOCS).with_suffix("").as_posix(), marks=[pytest.mark.nightly] if page.stem in LONG else [])
        for page in PAGES
    ],
)
def test_blocks_run_and_print_what_the_page_shows(page: Path, folder: Path) -> None:
    namespace: dict = {"__name__": page.stem}
    printed: str | None = None
    for block in BLOCK.finditer(page.read_text()):
        excused, kind, text = block.groups()
        if excused:
            continue
        where = f"{page.relative_to(ROOT)}:{page.read_text()[: block.start()].count(chr(10)) + 1}"
        if kind == "python" and (named := re.match(r"# (\w+\.py)\n", text)):
            (folder / named[1]).write_text(text)
        elif kind == "python":
            stream, script = io.StringIO(), folder / "example.py"
            script.write_text(text)
            linecache.checkcache(str(script))
            with contextlib.redirect_stdout(stream):
                exec(compile(text, str(script), "exec"), namespace)
            printed = stream.getvalue()
        elif kind == "text":
            if printed is not None:
                assert_prints(printed, text, where)
            printed = None
        elif kind == "diff":
            head, *lines = text.splitlines()
            path = folder / head.removeprefix("--- ")
            old, new = ("\n".join(line[1:] for line in lines if line[0] == sign) for sign in "-+")
            assert path.read_text().count(old) == 1, f"{where}: {path.name} does not have these lines once"
            path.write_text(path.read_text().replace(old, new))
        elif kind == "console":
            for entry in re.split(r"^\$ ", text, flags=re.M)[1:]:
                line, _, wanted = entry.partition("\n")
                assert_prints(command(line, folder), wanted, f"{where}: {line}")


def test_pages_that_show_code_are_found() -> None:
    assert len(PAGES) >= 8


def pages_from_code():
    """docs/_extensions/generated.py, which imports its neighbours."""
    sys.path.append(str(DOCS / "_extensions"))
    spec = importlib.util.spec_from_file_location("generated", DOCS / "_extensions" / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_operation_check_and_public_name_has_its_place() -> None:
    import manual_vjp
    from manual_vjp.catalog import NAMES
    from verify.checks import ALL

    made = pages_from_code()
    formulas, checks = made.formulas(), made.checks()
    for name in NAMES:
        text = formulas[formulas.index(f"## {name}\n") :].split("\n## ")[0]
        for section in ("Source:", "Forward", "Derivation", "Backward", "Validity", "Residuals", "Cost"):
            assert re.search(rf"^{section}", text, re.M), f"{name} has no {section}"
    assert all(f"## {check.CODE} {check.NAME}" in checks for check in ALL)
    assert set(NAMES) <= set(made.public(manual_vjp)) == set(re.findall(r"as (\w+)\n", (ROOT / "manual_vjp" / "__init__.py").read_text()))


def test_every_constant_is_listed() -> None:
    from verify import tolerance

    rows = {row.split("`")[1]: row for row in pages_from_code().constants().splitlines() if row.startswith("| `")}
    assert set(rows) == {name for name in vars(tolerance) if name.isupper()}


def test_the_repository_is_the_same_everywhere() -> None:
    files = ["pyproject.toml", "CITATION.cff", "docs/conf.py", "docs/index.md", "docs/tutorials/ci.md", "notebooks/verify_on_colab.py"]
    for name in files:
        found = set(re.findall(r"github(?:\.com)?/([\w-]+/[\w-]+)", (ROOT / name).read_text()))
        assert found == {"manual-vjp/manual-vjp"}, f"{name}: {found}"
