"""The RPS-LJE paper's tables of a Bi-LSTM on IMDB: what each method says of a review, and flipped labels found.

    python benchmarks/reproduce_imdb.py --data-dir TFDS_DIRECTORY --output RESULTS

The paper trains a two-layer Bi-LSTM of 4.81 million parameters on GloVe vectors with a vocabulary of 25,000. This one
has two layers of 2 x 32 units and learns its vectors (64 numbers a word, the same vocabulary) from the first reviews
of the training split alone, of which it reads the last words. It ends as the paper's in one output without a bias.

Of one network: the correlation of its outputs with sums of contributions (table 4), the first three explanations at
other step sizes (table 6), whether a training review of which one word was replaced by a synonym is explained by
itself (table 3), how many different reviews are the explanations of all test reviews, and how far RPS-LJE and
influence functions agree (tables 7 and 8); wrongly predicted training reviews are no explanations, as in the paper.
Then, in every run, a fifth of the labels is flipped, and put right again in the order of each method. Writes
`imdb.json` and `imdb.md`, and resumes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from reproducing import LastLayer, Results, Words, make_parser

from deel_dualview import (
    BaseInfluenceCalculator,
    DualView,
    ExactIHVP,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    InfluenceModel,
    RepresenterPointL2,
    RepresenterPointLJE,
    label_issues,
    swap_labels,
)

VOCABULARY, VECTOR, UNITS = 25_000, 64, 32
GAMMAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
QUANTILES = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
INSPECTED, RETRAINED = np.arange(0, 105, 5), (10, 20, 30)
FLIPPED_SHARE = 0.2
NO_LABEL, EVERY_LABEL = "no label put right", "every label put right"
SYNONYMS = {
    "good": "great",
    "love": "like",
    "best": "greatest",
    "movie": "film",
    "bad": "awful",
    "boring": "dull",
    "funny": "amusing",
    "excellent": "superb",
    "worst": "poorest",
}
"""Of the paper's table 3 (the first three), and further ones."""


class Reviews:
    """Reviews as numbered words.

    Args:
        options: of the command line.
    """

    def __init__(self, options) -> None:
        import tensorflow_datasets as tfds

        self.texts, self.labels = {}, {}
        for split, size in (("train", options.num_train), ("test", options.num_test)):
            examples = tfds.load(
                "imdb_reviews/plain_text",
                split=f"{split}[:{size}]",
                as_supervised=True,
                data_dir=options.data_dir,
                download=False,
            )
            pairs = list(examples.as_numpy_iterator())
            self.texts[split] = [text.decode() for text, _ in pairs]
            self.labels[split] = np.array([label for _, label in pairs], np.int64)
        self.words = Words(self.texts["train"], VOCABULARY, options.length)
        self.ids = {split: self.words(texts) for split, texts in self.texts.items()}


def train(ids: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> keras.Model:
    """Return the Bi-LSTM trained on these labels; the seed draws its start and the order."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((ids.shape[1],), dtype="int32"),
            layers.Embedding(VOCABULARY, VECTOR),
            layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(UNITS), name="features"),
            layers.Dense(1, use_bias=False),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(ids, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def accuracy(model: keras.Model, ids: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of reviews whose sentiment the network predicts."""
    return round(float(((model.predict(ids, batch_size=256, verbose=0)[:, 0] > 0) == labels).mean()), 4)


def calculators_of(model: InfluenceModel, train_set: tf.data.Dataset) -> dict[str, BaseInfluenceCalculator]:
    """Return the paper's three methods, as it sets them, and ours."""
    return {
        "IF": FirstOrderInfluenceCalculator(model, train_set, ExactIHVP(model, train_set)),
        "RPS-L2": RepresenterPointL2(model, train_set),
        "RPS-LJE": RepresenterPointLJE(model, train_set, gamma=1e-5),
        "DualView": DualView(model, train_set),
        "feature similarity": FeatureSimilarity(model, train_set),
    }


def values_of(calculator: BaseInfluenceCalculator, dataset: tf.data.Dataset) -> np.ndarray:
    """Return influence values (m, n)."""
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset).as_numpy_iterator()))


def top(values: np.ndarray, k: int) -> np.ndarray:
    """Return the k explanations of the largest influence, shape (m, k)."""
    return np.argsort(-values, axis=1, kind="stable")[:, :k]


def explanations(reviews: Reviews, epochs: int) -> dict:
    """Return what the paper's tables say of one network."""
    labels = reviews.labels["train"]
    model = train(reviews.ids["train"], labels, epochs, seed=0)
    explained = LastLayer(model)
    train_set = explained.dataset(reviews.ids["train"], labels)
    queries = explained.dataset(reviews.ids["test"], reviews.labels["test"])
    is_right = (
        model.predict(reviews.ids["train"], batch_size=256, verbose=0)[:, 0] > 0
    ) == labels  # the paper leaves out the others
    calculators = calculators_of(explained.model, train_set)
    values = {name: values_of(one, queries)[:, is_right] for name, one in calculators.items()}
    found = {
        "training accuracy": accuracy(model, reviews.ids["train"], labels),
        "test accuracy": accuracy(model, reviews.ids["test"], reviews.labels["test"]),
        "decomposition": {},
        "distinct": {name: {k: len(np.unique(top(of, k))) for k in (1, 3, 5)} for name, of in values.items()},
    }
    for split, dataset in (("train", train_set), ("test", queries)):
        logits = np.concatenate([explained.model.logits(features).numpy()[:, 1] for features, _ in dataset])
        for name in ("RPS-L2", "RPS-LJE"):
            kind = type(calculators[name])
            to_positive = kind(explained.model, train_set, target=1)
            sums = np.concatenate(
                [batch.sum(axis=1, dtype=np.float64) for batch in _value_batches(to_positive, dataset)]
            )
            found["decomposition"].setdefault(name, {})[split] = float(np.corrcoef(logits, sums)[0, 1])
    first = top(values["RPS-LJE"], 3)
    found["step sizes"] = {
        f"{gamma:g}": float((top(other, 3) == first).all(axis=1).mean())
        for gamma in GAMMAS
        for other in [
            values_of(RepresenterPointLJE(explained.model, train_set, gamma=gamma), queries)[:, is_right]
        ]
    }
    found["agreement"] = _agreement(values["RPS-LJE"], values["IF"])
    found["perturbed"] = _perturbed(reviews, explained, calculators, is_right)
    return found


def _value_batches(calculator: BaseInfluenceCalculator, dataset: tf.data.Dataset) -> Iterator[np.ndarray]:
    yield from calculator.estimate_influence_values_in_batches(dataset).as_numpy_iterator()


def _agreement(one: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
    """Return quantiles over queries of the correlations on the union of both first five (tables 7 and 8)."""
    pearson, spearman = [], []
    for first, second, ours, theirs in zip(top(one, 5), top(other, 5), one, other, strict=True):
        union = np.union1d(first, second)
        pearson.append(np.corrcoef(ours[union], theirs[union])[0, 1])
        spearman.append(scipy.stats.spearmanr(ours[union], theirs[union]).statistic)
    return {
        "Pearson": np.quantile(pearson, QUANTILES).tolist(),
        "Spearman": np.quantile(spearman, QUANTILES).tolist(),
    }


def _perturbed(reviews: Reviews, explained: LastLayer, calculators: dict, is_right: np.ndarray) -> dict:
    """Return how often a training review with a word replaced by a synonym is its own first explanation."""
    rows, texts = [], []
    for row in np.flatnonzero(is_right):
        read = " ".join(reviews.texts["train"][row].split()[-reviews.words.length // 2 :])
        word = next((word for word in SYNONYMS if re.search(rf"\b{word}\b", read)), None)
        if word is not None and len(rows) < 300:
            rows.append(row)
            before, _, after = reviews.texts["train"][row].rpartition(word)
            texts.append(before + SYNONYMS[word] + after)
    dataset = explained.dataset(reviews.words(texts), reviews.labels["train"][rows])
    counts = {}
    for name, calculator in calculators.items():
        values = values_of(calculator, dataset)
        values[:, ~is_right] = -np.inf
        counts[name] = float((top(values, 1)[:, 0] == rows).mean())
    return {"reviews": len(rows), "own first explanation": counts}


def debug(reviews: Reviews, epochs: int, seed: int, run: dict, results: Results) -> None:
    """Flip labels, train, order by every method, put right what was found and train again; as far as not there."""
    labels, ids = reviews.labels["train"], reviews.ids["train"]
    swapped = swap_labels(labels, round(FLIPPED_SHARE * len(labels)), num_classes=2, seed=seed)
    is_flipped = np.isin(np.arange(len(labels)), swapped.indices)
    if "orders" not in run:
        model = train(ids, swapped.labels, epochs, seed)
        run["accuracy"] = {NO_LABEL: {"0": accuracy(model, reviews.ids["test"], reviews.labels["test"])}}
        run["orders"] = {
            name: np.argsort(-scores, kind="stable").tolist()
            for name, scores in _scores(reviews, model, swapped.labels, seed).items()
        }
        run["found"] = {
            name: [
                round(float(is_flipped[order[: round(share / 100 * len(order))]].sum() / is_flipped.sum()), 4)
                for share in INSPECTED
            ]
            for name, order in run["orders"].items()
        }
        results.write()
    wanted = [(EVERY_LABEL, 100, np.arange(len(labels)))]
    wanted += [
        (name, share, np.array(order[: round(share / 100 * len(order))]))
        for share in RETRAINED
        for name, order in run["orders"].items()
    ]
    for name, share, rows in wanted:
        accuracies = run["accuracy"].setdefault(name, {})
        if str(share) not in accuracies:
            mended = swapped.labels.copy()
            mended[rows] = labels[rows]
            again = train(ids, mended, epochs, seed)
            accuracies[str(share)] = accuracy(again, reviews.ids["test"], reviews.labels["test"])
            results.write()
            print(seed, share, name, accuracies[str(share)], flush=True)


def _scores(reviews: Reviews, model: keras.Model, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return for every method the value by which it orders the training reviews, largest first."""
    explained = LastLayer(model)
    train_set = explained.dataset(reviews.ids["train"], labels)
    calculators = calculators_of(explained.model, train_set)

    def own(name: str) -> np.ndarray:
        return np.concatenate(list(calculators[name].compute_influence_values().as_numpy_iterator()))

    sets = [
        tf.data.Dataset.from_tensor_slices((reviews.ids[split], of)).batch(256)
        for split, of in (("train", labels), ("test", reviews.labels["test"]))
    ]
    losses = [explained.model.losses(features, of).numpy() for features, of in train_set]
    return {
        "RPS-LJE, |v . phi|": np.abs(own("RPS-LJE")),
        "RPS-L2, |alpha|": np.abs(calculators["RPS-L2"].surrogate.coefficients).max(axis=1),
        "IF, self-influence": own("IF"),
        "DualView, slack": calculators["DualView"].surrogate.slack,
        "label issues": label_issues(model, *sets).scores,
        "loss": np.concatenate(losses),
        "random": np.random.default_rng(seed).random(len(labels)),
    }


def to_markdown(found: dict) -> str:
    """Return the tables, ours beside the paper's where it has the figure."""
    lines = ["# RPS-LJE: a Bi-LSTM on IMDB", "", f"{found['settings']}", ""]
    one = found.get("explanations")
    if one:
        lines += [
            f"Accuracy {one['training accuracy']:.3f} on training, {one['test accuracy']:.3f} on test reviews "
            "(the paper: .898).",
            "",
            "| | RPS-L2 | RPS-LJE | the paper's |",
            "|---|---|---|---|",
        ]
        for split, theirs in (("train", ".99, .99"), ("test", ".99, .98")):
            ours = [f"{one['decomposition'][name][split]:.4f}" for name in ("RPS-L2", "RPS-LJE")]
            lines.append(f"| correlation of output and sum, {split} | {' | '.join(ours)} | {theirs} |")
        lines += ["", "| step size of RPS-LJE | same first three as at 1e-5 |", "|---|---|"]
        lines += [f"| {gamma} | {share:.3f} |" for gamma, share in one["step sizes"].items()]
        lines += ["", f"| | {' | '.join(one['distinct'])} |", "|---" * (len(one["distinct"]) + 1) + "|"]
        for k in ("1", "3", "5"):
            counts = [str(of.get(k, of.get(int(k)))) for of in one["distinct"].values()]
            lines.append(f"| different reviews among the first {k} | {' | '.join(counts)} |")
        shares = [f"{share:.3f}" for share in one["perturbed"]["own first explanation"].values()]
        lines.append(
            f"| own first explanation, {one['perturbed']['reviews']} reviews with a synonym | {' | '.join(shares)} |"
        )
        heads = " | ".join(f"{quantile:.0%}" for quantile in QUANTILES)
        lines += ["", f"| RPS-LJE and IF, quantile | {heads} |", "|---" * (len(QUANTILES) + 1) + "|"]
        for name, values in one["agreement"].items():
            lines.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |")
        lines.append("| the paper's Pearson | .9513 | .8855 | .9992 | .9997 | .9999 | .9999 |")
    runs = [run for run in found["runs"] if "found" in run]
    if runs:
        lines += ["", f"{len(runs)} runs with a fifth of the labels flipped.", ""]
        shares = (10, 20, 30, 40)
        heads = [f"found at {share} %" for share in shares]
        heads += [f"accuracy, {share} % inspected" for share in RETRAINED]
        lines += [f"| order | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        for name in (*runs[0]["found"], NO_LABEL, EVERY_LABEL):
            cells = [
                _mean([run["found"][name][share // 5] for run in runs if name in run["found"]])
                for share in shares
            ]
            key = {NO_LABEL: "0", EVERY_LABEL: "100"}.get(name)
            cells += [
                _mean([run["accuracy"].get(name, {}).get(key or str(share)) for run in runs])
                for share in RETRAINED
            ]
            lines.append(f"| {name.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
    context = found["context"]
    return "\n".join([*lines, "", f"Command: `{context['command']}`; {context['created']}.", ""])


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" + f" [{len(known)}]" * (len(known) < len(values)) if known else "–"


def main() -> None:
    """Do what is not there yet."""
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--num-train", type=int, default=2500)
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--length", type=int, default=80, help="words read of a review, its last")
    options = parser.parse_args()
    results = Results(
        options.output / "imdb.json", {"runs": []}, "python benchmarks/reproduce_imdb.py", to_markdown
    )
    results.found["settings"] = (
        f"{options.num_train:,} training and {options.num_test:,} test reviews, last {options.length} words, "
        f"{options.epochs} epochs."
    )
    reviews = Reviews(options)
    if "explanations" not in results.found:
        results.found["explanations"] = explanations(reviews, options.epochs)
        results.write()
    for seed in range(options.runs):
        if seed == len(results.found["runs"]):
            results.found["runs"].append({})
        debug(reviews, options.epochs, seed, results.found["runs"][seed], results)


if __name__ == "__main__":
    main()
