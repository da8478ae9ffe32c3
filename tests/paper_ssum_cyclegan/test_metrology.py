"""Widths and pitches against lines drawn with known edges."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from paper_ssum_cyclegan import metrology


def coverage(shape, top, left, bottom, right):
    """Share of each pixel inside a rectangle, (height, width); pixel centres at whole numbers."""
    rows, columns = (
        np.clip(np.minimum(np.arange(n) + 0.5, high) - np.maximum(np.arange(n) - 0.5, low), 0, 1)
        for n, low, high in zip(shape, (top, left), (bottom, right), strict=True)
    )
    return rows[:, None] * columns


def distance(shape, top, left, bottom, right):
    """Pixels from the outline of a rectangle, negative inside."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    down, across = np.maximum(top - rows, rows - bottom), np.maximum(left - columns, columns - right)
    return np.where((down > 0) & (across > 0), np.hypot(down, across), np.maximum(down, across))


def mask(shape, rectangles):
    return np.max([coverage(shape, *r) for r in rectangles], 0)


def sem_look(shape, rectangles, decay=2.0, outside=1.0, blur=0.8):
    """Grey lines with rims exp(-|d| / decay), `outside` times as wide outside, seen by a probe."""
    d = np.min([distance(shape, *r) for r in rectangles], 0)
    rims = np.exp(-np.abs(d) / np.where(d < 0, decay, decay * outside))
    return np.float32(gaussian_filter(0.25 + 0.25 * mask(shape, rectangles) + 0.35 * rims, blur))


def optical_look(shape, rectangles, sigma=3.0, contrast=0.3):
    return np.float32(gaussian_filter(0.5 + contrast * (mask(shape, rectangles) - 0.5), sigma))


def grating(width, pitch, centre):
    centres = centre + (pitch * np.arange(-9, 10) if pitch else np.zeros(1))
    return [(-50, c - width / 2, 300, c + width / 2) for c in centres]


SHAPE = (64, 256)


def errors(look, width, pitch, bright_edges, draws=6, noise=0.02, vertical=True):
    """Errors of width and pitch in pixels, (draws, 2), over places of the line on the pixel grid."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(draws):
        centre = 128 + rng.uniform(-0.5, 0.5)
        image = look(SHAPE, grating(width, pitch, centre)) + rng.normal(0, noise, SHAPE)
        image, place = (image, (32.0, centre)) if vertical else (image.T, (centre, 32.0))
        measured = [measure(image, *place, vertical, 1.0, bright_edges) for measure in (metrology.line_width, metrology.pitch)]
        result.append(np.subtract(measured, (width, pitch or np.nan)))
    return np.array(result)


def crest(decay, outside):
    """How far inside a wide line's edge its rim is brightest, in pixels: on a fine grid, behind the probe, a pixel and the profile's smoothing."""
    x = np.arange(-20, 20, 0.01)
    rim = 0.25 * (x < 0) + 0.35 * np.exp(-np.abs(x) / np.where(x < 0, decay, decay * outside))
    return -x[np.argmax(gaussian_filter(rim, np.sqrt(0.8**2 + metrology.SMOOTHING**2 + 1 / 12) / 0.01))]


@pytest.mark.parametrize("width", [7, 10, 16, 25])
@pytest.mark.parametrize("pitches", [None, 2, 3])
@pytest.mark.parametrize(("decay", "outside"), [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (2.0, 0.3)])
def test_sem_widths_are_those_between_crests(width, pitches, decay, outside):
    inside = crest(decay, outside)
    for vertical in (True, False):
        found = errors(lambda *a: sem_look(*a, decay=decay, outside=outside), width, pitches and pitches * width, True, vertical=vertical)[:, 0]
        assert found.mean() == pytest.approx(-2 * inside, abs=0.25) and found.std() < 0.3
    assert 0.9 < inside < 1.4


def test_crests_of_a_narrow_line_merge():
    assert errors(sem_look, 5, None, True)[:, 0].mean() < -2 * crest(2.0, 1.0) - 0.5


@pytest.mark.parametrize("contrast", [0.3, -0.3])
@pytest.mark.parametrize(("sigma", "width"), [(2.0, 10), (2.0, 25), (3.0, 15), (4.0, 20)])
def test_optical_widths_are_true_where_lines_are_resolved(contrast, sigma, width):
    def look(*a):
        return optical_look(*a, sigma, contrast)

    for vertical in (True, False):
        found = errors(look, width, 2 * width, False, vertical=vertical, noise=0.01)
        assert np.abs(found.mean(0)).max() < 0.15 and found.std(0).max() < 0.25


def test_an_unresolved_optical_line_is_as_wide_as_the_blur():
    """A line much narrower than the blur has its half-height width, 2.355 sigma (with the profile's own smoothing)."""
    found = errors(lambda *a: optical_look(*a, 4.0, 3.0), 2, None, False, draws=3, noise=0.0)[:, 0] + 2
    np.testing.assert_allclose(found, 2.355 * np.sqrt(16 + 0.7**2 + 1 / 3), rtol=0.03)


@pytest.mark.parametrize(("width", "pitch"), [(5, 8), (6, 15), (12, 30), (20, 60)])
def test_pitches_are_true_to_a_tenth_of_a_pixel(width, pitch):
    for vertical in (True, False):
        assert np.abs(errors(sem_look, width, pitch, True, vertical=vertical)[:, 1]).max() < 0.1


def test_a_neighbour_of_another_width_is_no_neighbour():
    lines = [(-50, 60, 300, 70), (-50, 90, 300, 96), (-50, 124, 300, 134), (-50, 150, 300, 160)]
    image = sem_look(SHAPE, lines)
    assert np.isnan(metrology.pitch(image, 32, 65, True, 20.0))
    assert np.isnan(metrology.pitch(image, 32, 93, True, 20.0))
    assert metrology.pitch(image, 32, 129, True, 20.0) == pytest.approx(26 * 20, abs=1)  # only the right one is its equal
    assert metrology.line_width(image, 32, 65, True, 20.0) == pytest.approx(20 * metrology.line_width(image, 32, 65, True, 1.0))


def test_nothing_is_found_where_nothing_is():
    rng = np.random.default_rng(1)
    flat = 0.5 + 1e-8 * np.sin(np.arange(80.0))[None].repeat(80, 0)
    step = optical_look((80, 80), [(-50, 40, 150, 150)])
    for bright_edges in (True, False):
        assert np.isnan(metrology.line_width(flat, 40, 40, True, 1.0, bright_edges))
        assert np.isnan(metrology.line_width(step, 40, 50, True, 1.0, bright_edges))
        noisy = [metrology.line_width(flat + rng.normal(0, 0.05, flat.shape), 40, 40, True, 1.0, bright_edges) for _ in range(50)]
        assert np.isnan(noisy).mean() > 0.95
    with pytest.raises(ValueError, match=r"no place \(80, 3\)"):
        metrology.line_width(flat, 80, 3, True, 1.0)


def test_errors_of_many_lines_and_their_summary():
    shape, nm, rng = (200, 240), 20.0, np.random.default_rng(2)
    rectangles = [(-50, 20 + 24 * k, 110, 32 + 24 * k) for k in range(9)] + [(130 + 30 * k, 10, 140 + 30 * k, 230) for k in range(2)]
    y = sem_look(shape, rectangles, outside=0.3)
    lines = np.array([[50, 26 + 24 * k, 12 * nm, 24 * nm, 1] for k in range(1, 8)] + [[135, 120, 10 * nm, 30 * nm, 0], [165, 120, 10 * nm, np.nan, 0]])
    moved = np.roll(y, (2, -3), (0, 1)) + rng.normal(0, 0.01, shape)
    images = {"sem": y, "optical": optical_look(shape, rectangles, 2.0, -0.3), "generated": np.float32(moved), "empty": np.float32(rng.uniform(0, 1, shape))}
    found = metrology.width_errors(images, y, lines, nm)
    assert {name: e.shape for name, e in found.items()} == dict.fromkeys(images, (9, 2))
    np.testing.assert_allclose(found["generated"][:, 0], found["sem"][:, 0], atol=0.4 * nm)  # the shift does not count
    assert np.abs(found["optical"][:, 0]).max() < 0.3 * nm
    assert np.isnan(found["empty"]).mean() > 0.8
    for name in ("sem", "generated", "optical"):
        assert np.isnan(found[name][-1, 1]) and np.nanmax(np.abs(found[name][:, 1])) < 0.1 * nm
    whole = metrology.summary(found["sem"], lines)
    assert whole["width_found"] == whole["pitch_found"] == 1
    assert whole["width_bias"] == pytest.approx(np.median(found["sem"][:, 0]))

    wrong = np.array([[1.0, 2], [-3, np.nan], [4, np.nan], [np.nan, np.nan]])
    true = np.array([[0, 0, 100, 200, 1], [0, 0, 100, 200, 1], [0, 0, 100, np.nan, 1], [0, 0, 100, np.nan, 1]])
    assert metrology.summary(wrong, true) == {
        "width_median_error": 3, "width_bias": 1, "width_spread": pytest.approx(2.3904, abs=1e-3), "width_found": 0.75,
        "pitch_median_error": 2, "pitch_bias": 2, "pitch_spread": 0, "pitch_found": 0.5,
    }  # fmt: skip
    assert np.isnan(list(metrology.summary(np.full((2, 2), np.nan), true[2:]).values())).sum() == 7
    with pytest.raises(ValueError, match=r"give \(n, 5\)"):
        metrology.width_errors(images, y, lines[:, :4], nm)
