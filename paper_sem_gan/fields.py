"""Simulated fields of gold on carbon, recorded twice: a high-magnification scan and a low-magnification one of the same particles.

The paper's specimen (Ted Pella 617-a: gold particles of 5-150 nm on carbon) and its images (7.1 and 14.2 nm per pixel) cannot be downloaded. Here a specimen is
drawn on a grid four times finer than the high-magnification scan and blurred by the probe alone; both scans sample it at points, so the low-magnification one
is an aliased version of the other, as the paper has it. Each has its own noise, drift, rotation, size error, shift, brightness and contrast.

Coordinates: places on the specimen are (row, column) in nm from the field's centre, in a scan (row, column) in pixels, pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from .gaps import Gaps, Measured, Particles, candidate_gaps, joined, measure, particles, statistics
from .specimen import OVERSAMPLING, Field, simulate_field
from .upsampling import lanczos


@dataclass(frozen=True)
class Recording:
    """How a scan differs from the ideal one: limits of what is drawn per scan, lengths in nm."""

    dose: float = 900.0  # detected electrons per pixel at white
    readout: float = 0.01  # standard deviation of the amplifier's noise, white is 1
    rotation: float = 0.5  # degrees
    size: float = 0.005  # relative error of the magnification
    shift: float = 28.0
    drift: float = 14.0  # bound of the smooth displacement, mostly from line to line; about 1 px of the high-magnification scan comes true
    contrast: float = 0.06  # relative
    brightness: float = 0.015  # of white


@dataclass(frozen=True, eq=False)
class Scan:
    """One recorded image and where its pixels lie on the specimen.

    image  (height, width) float32 in [0, 1];  pixel_size  nm, nominal
    position in nm = origin + matrix @ (pixel - centre of the frame) + drift(pixel)
    waves  (2, 3, 4), the drift: sines along the slow and the fast axis, each with amplitude (row, column) in nm, turns per frame and phase in turns
    """

    image: np.ndarray
    pixel_size: float
    origin: np.ndarray
    matrix: np.ndarray
    waves: np.ndarray

    def drift(self, pixels: np.ndarray) -> np.ndarray:
        """Displacement in nm, (..., 2), at pixels (..., 2)."""
        place = np.asarray(pixels, float) / np.array(self.image.shape)
        phase = place[..., None] * self.waves[..., 2] + self.waves[..., 3]
        return np.einsum("...ak,akc->...c", np.sin(2 * np.pi * phase), self.waves[..., :2])

    def to_specimen(self, pixels: np.ndarray) -> np.ndarray:
        """Positions on the specimen in nm, (..., 2) float64, of scan positions (..., 2)."""
        centred = np.asarray(pixels, float) - (np.array(self.image.shape) - 1) / 2
        return self.origin + centred @ self.matrix.T + self.drift(pixels)

    def to_pixels(self, positions: np.ndarray) -> np.ndarray:
        """Scan positions, (..., 2) float64, at which positions on the specimen in nm (..., 2) were recorded; to 1e-6 pixel."""
        inverse = np.linalg.inv(self.matrix)
        middle = (np.array(self.image.shape) - 1) / 2
        start = previous = middle + (np.asarray(positions, float) - self.origin) @ inverse.T
        for _ in range(30):  # the drift is gentle, so every round gains more than a digit
            pixels = start - self.drift(previous) @ inverse.T
            if np.abs(pixels - previous).max(initial=0) < 1e-6:
                break
            previous = pixels
        return pixels


def correspondence(low: Scan, high: Scan, scale: int = 2) -> np.ndarray:
    """Where in `high` each pixel of the upsampled `low` comes from: (scale * h, scale * w, 2) float32, row and column, half-pixel centres."""
    rows, columns = ((np.arange(scale * n) + 0.5) / scale - 0.5 for n in low.image.shape)
    pixels = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    return high.to_pixels(low.to_specimen(pixels)).astype(np.float32)


# --- the microscope -------------------------------------------------------------------------------------------------------------------------------------


def scan(field: Field, pixel_size: float, shape: tuple[int, int], seed, recording: Recording | None = None) -> Scan:
    """Record the middle of a field: point samples at the pixels' places on the specimen, then contrast, brightness, shot noise and readout noise.

    pixel_size: nm; shape: (height, width) in pixels; seed: int or sequence of ints, of the distortions and the noise.
    Raises ValueError where the scan leaves the drawn specimen.
    """
    recording = recording or Recording()
    rng = np.random.default_rng(seed)
    angle, size = np.radians(rng.uniform(-1, 1) * recording.rotation), 1 + rng.uniform(-1, 1) * recording.size
    matrix = pixel_size * size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    waves = np.zeros((2, 3, 4))
    waves[..., :2] = rng.normal(size=(2, 3, 2)) / np.arange(1, 4)[None, :, None]
    waves[..., 2], waves[..., 3] = np.array([0.5, 1.0, 1.5]), rng.uniform(0, 1, (2, 3))
    waves[1, :, :2] *= 0.2
    waves[..., :2] *= rng.uniform(0.5, 1) * recording.drift / np.hypot(np.abs(waves[..., 0]).sum(), np.abs(waves[..., 1]).sum())
    taken = Scan(np.zeros(shape, np.float32), pixel_size, rng.uniform(-1, 1, 2) * recording.shift, matrix, waves)
    place = taken.to_specimen(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)) / field.grid + (np.array(field.image.shape) - 1) / 2
    outside = max(2 - place.min(), (place + 3 - field.image.shape).max())
    if outside > 0:
        raise ValueError(f"the scan leaves the drawn specimen by {outside * field.grid:.0f} nm; draw the field with a larger margin")
    place = place.astype(np.float32)
    signal = cv2.remap(field.image, place[..., 1], place[..., 0], cv2.INTER_CUBIC)
    signal = np.clip(signal * (1 + rng.uniform(-1, 1) * recording.contrast) + rng.uniform(-1, 1) * recording.brightness, 0, 1)
    image = rng.poisson(signal * recording.dose) / recording.dose + recording.readout * rng.standard_normal(shape)
    return replace(taken, image=np.clip(image, 0, 1).astype(np.float32))


def acquire(field: Field, seed, recording: Recording | None = None, margin: int = 16) -> tuple[Scan, Scan]:
    """The two scans of a field, low magnification first: half as many pixels per length, over the middle and `margin` pixels more on each side."""
    low, high = np.random.SeedSequence(seed).spawn(3)[1:]  # the first stream draws the specimen
    size = tuple(-(-n // 2) + 2 * margin for n in field.shape)
    return scan(field, 2 * field.pixel_size, size, low, recording), scan(field, field.pixel_size, field.shape, high, recording)


# --- what is known of them ------------------------------------------------------------------------------------------------------------------------------


def true_particles(field: Field, scan: Scan, scale: int = 1, corner=(0, 0)) -> Particles:
    """Every particle of the field in pixels of a scan, or of its upsampling by `scale` (half-pixel centres) cropped from `corner` on; some lie outside."""
    return Particles(scale * (scan.to_pixels(field.centres) + 0.5) - 0.5 - np.array(corner), field.radii * scale / scan.pixel_size)


def true_gaps(field: Field, scan: Scan, scale: int = 1, corner=(0, 0), shape: tuple[int, int] | None = None) -> Gaps:
    """Neighbours that both have their centre in the frame, with their true edge gaps, on the grid of `true_particles`.

    shape: (height, width) of the crop, all behind its corner when None.
    """
    drawn = true_particles(field, scan, scale, corner)
    shape = np.array(shape or scale * np.array(scan.image.shape) - corner)
    first, second = drawn.centres[field.pairs[:, 0]], drawn.centres[field.pairs[:, 1]]
    inside = np.all((np.minimum(first, second) >= 1) & (np.maximum(first, second) <= shape - 2), axis=1)
    return Gaps(first, second, drawn.radii[field.pairs], field.edges)[inside]


def overlay(low: Scan, high: Scan, scale: int = 2) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """What a perfect registration gives: the upsampled `low` and `high` on its grid, (height, width) float32, and their corner on the whole upsampled grid."""
    upsampled, places = lanczos(low.image, scale), correspondence(low, high, scale)
    seen = np.all((places >= 1) & (places <= np.array(high.image.shape) - 2), axis=-1)
    trim = next(t for t in range(min(seen.shape) // 2) if seen[t : seen.shape[0] - t, t : seen.shape[1] - t].all())
    frame = tuple(slice(trim, n - trim) for n in seen.shape)
    return upsampled[frame], cv2.remap(high.image, places[frame][..., 1], places[frame][..., 0], cv2.INTER_CUBIC), (trim, trim)


# --- looking at them ------------------------------------------------------------------------------------------------------------------------------------


def gap_statistics(seeds, shape: tuple[int, int] = (442, 512)) -> dict:
    """`gaps.statistics` of upsampled low-magnification scans laid exactly over the high-magnification ones, at the gaps found on the latter."""
    measured: list[list[Measured]] = [[], []]
    for seed in seeds:
        low, high = acquire(simulate_field(seed, shape), seed)
        images = overlay(low, high)[:2]
        gaps = candidate_gaps(particles(images[1], high.pixel_size), high.pixel_size)
        for kind, image in zip(measured, images, strict=True):
            kind.append(measure(image, gaps, high.pixel_size))
    fields = np.repeat(np.arange(len(seeds)), [len(part.exists) for part in measured[0]])
    return statistics(*(joined(kind) for kind in measured), fields)


def _panels(seed, side: int = 384, zoom: int = 4) -> np.ndarray:
    """One field: the high-magnification scan pixel by pixel, then the same spot enlarged in the upsampled low one, the high one and the specimen."""
    field = simulate_field(seed, (side + 64, side + 64))
    low, high = acquire(field, seed)
    images = [*overlay(low, high)[:2], field.image]

    def middle(image: np.ndarray, size: int) -> np.ndarray:
        top, left = ((n - size) // 2 for n in image.shape)
        return image[top : top + size, left : left + size]

    spots = [cv2.resize(middle(image, side // zoom), (side, side), interpolation=cv2.INTER_NEAREST) for image in images[:2]]
    return np.hstack([middle(high.image, side), *spots, middle(images[2], side // zoom * OVERSAMPLING)])


def look(out: Path, seed: int = 0, fields: int = 3) -> None:
    """Draw a contact sheet of simulated fields and print their gap statistics beside the paper's.

    Args:
        out: the picture to write, such as sheet.png; per row a high-magnification scan, then one spot of it: low magnification upsampled, high, specimen.
        seed: of the fields.
        fields: how many, one row each.
    """
    if not (out.parent.is_dir() and cv2.haveImageWriter(str(out))):
        raise ValueError(f"cannot write {out}; give a file name such as sheet.png in an existing folder")
    seeds = [(seed, k) for k in range(fields)]
    cv2.imwrite(str(out), np.round(np.clip(np.vstack([_panels(each) for each in seeds]), 0, 1) * 255).astype(np.uint8))
    found = gap_statistics(seeds)
    for name, scale, unit, published in (("undetected", 100, "%", 13.9), ("difference", 1, "nm", 3.8), ("bias", 1, "nm", None)):
        low, high = (scale * v for v in found[name]["interval"])
        told = f"; the paper: {published}" if published else ""
        print(f"{name}: {scale * found[name]['value']:.1f} {unit} ({low:.1f} to {high:.1f}), {found[name]['n']} gaps{told}")


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(look, "python -m paper_sem_gan.fields", tensorflow=False))
