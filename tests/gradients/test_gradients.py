"""Per-example gradients: every route is right, for every kind of layer."""

import numpy as np
import pytest
import tensorflow as tf
from gradient_cases import MODELS, Case, assert_close

from deel_dualview import PerExampleGradients
from deel_dualview.gradients import select_groups
from deel_dualview.linalg import blocks

WITHOUT_CLOSED_FORM = {
    "Dense with a layer as activation",
    "Conv2DTranspose",
    "SeparableConv2D",
    "EinsumDense, bias over time",
    "EinsumDense, a kernel for each step",
    "LSTM",
    "GRU",
    "bidirectional",
    "custom",
    "a subclass of Dense",
    "tied weights",
    "weights tied a little",
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    return Case(request.param)


def test_every_kind_of_layer_is_differentiated_right(case):
    gradients = PerExampleGradients(case.model, "all")
    assert_close(blocks.to_dense(gradients(case.inputs, case.classes)), case.by_hand())
    are_all_closed = len(gradients._in_closed_form) == len(gradients.groups)
    assert are_all_closed == (case.name not in WITHOUT_CLOSED_FORM)


def test_a_gradient_can_be_put_back_into_the_shapes_of_variables(case):
    for group in select_groups(case.model, "all"):
        rows = np.random.default_rng(0).normal(size=(2, group.size)).astype("float32")
        parts = group.unflatten(tf.constant(rows))
        assert [part.shape[1:] for part in parts] == [variable.shape for variable in group.variables]
        np.testing.assert_array_equal(group.flatten(parts), rows)


@pytest.mark.parametrize("name", ["LSTM", "MultiHeadAttention", "shared embedding", "custom", "one output"])
def test_going_through_examples_one_by_one_gives_the_same(name):
    case = Case(name)
    gradients = PerExampleGradients(case.model, "all", route="map")
    assert_close(blocks.to_dense(gradients(case.inputs, case.classes)), case.by_hand())


@pytest.mark.parametrize(
    "name", ["Dense", "Dense on sequences", "Conv1D", "Conv2D", "Conv2DTranspose", "BatchNormalization"]
)
def test_the_vectorized_route_gives_the_same(name):
    case = Case(name)
    gradients = PerExampleGradients(case.model, "all", route="vectorized-map")
    assert_close(blocks.to_dense(gradients(case.inputs, case.classes)), case.by_hand())


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("Dense", "logit"),
        ("Dense", "margin"),
        ("one output", "logit"),
        ("one output", "margin"),
        ("softmax head", "margin"),
    ],
)
def test_other_functions_than_the_loss(name, function):
    case = Case(name)
    for weights in ("all", "last"):
        found = PerExampleGradients(case.model, weights, function=function)(case.inputs, case.classes)
        expected = case.by_hand(function)
        assert_close(blocks.to_dense(found), expected[:, -blocks.to_dense(found).shape[1] :])
