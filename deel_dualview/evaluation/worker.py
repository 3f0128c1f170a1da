"""The work of a benchmark: one method on one model, in this process or in another."""

from __future__ import annotations

import functools
import pathlib
import shlex
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview.calculators.method_specs import MethodSpec
from deel_dualview.evaluation.attribution_tasks import TASKS
from deel_dualview.evaluation.method_run import MethodRun, draw_tests
from deel_dualview.evaluation.networks import RECIPES, Recipe
from deel_dualview.evaluation.recorded_models import RECORDED, recorded_case, recorded_subject
from deel_dualview.evaluation.results import Result, ResultKey
from deel_dualview.evaluation.retraining import with_converged_head
from deel_dualview.evaluation.trained_models import ImageData, Kind, Subject, build, load_images, subject
from deel_dualview.models import InfluenceModel
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.report.provenance import describe_context
from deel_dualview.search.gathering import TooFewExamplesError

CONVERGED = "converged"
_MAX_WARNINGS = 10


@dataclass(frozen=True)
class Plan:
    """What a benchmark is of, in a form that can be sent to another process.

    Attributes:
        data: name of the dataset.
        data_dir: where TFDS keeps it, or None.
        output: folder of the results.
        models: folder of the trained models.
        num_test: test examples that most questions take.
        progress: whether bars are shown.
        recipe: how models are trained; None for that of the dataset.
    """

    data: str
    data_dir: str | None
    output: pathlib.Path
    models: pathlib.Path
    num_test: int
    progress: bool
    recipe: Recipe | None = None

    def load_images(self) -> ImageData:
        """Return the dataset."""
        return load_images(self.data, self.data_dir)

    def load_subject(self, kind: str, seed: int) -> Subject:
        """Return the model of a kind and seed with its training set, trained now unless it is on disk."""
        if kind == CONVERGED:
            folder = self.models / self.data / f"{kind}-{seed}"
            return with_converged_head(self.load_subject("normal", seed), folder)
        if kind == RECORDED:
            case = recorded_case(self.data, self.recipe)
            return recorded_subject(case, seed, directory=self.models, data_dir=self.data_dir)
        return subject(
            self.data,
            cast(Kind, kind),
            seed,
            directory=self.models,
            data_dir=self.data_dir,
            recipe=self.recipe,
        )

    def identity(self, spec: MethodSpec, protocol: str, seed: int) -> ResultKey:
        """Return the identity of one result."""
        asked = {"num_test": self.num_test, **TASKS[protocol].settings}
        return ResultKey(self.data, spec.name, spec.described, protocol, seed, asked)

    def context(self, spec: MethodSpec, identity: ResultKey) -> dict[str, Any]:
        """Return what a result records of how it came about: a command, or a call where none computes it again."""
        if spec.python_name is None and self.recipe is None:
            words = ["--data", self.data, "--methods", spec.given, "--metrics", identity.protocol]
            words += ["--seeds", f"{identity.seed},", "--num-test", str(self.num_test)]
            return describe_context(shlex.join(["deel-dualview", "benchmark", *words]))
        method = repr(spec.given) if spec.python_name is None else ".".join(spec.python_name)
        method += "" if isinstance(spec.method, (str, type, types.FunctionType)) else "(...)"
        call = f"benchmark({self.data!r}, {{{spec.name!r}: {method}}}, [{identity.protocol!r}], [{identity.seed}], "
        call += f"num_test={self.num_test}" + (f", recipe={self.recipe!r})" if self.recipe else ")")
        python = dict(zip(("module", "qualified_name"), spec.python_name or (), strict=False))
        return {**describe_context(None), "call": call, **({"python": python} if python else {})}


@dataclass(frozen=True)
class Assignment:
    """One method on one model, and the questions to ask of it."""

    plan: Plan
    spec: MethodSpec
    kind: str
    seed: int
    protocols: tuple[str, ...]


def work(task: Assignment, images: ImageData, chosen: Subject) -> Iterator[Result]:
    """Run one method on all tasks of an assignment; yield each result when it is on disk.

    An error of the method is a result too.
    """
    tests = draw_tests(len(images.test_labels), task.seed)
    plan = task.plan
    folder = plan.models / plan.data / f"{task.kind}-{task.seed}" / "subsets"
    run = MethodRun(task.spec, chosen, images, tests, plan.num_test, folder, progress=plan.progress)
    error: dict[str, str] | None = None
    for protocol in task.protocols:
        identity = plan.identity(task.spec, protocol, task.seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            asked = _run(run, protocol) if error is None else {"error": error}
        if not run.has_calculator:
            error = asked.get("error")
        messages = dict.fromkeys(f"{one.category.__name__}: {one.message}" for one in caught)
        cell = Result(
            identity=identity,
            model={
                "fingerprint": run.model.fingerprint,
                "test_accuracy": chosen.test_accuracy,
                "training_seconds": chosen.seconds,
            },
            warnings=tuple(messages)[:_MAX_WARNINGS],
            context=plan.context(task.spec, identity),
            **asked,
        )
        cell.write(plan.output)
        yield cell


def work_elsewhere(task: Assignment) -> list[Result]:
    """Do a task in a process that knows nothing yet."""
    images, chosen = _loaded(task.plan, task.kind, task.seed)
    return list(work(task, images, chosen))


@functools.lru_cache(maxsize=1)
def _loaded(plan: Plan, kind: str, seed: int) -> tuple[ImageData, Subject]:
    return plan.load_images(), plan.load_subject(kind, seed)


def fingerprint_of(chosen: Subject) -> str:
    """Return what tells a model from one that was trained again."""
    model = InfluenceModel(chosen.model)
    model.prepare(next(iter(chosen.train))[0])
    return model.fingerprint


def _run(run: MethodRun, protocol: str) -> dict[str, Any]:
    """Return the parts of a cell that the question fills, or its error."""
    run.restart_clocks()
    try:
        answer = TASKS[protocol].run(run)
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": " ".join(str(error).split())}}
    return {"metrics": answer.metrics, "details": answer.details, "cost": run.costs()}


_NUM_EXAMPLES = 32


def dry_run(
    specs: Iterable[MethodSpec], data: str, images: ImageData, recipe: Recipe | None, *, progress: bool = True
) -> None:
    """Make the calculators of methods with settings, on the network before it is trained.

    What only the training set can tell (a singular Hessian, more examples than there are) is left for it to tell.

    Args:
        specs: methods; those by a name with settings are made.
        data: name of the dataset.
        images: the dataset.
        recipe: how the models are trained; None for that of the dataset.
        progress: whether work is shown by a bar.

    Raises:
        ValueError: a setting that the method or the network refuses: out of range, or an unknown layer.
    """
    chosen = [spec for spec in specs if spec.settings]
    if not chosen:
        return
    model = InfluenceModel(build(recipe or RECIPES[data], images, images.num_classes))
    examples = images.train_images[:_NUM_EXAMPLES], images.train_labels[:_NUM_EXAMPLES]
    train = tf.data.Dataset.from_tensor_slices(examples).batch(_NUM_EXAMPLES)
    bar = tqdm(chosen, leave=False, disable=None if progress else True)
    for spec in bar:
        bar.set_description(f"trying the settings of {spec.name}")
        checkpoints = Checkpoints([model], [1.0], [1]) if spec.needs_checkpoints else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                spec.with_checkpoints(checkpoints).build(model, train, None)
            except (np.linalg.LinAlgError, TooFewExamplesError):
                pass
            except (TypeError, ValueError) as error:
                raise ValueError(f"{spec.name}: {error}") from error
