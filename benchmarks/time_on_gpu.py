"""How far from its floors does a step of the solver run on this GPU? Needs JAX and NumPy, not TensorFlow.

    python benchmarks/time_on_gpu.py STEPS [--budget 480] [--problems tiny cifar] [--output times.json]

STEPS is the folder that `export_solver_steps.py` wrote on any machine. Tiny steps must give the results that were
saved with them; the others are timed on made-up data. A floor is what a step would take if nothing but its arrays,
each once, or nothing but its arithmetic cost time. Peaks are an H200's (NVIDIA's data sheet), without sparsity.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEAST_SECONDS, LEAST_CALLS = 0.5, 3  # of calls that are timed, after one that is not


def draw(argument: dict, uniform: Callable[[Sequence[int]], Any], numpy: Any) -> Any:
    """Return made-up data of an argument; `uniform` gives numbers in [0, 1), `numpy` is NumPy or JAX's."""
    kind, scale, shape, dtype = (argument[key] for key in ("kind", "scale", "shape", "dtype"))
    if kind == "constant":
        return numpy.full(shape, scale, dtype)
    numbers = uniform(shape)
    if kind == "features":
        numbers = numpy.maximum(numbers - 0.5, 0)
        numbers = numbers / numpy.sqrt((numbers**2).sum(1, keepdims=True) + 1e-6)
    elif kind == "classes":
        numbers = numpy.floor(numbers * scale)
    elif kind == "vertices":
        numbers = scale * (numbers == numbers.max(1, keepdims=True))
    elif kind == "ties":
        numbers = numbers < scale
    else:
        numbers = scale * (numbers - 0.5)
    return numbers.astype(dtype)


def load(folder: pathlib.Path, step: dict) -> Callable[..., list]:
    """Return the function of a serialised StableHLO module: an exported one of the same types, its code replaced."""
    import jax
    import jax.export

    inputs, outputs = (
        [jax.ShapeDtypeStruct(one["shape"], one["dtype"]) for one in step[key]]
        for key in ("arguments", "results")
    )
    blank = jax.jit(lambda *_: [jax.numpy.zeros(one.shape, one.dtype) for one in outputs], keep_unused=True)
    code = (folder / f"{step['file']}.stablehlo").read_bytes()
    return jax.jit(dataclasses.replace(jax.export.export(blank)(*inputs), mlir_module_serialized=code).call)


def difference(found: list, expected: list[np.ndarray]) -> float:
    """Return the largest difference of an entry, relative to the largest one of its array; NaN where one is NaN."""
    scales = [np.abs(other).max() or 1.0 for other in expected]
    pairs = zip(found, expected, scales, strict=True)
    return float(
        np.max([np.abs(np.asarray(one, float) - other).max() / scale for one, other, scale in pairs])
    )


def check(folder: pathlib.Path, step: dict) -> dict:
    """Run a tiny step on the arguments that were saved with it."""
    import jax

    saved, numbers = np.load(folder / f"{step['file']}.npz"), range(len(step["results"]))
    arguments = [jax.numpy.asarray(saved[f"argument{i}"]) for i in range(len(step["arguments"]))]
    found = load(folder, step)(*arguments)
    return {"difference": difference(found, [saved[f"result{i}"] for i in numbers])}


def measure(folder: pathlib.Path, step: dict, bandwidth: float, peak: float) -> dict:
    """Time a step on made-up data, made on the device; seconds are the clock's, the median of calls."""
    import jax

    arguments = [
        draw(
            one,
            lambda shape, seed=seed: jax.random.uniform(jax.random.key(seed), shape, "float32"),
            jax.numpy,
        )
        for seed, one in enumerate(step["arguments"])
    ]
    function, times = load(folder, step), []
    while len(times) <= LEAST_CALLS or sum(times[1:]) < LEAST_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    seconds = float(np.median(times[1:]))
    return {
        "first call": times[0],
        "seconds": seconds,
        "calls": step["calls"],
        "bytes per second": step["bytes"] / seconds,
        "flops per second": step["flops"] / seconds,
        "share of the memory floor": step["bytes"] / bandwidth / seconds,
        "share of the arithmetic floor": step["flops"] / peak / seconds,
    }


def main() -> None:
    """Check, time, print a table; the exit code is 1 where a step fails or a tiny one gives other results."""
    import jax

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", type=pathlib.Path)
    parser.add_argument("--problems", nargs="+", help="All by default.")
    parser.add_argument("--budget", type=float, default=480, help="Seconds; no step begins after it.")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="Peak, TB/s.")
    parser.add_argument(
        "--float32", type=float, default=67.0, help="Peak, TFLOP/s; 495 of steps with --tf32."
    )
    parser.add_argument("--float64", type=float, default=67.0, help="Peak, TFLOP/s, tensor cores.")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="Of tiny steps, relative.")
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    begin, is_right = time.perf_counter(), True
    jax.config.update("jax_enable_x64", True)
    device, lines = jax.devices()[0], []
    print(f"{device.device_kind} ({device.platform}), JAX {jax.__version__}")
    if device.platform == "cpu":
        print("On a CPU the shares of a GPU's floors mean nothing.")
    heads = "ms a call", "calls", "ms a pass", "GB/s", "TFLOP/s", "memory", "flops"
    print(f"{'step':32}" + "".join(f"{head:>11}" for head in heads))
    for step in json.loads((options.steps / "steps.json").read_text()):
        if options.problems is not None and step["problem"] not in options.problems:
            continue
        peak = 1e12 * (options.float64 if step["is_double"] else options.float32)
        try:
            if time.perf_counter() - begin > options.budget:
                line = {"skipped": f"{options.budget:g} seconds are over"}
            elif step["problem"] == "tiny":
                line = check(options.steps, step)
                is_right = is_right and line["difference"] <= options.tolerance
            else:
                line = measure(options.steps, step, 1e12 * options.bandwidth, peak)
        except Exception as error:  # the next step may run: a machine is lent for minutes
            line, is_right = {"failed": f"{type(error).__name__}: {error}"}, False
        print(f"{step['name']:32}{describe(line)}", flush=True)
        lines.append({"name": step["name"], **line})
    if options.output is not None:
        result = {"device": device.device_kind, "jax": jax.__version__, "steps": lines}
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(int(not is_right))


def describe(line: dict) -> str:
    """Return a row of the table without its name."""
    if "seconds" not in line:
        return " ".join(
            f"{key}: {value:.1e}" if key == "difference" else f"{key}: {value}" for key, value in line.items()
        )
    milliseconds = 1e3 * line["seconds"]
    return (
        f"{milliseconds:11.3f}{line['calls']:11}{milliseconds * line['calls']:11.1f}"
        f"{line['bytes per second'] / 1e9:11.1f}{line['flops per second'] / 1e12:11.3f}"
        f"{line['share of the memory floor']:11.1%}{line['share of the arithmetic floor']:11.1%}"
    )


if __name__ == "__main__":
    main()
