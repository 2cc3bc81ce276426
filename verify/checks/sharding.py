"""Is the rule right inside `jax.shard_map`, and under `jit` with inputs split over devices?

Four simulated devices each call the function on an example of their own; some arguments differ from device to device, the others are the same on all, as
parameters are in data parallel training. The cotangent of an argument that is the same on all devices is the sum over the devices. Who adds it up is easily
mistaken:

- `jax.shard_map` as it is by default (`check_vma=True`) wants the rule to do it, and refuses a backward that does not. Cure: sum the cotangent over the mesh
  axes along which it differs from device to device and its argument does not,

      def varying(x):
          aval = jax.typeof(x)
          return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying  # JAX 0.7, and later

      axes = tuple(varying(ct) - varying(argument))
      ct = jax.lax.psum(ct, axes) if axes else ct

- with `check_vma=False` nothing is tracked (those axes are none), and JAX adds it up. A rule that does so too is wrong by the number of devices.

A refusal is no wrong number: it is reported as SKIP, and the numbers are compared with `check_vma=False`. FAIL means wrong numbers, or a rule that cannot run
inside `jax.shard_map` at all although its primal and its reference can. Compared in float64 with the reference, one example at a time. No accelerator is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from verify import devices, programs
from verify._compat import enable_x64
from verify.batching import BLAME, shares_outputs
from verify.checks.compare import compare_twice, failed, skipped
from verify.checks.effort import small
from verify.checks.shards import Setting, estimate_of, setting_of
from verify.checks.structure import raised
from verify.observation import Observation
from verify.oracles.agreement import contradiction
from verify.oracles.autodiff import at_kink
from verify.records import Estimate, Finding, Status

CODE, NAME, TITLE = "V019", "sharding", "the rule is right inside shard_map, and under jit on several devices"
INDICES = (1, 9)  # the first argument differs from device to device; then all others do


def applies(observation: Observation) -> bool:
    case = observation.case
    here = case.index == 0 if case.thorough else case.index in INDICES
    return here and small(observation) and bool(observation.measured) and not contradiction(observation)


def judge(observation: Observation) -> list[Finding]:
    if observation.truth is None or observation.exact_program is None:
        return [_skip(observation, observation.no_truth)]
    if at_kink(observation):
        return [_skip(observation, "the inputs lie on a kink, where many gradients are right")]
    with enable_x64(not observation.no_float64):
        first = observation.case.index != INDICES[1]
        setting = setting_of(observation, [(leaf == 0) == first for leaf in range(len(observation.diff))])
        want = functools.cache(functools.partial(estimate_of, observation, setting))
        findings = _inside(observation, setting, want)
        if observation.case.index == INDICES[1] or failed(findings):
            return findings
        return findings + _split_inputs(observation, setting, want)


Function = Callable[[Sequence[Any], Sequence[Any]], list[Any]]  # (diff, rest) -> outputs
Want = Callable[[bool], Estimate]  # what is right; with True, more room for the reference's rounding, before anybody is accused


def _inside(observation: Observation, setting: Setting, want: Want) -> list[Finding]:
    """With JAX's own sum (check_vma=False), and with the rule's (check_vma=True) where JAX accepts it."""
    run, findings = observation.call.call.run, []
    try:
        plain = devices.run(_mapped(run, setting, check=False), setting.arrays, setting.all_split)
    except devices.UnavailableError as error:
        return [_skip(observation, str(error))]
    except Exception as error:
        return [_raises(observation, setting, error)]
    findings += _compared(observation, setting, want, plain, "inside jax.shard_map(check_vma=False)")
    try:
        checked = devices.run(_mapped(run, setting, check=True), setting.arrays, setting.all_split)
    except devices.UnavailableError as error:
        return [*findings, _skip(observation, str(error))]
    except Exception as error:
        return [*findings, _skip(observation, _refused(setting, run, error))]
    return findings + _compared(observation, setting, want, checked, "inside jax.shard_map")


def _split_inputs(observation: Observation, setting: Setting, want: Want) -> list[Finding]:
    """The examples as a batch of `jax.vmap` that is split over the devices, without shard_map."""
    if not any(setting.split):
        return []
    axes = [0 if on else None for on in setting.split]
    if shares_outputs(observation.call.jaxpr, [*setting.split, *([False] * len(observation.rest))]):
        return [_skip(observation, f"not run under jit on several devices: under jax.vmap {BLAME}")]

    def program(*arrays: Any) -> list[Any]:
        diff, rest, cts = setting.unpack(arrays)
        batch = jax.vmap(lambda *leaves: observation.call.call.run(leaves, rest), in_axes=axes)
        out, pullback = jax.vjp(batch, *diff)
        return list(pullback(programs.as_outputs(cts, out)))

    def plain(*arrays: Any) -> list[Any]:
        """JAX's autodiff of the reference as a rule: the gradient of each example, and its sum where an argument is one for all."""
        diff, rest, cts = setting.unpack(arrays)

        def one(leaves: list[Any], ct: list[Any]) -> list[Any]:
            out, pullback = jax.vjp(lambda *moved: observation.call.run_reference(moved, rest), *leaves)
            return list(pullback(programs.as_outputs(ct, out)))

        return [g if on else g.sum(0) for g, on in zip(jax.vmap(one, in_axes=(axes, 0))(diff, cts), setting.split, strict=True)]

    def compared(of: Callable[..., list[Any]]) -> list[Finding]:
        return _compared(observation, setting, want, devices.run(of, setting.arrays, setting.all_split), "under jax.jit")

    try:
        findings = compared(program)
        if failed(findings) and failed(compared(plain)):  # seen of convolutions
            return [
                _skip(observation, "under jit on several devices JAX's autodiff of the reference is wrong, too: XLA divides it wrongly")
            ]
        return findings
    except devices.UnavailableError as error:
        return [_skip(observation, str(error))]
    except Exception as error:
        return [
            _skip(observation, f"not run under jit on several devices, as it raises {raised(error)} under jax.vmap (see the check vmap)")
        ]


def _mapped(function: Function, setting: Setting, check: bool) -> Callable[..., list[Any]]:
    """The pullback of the function inside shard_map, each device with its own example."""

    def program(*arrays: Any) -> list[Any]:
        diff, _, cts = setting.unpack(arrays)
        rest = arrays[len(diff) : setting.inputs]
        mapped = _outputs(function, setting, check)
        out, pullback = jax.vjp(lambda *leaves: mapped(*leaves, *rest), *diff)
        return list(pullback(programs.as_outputs(cts, out)))

    return program


def _outputs(function: Function, setting: Setting, check: bool) -> Callable[..., list[Any]]:
    def local(*arrays: Any) -> list[Any]:
        diff, rest, _ = setting.unpack(arrays)
        own = [leaf[0] if on else leaf for leaf, on in zip(diff, setting.split, strict=True)]
        return [out[None] for out in function(own, rest)]

    inputs = tuple(PartitionSpec(devices.AXIS) if on else PartitionSpec() for on in setting.all_split[: setting.inputs])
    return jax.shard_map(local, mesh=devices.mesh(), in_specs=inputs, out_specs=PartitionSpec(devices.AXIS), check_vma=check)


def _compared(observation: Observation, setting: Setting, want: Want, got: list[np.ndarray], where: str) -> list[Finding]:
    call, dtype = observation.call, observation.measured[0].dtype
    own = ", ".join(name for name, on in zip(call.names, setting.split, strict=True) if on)
    given = f"each with its own {own}" if own else "all with the same arguments and each with its own cotangent"
    what = f"{where} on {devices.COUNT} devices, {given}, the cotangent of"
    findings = skipped(compare_twice(NAME, what, call.names, got, want, dtype, observation.case.address))
    return [_explained(finding, call.names, got, want(True), setting) if finding.status is Status.FAIL else finding for finding in findings]


def _explained(finding: Finding, names: Sequence[str], got: list[np.ndarray], estimate: Estimate, setting: Setting) -> Finding:
    """With the reason, where the wrong cotangent is the right one times or divided by the number of devices."""
    if finding.argument is None:
        return finding
    leaf = names.index(finding.argument)
    count = devices.COUNT
    value, want, error = np.asarray(got[leaf], np.float64), estimate.value[leaf], estimate.error[leaf]
    if (np.abs(value / count - want) <= error).all():
        why = (
            f"It is {count} times the right one: the rule adds up over the devices what JAX adds up as well, or is the same on all of them"
        )
    elif (np.abs(value * count - want) <= count * error).all():
        why = f"It is the right one divided by {count}, the number of devices: the rule takes a mean (pmean, axis_size), where the sum is wanted"
    elif setting.split[leaf] and (np.abs(value - want.sum(axis=0)) <= error.sum(axis=0)).all():
        why = f"It is the sum over the devices, but each device has its own {finding.argument}: no psum belongs there"
    else:
        return finding
    return replace(finding, message=f"{finding.message}. {why}")


def _raises(observation: Observation, setting: Setting, error: Exception) -> Finding:
    """FAIL only where neither the primal nor the derivative of the reference raises inside shard_map."""
    text = f"inside jax.shard_map(check_vma=False) the rule raises {raised(error)}"
    for whose, function in (("the primal itself", _alone(observation, setting)), ("the reference", _reference(observation, setting))):
        try:
            structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in setting.arrays]
            jax.eval_shape(function, *structs)
        except Exception as other:
            return _skip(observation, f"{whose} cannot be run inside jax.shard_map: {raised(other)}")
    message = f"{text}, and the reference does not. Do not read the number of devices or a mesh axis that the caller may not have"
    return Finding(check=NAME, status=Status.FAIL, message=message, address=observation.case.address)


def _alone(observation: Observation, setting: Setting) -> Callable[..., list[Any]]:
    return lambda *arrays: _outputs(observation.call.call.run, setting, check=False)(*arrays[: setting.inputs])


def _reference(observation: Observation, setting: Setting) -> Callable[..., list[Any]]:
    def differentiable(diff: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        call = observation.call.call
        if call.has_reference:
            return call.run_reference(diff, rest)
        return programs.trace(call, list(diff), list(rest)).run_reference(diff, rest)

    return _mapped(differentiable, setting, check=False)


def _refused(setting: Setting, run: Function, error: Exception) -> str:
    text = "jax.shard_map with check_vma=True, its default, refuses"
    try:
        structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in setting.arrays[: setting.inputs]]
        jax.eval_shape(_outputs(run, setting, check=True), *structs)
    except Exception as own:
        return f"{text} the function itself, before it is differentiated: {raised(own)}. With check_vma=False its cotangents are right"
    varying = "jax.typeof(a).vma" if hasattr(jax.typeof(jnp.zeros(())), "vma") else "jax.typeof(a).manual_axis_type.varying"
    return (
        f"{text} the rule: {raised(error)}. With check_vma=False its cotangents are right. Where an argument is the same on all devices, let the backward "
        f"return jax.lax.psum(ct, axes) over the axes along which the cotangent varies and the argument does not ({varying} of both; none: no psum)"
    )


def _skip(observation: Observation, reason: str) -> Finding:
    return Finding(check=NAME, status=Status.SKIP, message=reason, address=observation.case.address)
