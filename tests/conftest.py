"""Four simulated CPU devices, for `shard_map`, and programs that XLA optimises little, which halves what a test takes; set before anything imports JAX.

What is optimised as users have it is verified by `verify run` beside the tests.
"""

import os
from importlib.metadata import version

import pytest

FLAGS = ["--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
FLAGS += ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_multi_thread_eigen=false"]  # two workers keep two cores busy by themselves
if tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):  # newer ones end the process at a flag that they no longer know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

pytest_plugins = ["pytester"]


@pytest.fixture
def undiagnosed(monkeypatch):
    """Verdicts alone, in this process: to tell a mistake takes longer than to see it, and is tested where the words are."""
    monkeypatch.setattr("verify.runner.explained", lambda spec, verdict, judged, selected: verdict)
