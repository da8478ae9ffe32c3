"""What a restoration may not do to a measurement: atomic columns and their intensities, noise that must stay noise, a vacancy that must survive, a series of
recorded frames that must come closer to their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.data import example_rng
from common.evaluation import item
from common.micrograph import load_frames
from common.papers import paper
from common.restoring import restore_array

from .baselines import METHODS, oracle_gaussian
from .columns import adf_crystal, fit_columns, intensity_precision, precision, radial_spectrum_peaks, vacancy_contrast
from .config import MULTIPLE

SIDE, SPACING, SIGMA, RADIUS = 256, 16.0, 2.2, 5.5  # pixels, of the crystal and of the fits: neighbours' tails then add less than 1 %
PIXEL = 0.0125  # nm; the columns are 0.2 nm apart
COLUMN_DOSES = (3.0, 30.0, 300.0)  # electrons per pixel: 190 to 19,000 per square angstrom


def column_items(restore: Callable, seed: int, draws: int) -> dict:
    """Positions and intensities of a simulated ADF lattice over draws of counting noise, in the noisy frames and in their restorations, fitted alike.

    Least squares is not the best estimator for counts: up to a factor of 1.33 of any gain in spread is the estimator's.
    """
    crystal, items = adf_crystal((SIDE, SIDE), SPACING, SIGMA), {}
    for dose in COLUMN_DOSES:
        found = {"raw": [], "restored": []}
        for k in tqdm(range(draws), desc=f"columns, {dose:g} e/px", unit="draw", leave=False):
            frame = example_rng(seed, k, f"columns {dose}").poisson(dose * crystal.image).astype(np.float32)
            for name, image in (("raw", frame), ("restored", restore(frame))):
                found[name].append(fit_columns(image / dose, crystal.positions, RADIUS, shared=True))
        places = {name: precision([fit.positions for fit in fits], crystal.positions, PIXEL) for name, fits in found.items()}
        pixels = {name: precision([fit.positions for fit in fits], crystal.positions) for name, fits in found.items()}
        masses = {name: intensity_precision([fit.intensities for fit in fits], crystal.intensities) for name, fits in found.items()}
        at = f"columns at {dose:g} electrons per pixel ({dose / (10 * PIXEL) ** 2:,.0f} per square angstrom)"
        for number, unit, table in (("rmse", "pm", places), ("rmse_relative", "pm", places), ("bias_rms", "px", pixels), ("std", "px", pixels)):
            ours, theirs = (table[name]["overall"][number] for name in ("restored", "raw"))
            items[f"{at}: position, {number}"] = item(ours, unit, theirs, None, draws, columns=len(crystal.positions))
        for number in ("bias_mean", "bias_rms", "std"):
            items[f"{at}: intensity, {number}"] = item(masses["restored"][number], "of the intensity", masses["raw"][number], None, draws)
        items[f"{at}: fits that failed"] = item(places["restored"]["failed"], "", places["raw"]["failed"], None, draws)
    return items


def hallucination_items(restore: Callable, seed: int, count: int = 20) -> dict:
    """Pure noise must not stay, nor turn into a lattice, and a missing column must stay missing, at 20 electrons per pixel."""
    peaks, left, contrasts = ({"raw": [], "restored": []} for _ in range(3))
    crystal = adf_crystal((SIDE, SIDE), SPACING, SIGMA, vacancy=(SIDE / 2, SIDE / 2))
    for k in range(count):
        rng = example_rng(seed, k, "hallucination")
        noise = rng.poisson(np.full((SIDE, SIDE), 20.0)).astype(np.float32)
        frame = rng.poisson(20.0 * crystal.image).astype(np.float32)
        for name, function in (("raw", lambda image: image), ("restored", restore)):
            peaks[name].append(radial_spectrum_peaks(function(noise)))
            contrasts[name].append(vacancy_contrast(function(frame), crystal.vacancy, crystal.beside, RADIUS))
            left[name].append(function(noise).std())
    ratio = {name: float(np.mean([peak["ratio"] for peak in found])) for name, found in peaks.items()}
    return {
        "pure noise: deviation that is left": item(float(np.mean(left["restored"]) / np.mean(left["raw"])), "of the noise's", 1.0, None, count),
        "pure noise: strongest peak of the spectrum over its ring": item(
            ratio["restored"], "", ratio["raw"], None, count, expected=peaks["raw"][0]["expected"]
        ),
        "vacancy: signal over that of occupied sites": item(
            float(np.mean(contrasts["restored"])), "", float(np.mean(contrasts["raw"])), None, count, truth=0.0
        ),
    }


def removal_items(restore: Callable, seed: int, count: int = 20, dose: float = 20.0) -> dict:
    """What is taken off a simulated ADF lattice whose only distortion is counting. That noise is white, and its mean over draws is 0 everywhere.

    correlation of neighbours: of what was removed, over all pairs side by side and on top of each other; 0 for the noise itself. signal removed: slope of the
    regression of the mean of what was removed on the lattice; 0 where noise alone goes, positive where columns are flattened.
    """
    crystal = adf_crystal((SIDE, SIDE), SPACING, SIGMA)
    signal = crystal.image - crystal.image.mean()
    removed = {"restored": [], "best Gaussian": []}
    for k in range(count):
        frame = example_rng(seed, k, "removal").poisson(dose * crystal.image).astype(np.float32)
        removed["restored"].append(frame - restore(frame))
        removed["best Gaussian"].append(frame - oracle_gaussian(frame, np.float32(dose * crystal.image)))
    neighbours, slopes = {}, {}
    for name, images in removed.items():
        centred = [image - image.mean(dtype=np.float64) for image in images]
        pairs = [((c[1:] * c[:-1]).mean() + (c[:, 1:] * c[:, :-1]).mean()) / 2 / c.var() for c in centred]
        neighbours[name], slopes[name] = float(np.mean(pairs)), float((np.mean(centred, 0) * signal).mean() / (dose * (signal**2).mean()))
    return {
        f"counting noise at {dose:g} electrons per pixel: {label}": item(values["restored"], "", values["best Gaussian"], None, count, truth=0.0)
        for label, values in (("correlation of neighbours in what was removed", neighbours), ("share of the signal removed", slopes))
    }


def tile_items(network, config, seed: int, count: int = 3, side: int = 768) -> dict:
    """A micrograph restored in tiles, as large ones are, against the whole at once: a lattice with counting noise, larger than a tile and its halo."""
    differences, seams = [], []
    crystal = adf_crystal((side, side), SPACING, SIGMA)
    for k in range(count):
        frame = example_rng(seed, k, "tiles").poisson(20 * crystal.image).astype(np.float32)
        whole, tiled = (restore_array(frame, paper("cgrdn"), network, config, tile=tile) for tile in (side, side // 2))
        error = np.abs(tiled - whole) / frame.std()
        differences.append(error.mean())
        seams.append(error.max())
    return {
        "tiles against the whole: mean difference": item(float(np.mean(differences)), "deviations of the image", 0.0, None, count),
        "tiles against the whole: largest difference": item(float(np.max(seams)), "deviations of the image", 0.0, None, count),
    }


# --- Recorded series ---


def frames_of(path: Path) -> np.ndarray:
    """(n, height, width) float32: all frames of a stack; ValueError for fewer than three, and where one cannot be read."""
    frames = [np.float32(frame.data) for frame in load_frames(path)]
    if len(frames) < 3:
        raise ValueError(f"{path} holds {len(frames)} frames; a series of at least three is needed")
    return np.stack(frames)


def registered(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Frames shifted, whole, onto a reference, cubic; (n, height, width) float32.

    By plain cross-correlation behind a Hann window: the phase correlation that is faster to write gives the noise of all frequencies the same say.
    """
    from skimage.registration import phase_cross_correlation

    window = np.outer(*(np.hanning(n) for n in reference.shape))

    def inside(image):
        return (image - image.mean()) * window

    found = []
    for frame in frames:
        down, right = phase_cross_correlation(inside(reference), inside(frame), upsample_factor=20, normalization=None)[0]
        move = np.float32([[1, 0, right], [0, 1, down]])
        found.append(cv2.warpAffine(np.float32(frame), move, frame.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))
    return np.stack(found)


def series_items(restore: Callable, frames: np.ndarray, label: str, border: int = 16) -> dict:
    """Each frame of a series against the mean of all others, which it does not share its noise with: root mean square distance in units of that mean's
    standard deviation, of the frame, its best Gaussian, its best non-local means (strengths chosen on these very frames) and its restoration.

    border: pixels around that are not compared, for frames are shifted onto each other first.
    """
    frames = registered(frames, frames[0])
    inner = (slice(None), slice(border, frames.shape[1] - border), slice(border, frames.shape[2] - border))
    height, width = (n // MULTIPLE * MULTIPLE for n in frames.shape[1:])
    frames = frames[:, :height, :width]
    others = (frames.sum(0) - frames) / (len(frames) - 1)

    def distance(images) -> float:
        return float(np.sqrt(np.mean((np.stack(images) - others)[inner] ** 2)) / np.std(others[inner]))

    found = {"the frame": distance(frames), "restored": distance([restore(frame) for frame in frames])}
    for name in ("Gaussian", "non-local means", "non-local means, stabilised"):
        method, candidates = METHODS[name]
        found[f"best {name}"] = min(distance([method(frame, k) for frame in frames]) for k in candidates)
    rival = min(value for name, value in found.items() if name.startswith("best"))
    return {f"{label}, distance to the mean of the others: {name}": item(value, "deviations", rival, None, len(frames)) for name, value in found.items()}
