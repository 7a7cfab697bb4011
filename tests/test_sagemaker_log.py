"""Adam.sagemaker() reproduces a public log of SageMaker's own container on MovieLens 100K.

The log: ml-100k, fold ua, target rating >= 4, one-hot users and films, 64 factors, batches of 200,
30 epochs, all else default. Films without a training row are not in its test. Only the random
start differs, so figures agree within bands; MXNet's own re-runs with three seeds stay in them.
"""

from __future__ import annotations

import numpy as np
import pytest
from realdata import movielens

import fmknn

LOG = {  # epoch: running cross-entropy of the training
    0: 0.685802, 1: 0.673162, 2: 0.663339, 5: 0.643639, 10: 0.624141, 15: 0.610421,
    20: 0.599233, 25: 0.589618, 28: 0.584429, 29: 0.582783,
}  # fmt: skip
TEST_CROSS_ENTROPY, TEST_ACCURACY = 0.603960, 0.693466


@pytest.fixture(scope="module")
def parts():
    """Training and test rows in the order of the published files: by user, then by film."""
    train, test = (part.without_features() for part in movielens(fold="ua"))
    test = test.take(np.isin(test.item_index, train.item_index))
    prepared = []
    for part in (train, test):
        part = part.take(np.lexsort((part.item_index, part.user_index)))
        prepared.append(part.replace(values=(part.values >= 4).astype(np.float32)))
    assert [len(part) for part in prepared] == [90_570, 9_428]
    return prepared


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reproduces_the_log(parts, seed):
    train, test = parts
    config = fmknn.Adam.sagemaker(epochs=30, mini_batch_size=200)
    model = fmknn.FMClassifier(64, solver=config, random_state=seed).fit(train)
    for epoch, logged in LOG.items():
        band = 0.0005 if epoch == 0 else 0.001
        assert model.history_[epoch]["loss"] == pytest.approx(logged, abs=band), epoch
    probability = model.predict_proba(test)[:, 1]
    cross_entropy = -np.mean(np.log(np.where(test.values == 1, probability, 1 - probability)))
    assert cross_entropy == pytest.approx(TEST_CROSS_ENTROPY, abs=0.0015)
    assert model.score(test) == pytest.approx(TEST_ACCURACY, abs=0.006)
