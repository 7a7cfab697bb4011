"""Random streams: one seed, one stream; none depends on what others drew."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from fmknn._random import child_generator, entropy_words, seed_sequence


def draws(random_state):
    return seed_sequence(random_state).generate_state(4).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: 7,
        lambda: np.int32(7),
        lambda: 2**100,
        lambda: np.random.default_rng(7),
        lambda: np.random.RandomState(7),
        lambda: np.random.SeedSequence(7),
    ],
    ids=["int", "numpy int", "large int", "Generator", "RandomState", "SeedSequence"],
)
def test_the_same_seed_gives_the_same_stream(make):
    assert draws(make()) == draws(make())


def test_an_int_and_a_numpy_int_are_one_seed():
    assert draws(7) == draws(np.int64(7))


def test_other_seeds_give_other_streams():
    assert draws(7) != draws(8)
    assert draws(np.random.default_rng(7)) != draws(np.random.default_rng(8))


def test_none_is_fresh_every_time():
    assert draws(None) != draws(None)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_a_new_stream_at_each_call(make):
    generator = make(7)
    assert draws(generator) != draws(generator)


def test_a_negative_seed_is_refused():
    with refused(ValueError, "random_state", "-1"):
        seed_sequence(-1)


@pytest.mark.parametrize("state", [1.0, "7", True, np.bool_(True), [7]], ids=repr)
def test_what_is_no_seed_is_refused_by_type(state):
    with refused(TypeError, "random_state", type(state).__name__):
        seed_sequence(state)


def test_numpys_global_generator_is_never_touched():
    before = np.random.get_state()[1].tolist()
    child_generator(entropy_words(None), 1).random()
    assert np.random.get_state()[1].tolist() == before


def test_words_stand_for_the_seed():
    words = entropy_words(7)
    assert words.shape == (4,) and words.dtype == np.uint32
    assert words.tolist() == entropy_words(7).tolist() != entropy_words(8).tolist()


def test_a_child_depends_on_words_and_key_alone():
    words = entropy_words(7)
    child_generator(words, 0).random(1000)
    child_generator(words, 1).random()
    again = child_generator(words, 2).random(3)
    assert again.tolist() == child_generator(entropy_words(7), 2).random(3).tolist()


def test_children_of_other_keys_are_other_streams():
    words = entropy_words(7)
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert len({child_generator(words, *key).random() for key in keys}) == len(keys)
