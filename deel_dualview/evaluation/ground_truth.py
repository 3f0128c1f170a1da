"""Outputs of models trained on subsets, shipped: linear datamodelling scores without training any."""

from __future__ import annotations

import pathlib
import warnings
from dataclasses import dataclass
from importlib import resources

import numpy as np
from tqdm import tqdm

from deel_dualview import _files
from deel_dualview._checks import check_count, describe, require
from deel_dualview.evaluation.method_run import draw_tests
from deel_dualview.evaluation.recorded_models import (
    CASES,
    NUM_RECORDED,
    TrainingRetrainer,
    draw_left_out,
    recorded_subject,
    training_of,
)
from deel_dualview.evaluation.retraining import KeptOutputs
from deel_dualview.evaluation.trained_models import Subject, load_images
from deel_dualview.metrics import LinearDatamodelingScore
from deel_dualview.models import InfluenceModel
from deel_dualview.report.provenance import describe_context

_HALVES = ("mnist-logistic", "mnist-cnn")
RECORDED_TRUTHS = {"digits-mlp": 100, "digits-mlp-adam": 100, "mnist-cnn-smooth": 64}
"""Recorded trainings of which 1 and 5 % of the examples were left out, and how many sets of each size."""
_PERCENT = (1, 5)
GROUND_TRUTHS = (*_HALVES, *(f"{name}-without-{part}" for name in RECORDED_TRUTHS for part in _PERCENT))
"""What `load_ground_truth` knows."""
_SUBSETS = "mnist-halves"
_NOTABLE = 0.1
"""A training that differs from the shipped one by this part of what leaving examples out changes is warned of."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What models trained on subsets say of test examples.

    Attributes:
        name: as given to `load_ground_truth`.
        data: name of the dataset, as `load_images` takes it.
        train_indices: positions in the training split that subsets were drawn from, shape (n,).
        test_indices: positions in the test split, shape (m,).
        subsets: which of the n examples each model was trained on, shape (s, n), boolean.
        outputs: log-probability of each test example's label, shape (m, s), float32.
        repeated_outputs: of the models of some subsets trained again with other seeds, shape (m, r), r <= s;
            None where a seed changes nothing, or is fixed.
        full_outputs: of a recorded training on all n examples, shape (m,); None for models of halves.
        made_on: versions, processor and threads with which a recorded training has these bits; see `context_of_bits`.
    """

    name: str
    data: str
    train_indices: np.ndarray
    test_indices: np.ndarray
    subsets: np.ndarray
    outputs: np.ndarray
    repeated_outputs: np.ndarray | None
    full_outputs: np.ndarray | None = None
    made_on: str | None = None

    def metric(self, *, confidence_level: float = 0.95, num_resamples: int = 1000) -> LinearDatamodelingScore:
        """Return the score to `update_state` with influence on the labels, shape (m, n), and `outputs`.

        Args:
            confidence_level: of the bootstrap interval over test examples.
            num_resamples: of the bootstrap.
        """
        return LinearDatamodelingScore(
            self.subsets, confidence_level=confidence_level, num_resamples=num_resamples
        )

    def noise_ceiling(self) -> float:
        """Return the score that other runs on the same subsets reach; 1 where they are the same run."""
        if self.repeated_outputs is None:
            return 1.0
        num_repeated = self.repeated_outputs.shape[1]
        metric = LinearDatamodelingScore(self.subsets[:num_repeated], num_resamples=0)
        return metric.noise_ceiling(self.outputs[:, :num_repeated], self.repeated_outputs)

    def record(self, data_dir: str | None = None) -> Subject:
        """Record the training that examples were left out of, on this machine: the model to explain.

        On the machine, with the versions and the number of threads (one) of the shipped file it is the same training,
        to the bit. Elsewhere rounding differs, and a warning says by how much where this matters.

        Args:
            data_dir: where TFDS keeps its datasets.

        Returns:
            The trained model, its training set and its `training`; the labels of the test examples are explained.

        Raises:
            ValueError: models of halves, of which none is *the* model.
        """
        name = self.name.rpartition("-without-")[0]
        require(
            self.full_outputs is not None,
            f"Only {', '.join(RECORDED_TRUTHS)} are recorded trainings.",
            {"name": self.name},
        )
        subject = recorded_subject(CASES[name], 0, directory=pathlib.Path(), data_dir=data_dir)
        own = self._of_labels(subject, training_of(subject).parameters, data_dir)
        difference = float(np.abs(own - self.full_outputs).max())
        changes = np.abs(self.outputs - np.asarray(self.full_outputs)[:, np.newaxis])
        if difference > _NOTABLE * float(np.median(changes)):
            warnings.warn(
                describe(
                    "The training differs from the one that examples were left out of, as on another machine or with "
                    "other versions: log-probabilities by up to `difference`; leaving examples out changes them by "
                    "`change` (median). Make the ground truth again: benchmarks/make_ground_truth.py.",
                    {"difference": difference, "change": float(np.median(changes))},
                ),
                stacklevel=2,
            )
        return subject

    def repeat(self, subject: Subject, number: int, data_dir: str | None = None) -> np.ndarray:
        """Return one column of `outputs`, shape (m,), trained again on this machine.

        Args:
            subject: from `record`.
            number: of the column, from 0.
            data_dir: where TFDS keeps its datasets.

        Raises:
            ValueError: a subject without a recorded training, or a column that there is not.
        """
        training = training_of(subject)
        check_count("number + 1", number + 1)
        require(number < len(self.subsets), "There are fewer columns.", {"number": number})
        weights = training.without(np.flatnonzero(~self.subsets[number]))
        return self._of_labels(subject, training.retrain(weights), data_dir)

    def _of_labels(self, subject: Subject, parameters: np.ndarray, data_dir: str | None) -> np.ndarray:
        images = load_images(self.data, data_dir)
        retrainer = TrainingRetrainer(training_of(subject), images.test_images[self.test_indices])
        return _of_labels(retrainer.outputs(parameters), images.test_labels[self.test_indices])


def load_ground_truth(name: str, directory: str | pathlib.Path | None = None) -> GroundTruth:
    """Load what is shipped; `benchmarks/make_ground_truth.py` makes it again.

    "mnist-logistic" is softmax regression on pixels (divided by 255, no offset, L2 penalty 5e-4 ||W||^2), at its
    optimum. "mnist-cnn" is the DualView paper's network after 4 epochs of Adam, whose seed changes much:
    two runs on the same half agree on the order of outputs at a rank correlation of `noise_ceiling()`, 0.13; a
    method that knew their mean would score about its square root. Both were trained on 100 halves of 10,000 examples.

    "NAME-without-1" and "NAME-without-5" are a recorded training, repeated without each of 100 random sets of
    1 or 5 % of its examples (64 of the CNN); `GroundTruth.record` trains the model to explain. NAME is "digits-mlp"
    (64-32-10, 1,000 examples, gradient descent with momentum), "digits-mlp-adam" (by Adam) or "mnist-cnn-smooth" (the
    paper's network with GELU, 10,000 examples, gradient descent with momentum). Their ceiling is 1.

    Explain with `target="label"`: the outputs are of the labels.

    Args:
        name: one of `GROUND_TRUTHS`.
        directory: where files made again are; the package's own by default.

    Raises:
        ValueError: an unknown name.
    """
    require(name in GROUND_TRUTHS, f"The ground truth is one of {', '.join(GROUND_TRUTHS)}.", {"name": name})
    own = _read(name, directory)
    halves = _read(_SUBSETS, directory) if name in _HALVES else own
    num_train = int(halves["num_train"])
    subsets = np.unpackbits(halves["subsets"], axis=1, count=num_train).astype(bool)
    return GroundTruth(
        name=name,
        data="mnist" if name in _HALVES else CASES[name.rpartition("-without-")[0]].data,
        train_indices=np.arange(num_train),
        test_indices=own["test_indices"].astype(np.int64),
        subsets=subsets,
        outputs=own["outputs"],
        repeated_outputs=own.get("repeated_outputs"),
        full_outputs=own.get("full_outputs"),
        made_on=str(own["made_on"]) if "made_on" in own else None,
    )


def make_recorded(
    name: str, output: pathlib.Path, data_dir: str | None = None, *, num_left_out: int | None = None
) -> None:
    """Write the ground truths of a recorded training into a folder, with each of its repetitions; resumable.

    Args:
        name: one of `RECORDED_TRUTHS`.
        output: the folder.
        data_dir: where TFDS keeps its datasets.
        num_left_out: sets of examples, of each size; those of `RECORDED_TRUTHS` by default.
    """
    num_left_out = RECORDED_TRUTHS[name] if num_left_out is None else num_left_out
    case, folder = CASES[name], output / "trainings" / name
    subject = recorded_subject(case, 0, directory=folder, data_dir=data_dir)
    images = load_images(case.data, data_dir)
    tests = draw_tests(len(images.test_labels), 0)[:NUM_RECORDED]
    training = training_of(subject)
    retrainer = TrainingRetrainer(training, images.test_images[tests])
    model = InfluenceModel(subject.model)
    model.prepare(next(iter(subject.train))[0])
    kept_outputs = KeptOutputs(folder, model.fingerprint)
    num_train, labels = training.num_train, images.test_labels[tests]
    for percent in _PERCENT:
        subsets = np.ones((num_left_out, num_train), bool)
        for number in range(num_left_out):
            subsets[number, draw_left_out(num_train, percent / 100, 0, number)] = False
        columns = [
            _of_labels(kept_outputs.get(np.flatnonzero(one), retrainer), labels)
            for one in tqdm(subsets, desc=f"{name} without {percent} %", leave=False, disable=None)
        ]
        with (
            _files.written_aside(output / f"{name}-without-{percent}.npz") as aside,
            aside.open("wb") as file,
        ):
            np.savez_compressed(
                file,
                num_train=num_train,
                subsets=np.packbits(subsets, axis=1),
                test_indices=tests.astype(np.uint16),
                outputs=np.stack(columns, axis=1),
                full_outputs=_of_labels(retrainer.outputs(training.parameters), labels),
                made_on=context_of_bits(),
            )


def context_of_bits() -> str:
    """Return what the bits of a training depend on besides its code: versions, processor, number of threads."""
    context = describe_context(None)
    versions, machine = context["versions"], context["machine"]
    parts = [f"{name} {versions[name]}" for name in ("TensorFlow", "Keras", "NumPy", "System")]
    return ", ".join([*parts, machine["processor"], f"{machine['threads']} threads"])


def _of_labels(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the entries of the labels, shape (m,), float32."""
    found: np.ndarray = log_probabilities[np.arange(len(labels)), labels].astype(np.float32)
    return found


def _read(name: str, directory: str | pathlib.Path | None) -> dict[str, np.ndarray]:
    folder = resources.files("deel_dualview") / "data_files" if directory is None else pathlib.Path(directory)
    with (folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
