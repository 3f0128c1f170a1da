"""Export the heavy steps of the solver, with static shapes, to be timed on a GPU machine that has JAX alone.

    python benchmarks/export_solver_steps.py --output STEPS [--problems tiny cifar] [--tf32]
    python benchmarks/time_on_gpu.py STEPS          # there

Writes a StableHLO module a step, of some KB, arguments and results on this CPU of tiny ones, and `steps.json`: shapes,
calls that make up a pass over all rows, flops (those of matrix products; of a projection, of one Newton step) and bytes
(arguments and results, each once) of a call. Without --tf32 products are computed in full float32.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from time_on_gpu import draw

from deel_dualview.svm.block_visits import Form, form_of_call, visitor
from deel_dualview.svm.newton import hessian_product
from deel_dualview.svm.passes import adjoint_chunk, scan_chunk
from deel_dualview.svm.simplex import project_onto_simplex

# n, d, c; the last one in chunks of rows that leave room for everything else.
PROBLEMS = {
    "tiny": (128, 8, 10),
    "cifar": (50_000, 512, 10),
    "classes": (20_000, 128, 100),
    "imagenet": (1_281_167, 2048, 1000),
}
CHUNK = 65_536
K, TIED = 0.1, 0.05  # penalty of unit rows, and the share of classes that are tied


class Step(NamedTuple):
    """What is exported.

    Attributes:
        function: of tensors.
        arguments: shape, dtype, kind and scale of each, see `time_on_gpu.draw`.
        num_rows: of a call.
        flops: of a call.
        is_double: whether its products are in float64.
    """

    function: Callable[..., Any]
    arguments: list[tuple[tuple[int, ...], str, str, float]]
    num_rows: int
    flops: int
    is_double: bool


def gpu_form(num_rows: int, num_classes: int) -> Form:
    """Return sizes of a call whose groups are whole blocks; of few classes, only few rows may move together."""
    block = min(num_rows, 256 if num_classes < 64 else 1024)
    return Form(-(-num_rows // block) * block, block, block, 4 if num_classes >= 1000 else 16)


def visit_flops(form: Form, num_classes: int, size: int) -> int:
    """Scores, Gram matrices and weights once a block; what the others moved, and a group's bound, once a sweep."""
    per_row = 4 * num_classes * size + 2 * form.block * size
    per_sweep = 2 * num_classes * form.block + (2 * num_classes * form.width if form.width > 1 else 0)
    return form.num_rows * (per_row + form.sweeps * per_sweep)


def steps_of(n: int, d: int, c: int) -> dict[str, Step]:
    """Return the steps of a problem by name."""
    rows = min(n, CHUNK)
    features, labels = ((rows, d), "float32", "features", 1), ((rows,), "int32", "classes", c)
    steps = {
        "certificate": Step(
            scan_chunk,
            [features, labels, labels, ((d, c), "float64", "numbers", 1)],
            rows,
            2 * rows * d * c,
            True,
        ),
        "product": Step(
            adjoint_chunk,
            [features, ((rows, c), "float64", "numbers", K), ((c, d), "float64", "numbers", 1)],
            rows,
            2 * rows * d * c,
            True,
        ),
        "projection": Step(
            project_onto_simplex,
            [((rows, c), "float64", "numbers", 1), ((), "float64", "constant", K)],
            rows,
            6 * rows * c,
            True,
        ),
        "hessian": Step(
            hessian_product,
            [
                features,
                ((rows, c), "float32", "ties", TIED),
                ((rows, 1), "float32", "constant", max(TIED * c, 1.0)),
                ((), "float32", "constant", 4 * K),
                ((d, c), "float32", "numbers", 1),
            ],
            rows,
            4 * rows * d * c,
            False,
        ),
    }
    by_groups = form_of_call(c, d)
    fewest = -(-rows // by_groups.block) * by_groups.block
    by_groups = by_groups._replace(num_rows=min(by_groups.num_rows, fewest))
    for name, form in {"visit": by_groups, "visit of whole blocks": gpu_form(rows, c)}.items():
        number = min(form.num_rows, n)
        arguments = [
            ((form.num_rows, d), "float32", "features", 1),
            ((form.num_rows,), "int32", "classes", c),
            ((form.num_rows,), "float32", "constant", K),
            ((form.num_rows, c), "float32", "vertices", K),
            ((c, d), "float32", "numbers", 0.1),
            ((c,), "float32", "constant", 1),
            ((), "int32", "constant", number),
            ((), "float32", "constant", 1),
        ]
        steps[name] = Step(partial(_visit, c, d, form), arguments, number, visit_flops(form, c, d), False)
    return steps


def _visit(num_classes: int, size: int, form: Form, *tensors: tf.Tensor) -> Any:
    return visitor(num_classes, size, form)(*tensors)


def export(name: str, problem: str, step: Step, folder: pathlib.Path) -> dict:
    """Write the files of a step; return its entry in `steps.json`."""
    fields = "shape", "dtype", "kind", "scale"
    arguments = [dict(zip(fields, one, strict=True)) for one in step.arguments]
    specs = [tf.TensorSpec(one["shape"], one["dtype"]) for one in arguments]
    function = tf.function(
        lambda *tensors: tf.nest.flatten(step.function(*tensors)), jit_compile=True, autograph=False
    )
    module = function.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized")
    file = name.replace(" ", "-")
    (folder / f"{file}.stablehlo").write_bytes(module)
    results = function.get_concrete_function(*specs).structured_outputs
    results = [{"shape": one.shape.as_list(), "dtype": one.dtype.name} for one in results]
    if problem == "tiny":
        generator = np.random.default_rng(0)
        inputs = [draw(one, generator.random, np) for one in arguments]
        saved = {f"argument{i}": one for i, one in enumerate(inputs)}
        saved |= {f"result{i}": one.numpy() for i, one in enumerate(function(*map(tf.constant, inputs)))}
        np.savez(folder / f"{file}.npz", **saved)
    num_bytes = sum(
        int(np.prod(one["shape"])) * np.dtype(one["dtype"]).itemsize for one in [*arguments, *results]
    )
    return {
        "name": name,
        "problem": problem,
        "file": file,
        "arguments": arguments,
        "results": results,
        "calls": -(-PROBLEMS[problem][0] // step.num_rows),
        "flops": step.flops,
        "bytes": num_bytes,
        "is_double": step.is_double,
    }


def main(arguments: list[str] | None = None) -> None:
    """Export and list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument(
        "--tf32", action="store_true", help="Allow products in TF32, as TensorFlow does by default."
    )
    options = parser.parse_args(arguments)
    tf.config.experimental.enable_tensor_float_32_execution(options.tf32)
    options.output.mkdir(parents=True, exist_ok=True)
    entries = []
    for problem in options.problems:
        for name, step in steps_of(*PROBLEMS[problem]).items():
            entries.append(export(f"{problem} {name}", problem, step, options.output))
            print(
                f"{entries[-1]['name']}: {entries[-1]['flops']:.3g} flops, {entries[-1]['bytes']:.3g} bytes a call"
            )
    (options.output / "steps.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
