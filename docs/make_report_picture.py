"""Take the pictures of reports that README and documentation show: of images (the demo), of a table, of texts.

    python docs/make_report_picture.py [--kind images] [--data-dir DIRECTORY] [--output docs/assets]

Needs the extra [test] and a Chromium (Debian: `apt-get install chromium`); table and texts are German Credit and AG
News of TensorFlow Datasets, with some labels swapped.
"""

import argparse
import io
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from playwright.sync_api import sync_playwright

from deel_dualview import audit, swap_labels
from deel_dualview.cli.demo import make_demo

layers = keras.layers
WIDTH, HEIGHT, HEIGHT_OF_ISSUES = 1180, 1800, 900
NUM_CUSTOMERS, NUM_NEWS, NUM_TEST_NEWS, NUM_WORDS, LENGTH = 800, 1500, 500, 4000, 40
ABRIDGED = """
    .head { padding-top: 36px; }
"""
# Marks one label issue each way, and puts the list at the top.
SHOW_ISSUES = """() => {
    const items = [...document.querySelectorAll("#suspects > li")].slice(0, 3);
    items.forEach((item, place) => item.querySelectorAll(".marks button")[place].click());
    document.querySelector("#label-errors").scrollIntoView();
    window.scrollBy(0, document.querySelector("#tools").getBoundingClientRect().top - 12);
}"""
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).parent / "assets"
    parser.add_argument(
        "--kind", choices=PICTURES, action="append", help="which picture; repeatable (default: all)"
    )
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    parser.add_argument("--output", type=pathlib.Path, default=default, help="where the pictures go")
    parser.add_argument("--report", type=pathlib.Path, help="an audit's directory, in place of an audit now")
    return parser.parse_args()


def audit_demo(data_dir: str | None) -> Any:
    """Audit the demo, as `deel-dualview audit` does."""
    del data_dir
    demo = make_demo()
    known = demo.swapped_indices
    return audit(demo.model, demo.train, demo.test, class_names=demo.class_names, known_label_errors=known)


def audit_table(data_dir: str | None) -> Any:
    """Audit a network on customers who ask for credit."""
    whole = tfds.load("german_credit_numeric", split="train", as_supervised=True, data_dir=data_dir)
    rows, labels = (part.numpy() for part in next(iter(whole.batch(1000))))
    rows = ((rows - rows.mean(axis=0)) / rows.std(axis=0)).astype(np.float32)
    stack = [layers.Dense(24, activation="relu"), layers.Dense(12, activation="relu"), layers.Dense(2)]
    train, test = (
        (rows[:NUM_CUSTOMERS], labels[:NUM_CUSTOMERS]),
        (rows[NUM_CUSTOMERS:], labels[NUM_CUSTOMERS:]),
    )
    return _audit_swapped(stack, train, test, 40, epochs=10, class_names=["good", "bad"])


def audit_texts(data_dir: str | None) -> Any:
    """Audit a network on news articles."""
    builder = tfds.builder("ag_news_subset", data_dir=data_dir)
    splits = [f"train[:{NUM_NEWS}]", f"test[:{NUM_TEST_NEWS}]"]
    (texts, labels), (test_texts, test_labels) = (
        next(iter(split.batch(NUM_NEWS))) for split in builder.as_dataset(split=splits, as_supervised=True)
    )
    vectorize = layers.TextVectorization(NUM_WORDS, output_sequence_length=LENGTH)
    vectorize.adapt(texts)
    stack = [
        layers.Embedding(NUM_WORDS, 32), layers.Conv1D(32, 3, activation="relu"), layers.GlobalMaxPooling1D(),
        layers.Dense(32, activation="relu"), layers.Dense(4),
    ]  # fmt: skip
    return _audit_swapped(
        stack,
        (vectorize(texts).numpy(), labels.numpy()),
        (vectorize(test_texts).numpy(), test_labels.numpy()),
        60,
        epochs=6,
        class_names=builder.info.features["label"].names,
        input_names=vectorize.get_vocabulary(),
    )


def _audit_swapped(
    stack: list[keras.Layer], train: tuple, test: tuple, num_swapped: int, *, epochs: int, **settings: Any
) -> Any:
    """Train a network on labels of which some are swapped, and audit it."""
    inputs, labels = train
    classes = len(settings["class_names"])
    keras.utils.set_random_seed(0)
    given = swap_labels(labels, num_swapped, num_classes=classes, seed=0).labels
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=inputs.dtype), *stack])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, given, epochs=epochs, verbose=0)
    return audit(model, (inputs, given), test, **settings)


class Picture(NamedTuple):
    """A report, the name of its picture, and whether that is of the label issues rather than of the first part."""

    audited: Any
    name: str
    of_issues: bool


PICTURES = {
    "images": Picture(audit_demo, "report.png", False),
    "table": Picture(audit_table, "report_table.png", True),
    "texts": Picture(audit_texts, "report_texts.png", True),
}


def take_picture(report: pathlib.Path, output: pathlib.Path, *, of_issues: bool) -> None:
    """Photograph a part of the page, in few colours so that the file stays small."""
    size = {"width": WIDTH, "height": HEIGHT_OF_ISSUES if of_issues else HEIGHT}
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        page = browser.new_page(viewport=size, bypass_csp=True)
        page.goto((report / "index.html").resolve().as_uri())
        page.add_style_tag(content=ABRIDGED)
        if of_issues:
            page.evaluate(SHOW_ISSUES)
        pixels = page.screenshot()
        browser.close()
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(pixels)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)


def main() -> None:
    """Take the pictures."""
    arguments = parse_arguments()
    for kind in arguments.kind or PICTURES:
        picture = PICTURES[kind]
        with tempfile.TemporaryDirectory() as folder:
            report = arguments.report
            if report is None:
                report = picture.audited(arguments.data_dir).to_html(pathlib.Path(folder) / "audit").parent
            take_picture(report, arguments.output / picture.name, of_issues=picture.of_issues)


if __name__ == "__main__":
    main()
