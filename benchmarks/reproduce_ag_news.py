"""What methods say of news articles: classes of proponents, wrong labels, sparsity and time, on AG News.

    python benchmarks/reproduce_ag_news.py --data-dir TFDS_DIRECTORY --output RESULTS

The DualView papers take AG News with a language model that cannot be had here; this network averages 64 learnt
numbers a word and has one hidden layer. It is trained on the four classes (do proponents share the class of a test
article?), on two pairs of classes, {World, Sports} and {Business, Sci/Tech} (do they share the one of the four, which
it never saw?), and on a tenth of the labels moved to another class at random (how well is a wrong label ranked above
a right one?). Every method reads the same last layer and features. Writes `ag-news.json` and `ag-news.md`; each seed
is written when it is done, and not done again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import sklearn.metrics
import tensorflow as tf
from reproducing import LastLayer, Results, Words, make_parser

from deel_dualview import (
    BaseInfluenceCalculator,
    DualView,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    GradCos,
    GradDot,
    InfluenceModel,
    RepresenterPointL2,
    RepresenterPointLJE,
    Trak,
    label_issues,
    swap_labels,
)

VOCABULARY, LENGTH, EPOCHS = 10_000, 60, 8
FLIPPED_SHARE = 0.1
PAIRS = np.array([0, 0, 1, 1])
METHODS: dict[str, Callable[[InfluenceModel, tf.data.Dataset], BaseInfluenceCalculator]] = {
    "DualView": DualView,
    "feature similarity": FeatureSimilarity,
    "GradDot": GradDot,
    "GradCos": GradCos,
    "RPS-L2": RepresenterPointL2,
    "RPS-LJE": RepresenterPointLJE,
    "IF, last layer": FirstOrderInfluenceCalculator,
    "TRAK, last layer": Trak,
}


class News:
    """Articles as numbered words, with their classes."""

    def __init__(self, num_train: int, num_test: int, data_dir: str | None) -> None:
        import tensorflow_datasets as tfds

        texts, self.labels = {}, {}
        for split, size in (("train", num_train), ("test", num_test)):
            examples = tfds.load(
                "ag_news_subset", split=f"{split}[:{size}]", data_dir=data_dir, download=False
            )
            rows = list(examples.as_numpy_iterator())
            texts[split] = [(row["title"] + b" " + row["description"]).decode().strip() for row in rows]
            self.labels[split] = np.array([row["label"] for row in rows], np.int64)
        words = Words(texts["train"], VOCABULARY, LENGTH)
        self.ids = {split: words(of) for split, of in texts.items()}


def train(ids: np.ndarray, labels: np.ndarray, seed: int) -> keras.Model:
    """Return the network trained on these labels."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(VOCABULARY, 64, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(64, activation="relu", name="features"),
            layers.Dense(int(labels.max()) + 1),
        ]
    )
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(ids, labels, batch_size=64, epochs=EPOCHS, verbose=0)
    return model


def ask(news: News, seed: int) -> dict:
    """Return every figure of one seed, by method."""
    found: dict = {name: {} for name in METHODS}
    truth, classes = news.labels["test"], news.labels["train"]
    for question, groups in (("class", np.arange(4)), ("subclass", PAIRS)):
        model = train(news.ids["train"], groups[classes], seed)
        explained = LastLayer(model)
        train_set = explained.dataset(news.ids["train"], groups[classes])
        queries = explained.dataset(news.ids["test"], groups[truth])
        found.setdefault("test accuracy", {})[question] = float(
            model.evaluate(news.ids["test"], groups[truth], verbose=0)[1]
        )
        for name, make in METHODS.items():
            make(explained.model, train_set)  # so that what follows is not of tracing
            started = time.process_time()
            calculator = make(explained.model, train_set)
            built = time.process_time()
            top = [indices[:, 0] for _, indices in calculator.top_k_indices(queries, k=5)]
            ended, first = time.process_time(), np.concatenate([part.numpy() for part in top])
            one = found[name]
            one[question] = float((classes[first] == truth).mean())
            one[f"distinct, {question}"] = len(np.unique(first))
            if question == "class":
                values = next(iter(calculator.estimate_influence_values_in_batches(queries))).numpy()
                one |= {
                    "share not zero": float((values != 0).mean()),
                    "CPU seconds, set-up": round(built - started, 2),
                    "CPU seconds, queries": round(ended - built, 2),
                }
    for name, area in _label_errors(news, seed).items():
        found.setdefault(name, {})["label errors"] = area
    return found


def _label_errors(news: News, seed: int) -> dict[str, float]:
    """Return the ROC-AUC by which every method's own values of training articles find the wrong labels."""
    classes = news.labels["train"]
    swapped = swap_labels(classes, round(FLIPPED_SHARE * len(classes)), num_classes=4, seed=seed)
    is_wrong = np.isin(np.arange(len(classes)), swapped.indices)
    model = train(news.ids["train"], swapped.labels, seed)
    explained = LastLayer(model)
    train_set = explained.dataset(news.ids["train"], swapped.labels)
    scores = {}
    for name, make in METHODS.items():
        calculator = make(explained.model, train_set)
        own = np.concatenate(list(calculator.compute_influence_values().as_numpy_iterator()))
        # As the papers order them; the self-similarity of features and of normalised gradients says nothing.
        if name in ("feature similarity", "GradCos"):
            continue
        scores[name] = calculator.surrogate.slack if isinstance(calculator, DualView) else np.abs(own)
    scores["loss"] = np.concatenate([explained.model.losses(*batch).numpy() for batch in train_set])
    sets = [
        tf.data.Dataset.from_tensor_slices((news.ids[split], labels)).batch(500)
        for split, labels in (("train", swapped.labels), ("test", news.labels["test"]))
    ]
    scores["label issues"] = label_issues(model, *sets).scores
    return {name: float(sklearn.metrics.roc_auc_score(is_wrong, score)) for name, score in scores.items()}


COLUMNS = {
    "class": "identical class",
    "subclass": "identical subclass",
    "distinct, class": "different first",
    "distinct, subclass": "different first, pairs",
    "label errors": "label errors, AUC",
    "share not zero": "share not zero",
    "CPU seconds, set-up": "CPU s, set-up",
    "CPU seconds, queries": "CPU s, queries",
}


def to_markdown(found: dict) -> str:
    """Return the means over seeds."""
    seeds = found["seeds"]
    lines = ["# AG News", "", found["settings"], ""]
    if seeds:
        accuracies = [
            f"{np.mean([one['test accuracy'][question] for one in seeds]):.3f} ({question})"
            for question in ("class", "subclass")
        ]
        lines += [f"{len(seeds)} seeds. Test accuracy {', '.join(accuracies)}.", ""]
        lines += [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name in seeds[0]:
            if name == "test accuracy":
                continue
            cells = [
                f"{np.mean([one[name][key] for one in seeds]):.4g}" if key in seeds[0][name] else "–"
                for key in COLUMNS
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    context = found["context"]
    return "\n".join([*lines, "", f"Command: `{context['command']}`; {context['created']}.", ""])


def main() -> None:
    """Do the seeds that are not there yet."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-train", type=int, default=11_000)
    parser.add_argument("--num-test", type=int, default=2000)
    options = parser.parse_args()
    results = Results(
        options.output / "ag-news.json", {"seeds": []}, "python benchmarks/reproduce_ag_news.py", to_markdown
    )
    results.found["settings"] = (
        f"{options.num_train:,} training articles at most, {options.num_test:,} test articles, {EPOCHS} epochs."
    )
    news = News(options.num_train, options.num_test, options.data_dir)
    for seed in range(len(results.found["seeds"]), options.seeds):
        results.found["seeds"].append(ask(news, seed))
        results.write()


if __name__ == "__main__":
    main()
