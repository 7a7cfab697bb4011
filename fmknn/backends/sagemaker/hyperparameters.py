"""Settings as SageMaker's containers take them: strings, checked here before anything is sent.

The containers refuse a wrong name or value too, but some minutes after the job has started. Names
and ranges: "Factorization Machines Hyperparameters" and "k-NN Hyperparameters" in AWS's
documentation of SageMaker.
"""

from __future__ import annotations

from typing import Any

from ..._checks import require_count
from ...solvers.adam import Adam

__all__ = ["INDEX_TYPES", "fm_hyperparameters", "knn_hyperparameters"]

INDEX_TYPES = ("faiss.Flat", "faiss.IVFFlat")

_PREDICTOR_TYPES = {"squared": "regressor", "logistic": "binary_classifier"}
_GROUPS = ("bias", "linear", "factors")
_COUNTS = ("epochs", "mini_batch_size")
_RATES = tuple(f"{group}_{what}" for group in _GROUPS for what in ("lr", "wd"))
_SENT_IF_GIVEN = ("clip_gradient", "eps", "rescale_grad")
_INIT_SETTING = {"normal": "sigma", "uniform": "scale", "constant": "value"}
_FIXED = {  # settings of ours that the container does not have, as it behaves
    "lr_schedule": "constant",
    "shuffle": False,
    "lazy": True,
    "damp_above": None,
    "standardize": False,
    "zero_unseen": False,
}


def fm_hyperparameters(
    config: Any, *, loss: str, n_factors: int, n_features: int
) -> dict[str, str]:
    """Return the hyperparameters of a factorization machines training job.

    Parameters
    ----------
    config : Adam
        As :meth:`fmknn.Adam.sagemaker` makes it.
    loss : {"squared", "logistic"}
    n_factors, n_features : int

    Returns
    -------
    dict of str to str

    Raises
    ------
    ValueError
        For a solver, a loss or a setting that SageMaker does not have.

    Examples
    --------
    >>> config = Adam.sagemaker(epochs=30)
    >>> sent = fm_hyperparameters(config, loss="squared", n_factors=64, n_features=2625)
    >>> sent["predictor_type"], sent["factors_lr"], sent["feature_dim"]
    ('regressor', '0.0001', '2625')
    """
    if type(config) is not Adam:
        name = type(config).__name__
        raise ValueError(
            f"SageMaker trains factorization machines by Adam only, not {name}: "
            "use solver=Adam.sagemaker(), or train on this machine (backend=Local())"
        )
    if loss not in _PREDICTOR_TYPES:
        raise ValueError(f"SageMaker has the losses squared and logistic, not {loss!r}")
    if n_factors < 1:
        raise ValueError(f"SageMaker needs n_factors of at least 1, got {n_factors}")
    _require_sagemakers_rule(config)
    sent: dict[str, Any] = {
        "feature_dim": n_features,
        "num_factors": n_factors,
        "predictor_type": _PREDICTOR_TYPES[loss],
    }
    sent.update({name: int(getattr(config, name)) for name in _COUNTS})
    sent.update({name: float(getattr(config, name)) for name in _RATES})
    for name in _SENT_IF_GIVEN:
        value = getattr(config, name)
        if value is not None and (name, value) != ("eps", 1e-8):  # that is the container's own
            sent[name] = float(value)
    for group in _GROUPS:
        method = getattr(config, f"{group}_init_method")
        setting = f"{group}_init_{_INIT_SETTING[method]}"
        sent[f"{group}_init_method"] = method
        sent[setting] = float(getattr(config, setting))
    return {name: _text(value) for name, value in sent.items()}


def _require_sagemakers_rule(config: Adam) -> None:
    """Refuse, all at once, what would be trained otherwise than asked."""
    others = [
        f"{name}={getattr(config, name)!r}"
        for name, fixed in _FIXED.items()
        if getattr(config, name) != fixed
    ]
    others += [f"{name}=None" for name in (*_COUNTS, *_RATES) if getattr(config, name) is None]
    if config.bias_init_method == "mean":
        others.append("bias_init_method='mean'")
    if others:
        raise ValueError(
            f"SageMaker can't train with {', '.join(others)}: use solver=Adam.sagemaker(…), "
            "which has SageMaker's own rule and defaults"
        )


def knn_hyperparameters(
    *, dim: int, k: int, n_items: int, index_type: str = "faiss.Flat", nlists: int | None = None
) -> dict[str, str]:
    """Return the hyperparameters of a k-NN training job that searches by inner product.

    Parameters
    ----------
    dim : int
        Columns of the item matrix, n_factors + 1.
    k : int
        Neighbours per query.
    n_items : int
        All of them are indexed: a smaller sample_size would drop items in silence.
    index_type : {"faiss.Flat", "faiss.IVFFlat"}
    nlists : int, optional
        Cells of IVFFlat; None: the container's own choice, the root of n_items.

    Returns
    -------
    dict of str to str

    Raises
    ------
    ValueError
        For another index type, or a number out of range.
    """
    require_index_type(index_type, nlists)
    if not 1 <= k <= n_items:
        raise ValueError(f"k must be within 1..{n_items}, the number of items, got {k}")
    if nlists is not None and nlists > n_items:
        raise ValueError(f"nlists={nlists} is more than the {n_items} items: lower it")
    sent: dict[str, Any] = {
        "feature_dim": dim,
        "k": k,
        "sample_size": n_items,
        "predictor_type": "classifier",
        "index_metric": "INNER_PRODUCT",
        "index_type": index_type,
    }
    if nlists is not None:
        sent["faiss_index_ivf_nlists"] = nlists
    return {name: _text(value) for name, value in sent.items()}


def require_index_type(index_type: str, nlists: int | None) -> None:
    """Refuse what SageMaker's k-NN does not do by inner product.

    Raises
    ------
    ValueError
        Naming the setting.
    """
    if index_type == "faiss.IVFPQ":
        raise ValueError(
            "SageMaker's faiss.IVFPQ knows the metric L2 only, which does not rank as the model "
            f"does: use index_type={INDEX_TYPES[0]!r} or {INDEX_TYPES[1]!r}"
        )
    if index_type not in INDEX_TYPES:
        raise ValueError(f"index_type must be one of {', '.join(INDEX_TYPES)}, got {index_type!r}")
    if nlists is not None:
        require_count("nlists", nlists)
        if index_type != "faiss.IVFFlat":
            raise ValueError(f"nlists is of faiss.IVFFlat, {index_type} has no cells")


def _text(value: Any) -> str:
    return (
        value if isinstance(value, str) else repr(value.item() if hasattr(value, "item") else value)
    )
