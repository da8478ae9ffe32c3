"""The ranges and probabilities of the six distortion recipes; every number of a modality is a field here.

A pair of numbers is a range to draw from, uniformly unless the comment says "log" (log-uniform). `NAME_probability` belongs to the step NAME of `distortions`.
D is what the published pairs of the paper prove, F its figures, W the literature; what bears no such mark was chosen, for the paper's own generator of
distortions is not published.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """What all modalities share. Lengths are in pixels, noise levels in counts times the square root of the dose."""

    dose: Range = (2.0, 1e4)  # log, electrons per pixel; D saw 1.6 to 200
    identity_probability: float = 0.1  # D: 1 of 8
    readout_probability: float = 0.7  # D: 2 of 8 dominated by it
    readout: Range = (0.05, 1.5)  # log
    hit_rate: Range = (0.5, 20.0)  # log, walks per 65,536 pixels; D: 4 to 13 pixels
    hit_length: int = 8  # at most; D: a track of 7
    hit_excess: Range = (1.5, 10.0)  # times the brightest pixel; D: up to 69 sigma
    dead_pixels_probability: float = 0.4
    dead_rate: Range = (1.0, 10.0)  # clusters per 65,536 pixels
    dead_length: int = 3  # at most; D: one single pixel, one pair
    dead_level: float = 0.05  # of the mean, at most
    clipping_probability: float = 0.1  # D: 1 of 8
    clip_lower: Range = (0.0, 0.0)  # quantile
    clip_upper: Range = (0.95, 1.0)  # quantile; D: 4.3 % of the pixels at the highest code
    quantise_probability: float = 1.0  # every detector gives whole numbers
    gain: Range = (1.0, 500.0)  # log, codes per count
    eight_bit_probability: float = 0.2
    warp_probability: float = 0.2  # F, D: 1 of 8
    angle: Range = (-30.0, 30.0)  # degrees
    scale: Range = (0.8, 1.25)  # log
    perspective: Range = (-0.05, 0.05)  # change of magnification over the frame
    blur_probability: float = 0.1  # D: 1 of 8; with binning 0.15
    blur: Range = (0.3, 1.2)  # sigma; D: 0.64
    binning_probability: float = 0.05
    overlays_probability: float = 0.1  # F, D: 1 of 8
    overlays: int = 3  # at most
    highest: Range = (27_000.0, 63_000.0)  # code of the brightest pixel of the pair; D


@dataclass(frozen=True)
class TemRecipe(Recipe):
    """Steps T1 to T12, a camera that records all pixels at once."""

    mtf_probability: float = 0.7
    mtf_in_target: bool = True  # D: no blur between target and image; else the target is what reaches the detector, and restoring sharpens
    mtf_a: Range = (0.2, 0.8)  # share of the wide part; these three also for noise_transfer
    mtf_b: Range = (0.05, 0.4)  # in units of the Nyquist frequency
    mtf_c: Range = (0.5, 2.0)
    noise_transfer_probability: float = 0.15
    dark_current_probability: float = 0.5
    dark_current: Range = (0.01, 10.0)  # log, electrons per pixel
    quadrants_probability: float = 0.2  # D: 1 of 8
    quadrant_gain: float = 0.005  # standard deviation
    quadrant_offset: Range = (0.0, 0.3)  # counts; D: 0 to 0.2
    quadrant_shift: int = 4  # of the split from the middle, at most; D: rows 130, columns 127 of 256
    gain_pattern_probability: float = 0.3
    gain_pattern: Range = (0.0, 0.02)
    bands_probability: float = 0.15  # D: 1 of 8
    bands: int = 6  # at most
    band_gain: Range = (-0.35, 0.3)  # D: gains 0.67 to 1.27
    band_width: Range = (1.0, 6.0)  # D: bands of 5 to 15 rows
    xray_hits_probability: float = 0.5  # D: 3 of 8


@dataclass(frozen=True)
class ScanRecipe(Recipe):
    """Steps S1 to S12, one pixel after the other; columns are the fast axis."""

    dose: Range = (0.5, 5000.0)  # log
    readout_probability: float = 0.5
    readout: Range = (0.02, 1.0)  # log
    hit_length: int = 2  # isolated, a scan has no sensor for tracks to cross
    dead_pixels_probability: float = 0.1
    dead_length: int = 2
    clipping_probability: float = 0.3
    clip_lower: Range = (0.0, 0.05)  # a detector offset set too low clips blacks
    probe_blur_probability: float = 1.0
    probe_blur: Range = (0.0, 1.5)  # sigma
    displacement_probability: float = 0.85  # no scan is exact, but fast and averaged ones nearly so; the median jitter is 0.3 to 0.4 pixel
    drift: float = 3.0  # pixels per frame, at most; not part of the shift between x and y
    jitter: Range = (0.05, 3.0)  # log, standard deviation; W: 0.75 to 1.25 px
    waves: int = 10  # sinusoids, at most
    vertical: Range = (0.3, 1.0)  # vertical over horizontal jitter
    row_constant_probability: float = 0.7  # of displacements that do not change within a row
    flyback: Range = (0.02, 0.3)  # share of a row's time
    dwell: Range = (0.5e-6, 50e-6)  # log, s
    interlacing_probability: float = 0.1
    interlacing: Range = (-2.0, 2.0)
    response_probability: float = 0.4
    response: Range = (0.1, 8.0)  # log, dwell times
    slow_share: Range = (0.0, 0.3)
    slow_lifetime: Range = (5.0, 30.0)  # log, times that of the fast part
    pmt_noise_probability: float = 1.0  # from none on
    pmt_noise: Range = (0.0, 0.8)
    row_offsets_probability: float = 0.5
    row_offsets: Range = (0.0, 0.3)
    row_correlation: Range = (0.0, 0.95)
    line_dropouts_probability: float = 0.2  # F
    line_dropouts: int = 6  # at most; F
    dropout_length: Range = (0.1, 1.0)  # of the width; F: 45 to 120 px
    dropout_level: Range = (0.0, 0.3)  # of the local value
    hum_probability: float = 0.1
    hum: Range = (0.0, 0.1)
    hot_pixels_probability: float = 0.1


@dataclass(frozen=True)
class SemRecipe(ScanRecipe):
    """Scans of secondary electrons, which slopes emit more of and which charge deflects."""

    eight_bit_probability: float = 0.4  # what most of these microscopes store
    edge_brightening_probability: float = 0.3
    edge_brightening: Range = (0.1, 1.0)
    charging_probability: float = 0.3
    charging: Range = (-0.3, 0.3)
    charging_lifetime: Range = (20.0, 200.0)  # log, dwell times
    intensity_drift_probability: float = 0.3
    intensity_drift: Range = (-0.2, 0.2)  # from the first row to the last


RECIPES: dict[str, Recipe] = {
    "hrtem": TemRecipe(dose=(1.0, 3000.0)),
    "lrtem": TemRecipe(),
    "hrstem": ScanRecipe(dose=(0.3, 2000.0), jitter=(0.05, 2.0)),
    "lrstem": ScanRecipe(),
    "hrsem": SemRecipe(jitter=(0.05, 2.0)),
    "lrsem": SemRecipe(),
}
