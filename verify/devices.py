"""Four simulated devices for a process that has one: programs are traced and lowered here, and run in a child process with four CPU devices.

The user's functions are closures that no process can hand to another; their StableHLO is bytes. So a program is traced for an abstract mesh and exported, and
the child, which never sees the user's code, runs the module. It is started when it is first needed, talks over its standard streams, and ends when its
input does. A process that has four CPU devices itself needs no child.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import jax
import numpy as np
from jax import export
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from verify import engine
from verify.printable import short

COUNT, AXIS = 4, "devices"
LIMIT = 90.0  # seconds for one program, the child's own start included
STARTS = 2  # a child that died or hung is replaced once


class UnavailableError(Exception):
    """The program could not be run on four devices, for a reason that is not the fault of the function in it."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """What the child needs: StableHLO, which arguments it reads, which are split over the devices, and what it returns."""

    stablehlo: bytes
    kept: tuple[int, ...]
    split: tuple[bool, ...]
    shapes: tuple[tuple[tuple[int, ...], Any], ...]
    options: dict[str, Any] | None


@functools.cache
def mesh() -> Mesh | AbstractMesh:
    """Four CPU devices in a row: real ones where this process has them."""
    own = _own()
    return _mesh_of(own) if own else AbstractMesh((COUNT,), (AXIS,), axis_types=(AxisType.Auto,))


def sharding(split: bool, over: Mesh | AbstractMesh | None = None) -> NamedSharding:
    """Of an array whose leading axis is split over the devices, or that every device holds whole."""
    return NamedSharding(over or mesh(), PartitionSpec(AXIS) if split else PartitionSpec())


def run(function: Callable[..., Sequence[Any]], arrays: Sequence[np.ndarray], split: Sequence[bool]) -> list[np.ndarray]:
    """A flat function of arrays on four devices. What it raises when it is traced is raised as it is; UnavailableError for all that comes later."""
    arrays = [
        array.astype(jax.dtypes.canonicalize_dtype(array.dtype)) for array in arrays
    ]  # the child has 64-bit types whatever is off here
    structs = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding(on)) for a, on in zip(arrays, split, strict=True)]
    jitted = jax.jit(function)
    traced = jitted.trace(*structs)
    try:
        if isinstance(mesh(), Mesh):
            compiled = traced.lower().compile(compiler_options=engine.quick_options())
            return _numpy(compiled(*_placed(arrays, split, mesh())))
        lowered = export.export(jitted, platforms=("cpu",))(*structs)
    except Exception as error:  # lowering: JAX and XLA raise many types
        raise UnavailableError(f"it cannot be exported for another process: {type(error).__name__}: {_short(error)}") from error
    module = Module(
        stablehlo=lowered.mlir_module_serialized, kept=lowered.module_kept_var_idx, split=tuple(split),
        shapes=tuple((tuple(aval.shape), aval.dtype) for aval in lowered.out_avals), options=engine.quick_options(),
    )  # fmt: skip
    return _child().ask(module, list(arrays))


def _own() -> list[Any]:
    try:
        devices = jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return []
    return devices[:COUNT] if len(devices) >= COUNT else []


def _mesh_of(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def _placed(arrays: Sequence[np.ndarray], split: Sequence[bool], over: Any) -> list[Any]:
    return [jax.device_put(array, sharding(on, over)) for array, on in zip(arrays, split, strict=True)]


def _numpy(results: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(result) for result in results]


def _short(error: BaseException) -> str:
    return short(error)


class Child:
    """The other process. One question at a time; safe to ask from several threads."""

    def __init__(self, command: Sequence[str] | None = None, limit: float = LIMIT) -> None:
        self._command = command or (sys.executable, "-c", "from verify.devices import serve; serve()")
        self._limit = limit
        self._lock = threading.Lock()
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None
        self._lost = ""

    def ask(self, module: Module, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The module's results. Raises UnavailableError where the child cannot give them."""
        with self._lock:
            process = self._running()
            answers: list[Any] = []
            asking = threading.Thread(target=_exchange, args=(process, (module, arrays), answers), daemon=True)
            asking.start()
            asking.join(self._limit)
            if not answers:
                self._lost = f"gave no answer within {self._limit:g} s" if asking.is_alive() else f"died ({self._last_words(process)})"
                self.stop()
                raise UnavailableError(f"the process that simulates {COUNT} devices {self._lost}")
        answer = answers[0]
        if isinstance(answer, str):
            raise UnavailableError(f"the process that simulates {COUNT} devices cannot run it: {answer}")
        return answer

    def stop(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        log, self._log = self._log, None
        streams: list[Any] = [log]
        if process is not None:
            process.kill()
            process.wait()
            streams += [process.stdin, process.stdout]
        for stream in streams:
            with suppress(OSError, ValueError):  # a broken pipe, or a thread that still reads
                if stream:
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._process is not None:
            self._lost = f"died ({self._last_words(self._process)})"
            self.stop()
        if self._starts >= STARTS:
            raise UnavailableError(f"the process that simulates {COUNT} devices {self._lost}, and it was started {STARTS} times already")
        self._starts += 1
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=_environment()
            )
        except OSError as error:
            self._lost = f"cannot be started: {error}"
            self.stop()
            raise UnavailableError(f"the process that simulates {COUNT} devices {self._lost}") from error
        return self._process

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it still runs, but closed its output"
        if self._log is None:
            return f"exit status {code}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"exit status {code}" + (f": {lines[-1][:200]}" if lines else "")


def _exchange(process: subprocess.Popen[bytes], question: Any, answers: list[Any]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(question, process.stdin)
        process.stdin.flush()
        answers.append(pickle.load(process.stdout))
    except (OSError, EOFError, ValueError, pickle.UnpicklingError):  # it died; the asker says so
        return


def _environment() -> dict[str, str]:
    """Of a process that sees four CPU devices and no accelerator, and finds the packages that this one finds."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\S*", "", os.environ.get("XLA_FLAGS", "")).strip()
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {
        **os.environ, "XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": str(COUNT), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "PYTHONPATH": path,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }  # fmt: skip


@functools.cache
def _child() -> Child:
    child = Child()
    atexit.register(child.stop)
    return child


def serve() -> None:
    """The child's life: read a module and arrays, run them, write the results, until the input ends."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be read as an answer
    over = _mesh_of(jax.local_devices(backend="cpu")[:COUNT])
    while True:
        try:
            module, arrays = pickle.load(questions)
        except EOFError:
            return
        try:
            answer: Any = _execute(module, arrays, over)
        except Exception as error:  # an answer too: what XLA raises
            answer = f"{type(error).__name__}: {_short(error)}"
        pickle.dump(answer, answers)
        answers.flush()


def _execute(module: Module, arrays: Sequence[np.ndarray], over: Mesh) -> list[np.ndarray]:
    """Run a module in the place of a function with the same arguments and results: JAX's `Exported` holds no more than that."""
    placed = _placed(arrays, module.split, over)
    stand_in = export.export(jax.jit(lambda *_: [jax.numpy.zeros(shape, dtype) for shape, dtype in module.shapes]), platforms=("cpu",))(
        *placed
    )
    exported = replace(stand_in, mlir_module_serialized=module.stablehlo, module_kept_var_idx=module.kept)
    compiled = jax.jit(exported.call).lower(*placed).compile(compiler_options=module.options)
    return _numpy(compiled(*placed))
