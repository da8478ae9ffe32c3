"""Every measure against its equation written out, a closed form or a planted change."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform, convolve, gaussian_filter, shift

from paper_ssum_cyclegan import measures

from .test_metrology import mask, optical_look, sem_look

SHAPE = (160, 200)


def rng(seed=0):
    return np.random.default_rng(seed)


def layout(seed, shape=SHAPE):
    """Vertical lines of many widths with ends inside the frame, and a few contacts."""
    draw, rectangles, left = rng(seed), [], 14.0
    while left < shape[1] - 30:
        width = draw.uniform(4, 14)
        rectangles.append((draw.uniform(10, 40), left, draw.uniform(90, 120), left + width))
        left += width * draw.uniform(1.5, 2.5) + 4
    return [*rectangles, (135, 30, 143, 38), (136, 80, 142, 95), (134, 150, 146, 162)]


def chip(seed=0):
    return sem_look(SHAPE, layout(seed))


def test_psnr_and_ssim_are_those_of_the_project():
    """Closed forms: a constant error e has PSNR -20 log10 e, and of two flat images SSIM is the luminance term."""
    one, other = np.full(SHAPE, 0.4, np.float32), np.full(SHAPE, 0.6, np.float32)
    assert measures.psnr(one, other) == pytest.approx(-20 * np.log10(0.2), abs=1e-6)
    assert measures.ssim(one, other) == pytest.approx((2 * 0.24 + 1e-4) / (0.16 + 0.36 + 1e-4), abs=1e-6)


def test_epi_equals_its_equation():
    y, g = chip(), gaussian_filter(chip(), 1) + np.float32(rng().normal(0, 0.02, SHAPE))
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    a, b = (convolve(image.astype(np.float64), kernel)[1:-1, 1:-1].ravel() for image in (y, g))
    assert measures.epi(y, g) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    assert measures.epi(y, y) == pytest.approx(1)
    assert measures.epi(y, 0.3 - 0.2 * y) == pytest.approx(-1, abs=1e-4)
    assert 1 > measures.epi(y, gaussian_filter(y, 0.7)) > measures.epi(y, gaussian_filter(y, 2)) > 0
    assert measures.epi(y, np.full(SHAPE, 0.5)) == 0


def test_edge_ratio_is_linear_in_contrast():
    y = chip()
    assert measures.edge_ratio(y, y) == 1
    assert measures.edge_ratio(y, 0.5 - 0.4 * y) == pytest.approx(0.4, rel=1e-5)
    ramp = np.tile(np.linspace(0, 1, 50), (40, 1))
    assert measures.edge_ratio(ramp, 0.5 * ramp.T.repeat(2, 1)[:40, :50]) == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(ValueError, match="no edges"):
        measures.edge_ratio(np.zeros(SHAPE), y)


def test_affine_fit_is_the_least_squares_line():
    y, g = chip(), optical_look(SHAPE, layout(0), 2.0, -0.4)
    slope, offset = np.polyfit(g.ravel().astype(np.float64), y.ravel(), 1)
    np.testing.assert_allclose(measures.affine_fit(y, g), slope * g + offset, atol=1e-5)
    assert slope < 0
    np.testing.assert_allclose(measures.affine_fit(y, 0.2 + 0.3 * y), y, atol=1e-5)
    np.testing.assert_allclose(measures.affine_fit(y, np.full(SHAPE, 0.1)), y.mean(), atol=1e-6)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, -5), (-8, 8), (7, 1)])
@pytest.mark.parametrize("contrast", [1, -1])
def test_best_shift_finds_a_crop_of_another_place(row, column, contrast):
    y, g = sem_look((180, 220), layout(1))[10:-10, 10:-10], sem_look((180, 220), layout(1))[10 - row : 170 - row, 10 - column : 210 - column]
    g = 0.5 + contrast * 0.4 * (g - 0.5) + np.float32(rng().normal(0, 0.01, SHAPE))
    assert measures.best_shift(y, g) == (row, column)
    near_y, near_g = measures.aligned(y, g)
    assert near_y.shape == near_g.shape == (160 - abs(row), 200 - abs(column))
    assert abs(np.corrcoef(near_y.ravel(), near_g.ravel())[0, 1]) > 0.97


def test_the_correlation_of_every_shift_is_exact():
    y, g = rng(1).uniform(0, 1, (30, 41)).astype(np.float32), rng(2).uniform(0, 1, (30, 41)).astype(np.float32)
    table = measures._correlations(y, g, 4)
    for row in range(-4, 5):
        for column in range(-4, 5):
            a = y[max(0, -row) : 30 - max(0, row), max(0, -column) : 41 - max(0, column)]
            b = g[max(0, row) : 30 - max(0, -row), max(0, column) : 41 - max(0, -column)]
            assert table[row + 4, column + 4] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)


def test_of_equal_shifts_the_shortest_is_taken():
    stripes = np.float32(np.arange(64) % 6 < 3)[None].repeat(64, 0)
    assert measures.best_shift(stripes, np.roll(stripes, 2, 1)) in {(0, 2), (0, -1)}  # one way, or to the inverted stripes the other way
    assert measures.best_shift(stripes, stripes) == (0, 0)
    assert measures.best_shift(stripes, np.ones((64, 64))) == (0, 0)


@pytest.mark.parametrize("contrast", [1, -1])
@pytest.mark.parametrize(("degrees", "offset"), [(0.4, (2.4, -1.6)), (1.0, (-1.5, 0.4)), (0.0, (6.5, -6.4))])
def test_ecc_finds_fractions_and_rotations(degrees, offset, contrast):
    wide = sem_look((200, 240), layout(2, (200, 240)))
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([99.5, 119.5])
    g = affine_transform(wide, matrix, middle - matrix @ (middle + offset), order=3)[20:-20, 20:-20]
    y, g = wide[20:-20, 20:-20], np.float32(0.5 + contrast * (g - 0.5) + rng().normal(0, 0.01, SHAPE))
    whole, exact = measures.aligned(y, g), measures.ecc_aligned(y, g)
    before, after = (abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in (whole, exact))
    assert exact[0].shape == exact[1].shape and min(np.subtract(SHAPE, exact[0].shape)) <= 20
    assert before < 0.99 and after > 0.993


def test_ecc_falls_back_to_whole_pixels():
    y = chip()
    for g in (np.full(SHAPE, 0.5, np.float32), rng(5).uniform(0, 1, SHAPE).astype(np.float32)):
        near, exact = measures.aligned(y, g), measures.ecc_aligned(y, g)
        assert exact[0].shape == exact[1].shape and abs(np.subtract(near[0].shape, exact[0].shape)).max() <= 22
    flat = np.full(SHAPE, 0.5, np.float32)
    np.testing.assert_array_equal(measures.ecc_aligned(y, flat)[1], measures.aligned(y, flat)[1])


def test_scores_forgive_step_by_step():
    y = chip()
    perfect = measures.scores(y, y, ecc=True)
    assert set(perfect) == {name + suffix for name in ("psnr", "ssim", "epi") for suffix in ("", "_fit", "_aligned", "_ecc")}
    assert perfect["ssim"] == pytest.approx(1) and perfect["epi_aligned"] == pytest.approx(1)
    faint = measures.scores(y, 0.3 + 0.4 * y)
    assert faint["psnr"] < 25 and faint["psnr_fit"] > 45
    moved = measures.scores(y, np.float32(0.3 + 0.4 * shift(y, (3, -2), order=1, mode="reflect") + rng().normal(0, 0.001, SHAPE)))
    assert moved["psnr_fit"] < 25 and moved["psnr_aligned"] > 35
    assert moved["epi"] < 0.5 < 0.9 < moved["epi_aligned"]
    assert moved["ssim_fit"] < 0.8 < 0.95 < moved["ssim_aligned"]


def test_difference_maps_tell_edges_from_the_rest():
    y = chip()
    result = measures.difference_maps(y, gaussian_filter(y, 1.5))
    np.testing.assert_allclose(result.signed, gaussian_filter(y, 1.5) - y, atol=1e-7)
    np.testing.assert_array_equal(result.absolute, np.abs(result.signed))
    assert result.edges.mean() == pytest.approx(0.1, abs=0.002)
    assert result.on_edges > 2 * result.elsewhere  # what the paper found
    square = np.zeros((40, 40), np.float32)
    square[:, 20:] = 1
    result = measures.difference_maps(square, square + np.where(np.abs(np.arange(40) - 19.5) < 1, -0.5, 0.1)[None])
    assert (result.on_edges, result.elsewhere) == pytest.approx((0.5, 0.1), abs=1e-6)
    assert result.edges.sum(0).nonzero()[0].tolist() == [19, 20]
    with pytest.raises(ValueError, match="constant"):
        measures.difference_maps(np.zeros(SHAPE), y)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_invented_by_blur_noise_shift_or_contrast(seed):
    y = chip(seed)
    noisy = y + np.float32(rng().normal(0, 0.02, SHAPE))
    for g in (y, gaussian_filter(y, 1), noisy, 0.7 - 0.5 * y, np.roll(noisy, (4, -6), (0, 1)), shift(y, (0.5, 1.5), mode="reflect")):
        found = measures.invented(y, g)
        assert (found.invented, found.lost) == (0, 0)
        assert not found.where.any()


@pytest.mark.parametrize("seed", range(4))
def test_every_erased_line_is_lost_and_every_added_one_invented(seed):
    rectangles = layout(seed)
    y = sem_look(SHAPE, rectangles)
    for k in range(len(rectangles)):
        g = sem_look(SHAPE, rectangles[:k] + rectangles[k + 1 :]) + np.float32(rng(k).normal(0, 0.02, SHAPE))
        for one, other, expected in ((y, g, (0, 1)), (g, y, (1, 0))):
            found = measures.invented(one, other)
            assert (found.invented, found.lost) == expected, (k, rectangles[k])
            top, left, bottom, right = (int(v) for v in rectangles[k])
            assert set(np.unique(found.where[top + 1 : bottom, left + 1 : right])) == {sum(expected) * (1 if expected[0] else -1)}
            assert np.argwhere(found.where).min(0).tolist() >= [top - 12, left - 12]


def test_painted_dots_and_lines_are_counted_exactly():
    y = chip()
    dots = [(147, 60, 4), (60, 5, 3), (120, 110, 4), (20, 5, 2)]
    g = y.copy()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for row, column, radius in dots:
        g[np.hypot(rows - row, columns - column) <= radius] += 0.35
    g[mask(SHAPE, [(2, 20, 5, 180)]) > 0] = 0.0
    found = measures.invented(y, g)
    assert (found.invented, found.lost) == (5, 0)
    assert 0 < found.share(1) == (found.where == 1).mean() and found.share(-1) == 0
    assert all(found.where[row, column] == 1 for row, column, _ in dots)
    assert measures.invented(g, y).lost == measures.invented(y, 0.3 + 0.25 * g).invented == 5


def test_a_wrong_grey_level_is_no_structure():
    rectangles = layout(0)
    y = sem_look(SHAPE, rectangles)
    paler = y - np.float32(0.12 * mask(SHAPE, [rectangles[2]]))
    assert not measures.invented(y, paler).where.any()
    with pytest.raises(ValueError, match="constant"):
        measures.invented(np.zeros(SHAPE), y)


@pytest.mark.parametrize("measure", [measures.epi, measures.best_shift, measures.scores, measures.invented])
def test_images_that_cannot_be_compared_are_refused(measure):
    with pytest.raises(ValueError, match="sizes|shapes"):
        measure(np.zeros((40, 40)), np.zeros((40, 41)))
    broken = chip()
    broken[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        measure(chip(), broken)


def test_images_too_small_for_the_search_are_refused():
    with pytest.raises(ValueError, match="too small"):
        measures.best_shift(np.zeros((16, 40)), np.zeros((16, 40)))
