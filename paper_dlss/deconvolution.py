"""Undoing the blur of the targets, and what that brings to light: the paper's deconvolution by gradient descent, and a filter for the grid that it leaves.

P is the paper, CX its deconvolution script; see this package's README. The 5 x 5 kernel loses what lies at its two transfer zeros for good, so the paper's
remark that the blur preserves information does not hold: the residual falls to nothing while the image does not come back.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import fft
from scipy.sparse import csr_matrix

TAPS = cv2.getGaussianKernel(5, 2.5)[:, 0]  # of the blur along one axis
ZEROS = (0.2198, 0.4043)  # cycles per pixel along either axis, where the transfer function of TAPS is zero
ITERATIONS, RATE, DECAY = 100, 0.3, 0.99  # [P]
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam: TensorFlow 1's (CX)
NOTCH, AROUND = 0.016, 0.05  # cycles per pixel, half widths: what a zero spoils, and what says how strong its surroundings are
SPIKE = 3.0  # times the median around: noise alone exceeds it in 1 of 500 coefficients


def blur_matrix(side: int) -> csr_matrix:
    """(side, side): the blur along one axis, reflected at its ends without repeating the edge pixel. An image x is blurred as B x B'."""
    pixels, taps = np.arange(side)[:, None], np.arange(side)[:, None] + np.arange(-2, 3)
    taps = side - 1 - np.abs(side - 1 - np.abs(taps))
    return csr_matrix((np.tile(TAPS, side), (np.broadcast_to(pixels, taps.shape).ravel(), taps.ravel())), (side, side))


def deconvolved(image: np.ndarray, iterations: int = ITERATIONS) -> tuple[np.ndarray, float]:
    """The image whose blur is `image`, (height, width) in [0, 1], and the mean squared difference that is left between the two.

    Adam on pixel values from the image itself, at rate 0.3 * 0.99^i in step i [P, CX]; its moments start anew for every image, which CX forgets.
    """
    image = np.asarray(image, np.float64)
    rows, columns = (blur_matrix(side) for side in image.shape)
    x, mean, square = image.copy(), np.zeros_like(image), np.zeros_like(image)

    def difference() -> np.ndarray:
        return (columns @ (rows @ x).T).T - image

    for i in range(iterations):
        gradient = 2 / image.size * (columns.T @ (rows.T @ difference()).T).T
        mean += (1 - BETAS[0]) * (gradient - mean)
        square += (1 - BETAS[1]) * (gradient**2 - square)
        rate = RATE * DECAY**i * np.sqrt(1 - BETAS[1] ** (i + 1)) / (1 - BETAS[0] ** (i + 1))
        x -= rate * mean / (np.sqrt(square) + EPSILON)
    return x.astype(np.float32), float(np.mean(difference() ** 2))


def remove_spikes(image: np.ndarray) -> np.ndarray:
    """The image, (height, width), without the grid that deconvolution leaves at the transfer zeros; float32.

    Fourier coefficients within NOTCH of a zero along either axis, and above SPIKE times the median amplitude around them along that axis, get that median and
    keep their phase. All others stay as they are. [P] suggests as much in a sentence. A crystal whose lattice has one of these frequencies is weakened too.
    """
    spectrum = fft.fft2(np.asarray(image, np.float64))
    for axis in (0, 1):
        spectrum = np.moveaxis(_clamped(np.moveaxis(spectrum, axis, 0)), 0, axis)
    return fft.ifft2(spectrum).real.astype(np.float32)


def _clamped(spectrum: np.ndarray) -> np.ndarray:
    """A spectrum after its rows near a transfer zero were held down; rows are frequencies of the one axis, columns of the other."""
    frequency, spectrum = np.abs(fft.fftfreq(len(spectrum))), spectrum.copy()
    for zero in ZEROS:
        distance = np.abs(frequency - zero)
        spoilt = distance <= max(NOTCH, 0.5 / len(spectrum))
        near = ~spoilt & (distance <= AROUND)
        for side in (fft.fftfreq(len(spectrum)) >= 0, fft.fftfreq(len(spectrum)) < 0):  # the two halves of a real image's spectrum mirror each other
            if not (side & near).any():  # an image of a few pixels
                continue
            around = np.median(np.abs(spectrum[side & near]), axis=0)
            amplitude = np.abs(spectrum[side & spoilt])
            spectrum[side & spoilt] *= np.where(amplitude > SPIKE * around, around / np.maximum(amplitude, 1e-300), 1.0)
    return spectrum
