"""Pages that are made from the code at each build, so that no list is kept by hand. They go to docs/generated/, which git ignores."""

import ast
import inspect
import io
import re
import shutil
import tokenize
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parents[1]
TO = HERE / "generated"
SECTION = re.compile(r"^(Source|Forward|Derivation|Backward|Validity|Residuals|Cost)\b", re.M)


def parts(docstring: str) -> tuple[str, list[str]]:
    """What an op's docstring says first, and its sections."""
    text = inspect.cleandoc(docstring)
    starts = [*SECTION.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return text[: starts[0].start()].strip(), [text[m.start() : end].rstrip() for m, end in zip(starts, ends, strict=True)]


def formulas() -> str:
    import costs

    from manual_vjp.catalog import SPECS
    from verify.spec import Arg

    def shape(arg) -> str:
        inside = [shape(value) for value in (arg.values() if isinstance(arg, dict) else arg)] if not isinstance(arg, Arg) else []
        return ", ".join(inside) if inside else f"`({arg.dims})` {arg.dtype}{', or None' if arg.optional else ''}"

    from verify.signature import arguments

    table = ["| operation | products, forward | backward | functions, forward | backward | |\n|---|---|---|---|---|---|"]
    page = []
    for name, spec in SPECS.items():
        module = import_module(spec.fn.__module__)
        summary, sections = parts(module.__doc__ or "")
        *terms, remark = costs.of(module.__doc__ or "")
        table.append(f"| [{name}](#{name}-derivation) | {' | '.join('' if term == 'none' else term for term in terms)} | {remark} |")
        page += [f"({name}-derivation)=\n## {name}", f"{summary} API: {{py:func}}`manual_vjp.{name}`."]
        page += ["| argument | shape and dtype |\n|---|---|\n" + "\n".join(f"| `{k}` | {shape(a)} |" for k, a in arguments(spec).items())]
        page += ["```{code-block} text\n:class: derivation\n\n" + "\n\n".join(sections) + "\n```"]
    return "\n\n".join(["\n".join(table), *page]) + "\n"


def checks() -> str:
    from verify.checks import ALL, JUDGES

    rows = "\n".join(f"| [{check.CODE}](#{check.CODE.lower()}) | `{check.NAME}` | {check.TITLE} |" for check in ALL)
    page = [
        "# Checks",
        f"{len(ALL)} checks, in the order of a report. `verify explain CODE` shows the same text; `--check CODE` runs one alone. "
        f"Those that compare a gradient with an oracle, one of which a PASS needs: {', '.join(f'`{name}`' for name in JUDGES)}.",
        f"| code | check | what it asks |\n|---|---|---|\n{rows}",
    ]
    for check in ALL:
        page += [f"({check.CODE.lower()})=\n## {check.CODE} {check.NAME}", f"*{check.TITLE}*", inspect.cleandoc(check.__doc__ or "")]
    return "\n\n".join(page) + "\n"


def public(module) -> list[str]:
    """The names that a package exports: its `__all__`, or what its `__init__` imports from its own modules."""
    if names := getattr(module, "__all__", None):
        return sorted(names)
    return sorted(n for n, v in vars(module).items() if not n.startswith("_") and callable(v) and v.__module__.startswith(module.__name__))


def api(name: str, first: str) -> str:
    module = import_module(name)
    page = [f"# API: {name}", first]
    for exported in public(module):
        value = getattr(module, exported)
        kind, options = ("autoclass", "\n   :members:") if inspect.isclass(value) else ("autofunction", "")
        if inspect.isclass(value) and issubclass(value, Enum):
            options += "\n   :undoc-members:"
        page += [f"## {exported}", f"```{{eval-rst}}\n.. {kind}:: {name}.{exported}{options}\n```"]
    return "\n\n".join(page) + "\n"


def list_fields(app, what, name, value, options, lines) -> None:
    """A record's docstring says what its fields are in lines "name: text"; here they become a list."""
    if not is_dataclass(value):
        return
    text = re.sub(
        r"(?m)^((?:[a-z_]\w*(?:, )?)+): ", lambda m: "* " + ", ".join(f"``{n}``" for n in m[1].split(", ")) + ": ", "\n".join(lines)
    )
    text = re.sub(r"(?m)^    (?=\S)", "  ", text)
    lines[:] = re.sub(r"(?m)(?<=\S)\n\* ", "\n\n* ", text).splitlines()


def constants() -> str:
    """Each constant of verify/tolerance.py, with the comment on its lines, or above the group that it stands in."""
    from verify import tolerance

    source = inspect.getsource(tolerance)
    lines = source.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    rows = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign):
            continue
        value = ast.unparse(node.value)
        own = [comments[n] for n in range(node.lineno, node.end_lineno + 1) if n in comments]
        first = next(n for n in range(node.lineno, 0, -1) if not lines[n - 2].strip())  # of the group, which an empty line begins
        group = [comments[n] for n in range(first, node.lineno) if lines[n - 1].startswith("#")]
        reason = " ".join(own or group).replace("|", "\\|")
        rows.append(f"| `{node.targets[0].id}` | {f'`{value}`' if len(value) < 40 else 'by dtype'} | {reason} |")
    return "| constant | value | reason |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def tolerance_text() -> str:
    from verify import tolerance

    return f"```{{code-block}} text\n:class: derivation\n\n{inspect.cleandoc(tolerance.__doc__ or '')}\n```\n"


def report() -> str:
    """A real report: a right rule and two wrong ones."""
    import report_rules

    import verify
    from verify.environment import environment

    verdicts = tuple(verify.run(spec, cases=14) for spec in report_rules.SPECS)
    return verify.Report(verdicts=verdicts, environment=environment()).to_html()


API = "Every public name, from its docstring; examples in docstrings are run by the tests."


def write(app=None) -> None:
    from figures import figures

    extra = TO / "extra"
    shutil.rmtree(TO, ignore_errors=True)
    extra.mkdir(parents=True)
    pages = {
        "formulas.txt": formulas(),
        "checks.md": checks(),
        "constants.txt": constants(),
        "tolerance.txt": tolerance_text(),
        "api_verify.md": api("verify", API),
        "api_manual_vjp.md": api("manual_vjp", API),
        "extra/example_report.html": report(),
    }
    for name, text in pages.items():
        (TO / name).write_text(text)
    figures(TO)


def setup(app):
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", list_fields)
    return {"parallel_read_safe": True}
