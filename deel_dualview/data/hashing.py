"""Content hashes of the rows of arrays, vectorised: gigabytes a second, whatever the batch size."""

import functools
import hashlib
import zlib

import numpy as np

_WORDS_PER_CHUNK = 4096
_WORDS_PER_BLOCK = 32768
_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF_BITS = np.uint64(32)
_STRING_KINDS = "OSU"


def hash_rows(array: np.ndarray) -> np.ndarray:
    """Return one 64-bit hash per row, of its values, their positions, the row's shape and dtype.

    Rows that differ collide with a probability of about 2^-32 (unless made on purpose to collide). A row
    has the same hash in any batch, process and machine of the same byte order. -0.0 and 0.0 differ.

    Args:
        array: numbers, booleans or strings (as bytes, str or objects), shape (b, ...).

    Returns:
        Shape (b,), dtype uint64.

    Source: Lemire and Kaser (2014), multilinear hashing over 32-bit halves of words; mixed as in
        splitmix64 (Steele, Lea and Flood, 2014).
    """
    is_text = array.dtype.kind in _STRING_KINDS
    header = f"{'text' if is_text else array.dtype.name}{array.shape[1:]}"
    hashes = np.full(len(array), _hash_bytes(header.encode()), np.uint64)
    rows = _text_to_words(array) if is_text else np.ascontiguousarray(array)
    row_bytes = rows.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
    if row_bytes == 0 or len(rows) == 0:
        return mix(hashes)
    octets = rows.reshape(-1).view(np.uint8).reshape(len(rows), row_bytes)
    step = max(1, _WORDS_PER_BLOCK * 8 // min(row_bytes, _WORDS_PER_CHUNK * 8))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        hashes[block] = _fold_words(hashes[block], _to_words(octets[block]))
    return hashes


def checksum(array: np.ndarray) -> int:
    """Return a 32-bit checksum of the bytes of an array, faster than a hash: for changes that are not on purpose."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def mix(hashes: np.ndarray) -> np.ndarray:
    """Return a one-to-one scrambling of 64-bit numbers, in which every bit depends on every bit."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def combine(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the hashes of the ordered pairs, element by element, both of shape (b,)."""
    return mix(mix(hashes) + others)


def _fold_words(hashes: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return `hashes` (b,) after all of `words` (b, w), one chunk of columns after the other."""
    low_multipliers, high_multipliers = _multipliers()
    for start in range(0, words.shape[1], _WORDS_PER_CHUNK):
        chunk = words[:, start : start + _WORDS_PER_CHUNK]
        width = chunk.shape[1]
        # Whole 64-bit words times odd numbers would let two flipped sign bits cancel; halves do not.
        sums = np.einsum("ij,j->i", chunk & _LOW_HALF, low_multipliers[:width])
        sums += np.einsum("ij,j->i", chunk >> _HALF_BITS, high_multipliers[:width])
        hashes = combine(hashes, sums)
    return hashes


def _to_words(octets: np.ndarray) -> np.ndarray:
    """Return rows of bytes (b, r) as rows of 64-bit words, padded with zeros to a whole word."""
    missing = -octets.shape[1] % 8
    if missing:
        octets = np.pad(octets, ((0, 0), (0, missing)))
    return octets.view(np.uint64)


def _text_to_words(array: np.ndarray) -> np.ndarray:
    """Return the hash of every string of an array, in its shape, dtype uint64."""
    hashes = [_hash_bytes(to_bytes(text)) for text in array.reshape(-1).tolist()]
    return np.array(hashes, np.uint64).reshape(array.shape)


def to_bytes(text: object) -> bytes:
    """Return text as bytes, in UTF-8; a lone surrogate, which UTF-8 forbids, keeps bytes of its own."""
    return text if isinstance(text, bytes) else str(text).encode(errors="surrogatepass")


def _hash_bytes(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@functools.cache
def _multipliers() -> tuple[np.ndarray, np.ndarray]:
    """Return fixed pseudo-random odd numbers: splitmix64 of a counter, shape (2, words per chunk)."""
    counter = np.arange(1, 2 * _WORDS_PER_CHUNK + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    low, high = (mix(counter) | np.uint64(1)).reshape(2, _WORDS_PER_CHUNK)
    return low, high
