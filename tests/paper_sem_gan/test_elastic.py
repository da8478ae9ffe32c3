"""The elastic step of the registration and its parts, against known shifts and fields."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from paper_sem_gan import elastic as el

from .scans import gold


def test_elastic_step_alone():
    """The specification's test: 3 px, 200 px per period, 5 % noise."""
    shape, rng = (420, 500), np.random.default_rng(0)
    picture = cv2.GaussianBlur(gold(1, (shape[0] + 40, shape[1] + 40)), (0, 0), 1.0)
    own = el.identity(shape).astype(float)
    truth = own + 3 * np.sin(2 * np.pi * own[..., ::-1] / 200 + rng.uniform(0, 6, 2))
    fixed = map_coordinates(picture, (truth + 20).transpose(2, 0, 1), order=5) + rng.normal(0, 0.05, shape)
    found = el.elastic(np.float32(fixed), np.float32(picture[20:-20, 20:-20] + rng.normal(0, 0.05, shape)))
    assert np.percentile(np.linalg.norm(found - truth, axis=-1), 95) < 0.2


def test_block_shifts_are_the_maximum_of_weighted_ncc():
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.normal(size=(140, 150)), (0, 0), 2.5)
    fixed, moving = np.float32(picture[20:116, 20:116]), np.float32(3 * picture[17:113, 22:118] - 1)  # fixed(p) = moving(p + (3, -2))
    places, shifts, precision = el.block_shifts(fixed, moving, np.ones(fixed.shape, bool), (2, 2), 4)
    assert len(places) == 25
    np.testing.assert_allclose(np.median(shifts, 0), (3, -2), atol=0.02)
    assert (np.linalg.eigvalsh(precision) > 0).all()


def test_subpixel_shift_of_blocks():
    rows, columns = np.mgrid[:96, :96] / 1.0

    def field(dy, dx):
        return np.float32(np.sin((rows + dy) / 3) + np.cos((columns + dx) / 4) + np.sin((rows + dy + columns + dx) / 5))

    for shift in (0.1, 0.3):
        _, shifts, _ = el.block_shifts(field(shift, -shift), field(0, 0), np.ones((96, 96), bool), (2, 2), 2)
        np.testing.assert_allclose(shifts.mean(0), (shift, -shift), atol=0.02)


def test_windows_add_up_to_one_everywhere():
    for size, blocks in ((97, 4), (128, 2)):
        windows = el.hann_windows(size, blocks)
        np.testing.assert_allclose(windows.sum(0), 2 * blocks / size, rtol=1e-5)
        np.testing.assert_allclose(windows[1:-1].sum(1), 1, atol=0.01)


def test_smooth_field_keeps_affine_maps_and_drops_outliers():
    rng = np.random.default_rng(1)
    shape, matrix, offset = (300, 340), np.array([[0.01, -0.03], [0.02, 0.04]]), np.array([2.0, -5.0])
    places = rng.uniform(0, 1, (300, 2)) * shape
    values = places @ matrix.T + offset
    wrong = rng.choice(300, 30, replace=False)
    spoilt = values.copy()
    spoilt[wrong] += 6
    expected = el.identity(shape) @ matrix.T + offset
    precision = np.tile(np.eye(2), (300, 1, 1))
    assert np.abs(el.smooth_field(places, values, precision, shape) - expected).max() < 0.01
    assert np.percentile(np.abs(el.smooth_field(places, spoilt, precision, shape) - expected), 95) < 0.15


def test_smooth_field_heeds_direction():
    """Blocks on straight edges know the shift across the edge only."""
    rng = np.random.default_rng(2)
    places = rng.uniform(0, 200, (400, 2))
    along = np.where(np.arange(400) % 2, 1, 0)
    values = np.where(np.stack([along, 1 - along], 1) == 1, np.sin(places / 20), rng.normal(0, 30, (400, 2)))
    precision = np.zeros((400, 2, 2))
    precision[along == 1, 0, 0] = precision[along == 0, 1, 1] = 1
    error = el.smooth_field(places, values, precision, (200, 200)) - np.sin(el.identity((200, 200)) / 20)
    assert np.percentile(np.abs(error), 95) < 0.2
