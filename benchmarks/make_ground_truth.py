"""Train hundreds of models without some of their examples: the ground truth that is shipped.

    python benchmarks/make_ground_truth.py --data-dir TFDS_DIRECTORY --output DIRECTORY \
        [--models mnist-logistic digits-mlp ...]

Writes NAME.npz, as `deel_dualview.evaluation.load_ground_truth(NAME)` reads it, and resumes where it was
interrupted (NAME.partial.npz, DIRECTORY/trainings).

"mnist-logistic" and "mnist-cnn": 100 halves of MNIST's first 10,000 examples. Subset j is drawn by seed j; the CNN
on it is trained with seed j, and, for j < 20, again with seed 1000 + j for the noise ceiling.

"digits-mlp", "digits-mlp-adam" and "mnist-cnn-smooth": recorded trainings without 100 (64) random sets of
1 % (NAME-without-1.npz) and of 5 % of the examples (NAME-without-5.npz), all else being as it was.

On one machine, with the same versions and as many threads (the shipped files: TF_NUM_INTRAOP_THREADS=1
OMP_NUM_THREADS=1), the files come out equal bit for bit; elsewhere the logistic regression's agree to rounding, as its
optimum is unique, and those of recorded trainings nearly (`GroundTruth.record` says how nearly).
"""

from __future__ import annotations

import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from ground_truth_models import KINDS, log_probabilities
from reproducing import make_parser

from deel_dualview.evaluation import ImageData, Subset, load_images
from deel_dualview.evaluation.ground_truth import RECORDED_TRUTHS, make_recorded

NUM_TRAIN, NUM_SUBSETS, NUM_TEST = 10_000, 100, 256
NUM_REPEATED, SECOND_SEED = 20, 1000


def draw_subsets() -> np.ndarray:
    """Return the halves as a boolean matrix, shape (100, 10,000)."""
    subsets = [Subset.draw(NUM_TRAIN, NUM_TRAIN // 2, seed=seed) for seed in range(NUM_SUBSETS)]
    return np.stack([subset.is_member(NUM_TRAIN) for subset in subsets])


def draw_tests(num_all: int) -> np.ndarray:
    """Return the positions of the test examples."""
    return np.sort(np.random.default_rng(0).choice(num_all, NUM_TEST, replace=False))


def make(name: str, images: ImageData, output: pathlib.Path) -> None:
    """Train the models of one kind that are not there yet, then write its file."""
    kind, subsets = KINDS[name](), draw_subsets()
    tests = draw_tests(len(images.test_labels))
    num_runs = 1 if name == "mnist-logistic" else 2
    partial = output / f"{name}.partial.npz"
    outputs = np.full((num_runs, NUM_TEST, NUM_SUBSETS), np.nan, np.float32)
    if partial.exists():
        outputs = np.load(partial)["outputs"]
    for run in range(num_runs):
        for j in np.flatnonzero(np.isnan(outputs[run, 0, : NUM_REPEATED if run else NUM_SUBSETS])):
            start = time.perf_counter()
            rows = np.flatnonzero(subsets[j])
            model = kind.train(
                images.train_images[rows], images.train_labels[rows], run * SECOND_SEED + int(j)
            )
            outputs[run, :, j] = log_probabilities(
                model, images.test_images[tests], images.test_labels[tests]
            )
            np.savez(output / "unfinished.npz", outputs=outputs)
            os.replace(output / "unfinished.npz", partial)
            print(f"{name} run {run} subset {j}: {time.perf_counter() - start:.1f} s", flush=True)
    arrays = {"outputs": outputs[0]}
    if num_runs == 2:
        arrays["repeated_outputs"] = outputs[1, :, :NUM_REPEATED]
    packed = np.packbits(subsets, axis=1)
    np.savez_compressed(output / f"{name}.npz", test_indices=tests.astype(np.uint16), **arrays)
    np.savez_compressed(output / "mnist-halves.npz", subsets=packed, num_train=NUM_TRAIN)
    partial.unlink()


def main() -> None:
    """Make the files that are asked for."""
    parser = make_parser(__doc__)
    names = [*KINDS, *RECORDED_TRUTHS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--num-left-out", type=int, help="only the first so many sets of a recorded training")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    tf.config.experimental.enable_op_determinism()
    for name in options.models:
        if name in KINDS:
            make(name, load_images("mnist", options.data_dir), options.output)
        else:
            make_recorded(name, options.output, options.data_dir, num_left_out=options.num_left_out)


if __name__ == "__main__":
    main()
