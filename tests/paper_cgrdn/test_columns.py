"""Columns are found where they are, as precisely as the electrons allow; failed fits say so; lattices in noise and filled vacancies are seen."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import curve_fit

from paper_cgrdn.columns import adf_crystal, fit_columns, intensity_precision, precision, radial_spectrum_peaks, vacancy_contrast

RADIUS = 5.0


def crystal(**changes):
    return adf_crystal((256, 256), **{"spacing": 18.0, "sigma": 2.0, **changes})


def bell(places, row, column, sigma, volume, background):
    """The model as its equation says, at places (2, m)."""
    square = (places[0] - row) ** 2 + (places[1] - column) ** 2
    return background + volume / (2 * np.pi * sigma**2) * np.exp(-square / (2 * sigma**2))


def window(shape, centre, radius=RADIUS):
    rows, columns = np.indices(shape)
    near = np.hypot(rows - centre[0], columns - centre[1]) <= radius
    return np.stack([rows[near], columns[near]]), near


def bounds(found, sigma, background, dose):
    """Variances (2, n, 5) of row, column, sigma, volume, background: Cramer-Rao under Poisson noise, and of unweighted least squares to first order."""
    both = []
    for place, volume in zip(found.positions, found.intensities, strict=True):
        places = window(found.image.shape, place)[0]
        true = np.array([*place, sigma, volume, background])
        shifts = np.diag(1e-4 * np.maximum(true, 1.0))
        jacobian = np.stack([(bell(places, *(true + s)) - bell(places, *(true - s))) / (2 * s.max()) for s in shifts], 1)
        mean = bell(places, *true)
        fisher = dose * (jacobian / mean[:, None]).T @ jacobian
        inverse = np.linalg.inv(jacobian.T @ jacobian)
        both.append([np.diag(np.linalg.inv(fisher)), np.diag(inverse @ (jacobian * mean[:, None]).T @ jacobian @ inverse) / dose])
    return np.array(both).transpose(1, 0, 2)


def test_the_crystal():
    found = crystal(vacancy=(120, 131))
    assert found.image.dtype == np.float32 and found.image.mean() == pytest.approx(crystal().image.mean() - 345.6 / 256**2, rel=1e-4)
    assert crystal().image.mean() == pytest.approx(1.0, abs=0.01)
    assert len(found.positions) == len(crystal().positions) - 1 > 100
    assert found.positions.min() >= 18 and found.positions.max() <= 255 - 18
    assert np.hypot(*(found.positions - found.vacancy).T).min() == pytest.approx(18)
    np.testing.assert_allclose(np.hypot(*(found.beside - found.vacancy).T), 18 * np.sqrt(2))
    assert found.image[tuple(np.rint(found.vacancy).astype(int))] == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(found.intensities[found.species == 1] * 2, found.intensities[found.species == 0][0])
    assert np.std(found.positions % 1) > 0.2
    for place, volume in zip(found.positions[:20], found.intensities[:20], strict=True):
        near = window(found.image.shape, place, 8.9)[1]
        assert (found.image[near] - 0.2).sum() == pytest.approx(volume, rel=2e-3)
    with pytest.raises(ValueError, match="no column"):
        adf_crystal((20, 20), 18, 2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(256, 256), (150, 200)])
def test_clean_columns_are_recovered(shape, shared):
    found = adf_crystal(shape, 18, 2.0)
    starts = found.positions + np.random.default_rng(0).normal(0, 0.5, found.positions.shape)
    fitted = fit_columns(found.image, starts, RADIUS, shared)
    assert not fitted.failed.any()
    assert np.abs(fitted.positions - found.positions).max() < 1e-5
    np.testing.assert_allclose(fitted.intensities, found.intensities, rtol=1e-5)
    np.testing.assert_allclose(fitted.sigma, 2.0, rtol=1e-5)
    moved = fit_columns(700.0 * found.image - 3e4, starts, RADIUS, shared)
    np.testing.assert_allclose(moved.positions, fitted.positions, atol=1e-4)
    np.testing.assert_allclose(moved.intensities, 700 * fitted.intensities, rtol=1e-4)


@pytest.mark.parametrize(("distance", "position", "intensity"), [(12.0, 0.005, 0.007), (11.0, 0.005, 0.04), (14.0, 1e-5, 2e-4)])
def test_what_neighbours_add(distance, position, intensity):
    found = crystal(spacing=distance)
    fitted = fit_columns(found.image, found.positions, RADIUS)
    assert np.abs(fitted.positions - found.positions).max() < position
    assert intensity / 5 < np.abs(fitted.intensities / found.intensities - 1).max() < intensity


@pytest.mark.parametrize("background", [0.05, 0.9])
def test_near_the_cramer_rao_bound(background):
    found, dose, rng = crystal(background=background, ratio=0.8), 400.0, np.random.default_rng(3)
    draws = [fit_columns(rng.poisson(dose * found.image) / dose, found.positions, RADIUS) for _ in range(60)]
    positions, volumes = np.array([draw.positions for draw in draws]), np.array([draw.intensities for draw in draws])
    measured = precision(positions, found.positions)
    bound, squares = bounds(found, 2.0, background, dose)
    assert measured["failed"] == 0
    for name, index in (("row", 0), ("column", 1)):
        assert measured[name]["std"] ** 2 == pytest.approx(squares[:, index].mean(), rel=0.06)
        assert 0.97 < measured[name]["std"] ** 2 / bound[:, index].mean() < (1.2 if background == 0.9 else 16 / 9)
        assert measured[name]["bias_rms"] == pytest.approx(measured[name]["bias_floor"], rel=0.2)
    weighed = intensity_precision(volumes, found.intensities)
    assert weighed["std"] ** 2 == pytest.approx((squares[:, 3] / found.intensities**2).mean(), rel=0.1)
    assert abs(weighed["bias_mean"]) < 0.01


def test_against_curve_fit():
    found = crystal()
    image = np.random.default_rng(5).poisson(20.0 * found.image) / 20.0
    fitted = fit_columns(image, found.positions, RADIUS)
    for k in range(0, len(found.positions), 15):
        places, near = window(image.shape, found.positions[k])
        expected = curve_fit(bell, places, image[near], [*found.positions[k], 2.0, found.intensities[k], 0.2], xtol=1e-12)[0]
        np.testing.assert_allclose(fitted.positions[k], expected[:2], atol=1e-4)
        assert fitted.sigma[k] == pytest.approx(expected[2], rel=1e-3)
        assert fitted.intensities[k] == pytest.approx(expected[3], rel=1e-3)


def test_one_width_is_steadier():
    found, rng = crystal(), np.random.default_rng(6)
    noisy = [rng.poisson(4.0 * found.image) / 4.0 for _ in range(8)]
    spread = [intensity_precision(np.array([fit_columns(n, found.positions, RADIUS, s).intensities for n in noisy]), found.intensities) for s in (False, True)]
    assert spread[1]["std"] < spread[0]["std"] / 2
    assert np.ptp(fit_columns(noisy[0], found.positions, RADIUS, True).sigma) < 1e-12


def test_failed_fits_are_flagged():
    found = crystal(vacancy=(120, 131))
    image = found.image.copy()
    broken = np.argmin(np.hypot(*(found.positions - [60, 60]).T))
    image[tuple(np.rint(found.positions[broken]).astype(int))] = np.nan
    bad = [found.vacancy, found.positions[0] + [4.5, 0], [-40.0, 3.0], [np.nan, 3.0], [1e6, 1e6]]
    for shared in (False, True):
        fitted = fit_columns(image, np.vstack([found.positions[1:], bad]), RADIUS, shared)
        assert fitted.failed[broken - 1] and fitted.failed[-5:].all() and fitted.failed.sum() == 6
        for values in (fitted.positions[:, 0], fitted.positions[:, 1], fitted.intensities, fitted.sigma):
            np.testing.assert_array_equal(np.isnan(values), fitted.failed)
    close = fit_columns(found.image, np.vstack([found.positions[5], found.positions[5] + [2.0, 0]]), RADIUS)
    np.testing.assert_array_equal(close.failed, [False, True])  # two starts, one column: the second moved more than half the spacing
    hot = found.image.copy()
    hot[tuple(np.rint(found.positions[7]).astype(int))] += 300
    np.testing.assert_array_equal(np.flatnonzero(fit_columns(hot, found.positions, RADIUS).failed), [7])
    assert fit_columns(np.ones((40, 40)), [[20, 20]], RADIUS, True).failed.all()
    assert fit_columns(np.full((40, 40), np.nan), [[20, 20]], RADIUS).failed.all()
    assert fit_columns(np.ones((40, 40)), np.zeros((0, 2)), RADIUS, True).positions.shape == (0, 2)
    assert fit_columns(np.random.default_rng(0).normal(size=(256, 256)), found.positions, RADIUS).failed.mean() > 0.5


def test_precision_by_hand():
    truth = np.array([[10.0, 20.0], [30.0, 40.0]])
    errors = np.array([[[1.0, 0.0], [-1.0, 2.0]], [[3.0, 0.0], [-1.0, 2.0]]])  # draws, columns, axes
    measured = precision(truth + errors, truth)
    numbers = ("bias_mean", "bias_rms", "bias_floor", "std", "rmse", "rmse_relative")
    assert measured["row"] == pytest.approx(dict(zip(numbers, (0.5, np.sqrt(2.5), np.sqrt(0.5), 1.0, np.sqrt(3.0), np.sqrt(2.75)), strict=True)))
    assert measured["column"] == pytest.approx(dict(zip(numbers, (1.0, np.sqrt(2.0), 0.0, 0.0, np.sqrt(2.0), 1.0), strict=True)))
    assert measured["overall"] == pytest.approx({k: np.hypot(measured["row"][k], measured["column"][k]) for k in measured["row"]})
    assert measured["failed"] == 0
    in_pm = precision(truth + errors, truth, pixel_size=0.02)
    assert in_pm["row"] == pytest.approx({k: 20 * v for k, v in measured["row"].items()})


def test_precision_with_failed_fits():
    truth, nan = np.zeros((3, 2)), [np.nan, np.nan]
    estimates = np.array([[[1.0, 1.0], nan, [5.0, 5.0]], [[3.0, 1.0], nan, nan], [nan, nan, nan]])
    measured = precision(estimates, truth)
    assert measured["failed"] == pytest.approx(6 / 9)
    assert measured["row"] == pytest.approx({"bias_mean": 2.0, "bias_rms": 2.0, "bias_floor": 1.0, "std": np.sqrt(2), "rmse": np.sqrt(5), "rmse_relative": 1.0})
    assert np.isnan(precision(estimates[2:], truth)["overall"]["std"])


def test_intensity_precision_by_hand():
    measured = intensity_precision(np.array([[11.0, 180.0], [13.0, np.nan], [12.0, 220.0]]), np.array([10.0, 200.0]))
    wanted = {"bias_mean": 0.1, "bias_rms": np.sqrt(0.02), "bias_floor": np.sqrt((0.01 / 3 + 0.02 / 2) / 2), "std": np.sqrt(0.015), "failed": 1 / 6}
    assert {key: measured[key] for key in wanted} == pytest.approx(wanted)
    assert measured["rmse"] == pytest.approx(np.sqrt(((0.01 + 0.09 + 0.04) / 3 + 0.01) / 2))


@pytest.mark.parametrize(("shape", "blur"), [((128, 128), 0.0), ((140, 128), 1.0), ((128, 128), 2.0), ((256, 256), 0.0)])
def test_noise_has_no_peaks(shape, blur):
    rng = np.random.default_rng(8)
    found = [radial_spectrum_peaks(gaussian_filter(rng.normal(100, 1, shape), blur)) for _ in range(20)]
    ratios, side = np.array([f["ratio"] for f in found]), min(shape)
    assert found[0]["expected"] == pytest.approx(np.log(np.pi * (side / 2) ** 2 / 2) + 0.577, abs=0.1)
    assert abs(ratios.mean() - found[0]["expected"]) < 2
    assert ratios.max() < 22


def test_lattices_have_peaks():
    noise, found = np.random.default_rng(9).normal(size=(256, 256)), crystal(spacing=14.0)
    lattice = (found.image - found.image.mean()) / found.image.std()
    for share, least in ((1.0, 1000), (0.2, 40)):
        peak = radial_spectrum_peaks(noise + share * lattice)
        assert peak["ratio"] > least
        turned = 1 / 14 / np.sqrt(2) * np.array([1, np.sqrt(2)])  # the chequerboard's first two orders
        assert np.abs(np.hypot(*peak["frequency"]) - turned).min() < 1 / 256
    assert radial_spectrum_peaks(found.image)["ratio"] > 1e4
    assert radial_spectrum_peaks(np.full((64, 64), 0.1, np.float32))["ratio"] == 0


def test_vacancy_contrast():
    empty, full = crystal(vacancy=(120, 131)), crystal()
    assert vacancy_contrast(empty.image, empty.vacancy, empty.beside, RADIUS) == pytest.approx(0, abs=1e-3)
    assert vacancy_contrast(full.image, empty.vacancy, empty.beside, RADIUS) == pytest.approx(1, abs=1e-3)
    half = 40 * (0.5 * empty.image + 0.5 * full.image) + 7
    assert vacancy_contrast(half, empty.vacancy, empty.beside, RADIUS) == pytest.approx(0.5, abs=1e-3)
    rng = np.random.default_rng(10)
    noisy = [vacancy_contrast(rng.poisson(3.0 * empty.image), empty.vacancy, empty.beside, RADIUS) for _ in range(40)]
    assert abs(np.mean(noisy)) < 0.03
    assert np.isnan(vacancy_contrast(np.ones((256, 256)), empty.vacancy, empty.beside, RADIUS))
