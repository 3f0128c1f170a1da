"""How many look-alikes does an audit name where there are none, and how many copies does it find?

    python benchmarks/check_look_alikes.py [--data-dir DIR] [--copies 100] [--full]

Subsets of MNIST, Fashion-MNIST and CIFAR-10, drawn with other seeds than those the method was chosen on (0 and 1): in a
twentieth of a data set hardly any example and its copy meet. Pairs are counted between test and training set and within
the training set, and, with `--full`, of whole sets with the time that it takes. Then copies of training images are
put among the test images: noisy, brighter, compressed, cut by a pixel and enlarged, mirrored, shifted. "found" is
those that are paired with their original.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from deel_dualview.auditing.duplicates import Pairs, Sketcher, look_alikes

SIZES = ((1000, 500), (3000, 1000), (10_000, 2000))


def compress(image: np.ndarray) -> np.ndarray:
    """Return an image after JPEG of quality 50."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file)).reshape(image.shape)


def enlarge(image: np.ndarray) -> np.ndarray:
    """Return an image without its outermost pixels, at its size."""
    side = image.shape[0]
    cut = Image.fromarray(image.squeeze()).crop((1, 1, side - 1, side - 1))
    return np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)).reshape(image.shape)


COPIES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise of 8 of 255": lambda image, rng: np.clip(image + rng.normal(0, 8, image.shape), 0, 255),
    "brighter": lambda image, rng: np.clip(image * 0.7 + 40.0, 0, 255),
    "JPEG 50": lambda image, rng: compress(image),
    "cut and enlarged": lambda image, rng: enlarge(image),
    "mirrored": lambda image, rng: image[:, ::-1],
    "shifted by 1": lambda image, rng: np.roll(image, 1, axis=int(rng.integers(2))),
    "shifted by 1 and 1": lambda image, rng: np.roll(image, (1, 1), axis=(0, 1)),
}


def find(train: np.ndarray, test: np.ndarray) -> tuple[Pairs, Pairs]:
    """Return look-alikes between two sets of different images, and within the first."""
    sketcher = Sketcher()
    sketches = [sketcher.sketch(images) for images in (train, test)]
    contents = np.array([image.tobytes() for image in train] + [image.tobytes() for image in test])
    hashes = np.unique(contents, return_inverse=True)[1]
    return look_alikes(sketches[0], hashes[: len(train)], sketches[1], hashes[len(train) :])


def main() -> None:
    """Print one line for each data set and size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    for name in ("mnist", "fashion_mnist", "cifar10"):
        train, test = (
            part["image"].numpy()
            for part in tfds.load(name, split=["train", "test"], batch_size=-1, data_dir=options.data_dir)
        )
        for num_train, num_test in SIZES:
            rng = np.random.default_rng(7 + num_train)
            own = train[rng.permutation(len(train))[:num_train]]
            new = test[rng.permutation(len(test))[:num_test]]
            across, within = find(own, new)
            print(
                f"{name}, {num_train}/{num_test}: {len(across.first)} across, {len(within.first)} within",
                flush=True,
            )
            if num_train != SIZES[1][0]:
                continue
            for kind, copy in COPIES.items():
                originals = rng.permutation(num_train)[: options.copies]
                copies = np.stack([copy(own[index], rng) for index in originals]).astype(np.float32)
                found, _ = find(own.astype(np.float32), np.concatenate([new.astype(np.float32), copies]))
                place = found.first - num_test
                is_right = (place >= 0) & (found.second == originals[np.maximum(place, 0)])
                print(f"  {kind}: {len(np.unique(place[is_right]))} of {options.copies} found", flush=True)
        if options.full:
            start = time.perf_counter()
            across, within = find(train, test)
            seconds = time.perf_counter() - start
            print(
                f"{name}, all: {len(across.first)} across, {len(within.first)} within, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
