"""What the containers accept as hyperparameters, and how they refuse the rest.

Names, types and bounds follow AWS's documentation of the two algorithms; the words of a refusal are
those of public FailureReasons.
"""

from __future__ import annotations

import re

INTEGER = r"[1-9]\d*"
FLOAT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
NOT_NEGATIVE = FLOAT.removeprefix("[+-]?")
BOOLEAN = "true|false|True|False"

_GROUPS = ("bias", "linear", "factors")
FM = {
    "feature_dim": INTEGER,
    "num_factors": INTEGER,
    "predictor_type": "binary_classifier|regressor",
    "epochs": INTEGER,
    "mini_batch_size": INTEGER,
    "clip_gradient": FLOAT,
    "eps": FLOAT,
    "rescale_grad": FLOAT,
    **{f"{g}_{what}": NOT_NEGATIVE for g in _GROUPS for what in ("lr", "wd")},
    **{f"{g}_init_method": "uniform|normal|constant" for g in _GROUPS},
    **{f"{g}_init_{what}": NOT_NEGATIVE for g in _GROUPS for what in ("sigma", "scale")},
    **{f"{g}_init_value": FLOAT for g in _GROUPS},
}
FM_REQUIRED = ("feature_dim", "num_factors", "predictor_type")
FM_DEFAULTS = {"epochs": 1, "mini_batch_size": 1000}

KNN = {
    "feature_dim": INTEGER,
    "k": INTEGER,
    "sample_size": INTEGER,
    "predictor_type": "classifier|regressor",
    "index_type": r"faiss\.Flat|faiss\.IVFFlat|faiss\.IVFPQ",
    "index_metric": "L2|INNER_PRODUCT|COSINE",
    "faiss_index_ivf_nlists": f"auto|{INTEGER}",
    "faiss_index_pq_m": "1|2|3|4|8|12|16|20|24|28|32|40|48|56|64|96",
    "dimension_reduction_type": "sign|fjlt",
    "dimension_reduction_target": INTEGER,
    "mini_batch_size": INTEGER,
}
KNN_REQUIRED = ("feature_dim", "k", "sample_size", "predictor_type")
KNN_DEFAULTS = {"index_type": "faiss.Flat", "index_metric": "L2", "faiss_index_ivf_nlists": "auto"}


class ContainerError(Exception):
    """The FailureReason of a job whose hyperparameters the container refuses."""


def read(given: dict[str, str], allowed: dict, required: tuple, defaults: dict) -> dict:
    """Turn the strings of a request into numbers and words, or refuse them."""
    for name in given:
        if name not in allowed and not name.startswith("_"):
            raise ContainerError(
                f"ClientError: Additional properties are not allowed (u'{name}' was unexpected)"
            )
    for name in required:
        if name not in given:
            raise ContainerError(
                f"ClientError: No value(s) were specified for '{name}' which are required "
                f"hyperparameter(s)"
            )
    values = dict(defaults)
    for name, text in given.items():
        if name.startswith("_"):
            continue
        if not re.fullmatch(allowed[name], text):
            raise ContainerError(
                f"AlgorithmError: u'{text}' is not valid under any of the given schemas\n\n"
                f"On instance[u'{name}']:\n    u'{text}'"
            )
        if re.fullmatch(INTEGER, text) and allowed[name] not in (FLOAT, NOT_NEGATIVE):
            values[name] = int(text)
        elif allowed[name] in (FLOAT, NOT_NEGATIVE):
            values[name] = float(text)
        else:
            values[name] = text
    return values
