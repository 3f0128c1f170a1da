"""Settings of the benchmark of label issues: a data set, a kind of noise and its rate, a training, a test set.

None of their rates, networks or splits are among those that the score and the count were designed on.
"""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """One trained network with labels some of which are wrong.

    Attributes:
        data: name of a data set.
        noise: kind of wrong labels: none, uniform, asymmetric, ambiguous, or human (a rater's own).
        rate: share of wrong labels.
        training: `"early"`, `"usual"` or `"memorised"` (until the training accuracy is .998).
        test: `"right"`, `"noisy"` (as wrong as the training set) or `"none"` (no test set is given).
        imbalance: class k keeps this share ** k of its examples.
        checkpoints: whether label issues get the checkpoints of the training.
        is_timed_only: whether only the time counts: no baselines, in no table of scores.
    """

    data: str
    noise: str
    rate: float
    training: str
    test: str = "right"
    imbalance: float = 1.0
    checkpoints: bool = False
    is_timed_only: bool = False

    @property
    def name(self) -> str:
        """Name, which is also that of its file."""
        rate = "" if self.noise in ("none", "human") else f"-{100 * self.rate:g}"
        parts = [self.data, f"{self.noise}{rate}", self.training]
        parts += [f"{self.test}_test"] if self.test != "right" else []
        parts += ["imbalanced"] if self.imbalance != 1 else []
        parts += ["checkpoints"] if self.checkpoints else []
        return ".".join(parts)


SETTINGS: tuple[Setting, ...] = (
    Setting("mnist", "uniform", 0.015, "early"),
    Setting("mnist", "uniform", 0.04, "usual"),
    Setting("mnist", "uniform", 0.12, "memorised"),
    Setting("mnist", "asymmetric", 0.07, "usual"),
    Setting("mnist", "ambiguous", 0.04, "memorised"),
    Setting("mnist", "uniform", 0.04, "usual", test="noisy"),
    Setting("mnist", "none", 0, "memorised"),
    Setting("mnist_parity", "uniform", 0.04, "usual"),
    Setting("mnist_parity", "none", 0, "usual"),
    Setting("fashion_mnist", "uniform", 0.015, "usual"),
    Setting("fashion_mnist", "uniform", 0.07, "memorised"),
    Setting("fashion_mnist", "asymmetric", 0.12, "usual"),
    Setting("fashion_mnist", "ambiguous", 0.07, "early"),
    Setting("fashion_mnist", "uniform", 0.04, "usual", imbalance=0.75),
    Setting("fashion_mnist", "uniform", 0.04, "memorised", test="none"),
    Setting("fashion_mnist", "none", 0, "usual"),
    Setting("fashion_tops", "uniform", 0.04, "memorised"),
    Setting("fashion_tops", "ambiguous", 0.04, "usual"),
    Setting("cifar10", "uniform", 0.07, "usual"),
    Setting("cifar10", "uniform", 0.12, "memorised"),
    Setting("cifar10", "asymmetric", 0.07, "early"),
    Setting("cifar10", "none", 0, "usual"),
    Setting("cifar10_pretrained", "uniform", 0.04, "usual"),
    Setting("cifar10_pretrained", "uniform", 0.12, "memorised"),
    Setting("cifar10_pretrained", "ambiguous", 0.07, "usual"),
    Setting("cifar10_pretrained", "none", 0, "memorised"),
    Setting("ag_news", "uniform", 0.015, "usual"),
    Setting("ag_news", "uniform", 0.07, "memorised"),
    Setting("ag_news", "asymmetric", 0.07, "early"),
    Setting("ag_news", "ambiguous", 0.04, "memorised"),
    Setting("ag_news", "uniform", 0.07, "usual", test="noisy"),
    Setting("ag_news", "uniform", 0.07, "memorised", checkpoints=True),
    Setting("ag_news", "none", 0, "memorised"),
    Setting("ag_news_strings", "uniform", 0.04, "usual"),
    Setting("imdb", "uniform", 0.04, "early"),
    Setting("imdb", "uniform", 0.12, "memorised"),
    Setting("imdb", "ambiguous", 0.07, "usual"),
    Setting("imdb", "uniform", 0.07, "usual", test="none"),
    Setting("imdb", "none", 0, "usual"),
    Setting("german", "uniform", 0.04, "usual"),
    Setting("german", "uniform", 0.12, "memorised"),
    Setting("german", "ambiguous", 0.07, "usual"),
    Setting("german", "none", 0, "memorised"),
    Setting("digits", "uniform", 0.04, "usual"),
    Setting("digits", "uniform", 0.12, "memorised"),
    Setting("digits", "asymmetric", 0.07, "usual"),
    Setting("digits", "ambiguous", 0.04, "memorised"),
    Setting("digits", "uniform", 0.07, "memorised", imbalance=0.8),
    Setting("digits", "uniform", 0.07, "memorised", checkpoints=True),
    Setting("digits", "none", 0, "usual"),
    Setting("wine", "uniform", 0.07, "memorised"),
    Setting("wine", "uniform", 0.12, "usual"),
    Setting("breast_cancer", "uniform", 0.04, "usual"),
    Setting("breast_cancer", "uniform", 0.07, "memorised"),
    Setting("breast_cancer", "ambiguous", 0.04, "usual"),
    Setting("breast_cancer", "none", 0, "memorised"),
    Setting("iris", "uniform", 0.07, "usual"),
    Setting("iris", "uniform", 0.12, "memorised"),
    Setting("iris", "none", 0, "usual"),
    Setting("overlap", "uniform", 0.015, "usual"),
    Setting("overlap", "uniform", 0.04, "early"),
    Setting("overlap", "uniform", 0.12, "memorised"),
    Setting("overlap", "asymmetric", 0.07, "usual"),
    Setting("overlap", "ambiguous", 0.07, "memorised"),
    Setting("overlap", "uniform", 0.04, "usual", test="noisy"),
    Setting("overlap", "none", 0, "memorised"),
    Setting("vader_3", "human", 0, "usual"),
    Setting("vader_8", "human", 0, "memorised"),
    Setting("mnist_60000", "uniform", 0.04, "early", is_timed_only=True),
)
"""All settings; each stands for itself, and nothing is tuned on any of them."""
