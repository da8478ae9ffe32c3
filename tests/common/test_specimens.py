"""Simulated specimens: the same seed gives the same pixels, parameters say what the pixels show, and the spectra are those of micrographs."""

import warnings

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from common.data import SimulatedImages
from common.specimens import SPECIMENS, simulate
from common.specimens.base import coverage, fit_kind, fractal_noise, gradient, log_uniform, normalise, polycrystal, power_law

SHAPES = [(64, 97), (97, 64), (64, 64), (160, 71)]
# family: a pixel size (nm) at which its structures can be seen, and the documented range of drawn ones
PIXELS = {
    "gold": (1.5, (0.4, 4)),
    "powder": (20, (1, 500)),
    "porous": (20, (2, 200)),
    "grains": (20, (1, 500)),
    "fibres": (20, (2, 200)),
    "chip": (5, (1, 50)),
    "section": (5, (1, 50)),
    "lattice": (0.012, (0.008, 0.03)),
    "crystal": (0.02, (0.005, 0.13)),
    "phase_contrast": (0.02, (0.015, 0.06)),
    "medley": (1, (0.2, 20)),
}


@pytest.fixture(params=SPECIMENS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pictures():
    """Twelve 128 x 128 specimens of each family."""
    return {name: [simulate(name, (7, k), (128, 128)) for k in range(12)] for name in SPECIMENS}


def spectral_slope(image, low, high, bins=14):
    """Exponent of the radially averaged power spectrum between two spatial frequencies (1/pixel), fitted on logarithmic axes."""
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])  # else the frame's edges leak a 1/f^2 of their own
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1]))
    edges = np.geomspace(low, high, bins + 1)
    rings = [power[(frequency >= a) & (frequency < b)].mean() for a, b in zip(edges, edges[1:], strict=False)]
    return np.polyfit(np.log(edges[:-1] * edges[1:]) / 2, np.log(rings), 1)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_small_and_odd_shapes(family, shape):
    for k in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = simulate(family, (3, k), shape).image
        assert image.shape == shape and image.dtype == np.float32
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
        assert image.std() > 0.02, "an almost uniform picture teaches nothing"


@pytest.mark.parametrize("seed", [5, (5, 6)])
def test_same_seed_same_pixels(family, seed):
    first = simulate(family, seed, (64, 97))
    np.random.default_rng(0).random(3), np.random.seed(1)  # neither other generators nor the global one matter
    second = SPECIMENS[family](seed, (64, 97))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.pixel_size == second.pixel_size
    assert first.parameters.keys() == second.parameters.keys()
    for key, value in first.parameters.items():
        np.testing.assert_array_equal(value, second.parameters[key], err_msg=key)


def test_other_seed_other_pixels(family):
    # (1, 0) would be 1 again: NumPy ignores the zeros that a seed ends with.
    images = [simulate(family, seed, (64, 97)).image for seed in (0, 1, (0, 1), (1, 2))]
    for k, image in enumerate(images):
        assert all(np.abs(image - other).mean() > 0.01 for other in images[:k])


def test_pixel_size_is_kept(family):
    given, (low, high) = PIXELS[family]
    specimen = simulate(family, 4, (64, 97), given)
    assert specimen.pixel_size == given and isinstance(specimen.pixel_size, float)
    drawn = [simulate(family, (4, k), (64, 64)).pixel_size for k in range(6)]
    assert all(low <= size <= high for size in drawn) and len(set(drawn)) == 6


def test_name_is_the_key(family, pictures):
    assert {specimen.name for specimen in pictures[family]} == {family}


def test_unknown_family():
    with pytest.raises(ValueError, match=r"unknown specimen 'dust'.*gold.*lattice"):
        simulate("dust", 0)


@pytest.mark.parametrize("shape", [(63, 200), (200, 16), (0, 64)])
def test_too_small(family, shape):
    with pytest.raises(ValueError, match="64"):
        simulate(family, 0, shape)


def test_spectra_fall_as_those_of_micrographs(family, pictures):
    slopes = [spectral_slope(specimen.image, 0.03, 0.35) for specimen in pictures[family]]
    steepest = -7 if family == "phase_contrast" else -4.5  # a lens passes nothing beyond its information limit
    assert steepest < np.median(slopes) < -1.3


# Gold


@pytest.fixture(scope="module")
def gold():
    """Finely sampled films whose gaps span several pixels."""
    films = [simulate("gold", (15, k), (256, 256), 0.4) for k in range(20)]
    return [film for film in films if len(film.parameters["radii"])]


def brightness_mask(specimen):
    """Where the film is brighter than Otsu's threshold."""
    return cv2.threshold(np.rint(cv2.GaussianBlur(specimen.image, (0, 0), 0.7) * 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)[1]


def test_gold_sizes(pictures, gold):
    for film in pictures["gold"] + gold:
        centres, radii = film.parameters["centres"], film.parameters["radii"]
        assert centres.shape == (len(radii), 2) and 5 <= film.parameters["median_diameter"] <= 120
        assert np.all(centres >= 0) and np.all(centres < np.array(film.image.shape) * film.pixel_size)
        # The discs are drawn within 5 to 150 nm; facets then change each island's area a little.
        assert np.all((2 * radii >= 3.9) & (2 * radii <= 170))
    # Only films of many islands have a median worth the name.
    medians = [2 * np.median(film.parameters["radii"]) for film in pictures["gold"] + gold if len(film.parameters["radii"]) > 10]
    assert len(medians) > 10 and min(medians) > 5 and max(medians) < 150


def test_gold_coverage(gold):
    for film in gold:
        assert abs(brightness_mask(film).mean() - film.parameters["coverage"]) < 0.05


def test_gold_islands_meet_only_where_recorded(gold):
    apart = together = 0
    for film in gold:
        _, labels = cv2.connectedComponents(brightness_mask(film), connectivity=4)
        row, column = np.rint(film.parameters["centres"] / film.pixel_size).astype(int).clip(0, 255).T
        bright = labels[row, column]
        shared = len(bright[bright > 0]) - len(np.unique(bright[bright > 0]))
        if film.parameters["touching"]:
            together += shared
        else:
            assert shared == 0
            assert np.mean(bright > 0) > 0.85  # a few islands are tilted into the dark
            apart += len(bright)
    assert apart > 100 and together > 0


def test_gold_areas_add_up(gold):
    # Islands that overlapped would count some of the area twice; those cut by the frame average out over the films.
    apart = [film for film in gold if len(film.parameters["radii"]) > 10]
    discs = [np.pi * np.sum(film.parameters["radii"] ** 2) / (256 * film.pixel_size) ** 2 for film in apart]
    assert abs(np.mean(discs) - np.mean([film.parameters["coverage"] for film in apart])) < 0.03


# Lattice


def centroid(image, position, reach):
    """Centre of brightness above the darkest pixel of the disc around a position, (row, column) in pixels."""
    row, column = np.rint(position).astype(int)
    y, x = np.mgrid[row - reach : row + reach + 1, column - reach : column + reach + 1]
    disc = (y - position[0]) ** 2 + (x - position[1]) ** 2 <= reach**2
    weight = np.where(disc, image[y, x] - image[y, x][disc].min(), 0).astype(float)
    return np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()


def test_lattice_columns_are_where_recorded():
    crystals = columns = 0
    for k in range(24):
        crystal = simulate("lattice", (6, k), (192, 192))
        details, positions = crystal.parameters, crystal.parameters["positions"] / crystal.pixel_size
        assert len(details["intensities"]) == len(positions) and details["intensities"].max() == 1 and details["intensities"].min() > 0
        if details["carbon_film"] > 0.05 or details["amorphous_layer"]:
            continue  # the speckle of amorphous matter displaces the brightness of faint columns
        width = max(details["column_width"] / crystal.pixel_size, 0.9)
        reach = max(int(2 * width), 2)
        isolated = cKDTree(positions).query(positions, 2)[0][:, 1] > 5 * width
        interior = np.all((positions > reach + 2) & (positions < 189 - reach), axis=1)
        chosen = positions[isolated & interior & (details["intensities"] > 0.4)]
        errors = [np.hypot(*(centroid(crystal.image, position, reach) - position)) for position in chosen]
        assert max(errors, default=0) < 0.3
        crystals, columns = crystals + bool(errors), columns + len(errors)
    assert crystals >= 5 and columns > 300


# Tools


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 4.0])
def test_fractal_noise_slope(exponent):
    noise = [fractal_noise(np.random.default_rng(k), (256, 320), exponent) for k in range(4)]
    assert abs(np.mean([spectral_slope(image, 0.04, 0.3) for image in noise]) + exponent) < 0.2
    for image in noise:
        assert image.shape == (256, 320) and image.dtype == np.float32
        assert abs(image.mean()) < 1e-4 and abs(image.std() - 1) < 1e-4


def test_fractal_noise_is_isotropic():
    noise = np.stack([fractal_noise(np.random.default_rng(k), (200, 200)) for k in range(4)])
    assert abs(np.diff(noise, axis=1).std() / np.diff(noise, axis=2).std() - 1) < 0.05


def test_fractal_noise_band():
    noise = fractal_noise(np.random.default_rng(0), (256, 256), 1.0, smallest=8, largest=32)
    power = np.abs(np.fft.fft2(noise * np.hanning(256)[:, None] * np.hanning(256))) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    margin = 2 / 256  # the window's own width
    outside = (frequency < 1 / 32 - margin) | (frequency > 1 / 8 + margin)
    assert power[outside].sum() < 0.01 * power.sum()


@pytest.mark.parametrize("softness", [1.0, 3.0])
@pytest.mark.parametrize("degrees", [0, 7, 20, 30])
@pytest.mark.parametrize("offset", [-10.0, 0.25, 0.5, 3.7])
def test_coverage_conserves_area(degrees, offset, softness):
    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32)
    angle = np.deg2rad(degrees)
    # Up to 30 degrees the edge crosses the left and the right side, so the area is the width times the mean height.
    signed = np.cos(angle) * (rows - 31.5 - offset) - np.sin(angle) * (columns - 31.5)
    inside = coverage(signed, softness)
    assert inside.dtype == np.float32 and inside.min() >= 0 and inside.max() <= 1
    assert inside.sum() == pytest.approx(64 * (32 + offset), rel=0.01)


def test_coverage_of_a_disc():
    rows, columns = np.mgrid[0:64, 0:64]
    for radius in (2.3, 7.0, 20.4):
        # A ramp one pixel wide around a circle adds its second moment, 1 / 12, to the squared radius.
        assert coverage(np.hypot(rows - 31.2, columns - 30.7) - radius).sum() == pytest.approx(np.pi * (radius**2 + 1 / 12), rel=0.005)


@pytest.mark.parametrize("scale, shift", [(1, 0), (1e-3, 5), (4e4, -1e4)])
def test_normalise(scale, shift):
    image = scale * np.random.default_rng(0).normal(size=(80, 90)) + shift
    plain = normalise(image)
    assert plain.dtype == np.float32 and plain.min() == 0 and plain.max() == 1
    for seed in range(5):
        exposed = normalise(image, np.random.default_rng(seed))
        assert 0 <= exposed.min() <= 0.15 and 0.75 <= exposed.max() <= 1
        order = np.argsort(image, axis=None)
        assert np.all(np.diff(exposed.ravel()[order]) >= 0), "exposure keeps the order of the grey levels"


def test_normalise_constant():
    assert np.all(normalise(np.full((8, 8), 3.0)) == 0)


def test_gradient_of_a_plane():
    rows, columns = np.mgrid[0:20, 0:30]
    dx, dy = gradient(0.25 * columns - 2 * rows)
    assert dx.dtype == np.float32
    np.testing.assert_allclose(dx[1:-1, 1:-1], 0.25, atol=1e-5)
    np.testing.assert_allclose(dy[1:-1, 1:-1], -2, atol=1e-5)


def test_random_sizes():
    rng = np.random.default_rng(0)
    sizes = log_uniform(rng, 2, 200, 20000)
    assert sizes.min() >= 2 and sizes.max() <= 200 and np.median(sizes) == pytest.approx(20, rel=0.05)
    sizes = power_law(rng, 2, 50, 1.5, 20000)
    share = (10**-1.5 - 50**-1.5) / (2**-1.5 - 50**-1.5)
    assert sizes.min() >= 2 and sizes.max() <= 50 and np.mean(sizes > 10) == pytest.approx(share, abs=0.01)


def test_polycrystal():
    grains = polycrystal(np.random.default_rng(0), (300, 300), 10.0)
    assert abs(grains.mean()) < 0.15 and 0.8 < grains.std() < 1.1
    levels, pixels = np.unique(grains, return_counts=True)
    # Grains are the levels that many pixels share; the others are mixtures along their borders. 30 x 30 grains of 10 x 10 pixels fill the frame.
    assert 700 < np.sum(pixels > 10) < 1000 and 0.6 < pixels[pixels > 10].sum() / grains.size < 0.95
    assert len(levels) > 2000


def test_fit_kind():
    kinds = {"dots": ((10, 100), (4, 40)), "walls": ((1000, 5000), (4, 40))}
    for seed in range(20):
        name, size = fit_kind(np.random.default_rng(seed), kinds, 50.0)
        low, high = kinds[name][0]
        assert name == "walls" and low <= size * 50 <= high and 4 <= size <= 40
    with pytest.raises(ValueError, match="resolved"):
        fit_kind(np.random.default_rng(0), kinds, 1e6)


# Training images


def test_simulated_images_do_not_depend_on_order():
    ahead, back = SimulatedImages(3, 16, (64, 97)), SimulatedImages(3, 9, (64, 97))
    assert len(ahead) == 16
    forward = [ahead[k] for k in range(9)]
    for k in (8, 2, 5, 0, 2):
        np.testing.assert_array_equal(back[k], forward[k])
    for image in forward:
        assert image.shape == (64, 97) and image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1


def test_simulated_images_take_turns():
    images = SimulatedImages(3, 16, (64, 64))
    assert [images.name(k) for k in (0, 7, 8)] == ["gold-0", "lattice-7", "gold-8"]
    assert not np.array_equal(images[0], images[8])
    assert not np.array_equal(images[0], SimulatedImages(4, 16, (64, 64))[0])
    for k in (-1, 16):
        with pytest.raises(IndexError):
            images[k]


def test_simulated_images_are_kept():
    images = SimulatedImages(3, 2, (64, 64))
    first = images[0]
    first[:] = 0  # what a caller does to its image does not reach the next caller
    assert images[0].std() > 0.02


def test_frame_that_shows_nothing_but_wall_is_finite():
    assert np.isfinite(simulate("porous", (5, 11), (64, 64)).image).all()
