"""Text of any length as arrays of numbers, for files: the bytes of all texts on end, and how long each one is."""

import numpy as np

from deel_dualview.stores.base import Block

LENGTHS = ".lengths"


def pack_texts(block: Block) -> dict[str, np.ndarray]:
    """Return a block with each array of texts as two: their bytes, (total,) uint8, and their lengths, (b, ...)."""
    packed: dict[str, np.ndarray] = {}
    for name, array in block.items():
        if array.dtype.kind != "O":
            packed[name] = array
            continue
        texts = array.reshape(-1).tolist()
        lengths = np.array([len(text) for text in texts], np.int64)
        packed |= {
            name: np.array(bytearray(b"".join(texts)), np.uint8),
            name + LENGTHS: lengths.reshape(array.shape),
        }
    return packed


def unpack_texts(octets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return texts as an array of `bytes` objects, in the shape of their lengths.

    Raises:
        ValueError: bytes and lengths do not fit each other.
    """
    stops = np.cumsum(lengths.reshape(-1))
    total = int(stops[-1]) if stops.size else 0
    if (lengths < 0).any() or total != octets.size:
        raise ValueError("the lengths of its texts do not add up to their bytes")
    content, starts = octets.tobytes(), stops - lengths.reshape(-1)
    texts = np.empty(stops.size, object)
    texts[:] = [content[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return texts.reshape(lengths.shape)
