"""Gap statistics against shapes whose widths, neighbours and counts are known without measuring."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import ncx2

from paper_sem_gan.gaps import (
    Gaps,
    Measured,
    Particles,
    candidate_gaps,
    compare_particles,
    false_gaps,
    joined,
    measure,
    neighbours,
    particles,
    profiles,
    statistics,
)

PIXEL = 7.1
SHAPE = (72, 80)


def pair(distance, angle=0.0, radius=4.0, middle=(35.3, 39.6)):
    """A list of one gap between two particles `distance` pixels apart."""
    half = 0.5 * distance * np.array([[np.sin(angle), np.cos(angle)]])
    return Gaps(np.array([middle]) - half, np.array([middle]) + half, np.full((1, 2), radius), np.array([(distance - 2 * radius) * PIXEL]))


def twin_gaussians(gap, sigma, second=1.0):
    y, x = np.indices(SHAPE)
    return sum(a * np.exp(-((y - c[0]) ** 2 + (x - c[1]) ** 2) / (2 * sigma**2)) for a, c in ((1.0, gap.first[0]), (second, gap.second[0])))


def blurred_discs(centres, radii, sigma, shape=SHAPE):
    """Discs of grey level 1 convolved with a Gaussian: the chance that a normal variate about the pixel lies in the disc, a non-central chi-squared one."""
    y, x = np.indices(shape)
    return sum(ncx2.cdf((r / sigma) ** 2, 2, ((y - c[0]) ** 2 + (x - c[1]) ** 2) / sigma**2) for c, r in zip(centres, radii, strict=True))


def crossings(profile, distance, level):
    """Distance between the crossings of a smooth profile, symmetric about distance / 2 or not."""
    low = distance * 0.5
    return brentq(lambda x: profile(x) - level, low, distance) - brentq(lambda x: profile(x) - level, 0, low)


# --- The two rules ---


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, 1.3, 2.5, 4.0])
@pytest.mark.parametrize(("distance", "sigma"), [(11.0, 3.0), (14.7, 3.0), (9.3, 2.0)])
def test_twin_gaussians_at_any_angle(angle, distance, sigma):
    gap = pair(distance, angle)
    found = measure(twin_gaussians(gap, sigma), gap, PIXEL)

    def profile(x):
        return np.exp(-(x**2) / (2 * sigma**2)) + np.exp(-((x - distance) ** 2) / (2 * sigma**2))

    level = 0.8 * profile(np.linspace(0, distance, 4001)).max()
    assert found.exists.all()
    assert found.width_nm[0] / PIXEL == pytest.approx(crossings(profile, distance, level), abs=0.1)
    assert found.excess[0] == pytest.approx(found.width_nm[0] - (distance - 8) * PIXEL)


def test_gap_appears_at_sixty_percent():
    sigma = 3.0
    border = brentq(lambda d: 2 * np.exp(-((d / 2) ** 2) / (2 * sigma**2)) / (1 + np.exp(-(d**2) / (2 * sigma**2))) - 0.6, 6, 14)
    for offset, expected in ((-0.03, False), (0.03, True)):
        gap = pair(border + offset, 0.7)
        found = measure(twin_gaussians(gap, sigma), gap, PIXEL)
        assert found.exists[0] == expected and np.isnan(found.width_nm[0]) != expected


def test_dim_neighbours():
    gap = pair(15.0, 0.3)
    sigma = 3.0
    # A neighbour at 90 % is measured against the brighter one.
    found = measure(twin_gaussians(gap, sigma, 0.9), gap, PIXEL)

    def profile(x):
        return np.exp(-(x**2) / (2 * sigma**2)) + 0.9 * np.exp(-((x - 15) ** 2) / (2 * sigma**2))

    assert found.width_nm[0] / PIXEL == pytest.approx(crossings(profile, 15.0, 0.8 * profile(np.linspace(0, 15, 4001)).max()), abs=0.1)
    # One at 70 % makes a gap without a width; one at 30 % none, unless the larger peak counts.
    found = measure(twin_gaussians(gap, sigma, 0.7), gap, PIXEL)
    assert found.exists[0] and np.isnan(found.width_nm[0]) and np.isnan(found.excess[0])
    near = pair(11.0)
    dim = twin_gaussians(near, sigma, 0.3)
    assert not measure(dim, near, PIXEL).exists[0] and measure(dim, near, PIXEL, peak="larger").exists[0]
    with pytest.raises(ValueError, match="'smaller' or 'larger'"):
        measure(dim, near, PIXEL, peak="mean")


@pytest.mark.parametrize("angle", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("opening", "sigma"), [(5.0, 1.0), (3.5, 0.8), (8.2, 1.5)])
def test_flat_discs_behind_a_known_probe(angle, opening, sigma):
    radius = 12.0
    gap = pair(2 * radius + opening, angle, radius)
    image = blurred_discs([gap.first[0], gap.second[0]], (radius, radius), sigma)

    def profile(x):
        lines = [(x**2 + off**2, (x - 2 * radius - opening) ** 2 + off**2) for off in (-1, 0, 1)]
        return np.mean([sum(ncx2.cdf((radius / sigma) ** 2, 2, d / sigma**2) for d in line) for line in lines])

    found = measure(image, gap, PIXEL)
    assert found.exists[0] and found.width_nm[0] / PIXEL == pytest.approx(crossings(profile, 2 * radius + opening, 0.8), abs=0.1)


def test_dark_top_of_a_bright_rimmed_particle_is_no_gap():
    y, x = np.indices(SHAPE)
    gap = pair(26.0, 0.0, 13.0)
    discs = [np.hypot(y - c[0], x - c[1]) for c in (gap.first[0], gap.second[0])]
    image = sum((d < 13) * (0.5 + 0.5 * (d > 10)) for d in discs)
    assert not measure(np.minimum(image, 1), gap, PIXEL).exists[0]


def test_noise_does_not_hide_or_bias_gaps():
    rng = np.random.default_rng(0)
    found, clean = [], []
    for _ in range(60):
        gap = pair(28.0, rng.uniform(0, 6.28), 12.0, (36, 40) + rng.uniform(-0.5, 0.5, 2))
        image = blurred_discs([gap.first[0], gap.second[0]], (12, 12), 1.2)
        clean.append(measure(image, gap, PIXEL).width_nm[0])
        found.append(measure(image + rng.normal(0, 0.04, SHAPE), gap, PIXEL))
    found = joined(found)
    assert found.exists.all()
    # The brightest of many noisy samples raises the 80 % level a little, so widths grow, by less than half a pixel.
    assert 0 < np.mean(found.width_nm - clean) / PIXEL < 0.5
    assert np.std(found.width_nm - clean) / PIXEL < 0.5


def test_background_is_subtracted_only_when_asked():
    gap = pair(15.0)
    image = twin_gaussians(gap, 2.0)
    plain, lifted = measure(image, gap, PIXEL), measure(image + 2, gap, PIXEL)
    assert plain.exists[0] and not lifted.exists[0]
    assert measure(image + 2, gap, PIXEL, background=True).width_nm[0] == pytest.approx(plain.width_nm[0], abs=0.2)


def test_profile_is_the_mean_of_three_lines():
    y, x = np.indices(SHAPE).astype(float)
    gap = pair(20.0, 0.5)
    profile = profiles(3 + 0.1 * y - 0.02 * x, gap)[0]
    line = gap.first[0] + 0.25 * np.arange(81)[:, None] * np.array([np.sin(0.5), np.cos(0.5)])
    np.testing.assert_allclose(profile, 3 + 0.1 * line[:, 0] - 0.02 * line[:, 1], atol=1e-6)
    across = np.cos(0.5) * (y - gap.first[0, 0]) - np.sin(0.5) * (x - gap.first[0, 1])
    np.testing.assert_allclose(profiles(across**2, gap)[0], 2 / 3, atol=1e-3)  # mean of 1, 0, 1


# --- Where the gaps are ---


def test_delaunay_by_hand():
    found = Particles(np.array([[0, 0], [0, 20], [20, 0], [20, 20], [10, 10]], float), np.array([3, 3, 3, 3, 2.0]))
    np.testing.assert_array_equal(neighbours(found), [[0, 1], [0, 2], [0, 4], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]])
    gaps = candidate_gaps(found, PIXEL)
    sides, spokes = 14 * PIXEL, (10 * np.sqrt(2) - 5) * PIXEL
    np.testing.assert_allclose(gaps.edge, [sides, sides, spokes, sides, spokes, sides, spokes, spokes])
    assert len(candidate_gaps(found, PIXEL, furthest=90)) == 4


def test_a_third_particle_between_two_parts_them():
    centres = np.array([[0, 0], [0, 30], [3, 15], [-100, 15]], float)
    apart = neighbours(Particles(centres, np.array([5, 5, 1.0, 5])))
    assert [0, 1] in apart.tolist()
    parted = neighbours(Particles(centres, np.array([5, 5, 5.0, 5])))
    assert [0, 1] not in parted.tolist() and {(0, 2), (1, 2)} <= {tuple(p) for p in parted.tolist()}


def test_few_or_collinear_particles():
    assert neighbours(Particles(np.zeros((0, 2)), np.zeros(0))).shape == (0, 2)
    assert neighbours(Particles(np.zeros((1, 2)), np.ones(1))).shape == (0, 2)
    np.testing.assert_array_equal(neighbours(Particles(np.array([[0, 20.0], [0, 0], [0, 10]]), np.ones(3))), [[1, 2], [0, 2]])
    assert len(measure(np.zeros(SHAPE), candidate_gaps(Particles(np.zeros((0, 2)), np.zeros(0)), PIXEL), PIXEL).exists) == 0


def test_detection_of_discs():
    rng = np.random.default_rng(0)
    grid = 40.0 * np.stack(np.meshgrid(np.arange(6), np.arange(7), indexing="ij"), -1).reshape(-1, 2) + 22
    centres, radii = grid + rng.uniform(-3, 3, grid.shape), rng.uniform(4, 14, len(grid))
    image = 0.2 + 0.6 * blurred_discs(centres, radii, 1.0, (250, 290)) + rng.normal(0, 0.03, (250, 290))
    found = particles(image, PIXEL)
    assert len(found.radii) == len(radii)
    nearest = np.hypot(*(found.centres[:, None] - centres[None]).transpose(2, 0, 1)).argmin(1)
    np.testing.assert_allclose(found.centres, centres[nearest], atol=0.2)
    np.testing.assert_allclose(found.radii, radii[nearest], rtol=0.04)


def test_detection_parts_touching_discs_and_leaves_out_specks():
    image = blurred_discs([(30, 25), (30, 49), (60, 60)], (12, 12, 1.6), 0.7)
    found = particles(image, PIXEL, smallest=25)
    assert sorted(np.round(found.centres[:, 1]).astype(int)) == [25, 49]
    assert len(particles(image, PIXEL, smallest=5).radii) == 3
    assert len(particles(np.ones(SHAPE), PIXEL).radii) == 0


# --- What is made of them ---


def made(widths, edge=0.0):
    widths = np.array(widths, float)
    return Measured(~np.isnan(widths), widths, widths - edge)


def test_statistics_by_hand():
    nan = np.nan
    reference = made([20, 30, 40, 50, nan])
    upsampled = made([nan, 36, 42, nan, 60])
    output = made([23, 29, 41, nan, nan])
    found = {"input": statistics(upsampled, reference), "output": statistics(output, reference), "reference": statistics(reference, reference)}
    assert found["input"]["undetected"]["value"] == 0.5 and found["output"]["undetected"]["value"] == 0.25 and found["reference"]["undetected"]["value"] == 0
    assert found["input"]["undetected"]["n"] == 4
    assert found["input"]["difference"]["value"] == 4 and found["input"]["bias"]["value"] == 4
    assert found["output"]["difference"]["value"] == pytest.approx(5 / 3) and found["output"]["bias"]["value"] == 1
    assert found["input"]["gaussian"] == {"mean": 39, "sigma": 3}
    assert found["reference"]["gaussian"]["mean"] == 35
    low, high = found["output"]["difference"]["interval"]
    assert 1 <= low < 5 / 3 < high <= 3


def test_intervals_of_very_many_gaps_are_the_normal_ones():
    widths = np.random.default_rng(0).normal(30, 6, 60_000)
    low, high = statistics(made(widths), made(np.full(60_000, 30.0)))["bias"]["interval"]
    assert low < (widths - 30).mean() < high and (high - low) / 2 == pytest.approx(1.96 * 6 / np.sqrt(60_000), rel=0.1)


def test_statistics_of_nothing():
    found = statistics(made([]), made([]))
    assert found["undetected"] == {"n": 0} and found["gaussian"] == {}


def test_intervals_resample_fields():
    """Gaps that agree within a field and differ between fields are as many observations as there are fields."""
    offsets = np.random.default_rng(1).normal(0, 5, 40)
    fields = np.repeat(np.arange(40), 500)
    low, high = statistics(made(30 + offsets[fields]), made(np.full(20_000, 30.0)), fields)["bias"]["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * offsets.std() / np.sqrt(40), rel=0.1)


def test_widths_that_were_not_measurable_do_not_count():
    dim = Measured(np.array([True, True]), np.array([np.nan, 30]), np.array([np.nan, 0]))
    found = statistics(dim, made([20, 27]))
    assert found["undetected"]["value"] == 0 and found["difference"] == {"value": 3, "interval": (3, 3), "n": 1}


def test_false_gaps_are_counted_at_touching_pairs_only():
    gap = pair(10.0)
    gaps = Gaps(*(np.repeat(x, 4, axis=0) for x in (gap.first, gap.second, gap.radii)), np.array([-5.0, 0.0, 3.0, 40.0]))
    found = false_gaps(made([12, np.nan, 12, 12]), gaps)
    assert found["value"] == 0.5 and found["n"] == 2
    assert false_gaps(made([12]), replace(gap, edge=np.array([5.0]))) == {"n": 0}


def test_invented_and_lost_particles():
    reference = Particles(np.array([[10, 10], [10, 40], [40, 10], [40, 40]], float), np.array([8, 8, 8, 2.0]))
    output = Particles(np.array([[10, 6], [10, 14], [9, 41], [40, 11], [70, 70]], float), np.array([4, 4, 8, 8, 3.0]))
    assert compare_particles(output, reference) == {"hallucinated": (1, 5), "lost": (1, 4)}  # the split one is neither
    assert compare_particles(reference, reference) == {"hallucinated": (0, 4), "lost": (0, 4)}
    nothing = Particles(np.zeros((0, 2)), np.zeros(0))
    assert compare_particles(nothing, reference) == {"hallucinated": (0, 0), "lost": (4, 4)}
    assert compare_particles(reference, nothing) == {"hallucinated": (4, 4), "lost": (0, 0)}
