"""Truncated normals, and the likelihood of grades: everything about Φ that runs over all rows.

It rests on the Mills ratio M(x) = (1 - Φ(x)) / φ(x), smooth for x ≥ 0, so that it is right in both
tails: nothing is 1 - Φ where Φ is near 1, and what might underflow is kept as a logarithm. Rows go
by in blocks of fixed length through loops without branches, which run on vector instructions; no
row's result depends on its neighbours, nor on where a range of rows begins.
"""

from __future__ import annotations

import math

import numpy as np

from .._numba import kernel

__all__ = ["BLOCK", "grade_probabilities", "grade_sums", "latent_targets", "sums_of_tails"]

BLOCK = 256  # rows that go through the scratch arrays at a time: these stay in the L1 cache

_SQRT_2PI = math.sqrt(2.0 * math.pi)
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)
_V_AT_0 = math.sqrt(2.0 * _LOG_2)
_FAR = 1e100  # stands for infinity, which times 0 would be NaN
_NARROW = 1e-20  # stands for the width of an interval that rounding has closed
_TINY = 1e-300

# Coefficients, highest power first. Those of the exponential and the logarithm are Taylor's.
_EXP = 1.0 / np.arange(12.0, 0.0, -1.0)
_LOG = 1.0 / np.arange(21.0, 0.0, -2.0)
# Chebyshev interpolants over the whole half line x ≥ 0, in powers of 2 t - 1:
# M(x) / t, t = 5 / (5 + x); relative error 2e-15
_MILLS = np.array(
    [
        2.484133802897536e-09,
        1.1886936362817022e-09,
        -2.8654272460845683e-08,
        -1.4973720696215124e-08,
        2.1040978395435686e-07,
        1.622175263520495e-07,
        -1.3823573213704054e-06,
        -1.991329658710361e-06,
        8.359460055766795e-06,
        2.4945438811462094e-05,
        -2.9765447178479844e-05,
        -0.0002731713313103331,
        -0.00039999264023888985,
        0.001500656474393357,
        0.010425100512718857,
        0.034650946826313485,
        0.08272894314461693,
        0.15718221510890434,
        0.24830941231482084,
        0.33357331903779747,
        0.38561620943063135,
    ]
)
# v - x where 1 - Φ(x) = exp(-v²/2), t = 8 / (8 + v - v(0)); error 3e-4
_QUANTILE = np.array(
    [
        0.002604313705681936,
        0.06602144672955229,
        0.03517008592427484,
        -0.02023903364455619,
        0.04250258263929599,
        0.12379941358920059,
        0.16345567147023965,
        0.4185279656601045,
        0.34530258064318287,
    ]
)


@kernel
def _exp_minus(y, out):
    """exp(-y) = 2^-n exp(r), |r| ≤ log(2) / 2; beyond y = 700 it stays at 1e-304."""
    for i in range(BLOCK):
        x = y[i] if y[i] < 700.0 else 700.0
        n = np.rint(x * (1.0 / _LOG_2))
        r = n * _LOG_2 - x
        power = 1.0
        for k in range(_EXP.size):
            power = 1.0 + power * r * _EXP[k]
        exponent = np.int64(1023 - np.int32(n))  # by way of int32: that conversion has vectors
        out[i] = power * np.int64(exponent << np.int64(52)).view(np.float64)


@kernel
def _log(x, out):
    """log(2^e m) = e log(2) + 2 artanh((m - 1) / (m + 1)), m from sqrt(1/2) to sqrt(2), x > 0."""
    for i in range(BLOCK):
        bits = np.float64(x[i]).view(np.int64)
        exponent = np.int32((bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52))
        m = np.int64(bits - (np.int64(exponent) << np.int64(52))).view(np.float64)
        s = (m - 1.0) / (m + 1.0)
        series = 0.0
        for k in range(_LOG.size):
            series = series * s * s + _LOG[k]
        out[i] = exponent * _LOG_2 + 2.0 * s * series


@kernel
def _mills(x, out):
    """M(x) for x ≥ 0."""
    for i in range(BLOCK):
        t = 5.0 / (5.0 + x[i])
        s = 2.0 * t - 1.0
        value = 0.0
        for k in range(_MILLS.size):
            value = value * s + _MILLS[k]
        out[i] = t * value


@kernel
def _upper_quantile(minus_log, x, ratio, log_ratio):
    """The x ≥ 0 where -log(1 - Φ(x)) is ``minus_log`` (≥ log 2): a polynomial, then Halley."""
    for i in range(BLOCK):
        v = np.sqrt(2.0 * minus_log[i])
        s = 16.0 / (8.0 + v - _V_AT_0) - 1.0
        value = 0.0
        for k in range(_QUANTILE.size):
            value = value * s + _QUANTILE[k]
        x[i] = v - value if v > value else 0.0
    _mills(x, ratio)
    _log(ratio, log_ratio)
    for i in range(BLOCK):
        miss = minus_log[i] - 0.5 * x[i] * x[i] - _LOG_SQRT_2PI + log_ratio[i]
        step = miss * ratio[i]
        x[i] += step / (1.0 + 0.5 * step * (1.0 / ratio[i] - x[i]))


@kernel
def _fold(low, high, near, far):
    """Mirror each interval at 0, if need be, so that its end far is the farther one."""
    for i in range(BLOCK):
        a = low[i] if low[i] > -_FAR else -_FAR
        b = high[i] if high[i] < _FAR else _FAR
        near[i] = -b if low[i] + high[i] < 0.0 else a
        far[i] = -a if low[i] + high[i] < 0.0 else b


@kernel
def _masses(near, far, density_near, density_far, beyond_near, beyond_far, inside):
    """Densities at both ends, the mass beyond near, beyond far, and between the two.

    Beyond means farther from 0. All are divided by exp(-near²/2) where near > 0, so that they do
    not vanish far out.
    """
    for i in range(BLOCK):
        beyond_near[i] = abs(near[i])
    _mills(beyond_near, inside)
    for i in range(BLOCK):
        beyond_near[i] = 0.0 if near[i] > 0.0 else 0.5 * near[i] * near[i]
    for i in range(BLOCK):
        beyond_far[i] = beyond_near[i] + 0.5 * (far[i] - near[i]) * (far[i] + near[i])
    _exp_minus(beyond_near, density_near)
    _exp_minus(beyond_far, density_far)
    for i in range(BLOCK):
        density_near[i] /= _SQRT_2PI
        density_far[i] /= _SQRT_2PI
    for i in range(BLOCK):
        beyond_near[i] = density_near[i] * inside[i]
    _mills(far, beyond_far)
    for i in range(BLOCK):
        beyond_far[i] *= density_far[i]
    for i in range(BLOCK):
        left = beyond_near[i] if near[i] > 0.0 else 1.0 - beyond_near[i]
        mass = left - beyond_far[i]
        # the least that it can be: of a narrow interval, rounding would leave nothing
        width = far[i] - near[i] if far[i] - near[i] < 1.0 else 1.0
        least = (width if width > _NARROW else _NARROW) * density_far[i]
        mass = mass if mass > least else least
        inside[i] = mass if mass > _TINY else _TINY


@kernel
def _quantiles(near, far, uniform, beyond_near, beyond_far, inside, x, share, scratch):
    """Write into x the quantile ``uniform`` of a standard normal kept from near to far."""
    for i in range(BLOCK):
        above = beyond_far[i] + uniform[i] * inside[i]
        below = beyond_near[i] + (1.0 - uniform[i]) * inside[i]
        below = above if near[i] > 0.0 else below
        least = above if above < below else below
        share[i] = least if least > _TINY else _TINY
        uniform[i] = above - below  # > 0: the quantile is left of 0
    _log(share, scratch)
    for i in range(BLOCK):
        minus_log = (0.5 * near[i] * near[i] if near[i] > 0.0 else 0.0) - scratch[i]
        share[i] = minus_log if minus_log > _LOG_2 else _LOG_2
    _upper_quantile(share, x, inside, scratch)
    for i in range(BLOCK):
        value = -x[i] if uniform[i] > 0.0 else x[i]
        value = value if value > near[i] else near[i]
        x[i] = value if value < far[i] else far[i]


@kernel
def latent_targets(scores, codes, lows, highs, uniforms, out, start, stop):
    """Draw z ~ N(score, 1) between lows[code] and highs[code], by inverting the distribution.

    scores float64, codes uint8, lows and highs float64 (infinite at the ends), uniforms float64
    from 0 to 1; z goes into out, float32.
    """
    work = np.zeros((12, BLOCK))
    low, high, near, far, uniform, x = work[0], work[1], work[2], work[3], work[4], work[5]
    beyond_near, beyond_far, inside = work[6], work[7], work[8]
    density_near, density_far, scratch = work[9], work[10], work[11]
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        for i in range(n):
            score, code = scores[first + i], codes[first + i]
            low[i], high[i] = lows[code] - score, highs[code] - score
            uniform[i] = uniforms[first + i]
        _fold(low, high, near, far)
        _masses(near, far, density_near, density_far, beyond_near, beyond_far, inside)
        _quantiles(
            near, far, uniform, beyond_near, beyond_far, inside, x, density_near, density_far
        )
        for i in range(BLOCK):
            scratch[i] = -x[i] if low[i] + high[i] < 0.0 else x[i]
        for i in range(n):
            out[first + i] = scores[first + i] + scratch[i]


@kernel
def grade_sums(scores, bounds, lows, highs, out, start, stop):
    """Sum log P(low < score + noise < high) and its derivatives over blocks of rows.

    Block b is the rows bounds[b]..bounds[b + 1] (at most BLOCK of them), all with the same lows[b]
    and highs[b]; out[b] gets the sums of log P, of its derivatives by low and high, and of those
    by low twice, high twice, and both.
    """
    work = np.zeros((11, BLOCK))
    low, high, near, far, log_inside = work[0], work[1], work[2], work[3], work[4]
    beyond_near, beyond_far, inside = work[5], work[6], work[7]
    density_near, density_far = work[8], work[9]
    for block in range(start, stop):
        first = bounds[block]
        n = bounds[block + 1] - first
        for i in range(n):
            low[i], high[i] = lows[block] - scores[first + i], highs[block] - scores[first + i]
        _fold(low, high, near, far)
        _masses(near, far, density_near, density_far, beyond_near, beyond_far, inside)
        _log(inside, log_inside)
        value, by_low, by_high = 0.0, 0.0, 0.0
        low_low, high_high, both = 0.0, 0.0, 0.0
        for i in range(n):
            shift = 0.5 * near[i] * near[i] if near[i] > 0.0 else 0.0
            value += log_inside[i] - shift
            a, b = density_near[i] / inside[i], density_far[i] / inside[i]
            near_near, far_far = a * (near[i] - a), -b * (far[i] + b)
            mirrored = low[i] + high[i] < 0.0
            by_low += -b if mirrored else -a
            by_high += a if mirrored else b
            low_low += far_far if mirrored else near_near
            high_high += near_near if mirrored else far_far
            both += a * b
        out[block, 0] = value
        out[block, 1], out[block, 2] = by_low, by_high
        out[block, 3], out[block, 4], out[block, 5] = low_low, high_high, both


@kernel
def grade_probabilities(scores, lows, highs, out, start, stop):
    """Write P(lows[c] < score + noise < highs[c]) into out[row, c], float64."""
    work = np.zeros((10, BLOCK))
    low, high, near, far = work[0], work[1], work[2], work[3]
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        for c in range(lows.size):
            for i in range(n):
                low[i], high[i] = lows[c] - scores[first + i], highs[c] - scores[first + i]
            _fold(low, high, near, far)
            _masses(near, far, work[4], work[5], work[6], work[7], work[8])
            for i in range(BLOCK):
                work[5, i] = 0.5 * near[i] * near[i] if near[i] > 0.0 else 0.0
            _exp_minus(work[5], work[9])
            for i in range(n):
                out[first + i, c] = work[8, i] * work[9, i]


@kernel
def sums_of_tails(scores, cutpoints, weights, base, out, start, stop):
    """Write base + Σ weights[c] Φ(score - cutpoints[c]) into out, float64."""
    work = np.zeros((5, BLOCK))
    x, size, density, ratio, total = work[0], work[1], work[2], work[3], work[4]
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        total[:] = base
        for c in range(cutpoints.size):
            for i in range(n):
                x[i] = scores[first + i] - cutpoints[c]
            for i in range(BLOCK):
                size[i] = 0.5 * x[i] * x[i]
            _exp_minus(size, density)
            for i in range(BLOCK):
                size[i] = abs(x[i])
            _mills(size, ratio)
            for i in range(BLOCK):
                tail = density[i] * ratio[i] / _SQRT_2PI
                total[i] += weights[c] * (1.0 - tail if x[i] > 0.0 else tail)
        for i in range(n):
            out[first + i] = total[i]
