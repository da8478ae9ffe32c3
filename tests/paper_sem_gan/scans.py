"""Simulated pairs of scans whose geometry is known: what the registration is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from common.specimens import simulate
from paper_sem_gan.elastic import identity, warp

FRAME = (884, 1024)
TEXTURED = 0.02  # root mean square gradient per px, of a specimen in [0, 1]; bare carbon has 0.003 to 0.01


@dataclass(frozen=True)
class Scans:
    """Two scans of one specimen and the map between them.

    low, high: (height, width) float32, in [0, 1] apart from noise.
    where: (..., 2) row, column on the twice enlarged grid of all of low -> (..., 2) row, column of the same spot in high.
    texture: (height, width), root mean square gradient of the specimen within some 8 px of each pixel of high.
    """

    low: np.ndarray
    high: np.ndarray
    where: Callable[[np.ndarray], np.ndarray]
    texture: np.ndarray

    def error(self, found: np.ndarray, low_crop) -> np.ndarray:
        """Length of the error of a map (height, width, 2), in HR pixels, NaN where the specimen is bare; low_crop: row and column of its corner in low, ..."""
        truth = self.where(identity(found.shape[:2]) + 2.0 * np.array(low_crop[:2]))
        return np.where(warp(self.texture, truth) > TEXTURED, np.linalg.norm(found - truth, axis=-1), np.nan)


def gold(seed, shape) -> np.ndarray:
    """Gold on carbon at 7.1 nm per pixel, (height, width) float32 in [0, 1]; beyond 1.3 times the frame it is mirrored, which saves time."""
    return simulate("gold", seed, shape, pixel_size=7.1).image


def scans(seed, frame=FRAME, specimen=gold, noise=0.05, aliased=False, angle=3.0, stretch=0.03, shift=12.0, warp=3.0, period=200.0) -> Scans:
    """HR as recorded, and LR of the same frame size and twice the pixel, through a map drawn within limits: affine (deg, share, HR px), smooth warp.

    warp: amplitude (HR px) of each component, a sum of two waves of the given period in drawn directions. noise: standard deviation, independent in both scans.
    aliased: LR samples the specimen at points, otherwise through a blur of 1.5 HR px that leaves hardly anything beyond its Nyquist frequency.
    """
    rng = np.random.default_rng((seed, 77))
    height, width = frame
    core = (int(1.25 * height) + 40, int(1.25 * width) + 40)
    picture = cv2.GaussianBlur(specimen(seed, core), (0, 0), 0.9)
    turn, sizes, offset = np.deg2rad(rng.uniform(-angle, angle)), 1 + rng.uniform(-stretch, stretch, 2), rng.uniform(-shift, shift, 2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * sizes
    heading, phase = rng.uniform(0, np.pi, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    middle = np.array([height - 0.5, width - 0.5])  # of LR on its enlarged grid

    def where(points):
        """The centre of LR lands near the centre of HR."""
        q = (points - middle) @ matrix.T + [(height - 1) / 2, (width - 1) / 2] + offset
        for axis in range(2):
            for wave in range(2):
                along = points @ [np.sin(heading[axis, wave]), np.cos(heading[axis, wave])]
                q[..., axis] += warp / 2 * np.sin(2 * np.pi * along / period + phase[axis, wave])
        return q

    pad = (int(0.65 * height), int(0.65 * width))
    inset = ((core[0] - height) // 2, (core[1] - width) // 2)
    high = picture[inset[0] : inset[0] + height, inset[1] : inset[1] + width]
    seen = picture if aliased else cv2.GaussianBlur(picture, (0, 0), 1.5)
    grid = np.stack(np.mgrid[0:height, 0:width], -1) * 2 + 0.5
    smooth = spline_filter(np.pad(seen, [(p, p) for p in pad], "reflect"), order=5, output=np.float32)
    low = map_coordinates(smooth, (where(grid) + np.add(inset, pad)).transpose(2, 0, 1), order=5, prefilter=False)
    energy = cv2.Sobel(high, cv2.CV_32F, 1, 0, scale=0.125) ** 2 + cv2.Sobel(high, cv2.CV_32F, 0, 1, scale=0.125) ** 2
    noisy = [np.float32(image + rng.normal(0, noise, image.shape)) for image in (low, high)]
    return Scans(*noisy, where, np.sqrt(cv2.GaussianBlur(energy, (0, 0), 8)))
