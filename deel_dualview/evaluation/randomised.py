"""The question whether attributions depend on what the network has learned."""

from __future__ import annotations

import keras

from deel_dualview import metrics
from deel_dualview.evaluation.asking import Answer, Measure, Protocol, told
from deel_dualview.evaluation.trials import Trial

NUM_EXAMPLES = 100


def _ask(trial: Trial) -> Answer:
    queries = trial.queries(trial.tests[: min(NUM_EXAMPLES, trial.num_test)])
    keras.utils.set_random_seed(trial.subject.seed)
    untrained = trial.with_untrained(keras.models.clone_model(trial.subject.model))
    metric = metrics.ModelRandomisation()
    for (_, values), (_, others) in zip(trial.values(queries), untrained.values(queries), strict=True):
        metric.update_state(values, others)
    return Answer({"randomisation": told(metric)}, {})


RANDOMISED = Protocol(
    "normal",
    {
        "randomisation": Measure(
            "Randomisation",
            "lower",
            "rank correlation with the values of the same network with random weights; near 0 is good",
        )
    },
    _ask,
    settings={"num_examples": NUM_EXAMPLES},
)
