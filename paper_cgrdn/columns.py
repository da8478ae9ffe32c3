"""What a restoration does to atomic columns: how well they are located and weighed, whether a vacancy survives, whether noise turns into a lattice.

Positions are (row, column) in pixels of the image, pixel centres at whole numbers; a column's intensity is its volume, the sum over pixels of its Gaussian.
The paper's own numbers and settings are not recoverable, so every choice here is ours. Columns are
fitted as in StatSTEM (De Backer et al., Ultramicroscopy 171 (2016) 104), a Gaussian on a constant, but each on its own and not all of them jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

ITERATIONS = 60  # of Levenberg-Marquardt, at most; a clean column needs about eight
STEP = 1e-4  # converged: the step is below this in every parameter; px, relative width, share of the window's range of grey levels
SLIMMEST = 0.6  # px; a narrower Gaussian fits one pixel, such as a hot one
LOWEST_RING, FAINTEST = 8, 1e-4  # of `radial_spectrum_peaks`: periods per side, and share of the strongest ring's level


@dataclass(frozen=True, eq=False)
class Crystal:
    """A simulated ADF image and its truth, for the n columns far enough from the border.

    image: (height, width) float32, mean about 1, clean; positions: (n, 2) px; intensities: (n,) volumes, image units times px^2; species: (n,) 0 or 1;
    vacancy: (2,) px, the empty site, and beside: (4, 2) px, the nearest columns of the species that is missing there; both None without a vacancy.
    """

    image: np.ndarray
    positions: np.ndarray
    intensities: np.ndarray
    species: np.ndarray
    vacancy: np.ndarray | None = None
    beside: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Columns:
    """Fitted columns: positions (n, 2) px, intensities (n,) volumes, sigma (n,) px, failed (n,) bool. Failed fits hold NaN, lest they enter a mean."""

    positions: np.ndarray
    intensities: np.ndarray
    sigma: np.ndarray
    failed: np.ndarray


def adf_crystal(
    shape: tuple[int, int],
    spacing: float,
    sigma: float,
    vacancy: tuple[float, float] | None = None,
    background: float = 0.2,
    ratio: float = 0.5,
    angle: float = 12.0,
    margin: float | None = None,
) -> Crystal:
    """A square lattice of two kinds of column in a chequerboard: image = background + sum_k V_k / (2 pi sigma^2) exp(-|r - r_k|^2 / (2 sigma^2)).

    spacing: px between nearest columns; sigma: px, at least 0.8, so that sampling at pixel centres keeps the volume; vacancy: the measured column nearest to
    this (row, column) is missing; background: of a mean of 1; ratio: V of species 1 / V of species 0; angle: degrees from the rows; margin: px, columns
    nearer to the border than this are drawn but not listed (default: spacing). Raises ValueError if no column is left.
    """
    margin = spacing if margin is None else margin
    size = np.asarray(shape)
    steps = np.arange(-int(size.sum() / spacing) - 2, int(size.sum() / spacing) + 3)
    first, second = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    along = spacing * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    places = size / 2 + [0.29, 0.37] + first[:, None] * along + second[:, None] * (along[::-1] * [-1, 1])
    drawn = ((places > -6 * sigma) & (places < size - 1 + 6 * sigma)).all(1)
    places, species = places[drawn], (first + second)[drawn] % 2
    volumes = 2 * (1 - background) * spacing**2 / (1 + ratio) * np.where(species == 0, 1.0, ratio)
    listed = ((places >= margin) & (places <= size - 1 - margin)).all(1)
    if not listed.any():
        raise ValueError(f"an image of {shape} has no column {margin} px from its border")
    site = beside = None
    if vacancy is not None:
        missing = np.flatnonzero(listed)[np.argmin(np.hypot(*(places[listed] - vacancy).T))]
        site, volumes[missing], listed[missing] = places[missing], 0.0, False
        same = places[(species == species[missing]) & listed]
        beside = same[np.argsort(np.hypot(*(same - site).T), kind="stable")[:4]]
    bells = [np.exp(-((np.arange(side)[:, None] - places[:, axis]) ** 2) / (2 * sigma**2)) for axis, side in enumerate(shape)]
    image = background + (bells[0] * volumes / (2 * np.pi * sigma**2)) @ bells[1].T
    return Crystal(image.astype(np.float32), places[listed], volumes[listed], species[listed], site, beside)


# --- fitting --------------------------------------------------------------------------------------------------------------------------------------------


def fit_columns(image: np.ndarray, starts: np.ndarray, radius: float, shared: bool = False) -> Columns:
    """Unweighted least squares of B + A exp(-|r - c|^2 / (2 sigma^2)) over the pixels within `radius` of every start; intensity = 2 pi sigma^2 A.

    Levenberg-Marquardt in (c, ln sigma, A, B), all columns at once, each with its own damping (Marquardt's scaling; a fifth after a better step, fivefold after
    a worse one). A column has converged when its next step is below STEP in every parameter at a damping below 1; after ITERATIONS it has failed. Failed too:
    further from its start than `radius` or than half way to the nearest other start, sigma below SLIMMEST or above 2 * radius, A not positive, no more than 6
    pixels of the window in the image, or NaN among them.

    Tails of neighbours are not modelled: at (distance - radius) / sigma = 4.5, 3.5, 3, 2.5 they add 0.01, 0.6, 3, 12 % to an intensity (radius 2.5 sigma), and
    positions move by less than 0.005 px. Under Poisson noise the variance of a position is up to 16/9 of the Cramer-Rao bound, the limit without background.

    image: (height, width), any units; starts: (n, 2) px; radius: px; shared: fit again with the median sigma held for all columns. Where all are equally wide
    this cuts the spread of intensities by about three, and by far more where a column hardly shows: its own width and constant then trade volume freely. The
    median's bias comes with it: about -2 % where faint columns have 400 electrons, -8 % at 100.
    """
    starts = np.asarray(starts, np.float64).reshape(-1, 2)
    data, inside, places = _windows(image, starts, radius)
    kept = np.flatnonzero((inside.sum(1) > 6) & np.isfinite(data).all(1))
    data, inside, places = data[kept], inside[kept], places[kept]
    low = np.where(inside, data, np.inf).min(1, keepdims=True)
    span = np.where(inside, data, -np.inf).max(1, keepdims=True) - low
    data = np.where(inside, data - low, 0.0) / np.where(span > 0, span, 1.0)
    reach = np.minimum(radius, cKDTree(starts[kept]).query(starts[kept], 2)[0][:, 1] / 2) if len(kept) else np.zeros(0)

    def fitted(sigma: float, free: list[int]) -> tuple[np.ndarray, np.ndarray]:
        first = np.column_stack([np.tile([0.0, 0.0, np.log(sigma)], (len(kept), 1)), _heights(data, inside, places, sigma)])
        values, settled = _levenberg_marquardt(data, inside, places, first, free)
        width = np.exp(values[:, 2])
        return values, settled & (np.hypot(*values[:, :2].T) <= reach) & (width >= SLIMMEST) & (width <= 2 * radius) & (values[:, 3] > 0)

    values, good = fitted(radius / 2.5, [0, 1, 2, 3, 4])
    if shared and good.any():
        values, good = fitted(np.exp(np.median(values[good, 2])), [0, 1, 3, 4])
    offset, sigma, height = np.full((len(starts), 2), np.nan), np.full(len(starts), np.nan), np.full(len(starts), np.nan)
    offset[kept[good]], sigma[kept[good]], height[kept[good]] = values[good, :2], np.exp(values[good, 2]), (values[:, 3:4] * span)[good, 0]
    return Columns(starts + offset, 2 * np.pi * sigma**2 * height, sigma, np.isnan(sigma))


def _windows(image, centres, radius) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (n, m), which of them count (n, m), and their places relative to the centres (n, m, 2), of the pixels within `radius` of each centre."""
    image, reach = np.asarray(image, np.float64), int(np.ceil(radius))
    square = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(1, -1, 2)
    known = np.where(np.isfinite(centres).all(1, keepdims=True), centres, -3.0 * radius - 3)  # an unknown centre is one outside the image
    pixels = np.rint(known).astype(int)[:, None] + square
    places = pixels - known[:, None]
    inside = ((pixels >= 0) & (pixels < image.shape)).all(2) & ((places**2).sum(2) <= radius**2)
    pixels = np.where(inside[..., None], pixels, 0)
    return np.where(inside, image[pixels[..., 0], pixels[..., 1]], 0.0), inside, places


def _heights(data, inside, places, sigma: float) -> np.ndarray:
    """(n, 2): A and B of the least-squares fit with every centre at its window's and one width."""
    count, bell = inside.sum(1), inside * np.exp(-(places**2).sum(2) / (2 * sigma**2))
    centred = inside * (bell - (bell.sum(1) / count)[:, None])
    height = (centred * data).sum(1) / (centred**2).sum(1)
    return np.column_stack([height, (data.sum(1) - height * bell.sum(1)) / count])


def _levenberg_marquardt(data, inside, places, first, free) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (n, 5), as row, column, ln sigma, A, B, after minimising over the `free` ones of them, and which columns have converged (n,)."""

    def bells(values, which):  # (r - c) / sigma^2, |r - c|^2 / sigma^2, the bell, and what it leaves of the data
        offset, inverse = places[which] - values[:, None, :2], np.exp(-2 * values[:, 2])[:, None]
        square = (offset**2).sum(2) * inverse
        bell = inside[which] * np.exp(-square / 2)
        return offset * inverse[..., None], square, bell, data[which] - values[:, 3:4] * bell - values[:, 4:5] * inside[which]

    values, active, settled = first.copy(), np.arange(len(first)), np.zeros(len(first), bool)
    damping = np.full(len(first), 1e-3)
    largest = np.array([1.0, 1.0, 0.5, np.inf, np.inf])[free]  # steps beyond these leave the region where the linear model means anything
    for _ in range(ITERATIONS):
        offset, square, bell, rest = bells(values[active], active)
        slope = values[active, 3:4] * bell
        jacobian = np.stack([slope * offset[..., 0], slope * offset[..., 1], slope * square, bell, inside[active]], 1)[:, free]
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        diagonal = np.maximum(np.einsum("kii->ki", normal), 1e-12)
        damped = normal + (damping[active, None] * diagonal)[:, None] * np.eye(len(free))
        step = np.clip(np.linalg.solve(damped, jacobian @ rest[..., None])[..., 0], -largest, largest)
        trial = values[active]
        trial[:, free] += step
        better = (bells(trial, active)[3] ** 2).sum(1) <= (rest**2).sum(1)
        values[active[better]] = trial[better]
        damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-9), damping[active] * 5)
        settled[active] = (np.abs(step) < STEP).all(1) & (damping[active] < 1)
        active = active[~settled[active]]
        if not len(active):
            break
    return values, settled


# --- how good they are ----------------------------------------------------------------------------------------------------------------------------------


def precision(estimates: np.ndarray, truth: np.ndarray, pixel_size: float | None = None) -> dict:
    """Bias and spread of positions over noise draws: {"row", "column", "overall", "failed"}, the first three {"bias_mean", "bias_rms", "bias_floor", "std",
    "rmse", "rmse_relative"}.

    With e the error and b_k its mean over the draws of column k: bias_mean = mean_k b_k (a common shift); bias_rms = sqrt(mean_k b_k^2); std^2 = mean_k of the
    unbiased variance over draws; rmse^2 = mean of e^2 over the draws of a column, then over columns; rmse_relative^2 = rmse^2 - bias_mean^2, of positions
    relative to each other, for nothing in a lattice tells a shift of all columns from the place of the frame; bias_floor, the bias_rms of an estimator without
    bias, from a finite number of draws. "overall" is the root of the sum of the two axes' squares, the length of a vector in the plane. Columns with fewer than
    two finite draws do not count; "failed" is the share of estimates that are NaN.

    estimates: (draws, n, 2) px, NaN where a fit failed; truth: (n, 2) px. With pixel_size, in nm, lengths are in pm, else in px.
    """
    scale = 1.0 if pixel_size is None else 1000.0 * pixel_size
    errors = scale * (np.asarray(estimates, np.float64) - truth)
    axes = {name: _summary(errors[..., axis]) for axis, name in enumerate(("row", "column"))}
    overall = {key: float(np.hypot(axes["row"][key], axes["column"][key])) for key in axes["row"]}
    return {**axes, "overall": overall, "failed": float(np.isnan(errors).any(2).mean())}


def intensity_precision(estimates: np.ndarray, truth: np.ndarray) -> dict:
    """As one axis of `precision`, with its "failed", of the relative error V / V_true - 1. estimates: (draws, n), NaN where a fit failed; truth: (n,) > 0."""
    errors = np.asarray(estimates, np.float64) / truth - 1
    return {**_summary(errors), "failed": float(np.isnan(errors).mean())}


def _summary(errors: np.ndarray) -> dict[str, float]:
    """The six numbers of `precision` for one axis, from (draws, n); all NaN where no column has two finite draws."""
    errors = errors[:, np.isfinite(errors).sum(0) >= 2]
    if not errors.size:
        return dict.fromkeys(("bias_mean", "bias_rms", "bias_floor", "std", "rmse", "rmse_relative"), np.nan)
    draws, bias, variance = np.isfinite(errors).sum(0), np.nanmean(errors, 0), np.nanvar(errors, 0, ddof=1)
    squares = {"bias_rms": bias**2, "bias_floor": variance / draws, "std": variance, "rmse": np.nanmean(errors**2, 0)}
    squares["rmse_relative"] = np.maximum(squares["rmse"].mean() - bias.mean() ** 2, 0)
    return {"bias_mean": float(bias.mean())} | {name: float(np.sqrt(values.mean())) for name, values in squares.items()}


# --- what is made up ------------------------------------------------------------------------------------------------------------------------------------


def radial_spectrum_peaks(image: np.ndarray) -> dict:
    """How far the strongest peak of the power spectrum stands out of its ring: {"ratio", "expected", "frequency"}; for the restoration of pure noise.

    P = |FFT{w (image - mean)}|^2 of the central square, w a Hann window of the radius (round, so that leakage is too); ratio = max P / L over the rings from
    LOWEST_RING periods per side to Nyquist, one period wide. The level L is the ring's mean as its median tells, median / ln 2: exact for noise, whose powers
    are exponentially distributed, and unmoved by the peaks of a lattice. It is at least FAINTEST of the strongest ring's, below which nothing is seen.

    expected: ln N + 0.577, the mean of the largest of N exponentials of mean 1, N half the number of coefficients; 10.7 at 256 x 256, and the largest's
    standard deviation is pi / sqrt(6) = 1.3. Measured there: 11.5 +- 1.7 for white noise, 11.7, 9.9, 8.8 +- 2 after Gaussian blurs of 1, 2, 4 px, at most 20
    in 240 images (33 in 200 of 64 x 64 blurred by 4 px: few coefficients, steep spectra). A lattice of a fifth of the noise's deviation reaches 70.
    frequency: (row, column) of the peak in cycles per pixel. image: (height, width), at least 32 a side; one of a single grey level has ratio 0.
    """
    side = min(image.shape)
    top, left = ((length - side) // 2 for length in image.shape)
    square = np.asarray(image, np.float64)[top : top + side, left : left + side]
    place, frequency = np.arange(side) - (side - 1) / 2, np.fft.fftfreq(side)
    window = np.cos(np.pi / side * np.minimum(np.hypot(place[:, None], place), side / 2)) ** 2
    ring = np.rint(side * np.hypot(frequency[:, None], frequency)).astype(int)
    counted = (ring >= LOWEST_RING) & (ring < side // 2)
    expected = float(np.log(counted.sum() / 2) + np.euler_gamma)
    if np.ptp(square) == 0:
        return {"ratio": 0.0, "expected": expected, "frequency": (0.0, 0.0)}
    power = np.abs(np.fft.fft2(window * (square - np.average(square, weights=window)))) ** 2
    level = np.array([np.median(power[counted & (ring == k)]) if LOWEST_RING <= k < side // 2 else 0.0 for k in range(ring.max() + 1)]) / np.log(2)
    ratio = np.where(counted, power / np.maximum(level, FAINTEST * level.max())[ring], 0.0)
    row, column = np.unravel_index(np.argmax(ratio), ratio.shape)
    return {"ratio": float(ratio[row, column]), "expected": expected, "frequency": (float(frequency[row]), float(frequency[column]))}


def vacancy_contrast(image: np.ndarray, position: np.ndarray, neighbours: np.ndarray, radius: float) -> float:
    """The height of a Gaussian at an empty site over that at its neighbours: 0 where the site is empty, 1 where a restoration has filled it.

    The width is the neighbours' median, fitted; with it and the places held, heights above the local constant are linear in the image, so noise makes no bias
    of its own. Beyond 0 and 1 where noise, or a dip darker than the background, leads. NaN if no neighbour can be fitted.
    image: (height, width); position: (2,) px; neighbours: (k, 2) px, columns of the kind that is missing; radius: px, as in `fit_columns`.
    """
    fitted = fit_columns(image, neighbours, radius)
    if fitted.failed.all():
        return float("nan")
    sites = np.vstack([position, neighbours])
    heights = _heights(*_windows(image, sites, radius), np.nanmedian(fitted.sigma))[:, 0]
    return float(heights[0] / heights[1:].mean())
