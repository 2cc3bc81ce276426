"""The project's verbs, the same on a laptop, in the pre-commit hook and in CI: `nox -s check`, `nox -s test`, ...

The sessions use the environment that nox runs in (install it with `pip install -e '.[dev]'`); only `compat` makes others.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.sessions = ["check", "test"]
nox.options.default_venv_backend = "none"
JAX = {"3.11": "0.7.2", "3.13": "0.12.*"}  # Colab's, and the newest; the version in between is the one of this environment

TWO = ["-n", "2", "--dist", "loadgroup"]  # processes; a group of tests that share work stays in one
FAST = ["tests/ops/test_contract.py", "tests/power"]  # every operation under every transformation, and some of every kind of mistake


@nox.session
def check(session: nox.Session) -> None:
    """Lint, format and types."""
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")
    session.run(sys.executable, "-m", "mypy")


@nox.session
def test(session: nox.Session) -> None:
    """All tests."""
    session.run(sys.executable, "-m", "pytest", *TWO, *session.posargs)


@nox.session
def verify(session: nox.Session) -> None:
    """The main job: verify every operation."""
    session.run(sys.executable, "-m", "verify.cli", "run", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time and memory of the layers beside autodiff and public peers (install '.[bench]')."""
    session.run(sys.executable, "benchmarks/layers.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/docs: pages made from the code, figures measured, internal links checked. A warning is an error."""
    session.run(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "--fresh-env", "-b", "html", "docs", "build/docs")


@nox.session
def compat(session: nox.Session) -> None:
    """The fast tests on the oldest and the newest JAX, on the interpreters that are here, each in one process beside the others."""
    folder, wanted = Path(session.create_tmp()), [*(session.posargs or FAST)]
    with ThreadPoolExecutor() as pool:
        running = {}
        for python, jax in JAX.items():
            if (interpreter := _interpreter(python)) is None:
                session.log(f"JAX {jax}: NOT RUN, there is no Python {python} here")
            else:
                running[python, jax] = pool.submit(_tested, interpreter, jax, folder / f"jax-{jax.rstrip('.*')}", wanted)
    failed = []
    for (python, jax), tested in running.items():
        done = tested.result()
        session.log(f"JAX {jax} on Python {python}")
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(f"JAX {jax}")
    if failed:
        session.error(f"tests fail with {' and '.join(failed)}")


def _tested(interpreter: str, jax: str, folder: Path, wanted: list[str]) -> subprocess.CompletedProcess[str]:
    """What pytest says in a new environment with this JAX."""
    command = [_environment(interpreter, jax, folder), "-m", "pytest", "-m", "not slow and not nightly", *wanted]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def _environment(interpreter: str, jax: str, folder: Path) -> str:
    """A new virtual environment with this JAX and the project; its Python."""
    subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
    own = str(folder / "bin" / "python")
    flax = "flax<0.12" if jax.startswith("0.7") else "flax"
    wanted = [f"jax=={jax}", flax, "-e", ".[test]"]
    uv = shutil.which("uv")
    if uv is None or subprocess.run([uv, "pip", "install", "--quiet", "--python", own, *wanted], check=False).returncode:
        subprocess.run([own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    return own


def _interpreter(python: str) -> str | None:
    """An interpreter of this version: this one, on the PATH, or pyenv's."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    if found := shutil.which(f"python{python}"):
        working = subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
        if working:
            return found
    roots = [os.environ.get("PYENV_ROOT", ""), str(Path.home() / ".pyenv")]
    candidates = [path for root in roots if root for path in sorted(Path(root).glob(f"versions/{python}.*/bin/python"))]
    return str(candidates[-1]) if candidates else None
