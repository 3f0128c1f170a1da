"""Write what the peer is timed on, with this library's environment: the CNN's weights and MNIST's images.

    python benchmarks/train_models.py --data-dir DIR --output MODELS
    python export_problem.py --model MODELS/mnist.keras --data-dir DIR --output problem.npz

Weights are written layer by layer: the peer's Keras cannot read a model of Keras 3.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow_datasets as tfds


def main() -> None:
    """Write the problem."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data-dir", help="where TFDS keeps MNIST (default: its own place)")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    model = keras.models.load_model(options.model, compile=False)
    arrays = {f"weight_{index:02d}": weight for index, weight in enumerate(model.get_weights())}
    rescaling = model.layers[0]
    arrays["rescaling"] = np.array([rescaling.scale, rescaling.offset])
    for split in ("train", "test"):
        batch = tfds.load(
            "mnist", split=split, as_supervised=True, data_dir=options.data_dir, download=False, batch_size=-1
        )
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = (part.numpy() for part in batch)
    np.savez(options.output, **arrays)


if __name__ == "__main__":
    main()
