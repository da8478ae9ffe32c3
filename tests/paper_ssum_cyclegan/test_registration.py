"""Registration against simulated pairs whose matrix is known."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from common.specimens import simulate
from paper_ssum_cyclegan import registration as reg


def turned(degrees, size):
    a = np.radians(degrees)
    return size * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def pair(seed, ratio, degrees, side=320, size=1.01, shift=(7.3, -5.2), share=1.0):
    """Optical look (blurred, inverted, shaded), SEM image of `ratio` pixels per optical pixel, and the true matrix."""
    rng = np.random.default_rng(seed)
    picture = simulate("chip", seed, (int(side * max(ratio, 1) * 1.15) + 40,) * 2).image
    linear, middle = turned(degrees, max(ratio, 1) * size), (np.array(picture.shape) - 1) / 2
    to_picture = np.column_stack([linear, middle + shift - linear @ np.full(2, (side - 1) / 2)])
    grid = np.indices((side, side)).reshape(2, -1)
    blurred = gaussian_filter(1 - picture, 2.0 * max(ratio, 1))
    optical = map_coordinates(blurred, to_picture[:, :2] @ grid + to_picture[:, 2:], order=3).reshape(side, side)
    y, x = np.indices((side, side)) / (side - 1) - 0.5
    optical = optical * (1 - 0.4 * (x**2 + y**2)) + 0.02 * rng.standard_normal(optical.shape)
    factor = ratio / max(ratio, 1)  # below 1 the SEM image is the coarser
    count = int(side * ratio * share)
    sampling = np.column_stack([np.eye(2) / factor, middle - (count - 1) / 2 / factor])
    grid = np.indices((count, count)).reshape(2, -1)
    sharp = picture if factor == 1 else gaussian_filter(picture, 0.5 / factor)
    sem = map_coordinates(sharp, sampling[:, :2] @ grid + sampling[:, 2:], order=3).reshape(count, count) + 0.05 * rng.standard_normal((count, count))
    return np.float32(optical), np.float32(sem), reg.composed(reg.inverse(sampling), to_picture)


def miss(matrix, truth, sem_shape):
    """Largest distance, over the SEM frame, in pixels of the coarser image."""
    corners = np.indices((5, 5)).reshape(2, -1).T / 4 * (np.array(sem_shape) - 1)
    there = reg.inverse(truth)
    optical = corners @ there[:, :2].T + there[:, 2]
    return np.linalg.norm(optical @ matrix[:, :2].T + matrix[:, 2] - corners, axis=1).max() / max(reg.size_ratio(truth), 1)


# --- Landmarks ---


def test_landmarks_give_the_matrix_and_their_residuals():
    rng = np.random.default_rng(0)
    truth = np.column_stack([turned(3, 2.5) @ np.diag([1, 1.02]), [40, -7]])
    optical = rng.uniform(0, 500, (12, 2))
    sem = optical @ truth[:, :2].T + truth[:, 2]
    matrix, residuals = reg.landmark_affine(optical, sem)
    np.testing.assert_allclose(matrix, truth, atol=1e-9)
    np.testing.assert_allclose(residuals, 0, atol=1e-9)
    noisy = sem + rng.normal(0, 2, sem.shape)
    matrix, residuals = reg.landmark_affine(optical, noisy)
    np.testing.assert_allclose(residuals, noisy - (optical @ matrix[:, :2].T + matrix[:, 2]))
    design = np.column_stack([optical, np.ones(12)])
    np.testing.assert_allclose(design.T @ residuals, 0, atol=1e-6)  # normal equations
    assert reg.rotation(matrix) == pytest.approx(3, abs=0.6) and reg.size_ratio(truth) == pytest.approx(2.5 * 1.02**0.5)


def test_bad_landmarks_are_refused():
    square = np.array([[0, 0], [0, 9], [9, 0], [9, 9.0]])
    line = np.column_stack([np.arange(6.0), 2 * np.arange(6.0)])
    for points, message in (
        ((square[:3], square[:3]), "too few"),
        ((line, np.random.default_rng(0).uniform(0, 9, (6, 2))), "optical image lie on a line"),
        ((square, np.tile(square[:1], (4, 1))), "SEM image lie on a line"),
        ((square, square[:3]), "one length"),
        ((square, np.full((4, 2), np.nan)), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            reg.landmark_affine(*points)


# --- Correlation ---


@pytest.mark.parametrize(("seed", "ratio", "degrees"), [(24, 2.0, 2.0), (27, 0.7, 0.4), (30, 1.3, -4.0)])
def test_refinement_finds_the_matrix_from_careless_landmarks(seed, ratio, degrees):
    optical, sem, truth = pair(seed, ratio, degrees)
    start = truth.copy()
    start[:, 2] += 3 * max(ratio, 1)
    start[0, 0] *= 1.005
    matrix = reg.refine(optical, sem, start)
    assert miss(start, truth, sem.shape) > 3 and miss(matrix, truth, sem.shape) < 0.8
    assert reg.agreement(optical, sem, matrix) > reg.agreement(optical, sem, start) + 0.1
    assert reg.agreement(optical, sem, matrix) == pytest.approx(reg.agreement(1 - optical, 7 * sem, matrix), abs=0.01)


@pytest.mark.parametrize(("seed", "other"), [(24, 42), (26, 40), (28, 42), (25, 40)])
def test_refinement_that_goes_astray_or_nowhere_is_refused(seed, other):
    """The SEM image is another chip's. Unguarded, three of these four give a matrix, which moves corners by up to 98 pixels."""
    optical, sem = pair(seed, 1.0, 0.0)[0], pair(other, 1.0, 0.0)[1]
    with pytest.raises(ValueError, match="check the landmarks"):
        reg.refine(optical, sem, np.eye(2, 3))


@pytest.mark.parametrize(("seed", "ratio", "degrees", "share"), [(24, 2.0, 2.3, 1.0), (27, 0.7, -3.6, 1.0), (26, 1.3, 5.2, 0.7)])
def test_automatic_registration(seed, ratio, degrees, share):
    optical, sem, truth = pair(seed, ratio, degrees, share=share)
    assert miss(reg.register_automatically(optical, sem, ratio), truth, sem.shape) < 0.8


def test_unrelated_and_repeating_images_are_refused():
    optical, sem, _ = pair(24, 1.3, 1.0, side=256)
    with pytest.raises(ValueError, match="not found.*give landmarks"):
        reg.register_automatically(optical, pair(30, 1.3, 1.0, side=256)[1], 1.3)
    with pytest.raises(ValueError, match="not found"):
        reg.register_automatically(optical, np.full_like(sem, 0.5), 1.3)
    dots = np.float32(np.add.outer(np.sin(np.arange(256) / 4), np.sin(np.arange(256) / 4)) ** 2)
    noise = 0.02 * np.random.default_rng(0).standard_normal(dots.shape).astype(np.float32)
    with pytest.raises(ValueError, match="more than one place"):
        reg.register_automatically(dots, dots + noise, 1.0)
    with pytest.raises(ValueError, match="ratio"):
        reg.register_automatically(optical, sem, 0)


def test_blank_images_cannot_be_refined():
    with pytest.raises(ValueError, match="could not be registered"):
        reg.refine(np.ones((64, 64)), np.ones((64, 64)), np.eye(2, 3))


# --- Grids ---


def test_warping_equals_a_spline_and_smooths_what_gets_coarser():
    image = gaussian_filter(np.random.default_rng(0).standard_normal((90, 100)), 2.5)
    matrix = np.column_stack([turned(5, 0.9), [8.3, 4.1]])
    grid = np.indices((60, 70)).reshape(2, -1)
    expected = map_coordinates(image, matrix[:, :2] @ grid + matrix[:, 2:], order=3).reshape(60, 70)
    np.testing.assert_allclose(reg.warped(image, matrix, (60, 70)), expected, atol=0.06 * image.std())  # OpenCV's places are in 32nds of a pixel
    noise = np.random.default_rng(1).standard_normal((300, 300))
    assert reg.warped(noise, np.column_stack([3 * np.eye(2), [1, 1]]), (100, 100)).std() < 0.3  # of every third pixel it would be 1
    wave = np.sin(2 * np.pi * np.arange(300) / 24)[None] * np.ones((300, 1))
    assert reg.warped(wave, np.column_stack([3 * np.eye(2), [1, 1]]), (100, 100)).std() > 0.85 * wave.std()


def test_resampling_is_onto_the_coarser_grid_and_knows_what_is_shared():
    optical, sem, truth = pair(24, 2.0, 2.0)
    where = np.ones(optical.shape, bool)
    where[:40] = False
    both = reg.resample(optical, sem, truth, 30.0, 15.0, where)
    row, column = both.corner
    height, width = both.valid.shape
    assert both.pixel_size == 30 and row >= 40 and both.optical.dtype == both.sem.dtype == np.float32
    np.testing.assert_array_equal(both.optical, optical[row : row + height, column : column + width])
    places = np.indices((height, width)).reshape(2, -1) + [[row], [column]]
    there = truth[:, :2] @ places + truth[:, 2:]
    inside = ((there > -0.1) & (there < np.array(sem.shape)[:, None] - 0.9)).all(0).reshape(height, width)
    assert (both.valid & ~inside).sum() == 0 and (inside & ~both.valid).mean() < 0.03
    expected = map_coordinates(gaussian_filter(sem, 0.5 * 3**0.5), there, order=3, mode="nearest").reshape(height, width)
    assert np.abs(both.sem - expected)[both.valid].max() < 0.05
    fine, coarse, matrix = pair(27, 0.7, 2.0)
    other = reg.resample(fine, coarse, matrix, 15.0, 21.4)
    assert other.pixel_size == 21.4
    np.testing.assert_array_equal(other.sem, coarse[tuple(slice(k, k + n) for k, n in zip(other.corner, other.valid.shape, strict=True))])
    edges = [reg.edges(image, 1.5)[other.valid] for image in (other.optical, other.sem)]
    assert np.corrcoef(*edges)[0, 1] > 0.6
    with pytest.raises(ValueError, match="share no place"):
        reg.resample(optical, sem, truth + [[0, 0, 1e5]] * 2, 30.0, 15.0)


def test_inverse_and_composed():
    matrix = np.array([[1.4, 0.2, 5], [-0.1, 1.6, -3]])
    np.testing.assert_allclose(reg.composed(matrix, reg.inverse(matrix)), np.eye(2, 3), atol=1e-12)
    point, other = np.array([3.0, 8.0]), np.array([[0, 2, 1], [3, 0, -4.0]])
    inner = other[:, :2] @ point + other[:, 2]
    both = reg.composed(matrix, other)
    np.testing.assert_allclose(both[:, :2] @ point + both[:, 2], matrix[:, :2] @ inner + matrix[:, 2])


def test_opencv_and_our_order_of_axes_agree():
    image = np.zeros((50, 60), np.float32)
    image[20, 33] = 1
    seen = reg.warped(image, np.array([[1, 0, 4.0], [0, 1, -7.0]]), (50, 60))
    assert np.unravel_index(seen.argmax(), seen.shape) == (16, 40)
    assert cv2.countNonZero(np.uint8(reg.covered((50, 60), np.eye(2, 3), (70, 80)))) == 3000
