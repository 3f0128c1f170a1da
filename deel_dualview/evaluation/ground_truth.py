"""Outputs of models trained on subsets, shipped: a linear datamodelling score without training any."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from deel_dualview._checks import require
from deel_dualview.metrics import LinearDatamodelingScore

GROUND_TRUTHS = ("mnist-logistic", "mnist-cnn")
"""What `load_ground_truth` knows: models trained on 100 halves of MNIST's first 10,000 training examples."""
_SUBSETS = "mnist-halves"


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
            None where a seed changes nothing.
    """

    name: str
    data: str
    train_indices: np.ndarray
    test_indices: np.ndarray
    subsets: np.ndarray
    outputs: np.ndarray
    repeated_outputs: np.ndarray | None

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
        """Return the score that other runs on the same subsets reach; 1 where a seed changes nothing."""
        if self.repeated_outputs is None:
            return 1.0
        num_repeated = self.repeated_outputs.shape[1]
        metric = LinearDatamodelingScore(self.subsets[:num_repeated], num_resamples=0)
        return metric.noise_ceiling(self.outputs[:, :num_repeated], self.repeated_outputs)


def load_ground_truth(name: str, directory: str | Path | None = None) -> GroundTruth:
    """Load what is shipped; `benchmarks/make_ground_truth.py` makes it again.

    "mnist-logistic" is softmax regression on pixels (divided by 255, no offset, L2 penalty 5e-4 ||W||^2), at its
    optimum. "mnist-cnn" is the DualView paper's network after 4 epochs of Adam, whose seed changes much:
    two runs on the same half agree on the order of outputs at a rank correlation of `noise_ceiling()`, 0.13; a
    method that knew their mean would score about its square root.

    Explain with `target="label"`: the outputs are of the labels.

    Args:
        name: one of `GROUND_TRUTHS`.
        directory: where files made again are; the package's own by default.

    Raises:
        ValueError: an unknown name.
    """
    require(name in GROUND_TRUTHS, f"The ground truth is one of {', '.join(GROUND_TRUTHS)}.", {"name": name})
    halves, own = _read(_SUBSETS, directory), _read(name, directory)
    num_train = int(halves["num_train"])
    subsets = np.unpackbits(halves["subsets"], axis=1, count=num_train).astype(bool)
    return GroundTruth(
        name=name,
        data="mnist",
        train_indices=np.arange(num_train),
        test_indices=own["test_indices"].astype(np.int64),
        subsets=subsets,
        outputs=own["outputs"],
        repeated_outputs=own.get("repeated_outputs"),
    )


def _read(name: str, directory: str | Path | None) -> dict[str, np.ndarray]:
    folder = resources.files("deel_dualview") / "data_files" if directory is None else Path(directory)
    with (folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
