"""The warning of a surrogate that does not predict what the model predicts."""

import keras
import numpy as np
import pytest

from deel_dualview import DualView, InfluenceModel
from deel_dualview.calculators.fidelity import AgreementMonitor

# The settings of pytest ignore this warning elsewhere.
pytestmark = pytest.mark.filterwarnings("error:The surrogate should predict")

RIGHT, WRONG = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])


def make_monitor():
    return AgreementMonitor({"K": 0.5}, "Take a larger K.")


def test_less_than_nine_tenths_of_fifty_examples_warn_with_the_share_and_what_to_change():
    monitor = make_monitor()
    monitor.add(np.repeat(RIGHT, 44, axis=0), np.repeat(RIGHT, 44, axis=0))
    with pytest.warns(UserWarning, match=r"Take a larger K\..*agreement=0.88, evaluated examples=50, K=0.5"):
        monitor.add(np.repeat(RIGHT, 6, axis=0), np.repeat(WRONG, 6, axis=0))


def test_nine_tenths_do_not_warn():
    surrogate = np.concatenate([np.repeat(RIGHT, 45, axis=0), np.repeat(WRONG, 5, axis=0)])
    make_monitor().add(np.repeat(RIGHT, 50, axis=0), surrogate)


def test_fewer_than_fifty_examples_do_not_warn():
    make_monitor().add(np.repeat(RIGHT, 49, axis=0), np.repeat(WRONG, 49, axis=0))


@pytest.fixture
def contrary(problem):
    """DualView of a model that predicts the least likely class of the usual one."""
    twin = keras.models.clone_model(problem.model)
    twin.set_weights(problem.model.get_weights())
    for weights in (twin.layers[-1].kernel, twin.layers[-1].bias):
        weights.assign(-weights)
    return DualView(InfluenceModel(twin), problem.train(), K=1.0)


@pytest.mark.parametrize("question", ["top_k", "top_k_indices", "estimate_influence_values_in_batches"])
def test_a_contrary_surrogate_warns_once(question, contrary, problem):
    with pytest.warns(UserWarning, match="kernel='cosine'") as caught:
        for _ in range(2):
            list(getattr(contrary, question)(problem.train()))
    assert len(caught) == 1


def test_a_surrogate_that_agrees_does_not_warn(problem):
    calculator = DualView(problem.model, problem.train(), K=1.0, kernel="cosine")
    list(calculator.top_k_indices(problem.train()))


def test_what_an_audit_reads_does_not_warn(contrary, problem):
    contrary.sparse_influence_values(problem.train())
    assert contrary.surrogate_fidelity(problem.train()).agreement < 0.9
