"""Table 2 of the DualView paper, with more rows: identical class and subclass, label poisoning, domain mismatch.

    python benchmarks/reproduce_table2.py --data mnist --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

Trains the models (four kinds a seed) unless they are in MODELS, asks every row of `ROWS` with 60,000 training and
4,000 test examples, and resumes where it was interrupted. RESULTS/DATA then holds one JSON a result, `table.md` and
`index.html`. `summarise_results.py` puts the paper's cells beside ours.
"""

from __future__ import annotations

from reproducing import ask, make_table_parser

ROWS = {
    "DualView (tempered, 30 / n)": "dualview",
    "DualView (cosine, 600 / n)": "dualview?kernel=cosine&K=0.01",
    "DualView, the paper's (z-scored, K = 1e-3)": "dualview?kernel=standardized&K=0.1",
    "DualView, the paper's code (z-scored, K = 2.5e-4)": "dualview?kernel=standardized&K=0.025",
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
is the number of features that are not dead, about 100. Its solver, Shark's, halves the margin: in its code C = 1e-3
is K = 2.5e-4.
"""
SLOW = ("SIM-rp (all layers, 128)",)


def main() -> None:
    """Ask what is not there yet."""
    options = make_table_parser(__doc__, list(ROWS), seeds=(0, 1, 2), num_test=None).parse_args()
    names = options.rows or [row for row in ROWS if row not in SLOW]
    ask(options, {name: ROWS[name] for name in names})


if __name__ == "__main__":
    main()
