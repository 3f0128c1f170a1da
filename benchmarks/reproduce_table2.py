"""Table 2 of the DualView paper, with more rows: identical class and subclass, label poisoning, domain mismatch.

    python benchmarks/reproduce_table2.py --data mnist --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

Trains the models (four kinds a seed) unless they are in MODELS, asks every row of `ROWS` with 60,000 training and
4,000 test examples, and resumes where it was interrupted. RESULTS/DATA then holds one JSON a result, `table.md` and
`index.html`. `summarise_results.py` puts the paper's cells beside ours.
"""

from __future__ import annotations

import argparse

from deel_dualview.evaluation import benchmark

ROWS = {
    "DualView (tempered, 30 / n)": "dualview",
    "DualView (cosine, 600 / n)": "dualview?kernel=cosine&K=0.01",
    "DualView, the paper's (z-scored, K = 1e-3)": "dualview?kernel=standardized&K=0.1",
    "IF, last layer, exact": "first-order",
    "RPS-L2 (lambda 0.003)": "rps-l2?lambda_regularization=0.003",
    "SIM, last layer": "sim",
    "RPS-LJE": "rps-lje",
    "RelatIF": "relatif",
    "IF, Arnoldi": "arnoldi",
    "IF, EK-FAC": "ekfac",
    "TracIn": "tracin",
    "GradDot": "graddot",
    "GradCos": "gradcos",
    "TRAK": "trak",
    "Feature similarity": "feature-similarity",
    "random": "random",
    "SIM-rp (all layers, 128)": "sim?weights=all&projection=FactoredProjection(128)",
}
"""Rows of the table: DualView as it is by default, the paper's rows, then others; the last needs minutes a model.

The paper's K = 1e-3 is for z-scored features as they are; here K is times the mean of their squared norms, which
is the number of features that are not dead, about 100.
"""
SLOW = ("SIM-rp (all layers, 128)",)
QUESTIONS = ("normal", "superclass", "poisoned", "marked")


def main() -> None:
    """Ask what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mnist", choices=["mnist", "fashion_mnist", "cifar10", "digits"])
    parser.add_argument("--data-dir", help="where TFDS keeps its datasets")
    parser.add_argument("--models", help="folder of the trained models")
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="all but the slow ones by default")
    parser.add_argument("--num-test", type=int)
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    options = parser.parse_args()
    rows = options.rows or [row for row in ROWS if row not in SLOW]
    found = benchmark(
        options.data,
        {row: ROWS[row] for row in rows},
        options.questions,
        options.seeds,
        options.output,
        num_test=options.num_test,
        data_dir=options.data_dir,
        models=options.models,
    )
    print(found.to_text())


if __name__ == "__main__":
    main()
