"""One signature per kernel: wherever an array comes from, nothing is compiled a second time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("every_kernel.py")
KERNELS = [
    "fmknn.backends.sagemaker.recordio_kernel.payload_sizes",
    "fmknn.backends.sagemaker.recordio_kernel.read_varints",
    "fmknn.backends.sagemaker.recordio_kernel.write_frames",
    "fmknn.data.negatives_kernel.draw_others",
    "fmknn.index.exact_kernel.scan_batch",
    "fmknn.index.exact_kernel.scan_one",
    "fmknn.index.rank.rank_candidates",
    "fmknn.index.rank.score_pairs",
    "fmknn.model.kernels.add_part",
    "fmknn.model.kernels.entity_vectors",
    "fmknn.model.kernels.score_rows",
    "fmknn.solvers.adam_kernel.adam_epoch",
    "fmknn.solvers.bpr_kernel.bpr_epoch",
    "fmknn.solvers.entity_rows.count_rows",
    "fmknn.solvers.entity_rows.place_rows",
    "fmknn.solvers.feature_kernel.finish_factor",
    "fmknn.solvers.feature_kernel.start_factor",
    "fmknn.solvers.feature_kernel.start_rows",
    "fmknn.solvers.feature_kernel.sum_rows",
    "fmknn.solvers.feature_kernel.sweep_factor",
    "fmknn.solvers.feature_kernel.sweep_linear",
    "fmknn.solvers.hyperprior_kernel.add_products",
    "fmknn.solvers.pair_kernel.sweep_pairs",
    "fmknn.solvers.response_kernel.grade_probabilities",
    "fmknn.solvers.response_kernel.grade_sums",
    "fmknn.solvers.response_kernel.latent_targets",
    "fmknn.solvers.response_kernel.sums_of_tails",
    "fmknn.solvers.sweep_kernel.sweep_one_hot",
]


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    """{module.kernel: its signatures} of a process that has used all there is."""
    path = os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, SCRIPT, tmp_path_factory.mktemp("arrays")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_compiled_once(signatures, kernel):
    assert len(signatures[kernel]) == 1, "\n".join(signatures[kernel])


def test_no_kernel_is_left_out(signatures):
    # names with an underscore are helpers: they are compiled into the kernels of their file
    assert sorted(name for name in signatures if "._" not in name) == KERNELS
