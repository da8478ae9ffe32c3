"""Widths and pitches of a chip's lines, in nm, measured across SEM-like and optical images.

A line's profile is averaged along the line, and its two edges are the flanks nearest to the place that rise towards it and fall away from it. In an SEM image
an edge is the crest of a bright rim: it moves least with the rim's shape, which differs from chip to chip, and what it is off by is an offset to be found on
other chips. In an optical image, where a line is brighter or darker than its surroundings, an edge is the mid-level.

Measured on simulated lines of 7 to 25 px with 2 % noise: crests are found to 0.1 px; they lie 1.0 to 1.4 px inside the edge of a line that is brighter than
its surroundings, for all rims with decays of 1 to 3 px and also where these fall off three times faster outside, so that widths err by -2.1 to -2.9 px. Both
crests of a narrower line merge, at 5 px by one more.
Optical widths at a blur of sigma err by less than 0.3 px where line and space measure 5 sigma or more, else by -2 to +5 px, and below a pitch of some 3 sigma
nothing is found. The spread is 0.1 to 0.3 px; pitches err by less than 0.1 px. In the pictures of `simulator`, whose rims crest on the edge, SEM widths err by
-0.3 px, and by 0.1 px in the median once that is taken off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, gaussian_gradient_magnitude
from scipy.signal import find_peaks

from .measures import best_shift

ALONG = 8  # px to either side along the line that a profile averages over
REACH = 96  # px to either side across the line that a profile covers
FURTHEST = 40  # px from the place to an edge of its line
SMOOTHING = 0.7  # px
STEEP = 0.25  # of the steepest flank of the profile: a flatter one is texture
SIGNIFICANT = 5.0  # deviations of the profile's slope by noise
FAINT = 1e-6  # of white per px: rounding
EQUAL = 0.25  # relative difference of the widths of equal neighbours


@dataclass(frozen=True, eq=False)
class _Profile:
    """values  a smoothed profile across lines; place  the index asked for, a fraction; flanks, signs  its steep flanks, +1 where they rise, else -1."""

    values: np.ndarray
    place: float
    flanks: np.ndarray
    signs: np.ndarray


def _profile(image: np.ndarray, row: float, column: float, vertical: bool) -> _Profile:
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or not (0 <= row <= image.shape[0] - 1 and 0 <= column <= image.shape[1] - 1):
        raise ValueError(f"no place ({row:g}, {column:g}) in an image of shape {image.shape}; give row and column inside a (height, width) image")
    if not vertical:
        image, row, column = image.T, column, row
    along, across = round(float(row)), round(float(column))
    start = max(0, across - REACH)
    rows = image[max(0, along - ALONG) : along + ALONG + 1, start : across + REACH + 1]
    mean = rows.mean(0)
    slope = gaussian_filter1d(mean, SMOOTHING, order=1)
    kernel = gaussian_filter1d(np.eye(1, 15, 7)[0], SMOOTHING, order=1)
    noise = np.median(rows.std(0, ddof=1)) / np.sqrt(len(rows)) * np.linalg.norm(kernel)
    least = max(STEEP * np.abs(slope).max(), SIGNIFICANT * noise, FAINT)
    flanks = np.sort(np.concatenate([find_peaks(sign * slope, height=least)[0] for sign in (1, -1)]))
    return _Profile(gaussian_filter1d(mean, SMOOTHING), float(column) - start, flanks, np.sign(slope[flanks]).astype(int))


def _end(values: np.ndarray, flank: int, step: int, sign: int) -> int:
    """Index at which a flank ends that rises (sign +1) or falls (-1) in the direction `step` (-1 or +1)."""
    while 0 <= flank + step < len(values) and sign * (values[flank + step] - values[flank]) > 0:
        flank += step
    return flank


def _crest(values: np.ndarray, flank: int, rise: int) -> float:
    """Where the rim is brightest that a flank rises to in the direction `rise` (-1 or +1): the top of the parabola through three values; a fraction."""
    peak = _end(values, flank, rise, 1)
    if not 0 < peak < len(values) - 1:
        return float(peak)
    before, top, after = values[peak - 1 : peak + 2]
    bend = before - 2 * top + after
    return peak + float((before - after) / (2 * bend)) if bend < 0 else float(peak)


def _middle(values: np.ndarray, flank: int, rise: int) -> float:
    """Where a flank passes the middle between its foot and its top, which lies in the direction `rise` (-1 or +1) of it; a fraction of an index."""
    foot, top = _end(values, flank, -rise, -1), _end(values, flank, rise, 1)
    steps = np.arange(foot, top + rise, rise)
    return float(np.interp((values[foot] + values[top]) / 2, values[steps], steps))


def _edges(profile: _Profile, place: float, bright_edges: bool) -> tuple[float, float] | None:
    """Indices of the two edges of the line at `place`; None where one is missing."""
    flanks, signs = profile.flanks, profile.signs
    left, right = (np.flatnonzero((side > 0) & (side <= FURTHEST)) for side in (place - flanks, flanks - place))
    if not (len(left) and len(right)):
        return None
    if bright_edges:  # the inner flanks of its rims lie between
        left, right = left[signs[left] > 0], right[signs[right] < 0]
    if not (len(left) and len(right)) or signs[left[-1]] == signs[right[0]]:
        return None
    rise, edge = signs[left[-1]], _crest if bright_edges else _middle
    return edge(profile.values, flanks[left[-1]], rise), edge(profile.values, flanks[right[0]], -rise)


def _measured(image, row, column, vertical, bright_edges):
    """Width and pitch in pixels, nan where not found."""
    profile = _profile(image, row, column, vertical)
    line = _edges(profile, profile.place, bright_edges)
    if line is None:
        return np.nan, np.nan
    left, right = line
    width, pitches = right - left, []
    rise = 1 if bright_edges else profile.signs[profile.flanks < profile.place][-1]
    before = profile.flanks[(profile.flanks < left - 1) & (profile.signs == -rise)]
    after = profile.flanks[(profile.flanks > right + 1) & (profile.signs == rise)]
    for guess in [flank - width / 2 for flank in before[-1:]] + [flank + width / 2 for flank in after[:1]]:
        neighbour = _edges(profile, guess, bright_edges)
        if neighbour and abs(neighbour[1] - neighbour[0] - width) <= EQUAL * width:
            pitches.append(abs(sum(neighbour) - left - right) / 2)
    return width, float(np.mean(pitches)) if pitches else np.nan


def line_width(image: np.ndarray, row: float, column: float, vertical: bool, pixel_size: float, bright_edges: bool = True) -> float:
    """Width in nm of the line at a place (pixels, fractions allowed); nan where it has no two edges.

    image: (height, width); vertical: whether the line runs along rows' numbers, so that its profile is a row; pixel_size: nm; bright_edges: SEM-like, or else
    optical with a line of either contrast. An edge lies at most FURTHEST px from the place. Raises ValueError for a place outside the image.
    """
    return _measured(image, row, column, vertical, bright_edges)[0] * pixel_size


def pitch(image: np.ndarray, row: float, column: float, vertical: bool, pixel_size: float, bright_edges: bool = True) -> float:
    """Distance in nm from the centre of the line at a place to its next neighbour's, the mean of both sides where both are within 25 % of its width; else nan.

    Arguments and errors are those of `line_width`. What an edge is mistaken by cancels out in a pitch.
    """
    return _measured(image, row, column, vertical, bright_edges)[1] * pixel_size


def width_errors(
    images: Mapping[str, np.ndarray], y: np.ndarray, lines: np.ndarray, pixel_size: float, search: int = 3, blurred: Collection[str] = ("optical",)
) -> dict[str, np.ndarray]:
    """Measured minus true width and pitch in nm of every line in every image: name -> (n, 2) float64, nan where not found or where there is no true pitch.

    images: name -> (height, width); those named in `blurred` have mid-level edges, the others bright ones; y itself among them shows what the measuring costs.
    y: (height, width), the SEM truth that `lines` are true for; an image as a whole may be displaced from it by up to `search` px.
    lines: (n, 5), centre row and column in pixels, width and pitch (or nan) in nm, 1 for a vertical line or 0. Raises ValueError for lines of another shape.
    """
    lines = np.asarray(lines, np.float64)
    if lines.ndim != 2 or lines.shape[1] != 5:
        raise ValueError(f"lines have shape {lines.shape}; give (n, 5): centre row, centre column, width, pitch, vertical")
    errors = {}
    for name, image in images.items():
        shift = best_shift(*(gaussian_gradient_magnitude(np.float32(one), 1.0) for one in (y, image)), search)  # edges are edges in both
        places = np.clip(lines[:, :2] + shift, 0, np.array(y.shape) - 1)
        found = [_measured(image, row, column, vertical == 1, name not in blurred) for (row, column), vertical in zip(places, lines[:, 4], strict=True)]
        errors[name] = np.reshape(found, (-1, 2)) * pixel_size - lines[:, 2:4]
    return errors


def summary(errors: np.ndarray, lines: np.ndarray) -> dict[str, float]:
    """Of one image's (n, 2) errors at (n, 5) lines: `width_` and `pitch_`, each with median_error (of absolutes), bias (median) and spread in nm, and found.

    spread is half the range of the middle 68.27 %, a standard deviation where errors are normal; found is a share of the lines with a true width or pitch.
    What cannot be said is nan. A bias that the truth y shares is the SEM's rims' and the estimator's; what a restoration adds is its difference from y's.
    """
    result = {}
    for name, error, true in zip(("width", "pitch"), np.transpose(errors), np.transpose(lines)[2:4], strict=True):
        error, asked = error[np.isfinite(error)], int(np.isfinite(true).sum())
        result[f"{name}_median_error"] = float(np.median(np.abs(error))) if len(error) else np.nan
        result[f"{name}_bias"] = float(np.median(error)) if len(error) else np.nan
        result[f"{name}_spread"] = float(np.diff(np.quantile(error, (0.15865, 0.84135))).item() / 2) if len(error) else np.nan
        result[f"{name}_found"] = len(error) / asked if asked else np.nan
    return result
