"""What does an index of FAISS save in a search for the first of 60,000 and of a million vectors, and what does it miss?

    python benchmarks/bench_index.py [--num-vectors 60000 1000000] [--size 512] [--output benchmarks/results/index.json]

Made-up features: ReLU of 1,000 class centres and noise, each row at unit length, 1,000 queries of the same kind in
batches of 125, the 5 first of either sign. The peer is the exact streaming search of this library in the same process;
CPU seconds of one thread, the building of the index apart.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Iterator
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from memory import peak, reset_peak

from deel_dualview import ORDER, FaissIndex
from deel_dualview.search import inner_product_blocks, streaming_top_k
from deel_dualview.search.faiss_index import Indexed

NUM_CENTRES, NUM_QUERIES, BATCH, K, ROWS_AT_ONCE = 1000, 1000, 125, 5, 50_000


def make_rows(number: int, size: int, seed: int) -> np.ndarray:
    """Return rows (number, size) of unit length."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(NUM_CENTRES, size)).astype(np.float32)
    rows = np.empty((number, size), np.float32)
    for start in range(0, number, ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        part[:] = centres[rng.integers(NUM_CENTRES, size=len(part))]
        part += 0.7 * rng.standard_normal(part.shape, np.float32)
        np.maximum(part, 0, out=part)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def measure(number: int, size: int) -> Iterator[dict]:
    """Yield a line for each way to search."""
    vectors, places = make_rows(number, size, 1), np.arange(number)
    batches = np.split(make_rows(NUM_QUERIES, size, 2), NUM_QUERIES // BATCH)

    def scored(queries: np.ndarray, is_wanted: np.ndarray | None):
        rows = slice(None) if is_wanted is None else is_wanted
        yield from inner_product_blocks(queries, vectors[rows], places[rows])

    exact, seconds = {}, {}
    for order in ORDER:
        start = time.process_time()
        found = [streaming_top_k(scored(queries, None), K, order)[1] for queries in batches]
        exact[order], seconds[order] = np.concatenate(found), time.process_time() - start
        yield {"search": "exact", "order": order.name, "seconds": seconds[order]}
    few = FaissIndex(num_clusters=round(number**0.5))
    for name, index in {"flat": FaissIndex("flat"), "inverted": FaissIndex(), "fewer clusters": few}.items():
        search = None  # the last index must not count as there before
        before, start = reset_peak(), time.process_time()
        parts = range(0, number, ROWS_AT_ONCE)
        search = Indexed(index, lambda: ((vectors[at : at + ROWS_AT_ONCE],) for at in parts))  # noqa: B023
        search.top_k(partial(scored, batches[0]), (tf.constant(batches[0]),), 1, ORDER.DESCENDING)
        built, memory = time.process_time() - start, peak() - before
        for order in ORDER:
            start = time.process_time()
            found = [search.top_k(partial(scored, one), (tf.constant(one),), K, order)[1] for one in batches]
            spent = time.process_time() - start
            pairs = zip(np.concatenate(found), exact[order], strict=True)
            yield {
                "search": name,
                "order": order.name,
                "seconds": spent,
                "exact / this": seconds[order] / spent,
                "recall": float(np.mean([np.isin(*pair).mean() for pair in pairs])),
                "build seconds": built,
                "build MB": memory,
            }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-vectors", type=int, nargs="+", default=[60_000, 1_000_000])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    lines = []
    for number in options.num_vectors:
        for line in measure(number, options.size):
            rounded = {"vectors": number, "size": options.size} | {
                key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()
            }
            print(json.dumps(rounded), flush=True)
            lines.append(rounded)
    if options.output is not None:
        options.output.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
