"""Shared type names and the legend of array shapes.

Letters used in every docstring: n training examples, m evaluated examples (queries), p parameters,
d features, c classes, k kept. Vectors are rows everywhere: features (n, d), influence values (m, n).
"""

from typing import Any, Literal

Inputs = Any
"""What the model is called with: a tensor or a nest (tuple, list, dict) of tensors of equal first dimension."""

Target = Literal["prediction", "label"] | int
"""Which output of an evaluated example is explained: what the model says, its label, or that of a fixed index."""

Function = Literal["loss", "logit", "margin"]
"""What is differentiated. For class y: `"loss"` the cross-entropy -log p_y; `"logit"` the logit z_y; `"margin"` the log
odds z_y - log sum_(j != y) exp(z_j) = log(p_y / (1 - p_y)). Of other objectives than the softmax there is the loss."""

Kernel = Literal["tempered", "cosine", "linear", "standardized"]
"""How penultimate features enter the surrogate: at unit length, as they are, or z-scored."""
