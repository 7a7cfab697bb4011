"""Vocabulary: what interactions know, which says what the columns of their design stand for."""

from __future__ import annotations

from ..data.features import FeatureTable
from ..data.ids import IdMap
from ..data.interactions import Interactions

__all__ = ["Vocabulary", "same_vocabulary", "vocabulary_of"]

Vocabulary = tuple[dict[str, IdMap], tuple[FeatureTable | None, FeatureTable | None]]


def vocabulary_of(interactions: Interactions) -> Vocabulary:
    """Return the ids of "user", "item" and each context, and both feature tables."""
    ids = {"user": interactions.users, "item": interactions.items}
    ids.update({name: column.ids for name, column in interactions.context.items()})
    return ids, (interactions.user_features, interactions.item_features)


def same_vocabulary(a: Vocabulary, b: Vocabulary) -> bool:
    """Return whether both make the same columns."""
    same_tables = all(
        one is other or (one is not None and one.encodes_like(other))
        for one, other in zip(a[1], b[1], strict=True)
    )
    return same_tables and list(a[0].items()) == list(b[0].items())
