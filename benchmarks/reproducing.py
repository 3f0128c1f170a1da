"""What the scripts that reproduce tables share: options, a table of rows on trained models, results that resume."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import InfluenceModel
from deel_dualview.evaluation import Benchmark, benchmark
from deel_dualview.report.provenance import describe_context
from deel_dualview.report.writing import to_json

DATA = ("mnist", "fashion_mnist", "cifar10", "digits")
QUESTIONS = ("normal", "superclass", "poisoned", "marked")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what all scripts take: where the data are, and where results go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS keeps its datasets")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    return parser


def make_subject_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for scripts that ask trained models: the dataset and the folder of its models too."""
    parser = make_parser(description)
    parser.add_argument("--data", default="mnist", choices=DATA)
    parser.add_argument("--models", help="folder of the trained models")
    return parser


def make_table_parser(
    description: str | None, rows: Sequence[str], *, seeds: Sequence[int], num_test: int | None
) -> argparse.ArgumentParser:
    """Return a parser for tables of rows (methods) on trained models, with the defaults of the paper."""
    parser = make_subject_parser(description)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--num-test", type=int, default=num_test)
    parser.add_argument("--rows", nargs="+", choices=list(rows), help="all but the slow ones by default")
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    return parser


def ask(options: argparse.Namespace, rows: Mapping[str, str | Callable]) -> Benchmark:
    """Ask rows what is not there yet, and print the table."""
    found = benchmark(
        options.data,
        rows,
        options.questions,
        options.seeds,
        options.output,
        num_test=options.num_test,
        data_dir=options.data_dir,
        models=options.models,
    )
    print(found.to_text())
    return found


class Results:
    """Results in a JSON file with a table beside it, both written whole after every figure.

    Args:
        path: the JSON file; the table has its name and ends in `.md`.
        empty: what there is before the first figure.
        command: recorded with versions, machine and date.
        to_markdown: makes the table.
    """

    def __init__(
        self,
        path: pathlib.Path,
        empty: Mapping[str, Any],
        command: str,
        to_markdown: Callable[[dict], str],
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.to_markdown = path, to_markdown
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else dict(empty)
        self.found["context"] = describe_context(command)

    def write(self) -> None:
        """Write both files; a run that is killed meanwhile leaves the former ones."""
        for path, text in (
            (self.path, json.dumps(to_json(self.found), indent=1, allow_nan=False) + "\n"),
            (self.path.with_suffix(".md"), self.to_markdown(self.found)),
        ):
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.write_text(text)
            unfinished.replace(path)


class LastLayer:
    """The last Dense layer of a trained network on features that are computed once: all that last-layer methods read.

    Args:
        network: ends in a Dense layer whose input is the output of the layer called `features`.
    """

    def __init__(self, network: keras.Model) -> None:
        self._features = keras.Model(network.inputs, network.get_layer("features").output)
        last = network.layers[-1]
        head = keras.layers.Dense(last.units, use_bias=last.use_bias)
        layers = [keras.Input(tuple(self._features.output.shape[1:])), head]
        model = keras.Sequential(layers)
        head.set_weights(last.get_weights())
        self.model = InfluenceModel(model)

    def dataset(self, inputs: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
        """Return features and labels, in batches."""
        features = self._features.predict(inputs, batch_size=256, verbose=0)
        return tf.data.Dataset.from_tensor_slices((features, labels)).batch(500)


class Words:
    """Texts as numbers of their last words.

    Args:
        texts: from which the vocabulary is taken.
        vocabulary: number of words that are known.
        length: number of words that are read.
    """

    def __init__(self, texts: Sequence[str], vocabulary: int, length: int) -> None:
        self.length = length
        self._layer = keras.layers.TextVectorization(vocabulary)
        self._layer.adapt(list(texts))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return shape (b, length), int32; 0 before a shorter text."""
        rows = [row.numpy()[-self.length :] for row in map(self._words_of, texts)]
        return np.stack([np.pad(row, (self.length - len(row), 0)) for row in rows]).astype(np.int32)

    def _words_of(self, text: str) -> tf.Tensor:
        return self._layer([text])[0]
