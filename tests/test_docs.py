"""The documentation is right: its Python blocks run, and every public name has an entry in the reference."""

import itertools
import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import deel_dualview
from deel_dualview import load_digits
from deel_dualview.evaluation.attribution_tasks import TASKS
from deel_dualview.evaluation.retraining_tasks import RETRAINING
from deel_dualview.evaluation.tables import MEASURES

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in (DOCS / "methods").glob("*.md") if page.name != "index.md")
GUIDES = [
    DOCS / "how_to" / name
    for name in (
        "ensembles.md",
        "explain_a_prediction.md",
        "fix_labels.md",
        "large_datasets.md",
        "other_heads.md",
        "tables.md",
        "texts.md",
        "trees.md",
        "verify.md",
    )
]
HOW_GOOD = DOCS / "measurements" / "how_good.md"
SECTIONS = ["What it computes", "When to use it", "Sign and scale", "Cost", "Pitfalls", "Reference"]
LARGEST_PICTURE = 60_000


def read(page):
    return page.read_text(encoding="utf-8")


def python_blocks(page):
    found = re.findall(r"^```python\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)
    assert found
    return found


def compiled():
    layers = [keras.layers.Conv2D(2, 5), keras.layers.Flatten(), keras.layers.Dense(6, "tanh")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def trained_weights():
    keras.utils.set_random_seed(0)
    images, labels = load_digits()[0]
    model = compiled()
    model.fit(images[:96], labels[:96], verbose=0)
    return model.get_weights()


@pytest.fixture
def given(trained_weights, keras_seed):
    """The names that the pages take for given: a compiled Keras classifier, arrays, training and test set."""
    (images, labels), (test_images, test_labels) = load_digits()
    images, labels = images[:96], labels[:96]
    model = compiled()
    model.set_weights(trained_weights)
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
    test = tf.data.Dataset.from_tensor_slices((test_images[:4], test_labels[:4])).batch(4)
    return {"model": model, "train": train, "test": test, "images": images, "labels": labels}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_blocks_of_a_method_run(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(python_blocks(page)), page.name, "exec"), given)
    assert given["top"].training_indices.shape == (4, 5) if "top" in given else np.ndim(given["values"]) == 1


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_python_blocks_of_a_guide_run(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(python_blocks(page)), page.name, "exec"), given)


def test_every_page_is_in_the_navigation():
    navigation = read(DOCS.parent / "mkdocs.yml")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    tutorials = [f"tutorials/{page.stem}.md" for page in (DOCS.parent / "tutorials").glob("*.ipynb")]
    assert not [page for page in [*pages, *tutorials] if f": {page}\n" not in navigation]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_method_has_every_section_in_order(page):
    assert re.findall(r"^## (.*)$", read(page), flags=re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("page", [*PAGES, DOCS / "methods" / "index.md"], ids=lambda page: page.stem)
def test_a_method_has_a_small_picture(page):
    [picture] = re.findall(r"!\[.+\]\((.+)\)", read(page))
    assert (page.parent / picture).stat().st_size < LARGEST_PICTURE


def test_how_good_lists_every_metric_of_the_benchmark_with_its_column_and_its_question():
    lines = [line for line in read(HOW_GOOD).splitlines() if line.startswith("| ")]
    rows = [[part.strip(" *`") for part in line.split("|")[1:-1]] for line in lines if "`" in line]
    rows = [row for row in rows if len(row) == 5 and row[1] != "--metrics"]
    listed = {name: (title, better) for title, name, _, better, _ in rows if title}
    words = {"higher": "high", "lower": "low", None: "neither"}
    expected = {name: (measure.title, words[measure.better]) for name, measure in MEASURES.items()}
    expected["randomisation"] = ("Randomisation", "near 0")
    assert listed == expected
    questions = {name for title, name, *_ in rows if not title}
    assert questions == {name for name, protocol in TASKS.items() if not protocol.retrains}


def test_how_good_says_which_columns_have_a_rank():
    [told] = re.findall(r"^- \*\*Rank\*\* (.*?)^- ", read(HOW_GOOD), re.MULTILINE | re.DOTALL)
    ranked = {name for name, measure in MEASURES.items() if measure.is_ranked}
    retrained = {name for protocol in RETRAINING.values() for name in protocol.measures}
    assert "every\n  column of the second table" in told and retrained <= ranked
    named = {"identical-class", "identical-subclass", "label-errors", "domain-mismatch"}
    recorded = {"lds-without-1", "lds-without-5", "rise-removed", "rise-halved"}
    assert "LDS and the rises of the third" in told
    assert ranked - retrained == named | recorded


def test_the_python_blocks_on_evaluating_a_method_run():
    """Those on metrics; the tutorial runs `benchmark`."""
    page = DOCS / "how_to" / "evaluate_a_method.md"
    values = dict.fromkeys(["training_labels", "explained_classes"], np.arange(3))
    given = {"influence_values": np.eye(3), **values}
    for block in python_blocks(page):
        code = compile(block, page.name, "exec")
        if "benchmark" not in block:
            exec(code, given)
    assert given["metric"].result().value == 1.0


def test_every_method_is_in_the_table():
    index = read(DOCS / "methods" / "index.md")
    assert not [page.name for page in PAGES if f"({page.name})" not in index]


def test_every_public_name_has_an_entry_in_the_api():
    entries = [
        line for page in (DOCS / "api").glob("*.md") for line in re.findall(r"^::: (\S+)", read(page), re.M)
    ]
    documented = {entry.rpartition(".")[2] for entry in entries}
    assert not set(deel_dualview.__all__) - documented


MEASURED = {
    "MNIST:": ("mnist", 3),
    "Fashion-MNIST:": ("fashion_mnist", 3),
    "CIFAR-10:": ("cifar10", 3),
}
"""The tables of "how good are these attributions?" by the line above them: data, and how many models a cell has at
least; fewer stand in square brackets."""
COLUMNS = ("identical-class", "identical-subclass", "label-poisoning", "label-errors", "domain-mismatch")


@pytest.mark.parametrize("head", MEASURED)
def test_a_table_has_the_means_of_the_committed_results(head):
    data, usual = MEASURED[head]
    results = json.loads((DOCS.parent / "benchmarks" / "results" / f"table2-{data}.json").read_text())[
        "values"
    ]
    lines = read(HOW_GOOD).split(f"\n{head}\n")[1].lstrip().splitlines()
    rows = [line.strip("| ").split(" | ") for line in itertools.takewhile(bool, lines)][2:]
    assert {row[0] for row in rows} == set(results)
    for name, *cells in rows:
        for metric, cell in zip(COLUMNS, cells, strict=True):
            values = list(results[name].get(metric, {}).values())
            if cell == "–":
                assert not values
                continue
            value, count = re.fullmatch(r"(\d\.\d{3})(?: \[(\d)\])?(?: \(\d\.\d{3}\))?", cell).groups()
            assert float(value) == pytest.approx(np.mean(values), abs=6e-4), (name, metric)
            assert len(values) == int(count) < usual if count else len(values) >= usual, (name, metric)


def test_the_table_of_label_issues_is_that_of_the_results():
    """Every row of its tables stands in the file of the benchmark; what was tried is of other settings."""
    results = read(DOCS.parent / "benchmarks" / "results" / "label-issues.md").splitlines()
    page = read(DOCS / "measurements" / "label_issues.md").partition("\n## What was tried\n")[0]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert [row for row in rows if row not in results] == []


def test_the_tables_of_recorded_trainings_are_those_of_the_results():
    files = (DOCS.parent / "benchmarks" / "results").glob("recorded-training*.md")
    results = [line for path in files for line in read(path).splitlines()]
    section = read(HOW_GOOD).partition("\n## Recorded trainings\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert [row for row in rows if row not in results] == []
