"""Do gradient products predict what training by Adam without examples does better with Adam's own diagonal?

    python benchmarks/bench_preconditioner.py [--networks mlp cnn]

Records a training by Adam of an MLP 64-32-10 and of a small CNN on 1,000 of scikit-learn's digits, repeats it without
each of 40 random sets of 1 and of 5 % of the examples, all else being as it was, and correlates the changes of the
log-probabilities of the labels of 100 test examples with the sums of influence values (linear datamodelling score;
a perfect method scores 1). Gradient products as they are and with `preconditioner="adam"`, beside EK-FAC. Seconds are
of the CPU, of set-up and all queries. Prints one line of JSON a row.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from recorded_cases import LOSS, Case, adam, draw_left_out, mlp
from sklearn.datasets import load_digits

from deel_dualview import (
    BaseInfluenceCalculator,
    EkfacIHVP,
    FirstOrderInfluenceCalculator,
    GradCos,
    GradDot,
    TracIn,
    metrics,
)
from deel_dualview.evaluation import RecordedTraining, record_training

_NUM_TRAIN, _NUM_QUERIES, _CHECKPOINTS = 1_000, 100, 5


def cnn(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a network of two convolutions."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(8, 3, activation="gelu"),
            layers.Conv2D(16, 3, strides=2, activation="gelu"),
            layers.Flatten(),
            layers.Dense(num_classes, name="logits"),
        ]
    )


NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], keras.Model]] = {"mlp": mlp, "cnn": cnn}


def methods(
    training: RecordedTraining, train: tf.data.Dataset
) -> dict[str, Callable[[], BaseInfluenceCalculator]]:
    """Return factories by title; TracIn is of five checkpoints."""
    model, found = training.model, {}
    steps = [round(training.num_steps * (part + 1) / _CHECKPOINTS) for part in range(_CHECKPOINTS - 1)]
    models = [*map(training.model_after, steps), model]
    for weights in ("last", "all"):
        settings = {"weights": weights, "target": "label"}
        for chosen in (None, "adam"):
            own = settings | {"preconditioner": chosen}
            for kind, first in ((GradDot, model), (GradCos, model), (TracIn, models)):
                title = f"{kind.__name__}, {weights}" + (", Adam" if chosen else "")
                found[title] = functools.partial(kind, first, train, **own)
    found["IF, EK-FAC, all"] = lambda: FirstOrderInfluenceCalculator(
        model, train, EkfacIHVP(model, train, weights="all"), target="label"
    )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    inputs, labels = (inputs[order] / 16).astype(np.float32), labels[order]
    train = tf.data.Dataset.from_tensor_slices((inputs[:_NUM_TRAIN], labels[:_NUM_TRAIN])).batch(500)
    test_inputs, test_labels = (part[_NUM_TRAIN : _NUM_TRAIN + _NUM_QUERIES] for part in (inputs, labels))
    test = tf.data.Dataset.from_tensor_slices((test_inputs, test_labels)).batch(_NUM_QUERIES)
    for name in parser.parse_args().networks:
        case = Case("digits", _NUM_TRAIN, _NUM_QUERIES, NETWORKS[name], adam, 15, 50)
        keras.utils.set_random_seed(0)
        model = case.network((64,), 10)
        model.compile(adam(case.epochs * case.num_train // case.batch_size), LOSS)
        training = record_training(model, train, epochs=case.epochs, batch_size=case.batch_size)
        truths = {share: truth(case, training, share, test_inputs, test_labels) for share in case.shares}
        for title, make in methods(training, train).items():
            start = time.process_time()
            values = np.concatenate(list(make().estimate_influence_values_in_batches(test)))
            row = {"network": name, "method": title, "seconds": round(time.process_time() - start, 2)}
            for share, (kept, outputs) in truths.items():
                metric = metrics.LinearDatamodelingScore(kept)
                metric.update_state(values, outputs)
                result = metric.result()
                row[f"{share:.0%}"] = [round(float(one), 3) for one in (result.value, *result.interval)]
            print(json.dumps(row), flush=True)


def truth(
    case: Case, training: RecordedTraining, share: float, inputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which examples each training kept, (trainings, n), and log-probabilities (m, trainings)."""
    left_out = draw_left_out(case, share)
    kept = np.ones((case.num_subsets, case.num_train), bool)
    np.put_along_axis(kept, left_out, False, axis=1)
    outputs = []
    for rows in left_out:
        logits = training.outputs(inputs, training.retrain(training.without(rows))).astype(np.float64)
        own = logits[np.arange(len(logits)), labels]
        outputs.append((own - np.logaddexp.reduce(logits, axis=1)).astype(np.float32))
    return kept, np.stack(outputs, axis=1)


if __name__ == "__main__":
    main()
