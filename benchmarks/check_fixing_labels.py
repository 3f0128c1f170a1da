"""Fix 20 labels as a new user does: audit, mark on the page in a browser, export, apply, train again, audit again.

    python benchmarks/check_fixing_labels.py [--data digits] [--data-dir DIR]

Labels of the training set are swapped (30 of the 1,438 digits, 300 of 10,000 images of Fashion-MNIST). The reader
goes through the list from its top by keyboard, marks each label wrong or right as in truth, picks the right class where
the suggested one is wrong, and stops after 20 wrong ones. Needs Chromium and the extra [test].
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
from playwright.sync_api import Page, sync_playwright

from deel_dualview import audit, load_digits, swap_labels

layers = keras.layers
NUM_FIXED, NUM_TEST = 20, 2000
NUM_SWAPPED = {"digits": 30, "fashion_mnist": 300}
EPOCHS = {"digits": 12, "fashion_mnist": 6}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
MODULE = """
import numpy as np, tensorflow as tf
def train():
    return tf.data.Dataset.from_tensor_slices((np.load("images.npy"), np.load("labels.npy"))).batch(256)
"""


def load(name: str, data_dir: str | None) -> tuple[tuple, tuple, list[str]]:
    """Return training set, test set and names of the classes."""
    if name == "digits":
        return *load_digits(), [str(label) for label in range(10)]
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    splits = builder.as_dataset(split=["train[:10000]", f"test[:{NUM_TEST}]"], as_supervised=True)
    whole = [next(iter(split.batch(10_000))) for split in splits]
    train, test = ((images.numpy().astype("float32") / 255, labels.numpy()) for images, labels in whole)
    return train, test, builder.info.features["label"].names


def train_network(name: str, dataset: tf.data.Dataset) -> keras.Model:
    """Return a small CNN, always from the same first weights."""
    images, labels = (np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True))
    keras.utils.set_random_seed(0)
    convolutions = [layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    convolutions += [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    top = [layers.Dense(64, activation="relu"), layers.Dense(10)]
    model = keras.Sequential([keras.Input(images.shape[1:]), *convolutions, *top])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(images, labels, epochs=EPOCHS[name], verbose=0)
    return model


def mark(page: Page, truth: np.ndarray) -> tuple[int, int]:
    """Mark labels from the top of the list until 20 wrong ones are found; return how many were looked at and wrong."""
    page.locator("#suspects > li").first.focus()
    looked_at = wrong = 0
    while wrong < NUM_FIXED:
        item = page.evaluate("({...document.activeElement.dataset, id: document.activeElement.id})")
        right_class = int(truth[int(item["position"])])
        looked_at += 1
        is_wrong = int(item["given"]) != right_class
        wrong += is_wrong
        page.keyboard.press("w" if is_wrong else "r")
        if is_wrong and int(item["suggested"]) != right_class:
            page.locator(f"#{item['id']} select").select_option(str(right_class))
            page.locator(f"#{item['id']}").focus()
            page.keyboard.press("ArrowRight")
    return looked_at, wrong


def export(report: pathlib.Path, target: pathlib.Path, truth: np.ndarray) -> tuple[int, int]:
    """Work on the page in a browser, and save what it exports."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(report.resolve().as_uri())
        found = mark(page, truth)
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(target)
        browser.close()
    return found


def main() -> None:
    """Print each step with its seconds, and what has changed in the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=NUM_SWAPPED, default="digits")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    (images, truth), test, names = load(options.data, options.data_dir)
    given = swap_labels(truth, NUM_SWAPPED[options.data], num_classes=10, seed=0).labels
    folder = pathlib.Path(tempfile.mkdtemp())
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", given)
    (folder / "fixing_data.py").write_text(MODULE)
    train = tf.data.Dataset.from_tensor_slices((images, given)).batch(256)
    start, cpu = time.perf_counter(), time.process_time()

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - start:6.1f} s  {text}", flush=True)

    model = train_network(options.data, train)
    tell(f"trained: {model.evaluate(*test, verbose=0)[1]:.1%} of the test labels are right")
    first = audit(model, train, test, class_names=names, progress=False)
    page = first.to_html(folder / "audit")
    tell(f"audited: {first.finding('label-errors').title}")
    looked_at, wrong = export(page, folder / "corrections.csv", truth)
    tell(f"marked in the browser and exported: {looked_at} labels looked at, {wrong} wrong ones fixed")
    command = [
        sys.executable,
        "-m",
        "deel_dualview",
        "apply",
        "corrections.csv",
        "--train",
        "fixing_data:train",
    ]
    names_file = folder / "names.txt"
    names_file.write_text("\n".join(names))
    done = subprocess.run(
        [*command, "--class-names", str(names_file)], cwd=folder, check=True, capture_output=True, text=True
    )
    tell(f"applied: {done.stdout.splitlines()[0]}")
    fixed = tf.data.Dataset.load(str(folder / "corrected"))
    fixed_labels = np.concatenate([labels for _, labels in fixed.as_numpy_iterator()])
    tell(f"wrong labels: {(given != truth).sum()} before, {(fixed_labels != truth).sum()} after")
    better = train_network(options.data, fixed)
    tell(f"trained again: {better.evaluate(*test, verbose=0)[1]:.1%} of the test labels are right")
    second = audit(better, fixed, test, class_names=names, since=page.with_name("audit.json"), progress=False)
    tell(f"audited again: {second.changes}")
    print(f"{time.process_time() - cpu:.0f} CPU seconds in this process")


if __name__ == "__main__":
    main()
