"""Four simulated CPU devices, for `shard_map`; set before anything imports JAX."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

pytest_plugins = ["pytester"]
