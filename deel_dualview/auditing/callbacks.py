"""AuditCallback: an audit at the end of training, or every so many epochs."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, require
from deel_dualview.auditing import audit
from deel_dualview.models.arrays import Data
from deel_dualview.report import AuditReport, check_output_directory
from deel_dualview.report.findings import LabelErrors

_NUM_PICTURES = 16


class AuditCallback(keras.callbacks.Callback):
    """Audits the model when training ends, and every so many epochs if that is wanted.

    Each report goes into a folder of its own: `DIRECTORY/epoch-5`, and `DIRECTORY/end`. Reports that are there from an
    earlier training are replaced. The training set is audited as it is given here: without augmentation, and in one
    order.

    Args:
        train: the training set, as `audit` takes it.
        test: examples that are not trained on.
        directory: where the reports go.
        every: audit after every so many epochs; None for the end alone.
        settings: further arguments of `audit`, for instance `{"method": "graddot", "class_names": names}`.
        log_dir: a folder of TensorBoard, which gets the estimated number of wrong labels, and pictures of the likeliest
            wrong ones where the inputs are images; None for neither.

    Attributes:
        reports: the `AuditReport`s, by epoch (from 1); the last one is that of the end.

    Raises:
        FileExistsError: a folder of a report holds other files.
        ModuleNotFoundError: `log_dir` without TensorBoard.

    Example:
        callback = AuditCallback(train, test, "audits", every=5)
        model.fit(shuffled, epochs=20, callbacks=[callback])
    """

    def __init__(
        self,
        train: Data,
        test: Data,
        directory: str | os.PathLike[str],
        *,
        every: int | None = None,
        settings: Mapping[str, Any] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.every = None if every is None else check_count("every", every)
        self.settings = {"progress": False, **(settings or {})}
        own = {"model", "train", "test"} & set(self.settings)
        require(not own, "`settings` are the arguments of `audit` besides model and data.", {"settings": own})
        unknown = set(self.settings) - set(inspect.signature(audit).parameters)
        require(not unknown, "`settings` must be arguments of `audit`.", {"unknown": sorted(unknown)})
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ModuleNotFoundError(
                "`log_dir` needs TensorBoard: pip install tensorboard, or leave it out.", name="tensorboard"
            )
        self.reports: dict[int, AuditReport] = {}
        self._train, self._test = train, test
        self._log_dir = None if log_dir is None else str(log_dir)
        self._num_epochs = 0
        check_output_directory(self.directory / "end", overwrite=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Audit, if it is time."""
        del logs
        self._num_epochs = epoch + 1
        if self.every is not None and self._num_epochs % self.every == 0:
            self._audit(f"epoch-{self._num_epochs}")

    def on_train_end(self, logs: Any = None) -> None:
        """Audit what training leaves."""
        del logs
        self._audit("end")

    def _audit(self, name: str) -> None:
        report = audit(self.model, self._train, self._test, **self.settings)
        report.to_html(self.directory / name, overwrite=True)
        self.reports[self._num_epochs] = report
        if self._log_dir is not None:
            _log(report, self._log_dir, self._num_epochs)


def _log(report: AuditReport, log_dir: str, epoch: int) -> None:
    """Write what TensorBoard shows."""
    finding = report.finding("label-errors")
    if not isinstance(finding, LabelErrors):
        return
    shown = [
        report.shown[issue.example.split, issue.example.index] for issue in finding.issues[:_NUM_PICTURES]
    ]
    with tf.summary.create_file_writer(log_dir).as_default(step=epoch):
        if finding.status == "counted":
            tf.summary.scalar("audit/wrong training labels", finding.count)
        if shown and all(_is_image(example) for example in shown):
            pictures = np.stack([np.asarray(example, np.float32) for example in shown])
            top = pictures.max()
            tf.summary.image(
                "audit/likeliest wrong labels",
                np.clip(pictures / (top if top > 0 else 1), 0, 1),
                max_outputs=_NUM_PICTURES,
            )


def _is_image(example: Any) -> bool:
    return isinstance(example, np.ndarray) and example.ndim == 3 and example.shape[-1] in (1, 3, 4)
