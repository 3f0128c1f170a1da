"""benchmark: methods x questions x seeds, one file a result, resumed where it was interrupted."""

from __future__ import annotations

import multiprocessing
import numbers
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from deel_dualview._checks import check_count, require
from deel_dualview.calculators.method_specs import Given, MethodSpec, check_can_travel, resolve_all
from deel_dualview.evaluation.attribution_tasks import TASKS, tasks_of
from deel_dualview.evaluation.method_run import draw_tests
from deel_dualview.evaluation.networks import Recipe
from deel_dualview.evaluation.pages import NAMES, read_benchmark, write_pages
from deel_dualview.evaluation.results import Result, ResultKey, check_folder, prepare_folders, read_results
from deel_dualview.evaluation.tables import Benchmark
from deel_dualview.evaluation.trained_models import ImageData, Subject, load_images
from deel_dualview.evaluation.worker import Assignment, Plan, dry_run, fingerprint_of, work, work_elsewhere
from deel_dualview.quiet import prepare_worker

NUM_TEST = 4000
_REPLACE = "overwrite=True, or --overwrite on the command line"

_ENDED = (
    "A process that worked on results ended abruptly: it was killed, perhaps for want of memory, or a script calls "
    "`benchmark` outside of `if __name__ == '__main__':`. Finished results are kept; the same call goes on with the "
    "others, with less memory at jobs=1."
)


def benchmark(
    data: str,
    methods: Iterable[Given] | Mapping[str, Given],
    metrics: str | Iterable[str] = "all",
    seeds: int | Sequence[int] = 1,
    output: str | pathlib.Path = "results",
    *,
    num_test: int | None = None,
    data_dir: str | None = None,
    models: str | pathlib.Path | None = None,
    recipe: Recipe | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    title: str | None = None,
) -> Benchmark:
    """Measure how good attribution methods are, on models trained for each question, and what they cost.

    Trains the models that the metrics need, or loads them from `models`. Every result (a method, a question, a
    seed) is a file in `output` that is written at once: an interrupted benchmark resumes, and results that are
    there are not computed again. A method that fails is recorded as an error, and tried again the next time.
    Tables and figures are written anew from all results in `output/DATA` whenever a model is done with.

    Seed s draws weights, perturbations and test examples: of a permutation of the test set the first fifth is
    left for choosing settings, metrics take the first `num_test` of the rest, domain mismatch the whole rest.

    Args:
        data: "mnist", "fashion_mnist" or "cifar10" of TFDS, or the embedded "digits".
        methods: names as in "dualview", "dualview?K=0.1&kernel=linear" or "random"; or, by names of your own,
            these or what makes a calculator from a model, a training set and `store`.
        metrics: "all" that need no retraining, or names of metrics or of questions (`TASKS`).
        seeds: how many, from 0; or which.
        output: folder of the results.
        num_test: test examples; 4,000 by default, or all there are if fewer.
        data_dir: where TFDS keeps datasets; None for its own default.
        models: folder of the trained models; `output/models` by default.
        recipe: how models are trained; that of the dataset by default.
        jobs: methods that run at the same time, each in a process of its own. Times are those of a machine
            that is shared then. Methods of your own must be classes or functions of a module, and a script must
            call this below `if __name__ == "__main__":`.
        overwrite: whether results of other settings, or of other models, are replaced.
        progress: whether work is shown by bars (on a terminal only).
        title: what the page is called; by the dataset where there is none.

    Returns:
        All results in `output/DATA` of these settings.

    Raises:
        ChildProcessError: a process of `jobs` ended abruptly; finished results are kept.
        TypeError: methods that are neither names nor makers.
        ValueError: unknown names, settings that a method refuses, more test examples than there are, results of
            other settings or models, a damaged model, or with jobs > 1 a method that another process cannot
            import.
        FileExistsError: a folder of something else.
        NotADirectoryError: a folder that cannot be written to.
    """
    specs, names, seeds = resolve_all(methods), tasks_of(metrics), _seeds(seeds)
    if check_count("jobs", jobs) > 1:
        check_can_travel(specs)
    output = pathlib.Path(output)
    check_folder(output, data, NAMES)
    models = output / "models" if models is None else pathlib.Path(models)
    require(
        not models.is_file(), "Models go into a folder, but a file has this name.", {"models": str(models)}
    )
    images = load_images(data, data_dir)
    plan = Plan(
        data,
        data_dir,
        output,
        models,
        _num_test(num_test, len(images.test_labels)),
        progress,
        recipe,
    )
    wanted = _wanted(plan, specs, names, seeds)
    known = read_results(output, data)
    done = _done(plan, known, wanted, overwrite=overwrite)
    new = {one.method for one in wanted.values()} - {wanted[place].method for place in done}
    prepare_folders(output, data, models)
    dry_run([one for one in specs if one.name in new], data, images, recipe, progress=progress)
    with tqdm(
        total=len(wanted), initial=len(done), unit="result", smoothing=0, disable=None if progress else True
    ) as bar:
        for (seed, kind), group in _grouped(wanted).items():
            missing = group.keys() - done
            if not missing and not overwrite:
                continue
            bar.set_description(f"{data} {kind} {seed}")
            chosen = plan.load_subject(kind, seed)
            stale = _stale(known, fingerprint_of(chosen), kind, seed)
            _check_stale(plan, stale - group.keys() if overwrite else stale)
            again = [identity for place, identity in group.items() if place in missing | stale]
            for cell in _worked(_tasks(plan, specs, again, kind, seed), images, chosen, jobs):
                bar.set_description(f"{data} {kind} {seed} {cell.identity.method}")
                bar.update(cell.identity.place in missing)
            write_pages(read_benchmark(output, data, plan.num_test), title)
    found = read_benchmark(output, data, plan.num_test)
    if len(done) == len(wanted):
        write_pages(found, title)
    return found


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        return list(range(check_count("seeds", seeds)))
    require(
        isinstance(seeds, Sequence)
        and not isinstance(seeds, str)
        and len(seeds) > 0
        and all(isinstance(seed, numbers.Integral) and int(seed) >= 0 for seed in seeds),
        "`seeds` is how many, or which: integers from 0.",
        {"seeds": seeds},
    )
    found = [int(seed) for seed in seeds]
    require(len(set(found)) == len(found), "Seeds must differ.", {"seeds": found})
    return found


def _num_test(wanted: int | None, num_all: int) -> int:
    available = len(draw_tests(num_all, 0))
    if wanted is None:
        return min(NUM_TEST, available)
    require(
        check_count("num_test", wanted) <= available,
        f"Of the {num_all:,} test examples {available:,} may be asked about; the others are left for choosing "
        "settings.",
        {"num_test": wanted},
    )
    return wanted


def _wanted(
    plan: Plan, specs: Sequence[MethodSpec], protocols: Sequence[str], seeds: Sequence[int]
) -> dict[pathlib.PurePath, ResultKey]:
    """Return the identity of every result by its file; names that one file would stand for are refused."""
    identities = [
        plan.identity(spec, protocol, seed) for seed in seeds for protocol in protocols for spec in specs
    ]
    wanted = {identity.place: identity for identity in identities}
    require(
        len(wanted) == len(identities),
        "Names of methods must differ in letters or digits, as they name files.",
        {"methods": [spec.name for spec in specs]},
    )
    return wanted


def _done(
    plan: Plan,
    known: Sequence[Result],
    wanted: Mapping[pathlib.PurePath, ResultKey],
    *,
    overwrite: bool,
) -> set[pathlib.PurePath]:
    """Return the files of results that need not be computed; results of other settings are refused."""
    done = set()
    for cell in known:
        here = wanted.get(cell.identity.place)
        if here is None or (overwrite and here != cell.identity):
            continue
        differences = cell.identity.differences(here)
        require(
            not differences,
            f"{plan.output / cell.identity.place} holds a result of other settings. Choose another output folder, "
            f"or replace such results: {_REPLACE}.",
            {name: f"{there} there, {ours} now" for name, (there, ours) in differences.items()},
        )
        if cell.error is None:
            done.add(cell.identity.place)
    return done


def _grouped(
    wanted: Mapping[pathlib.PurePath, ResultKey],
) -> dict[tuple[int, str], dict[pathlib.PurePath, ResultKey]]:
    """Return the results by seed and kind of model."""
    groups: dict[tuple[int, str], dict[pathlib.PurePath, ResultKey]] = {}
    for place, identity in wanted.items():
        groups.setdefault((identity.seed, TASKS[identity.protocol].kind), {})[place] = identity
    return groups


def _tasks(
    plan: Plan, specs: Sequence[MethodSpec], identities: Sequence[ResultKey], kind: str, seed: int
) -> list[Assignment]:
    """Return one task a method for results on one model."""
    asked = {spec: tuple(one.protocol for one in identities if one.method == spec.name) for spec in specs}
    return [Assignment(plan, spec, kind, seed, protocols) for spec, protocols in asked.items() if protocols]


def _stale(known: Sequence[Result], fingerprint: str, kind: str, seed: int) -> set[pathlib.PurePath]:
    """Return the results on another model of this kind and seed."""
    return {
        cell.identity.place
        for cell in known
        if cell.identity.seed == seed
        and TASKS[cell.identity.protocol].kind == kind
        and cell.model.get("fingerprint") != fingerprint
    }


def _check_stale(plan: Plan, stale: set[pathlib.PurePath]) -> None:
    """Refuse to put results of two models of one kind and seed side by side."""
    names = sorted(map(str, stale))
    require(
        not stale,
        f"Results of other models than those in {plan.models} ({', '.join(names[:3])}{', ...' if names[3:] else ''}): "
        "trained again, or on another machine? Give the folder of those models, choose another output folder, or "
        f"replace all of these results: {_REPLACE}.",
        {"num_results": len(names)},
    )


def _worked(tasks: Sequence[Assignment], images: ImageData, chosen: Subject, jobs: int) -> Iterator[Result]:
    """Yield the results of tasks on one model when they are on disk."""
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield from work(task, images, chosen)
        return
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=prepare_worker)
    try:
        for future in as_completed([pool.submit(work_elsewhere, task) for task in tasks]):
            yield from future.result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(_ENDED) from error
        raise
    finally:
        pool.shutdown()
