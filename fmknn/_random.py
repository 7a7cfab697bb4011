"""Random streams: one seed, one result, numpy's global generator never touched."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["child_generator", "entropy_words", "seed_sequence"]


def seed_sequence(random_state: Any = None) -> np.random.SeedSequence:
    """Turn what users pass as ``random_state`` into a seed sequence.

    Parameters
    ----------
    random_state : int, numpy Generator, RandomState, SeedSequence or None
        None draws fresh entropy from the operating system. A generator gives a new stream at
        each call, as it does everywhere else.

    Raises
    ------
    TypeError
        For anything else, a float or a string for instance.

    Examples
    --------
    >>> seed_sequence(7).entropy
    7
    """
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if isinstance(random_state, np.random.Generator):
        return np.random.SeedSequence(int(random_state.integers(2**63)))
    if isinstance(random_state, np.random.RandomState):
        return np.random.SeedSequence(int(random_state.randint(2**31)))
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must not be negative, got {random_state}")
        return np.random.SeedSequence(int(random_state))
    raise TypeError(
        "random_state must be an int, a numpy Generator, a RandomState, a SeedSequence or None, "
        f"got {type(random_state).__name__}"
    )


def entropy_words(random_state: Any) -> np.ndarray:
    """Four 32-bit words that stand for the seed, to be kept in a checkpoint."""
    return seed_sequence(random_state).generate_state(4)


def child_generator(words: np.ndarray, *key: int) -> np.random.Generator:
    """Return the stream named ``key`` (an epoch, say): no stream depends on what others drew."""
    entropy = [int(word) for word in words]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))
