"""Generic crystals, phase contrast and medleys: contracts, band limit, columns where recorded, and the transfer function against its closed form."""

import warnings

import numpy as np
import pytest
from scipy.spatial import cKDTree

from common.specimens.base import band_limit, finish, lobes
from common.specimens.crystal import FAULTS, OUTLINES, arrange, crystal, draw_columns, generic_cell, in_frame, outline
from common.specimens.medley import HABITS, SHARES, medley
from common.specimens.phase import Optics, aberration, envelope, exit_wave, expose_wave, interaction, phase_contrast, wavelength

FAMILIES = {"crystal": (crystal, (0.005, 0.13)), "phase_contrast": (phase_contrast, (0.015, 0.06)), "medley": (medley, (0.2, 20))}
SHAPES = [(64, 97), (97, 64), (64, 64), (160, 71), (64, 331)]
STATES = [  # as the book's examples: Scherzer and beyond, over and under, corrected and not
    Optics(200, -61.0, 1.0, 4.0, 0.2, np.inf),
    Optics(300, -40.0, 1.2, 3.0, 0.1, np.inf),
    Optics(300, 35.0, 0.001, 2.0, 0.3, np.inf),
    Optics(80, -8.0, -0.01, 1.5, 0.5, 7.0),
]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pictures():
    """Twenty 128 x 128 specimens of each family."""
    return {name: [draw((7, k), (128, 128)) for k in range(20)] for name, (draw, _) in FAMILIES.items()}


@pytest.fixture(scope="module")
def plain():
    """Crystals without strain, boundaries, film and outline, their columns well apart."""
    found = []
    for k in range(600):
        specimen = crystal((8, k), (128, 128))
        p = specimen.parameters
        bare = p["outline"] == "full" and p["fault"] == "none" and not (p["strain"] or p["overlay_columns"] or p["film"])
        if bare and p["column_width"] < 0.24 * p["spacing"]:
            found.append(specimen)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_small_and_odd_shapes(family, shape):
    for k in range(6):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            specimen = FAMILIES[family][0]((3, k), shape)
        image = specimen.image
        assert image.shape == shape and image.dtype == np.float32 and specimen.name == family
        assert np.isfinite(image).all() and image.min() == 0 and image.max() == 1
        assert image.std() > 0.02, "an almost uniform picture teaches nothing"


def test_same_seed_same_pixels(family):
    draw = FAMILIES[family][0]
    for seed in (5, (5, 6), (5, 7)):
        first = draw(seed, (64, 97))
        np.random.default_rng(0).random(3), np.random.seed(1)  # neither other generators nor the global one matter
        second = draw(seed, (64, 97))
        np.testing.assert_array_equal(first.image, second.image)
        assert first.pixel_size == second.pixel_size and first.parameters.keys() == second.parameters.keys()
        for key, value in first.parameters.items():
            np.testing.assert_array_equal(value, second.parameters[key], err_msg=key)
    images = [draw(seed, (64, 97)).image for seed in (0, 1, (0, 1), (1, 2))]
    assert all(np.abs(a - b).mean() > 0.01 for k, a in enumerate(images) for b in images[:k])


def test_pixel_size_is_kept(family):
    draw, (low, high) = FAMILIES[family]
    for given in (0.02, 0.5):
        specimen = draw(4, (64, 97), given)
        assert specimen.pixel_size == given and isinstance(specimen.pixel_size, float)
    drawn = [draw((4, k), (64, 64)).pixel_size for k in range(8)]
    assert all(low <= size <= high for size in drawn) and len(set(drawn)) == 8


def power_above(image, limit):
    """Share of the spectral power, without the mean, at more than `limit` cycles per pixel."""
    window = np.outer(*(np.blackman(n) for n in image.shape))
    image = image.astype(float)
    power = np.abs(np.fft.fft2((image - (image * window).sum() / window.sum()) * window)) ** 2
    return power[np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])) > limit].sum() / power.sum()


def test_band_limit(pictures, family):
    """0.9 of Nyquist, and 3 / 128 for the window's own width."""
    shares = [power_above(specimen.image, 0.45 + 3 / 128) for specimen in pictures[family]]
    assert max(shares) < 1e-7


def test_band_limit_keeps_what_it_passes():
    rows, columns = np.mgrid[0:128, 0:96]
    centre = (rows - 0.5) / 2, (columns - 0.5) / 2  # where the fine pixels lie on the coarse grid
    fine = np.exp(-((centre[0] - 30.2) ** 2 + (centre[1] - 20.7) ** 2) / (2 * 3.0**2))
    rows, columns = np.mgrid[0:64, 0:48]
    np.testing.assert_allclose(band_limit(fine, (64, 48)), np.exp(-((rows - 30.2) ** 2 + (columns - 20.7) ** 2) / (2 * 3.0**2)), atol=2e-4)
    stripes = np.cos(2 * np.pi * 0.48 * np.arange(64)) * np.ones((64, 1))
    assert np.abs(band_limit(stripes, (64, 64))[:, 8:-8]).max() < 0.1
    assert np.all(finish(np.full((64, 70), 3.0)) == 0)


def test_parameters_lie_on_the_picture(pictures):
    for specimen in pictures["crystal"] + pictures["phase_contrast"]:
        positions, peaks = specimen.parameters["positions"] / specimen.pixel_size, specimen.parameters["intensities"]
        assert positions.shape == (len(peaks), 2) and np.all((positions > -0.5) & (positions < 127.5))
        assert np.all((peaks >= 0) & (peaks <= 1))


# Crystal


def peak_near(image, position):
    """Position (row, column) of the local maximum nearest to a position, to a fraction of a pixel by a parabola along each axis."""
    row, column = np.rint(position).astype(int)
    for _ in range(3):
        patch = image[row - 1 : row + 2, column - 1 : column + 2]
        step = np.array(np.unravel_index(patch.argmax(), (3, 3))) - 1
        row, column = row + step[0], column + step[1]
    patch = image[row - 1 : row + 2, column - 1 : column + 2].astype(float)
    bend = [(line[0] - line[2]) / (2 * (line[0] - 2 * line[1] + line[2])) for line in (patch[:, 1], patch[1])]
    return np.array([row, column]) + bend


def test_columns_are_where_recorded(plain):
    columns = 0
    for specimen in plain:
        p = specimen.parameters
        positions = p["positions"] / specimen.pixel_size
        image = -specimen.image if p["dark"] else specimen.image
        chosen = (p["intensities"] > 0.4) & np.all((positions > 6) & (positions < 121), axis=1)
        errors = [np.hypot(*(peak_near(image, position) - position)) for position in positions[chosen]]
        assert max(errors, default=0) < 0.3
        columns += len(errors)
    assert len(plain) >= 15 and columns > 1000


def test_vacancies_are_absent(plain):
    listed = 0
    for specimen in plain:
        positions, empty = specimen.parameters["positions"], specimen.parameters["vacancies"]
        if len(empty):
            assert cKDTree(positions).query(empty)[0].min() > 0.7 * specimen.parameters["spacing"]
            listed += len(empty)
    assert listed > 5
    for seed in range(6):
        rng = np.random.default_rng(seed)
        cell = generic_cell(rng, 8.0, 14.0)
        cell = cell._replace(places=cell.places[:1], weights=np.ones(1), spacing=8.0)
        found = arrange(rng, (128, 128), cell, "none", strain=0.02, vacancies=0.03, margin=8)
        image = draw_columns((128, 128), found.positions, found.peaks, 1.5)
        full, empty = (points[in_frame(points, (128, 128))] for points in (found.positions, found.vacancies))
        levels = [image[tuple(np.rint(points).astype(int).T)] for points in (full, empty)]
        assert len(empty) and levels[0].min() > 0.8 and levels[1].max() < 0.15


def test_crystals_vary():
    several = [crystal((9, k), (128, 128)).parameters for k in range(80)]
    assert {p["outline"] for p in several} == {"full", *OUTLINES}
    assert {p["fault"] for p in several} == set(FAULTS)
    assert 10 < sum(p["dark"] for p in several) < 40 and sum(p["overlay_columns"] > 0 for p in several) > 4
    assert max(p["strain"] for p in several) <= 0.03 and max(p["vacancy_rate"] for p in several) <= 0.03


@pytest.mark.parametrize("fault", FAULTS)
def test_cells_as_large_as_the_frame(fault):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found = arrange(rng, (64, 64), generic_cell(rng, 39, 40), fault)
        assert found.note["fault"] == fault and len(found.positions) == len(found.peaks) and np.isfinite(found.positions).all()


def test_generic_cell():
    cells = [generic_cell(np.random.default_rng(k)) for k in range(200)]
    lengths = np.array([np.linalg.norm(cell.vectors, axis=1) for cell in cells])
    assert lengths.min() >= 5 - 1e-9 and lengths.max() <= 40 + 1e-9 and min(cell.spacing for cell in cells) >= 3.2
    angles = [np.degrees(np.arccos(cell.vectors[0] @ cell.vectors[1] / np.prod(np.linalg.norm(cell.vectors, axis=1)))) for cell in cells]
    assert min(angles) > 59.9 and max(angles) < 120.1 and sum(abs(a - 90) < 1e-6 for a in angles) > 25
    assert {len(cell.places) for cell in cells} == {1, 2, 3, 4}


@pytest.mark.parametrize("sigma", [0.6, 0.99, 1.4, 4.0])
def test_a_column_is_a_gaussian(sigma):
    image = draw_columns((64, 65), np.array([[30.3, 31.6]]), np.array([1.0]), sigma)
    assert image.sum() == pytest.approx(2 * np.pi * sigma**2, rel=0.01)
    y, x = np.mgrid[0:64, 0:65]
    assert (image * y).sum() / image.sum() == pytest.approx(30.3, abs=0.02) and (image * x).sum() / image.sum() == pytest.approx(31.6, abs=0.02)
    if sigma > 1.2:  # a smaller one is widened by the low-pass
        np.testing.assert_allclose(image, np.exp(-((y - 30.3) ** 2 + (x - 31.6) ** 2) / (2 * sigma**2)), atol=0.02)
    tailed = draw_columns((64, 65), np.array([[30.3, 31.6]]), np.array([1.0]), sigma, tail=0.3, reach=2 * sigma)
    assert tailed.sum() == pytest.approx(image.sum(), rel=0.01) and tailed.max() < image.max() and tailed[0, 0] > image[0, 0]


@pytest.mark.parametrize("kind", [*OUTLINES, "full"])
def test_outlines(kind):
    for seed in range(5):
        distance, thickness = outline(np.random.default_rng(seed), (80, 96), kind)
        assert distance.shape == thickness.shape == (80, 96) and distance.dtype == thickness.dtype == np.float32
        assert thickness.min() >= 0 and thickness.max() <= 1 and np.all(thickness[distance >= 0] == 0)
        assert np.any(distance < 0) and (kind == "full" or np.any(distance > 0))


def test_lobes():
    for seed in range(5):
        field = lobes(np.random.default_rng(seed), (70, 90))
        assert field.shape == (70, 90) and field.min() == 0 and field.max() == pytest.approx(1) and np.abs(np.diff(field)).max() < 0.2


# Phase contrast


def test_electrons():
    """Wavelengths and interaction constants of the usual tables (Kirkland; Reimer and Kohl)."""
    for kv, nm, sigma in ((80, 4.1757e-3, 1.0087e-2), (100, 3.7014e-3, 9.2440e-3), (200, 2.5079e-3, 7.2884e-3), (300, 1.9687e-3, 6.5262e-3)):
        assert wavelength(kv) == pytest.approx(nm, rel=2e-4) and interaction(kv) == pytest.approx(sigma, rel=5e-4)


@pytest.mark.parametrize("optics", STATES)
def test_transfer_of_a_weak_phase(optics):
    """One Fourier component p cos(2 pi g x) of a weak phase object gives the contrast 2 p sin(chi) E cos(2 pi g x)."""
    pixel_size, count, weak = 0.03, 256, 1e-3
    x, lam = np.arange(count) * pixel_size, wavelength(optics.kv)
    seen = []
    for waves in (3, 8, 14, 22, 31, 40, 55):
        g = waves / (count * pixel_size)
        wave = exit_wave([np.ones((32, 1)) * weak * np.cos(2 * np.pi * g * x)], pixel_size, optics.kv)
        intensity = expose_wave(wave, pixel_size, optics).astype(float)
        contrast = 2 * np.mean((intensity - 1) * np.cos(2 * np.pi * g * x))
        cs = optics.cs * 1e6  # nm
        chi = np.pi * lam * optics.defocus * g**2 + np.pi / 2 * cs * lam**3 * g**4
        damping = np.exp(-((np.pi * lam * optics.focal_spread * g**2) ** 2) / 2)
        damping *= np.exp(-((np.pi * optics.convergence * 1e-3 * (optics.defocus * g + cs * lam**2 * g**3)) ** 2))
        damping *= g <= optics.aperture
        assert aberration(g, optics) == pytest.approx(chi) and envelope(g, optics) == pytest.approx(damping)
        assert contrast == pytest.approx(2 * weak * np.sin(chi) * damping, abs=6e-6)
        seen.append(abs(contrast))
    assert max(seen) > weak  # the comparison is not of zeros


def test_atoms_are_dark_at_scherzer():
    optics = Optics(200, -1.2 * np.sqrt(1e6 * wavelength(200)), 1.0, 3.0, 0.1, np.inf)
    y, x = np.mgrid[0:128, 0:128]
    atom = 0.2 * np.exp(-((y - 64) ** 2 + (x - 64) ** 2) / (2 * 2.0**2))
    image = expose_wave(exit_wave([atom], 0.03, 200), 0.03, optics)
    assert np.unravel_index(image.argmin(), image.shape) == (64, 64) and image.min() < 0.95
    assert image.mean() == pytest.approx(1, abs=2e-3)  # the lens moves electrons, it does not stop them, but for the envelopes


def test_slices():
    rng = np.random.default_rng(0)
    phase = rng.normal(0, 0.3, (64, 80))
    one = exit_wave([phase], 0.03, 200)
    np.testing.assert_allclose(exit_wave([phase / 2, phase / 2], 0.03, 200, thickness=0.0), one, atol=1e-5)
    thick = exit_wave([phase / 2, phase / 2], 0.03, 200, thickness=5.0)
    assert np.abs(thick - one).max() > 0.02 and np.mean(np.abs(thick) ** 2) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(np.abs(exit_wave([phase], 0.03, 200, absorption=0.1)), np.exp(-0.1 * phase), rtol=1e-4)


def test_phase_contrast_varies(pictures):
    several = [specimen.parameters for specimen in pictures["phase_contrast"]]
    assert {p["layout"] for p in several} == {"full", "outline", "particles"} and {p["slices"] for p in several} == {1, 2}
    assert all(-100 <= p["defocus"] <= 100 for p in several) and min(p["defocus"] for p in several) < 0 < max(p["defocus"] for p in several)
    assert all(p["range"][0] >= -0.05 and p["range"][1] > p["range"][0] for p in several)
    assert all(p["range"][1] - p["range"][0] > 0.01 for p in several), "rounding errors must not be what a stretched picture shows"
    assert sum("generic" == p["structure"] for p in several) not in (0, 20)


# Medley


def test_medleys_vary():
    several = [medley((9, k), (64, 64)).parameters for k in range(250)]
    for name, share in SHARES.items():
        assert abs(np.mean([name in p["components"] for p in several]) - share) < 0.1
    assert {p["habit"] for p in several if "habit" in p} == set(HABITS)
    assert {p["mask"] for p in several} == {"none", *OUTLINES} and 10 < sum(p["inset_radius"] > 0 for p in several) < 45
    for p in several:
        assert len(p["weights"]) == len(p["components"]) > 0
        if "radii" in p:
            assert p["centres"].shape == (len(p["radii"]), 2) and 1 <= len(p["radii"]) <= 80
