"""The bar of an audit's steps."""

import keras
import numpy as np
import pytest

from deel_dualview import audit
from deel_dualview.report import provenance


class Recorder:
    """In place of the bar: the share of it that is full, at every change."""

    shares: list[float] = []  # noqa: RUF012 (of the last bar)

    def __init__(self, total, **options):
        self.total, self.n = total, 0
        Recorder.shares = []

    def set_description(self, text):
        pass

    def refresh(self):
        Recorder.shares.append(self.n / self.total)

    def update(self):
        self.n += 1
        self.refresh()

    def close(self):
        pass


@pytest.mark.parametrize(
    ("method", "loss", "verify"),
    [
        ("dualview", "sparse_categorical_crossentropy", 0),
        ("graddot", "sparse_categorical_crossentropy", 1),
        ("dualview", "mse", 0),
    ],
)
def test_the_bar_never_goes_back_and_is_full_in_the_end(monkeypatch, method, loss, verify):
    monkeypatch.setattr(provenance, "tqdm", Recorder)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3)).astype(np.float32)
    is_regression = loss == "mse"
    labels = inputs[:, 0] if is_regression else (inputs[:, 0] > 0).astype(np.int64)
    head = keras.layers.Dense(1) if is_regression else keras.layers.Dense(2, activation="softmax")
    model = keras.Sequential([keras.Input((3,)), head])
    model.compile("sgd", loss)
    sets = (inputs[:40], labels[:40]), (inputs[40:], labels[40:])
    audit(model, *sets, method=method, verify=verify, k=2, relevance=None, progress=False)
    assert Recorder.shares == sorted(Recorder.shares)
    assert Recorder.shares[-1] == 1
