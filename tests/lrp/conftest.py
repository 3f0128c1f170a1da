"""A fixture that spares tests of relevance their traces."""

from collections.abc import Callable, Iterator

import pytest
import tensorflow as tf


@pytest.fixture
def eagerly() -> Iterator[Callable[[bool], None]]:
    """Set whether what follows is run without traces, which take longer than all else; another test has them."""
    yield tf.config.run_functions_eagerly
    tf.config.run_functions_eagerly(False)
