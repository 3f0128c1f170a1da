"""The training examples of the greatest influence, and fetching them from their dataset."""

from deel_dualview.search.gathering import gather_examples
from deel_dualview.search.top_k import (
    ORDER,
    Best,
    TopK,
    block_top_k,
    inner_product_blocks,
    merge_top_k,
    streaming_top_k,
    to_order,
)

__all__ = [
    "ORDER",
    "Best",
    "TopK",
    "block_top_k",
    "gather_examples",
    "inner_product_blocks",
    "merge_top_k",
    "streaming_top_k",
    "to_order",
]
