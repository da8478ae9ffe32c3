"""Stitching of simulated scans whose places are known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from common.specimens import simulate
from paper_ssum_cyclegan import stitching as st


def chip(seed, shape, blur=2.5):
    """An optical look: blurred, contrast inverted, in [0, 1]."""
    image = 1 - gaussian_filter(simulate("chip", seed, shape).image, blur)
    return (image - image.min()) / np.ptp(image)


def texture(seed, shape):
    image = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    return np.float32((image - image.min()) / np.ptp(image))


def scan(picture, grid, side, seed, step=0.7, error=4.0, noise=0.03, vignetting=0.2):
    """Frames, nominal and true places: sub-pixel cuts with shading that falls by `vignetting` to the corners."""
    rng = np.random.default_rng(seed)
    nominal = np.array([(r, c) for r in range(grid[0]) for c in range(grid[1])], float) * int(side * step) + 25
    true = nominal + rng.normal(0, error, nominal.shape)
    y, x = np.mgrid[:side, :side]
    shading = 1 - vignetting * ((2 * y / side - 1) ** 2 + (2 * x / side - 1) ** 2) / 2
    cuts = [map_coordinates(picture, [y + t[0], x + t[1]], order=3, mode="mirror") for t in true]
    return [np.float32(cut * shading + noise * rng.standard_normal(cut.shape)) for cut in cuts], nominal, true


def frame_of(grid, side, step=0.7):
    return tuple((n - 1) * int(side * step) + side + 50 for n in grid)


def misfit(mosaic, true):
    error = mosaic.places - true
    return np.linalg.norm(error - error.mean(0), axis=1)


def test_correlation_surface_equals_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 12)) + 5, rng.normal(size=(7, 8)) - 3
    surface, area = st.correlation_surface(a, b)
    assert surface.shape == area.shape == (15, 19)
    for r, c in ((0, 0), (2, 3), (-3, 5), (4, -2), (-4, -4)):
        one = a[max(r, 0) : min(r + 7, 9), max(c, 0) : min(c + 8, 12)]
        two = b[max(-r, 0) : max(-r, 0) + one.shape[0], max(-c, 0) : max(-c, 0) + one.shape[1]]
        assert area[6 + r, 7 + c] == one.size
        assert surface[6 + r, 7 + c] == pytest.approx(np.corrcoef(one.ravel(), two.ravel())[0, 1], abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "seed", "grid", "side"), [(texture, 0, (4, 4), 96), (chip, 6, (3, 5), 160), (chip, 5, (4, 4), 128), (chip, 4, (4, 4), 96), (chip, 0, (3, 5), 96)]
)
def test_layouts_are_recovered(kind, seed, grid, side):
    frames, nominal, true = scan(kind(seed, frame_of(grid, side)), grid, side, seed)
    mosaic = st.stitch(frames, nominal)
    error = misfit(mosaic, true)
    assert np.sqrt((error**2).mean()) < 0.15 and error.max() < 0.3, (np.sqrt((error**2).mean()), error.max())
    assert not mosaic.alone


def test_a_grating_is_right_or_reported():
    """Parallel lines tell the direction across them only, and that only to a period."""
    rows, columns = np.mgrid[:420, :420]
    lines = np.float32(0.5 + 0.4 * np.sin(2 * np.pi * columns / 9 + 0 * rows))
    frames, nominal, true = scan(lines, (3, 3), 128, 0)
    mosaic = st.stitch(frames, nominal)
    assert not any(link.accepted for link in mosaic.links)
    assert {link.reason for link in mosaic.links} <= {"ambiguous", "low correlation"}
    assert len(mosaic.alone) >= len(frames) - 1
    assert np.abs(mosaic.places - mosaic.places[0] - nominal + nominal[0]).max() < 0.01


def test_a_repeating_chip_is_right_or_reported():
    """A grating on the left, wiring on the right: what is not reported as placed by the stage is right."""
    picture = chip(6, (420, 420))
    picture[:, :260] = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(260) / 9)
    frames, nominal, true = scan(picture, (3, 4), 128, 2)
    mosaic = st.stitch(frames, nominal)
    sure = [k for k in range(len(frames)) if k not in mosaic.alone]
    error = mosaic.places[sure] - true[sure]
    assert 3 <= len(sure) < len(frames)
    assert np.linalg.norm(error - error.mean(0), axis=1).max() < 0.3


def wires(shift):
    """Two frames, (120, 120), of vertical wires: the second lies `shift` pixels to the right."""
    profile = np.zeros(300, np.float32)
    profile[np.random.default_rng(3).uniform(0, 300, 60).astype(int)] = 1
    frames = [np.tile(gaussian_filter(profile, 2.0)[at : at + 120], (120, 1)) for at in (20, 20 + shift)]
    return [frame + 0.002 * np.random.default_rng(k).standard_normal(frame.shape) for k, frame in enumerate(frames)]


def test_wires_along_one_direction_tell_the_other():
    mosaic = st.stitch(wires(83), np.array([[0, 0], [5, 78]]))
    assert mosaic.links[0].accepted and mosaic.alone == (1,)
    values, vectors = np.linalg.eigh(mosaic.links[0].precision)
    assert values[0] < 1e-9 * values[1] and abs(vectors[1, 1]) == pytest.approx(1, abs=1e-3)
    assert mosaic.places[1] - mosaic.places[0] == pytest.approx([5, 83], abs=0.2)  # along the wires the stage's word


def test_wires_farther_off_than_the_search_reaches_are_told():
    """Along the one direction that they tell, the best place is the last one that was looked at: no place at all."""
    (link,) = st.stitch(wires(95), np.array([[0, 0], [5, 78]])).links
    assert not link.accepted and link.reason == "at the limit of the search"


def test_a_wrong_link_is_found_by_the_loops_it_breaks():
    rng, side = np.random.default_rng(1), 4
    nominal = np.array([(r, c) for r in range(side) for c in range(side)], float) * 80
    true = nominal + rng.normal(0, 4, nominal.shape)
    links = []
    for i, j in st.overlapping(nominal, (100, 100)):
        if np.abs(nominal[i] - nominal[j]).min() == 0:
            links.append(st.Link(i, j, true[j] - true[i] + rng.normal(0, 0.1, 2), 0.9, 1000 * np.eye(2)))
    planted = next(k for k, link in enumerate(links) if (link.first, link.second) == (5, 6))
    links[planted] = replace(links[planted], shift=links[planted].shift + [0, 9])
    kept, places = st.consistent(links, nominal)
    assert [k for k, link in enumerate(kept) if not link.accepted] == [planted]
    error = places - true
    assert np.abs(error - error.mean(0)).max() < 0.3


def test_a_frame_that_shows_nothing_stays_beside_its_neighbours_and_is_reported():
    frames, nominal, true = scan(texture(2, frame_of((3, 3), 96)), (3, 3), 96, 2)
    frames[2] = 0.4 + 0.03 * np.random.default_rng(9).standard_normal((96, 96))
    mosaic = st.stitch(frames, nominal)
    assert mosaic.alone == (2,)
    others = [k for k in range(9) if k != 2]
    error = mosaic.places[others] - true[others]
    assert np.linalg.norm(error - error.mean(0), axis=1).max() < 0.3
    neighbours = [1, 4, 5]
    assert mosaic.places[2] - mosaic.places[neighbours].mean(0) == pytest.approx(nominal[2] - nominal[neighbours].mean(0), abs=0.05)


def test_mosaic_shows_the_picture_and_fades_between_frames():
    picture = texture(4, frame_of((2, 3), 96))
    frames, nominal, true = scan(picture, (2, 3), 96, 4, noise=0.0, vignetting=0.0)
    mosaic = st.stitch(frames, nominal)
    assert mosaic.image.dtype == mosaic.weight.dtype == np.float32
    y, x = np.indices(mosaic.image.shape) + (true - mosaic.places).mean(0)[:, None, None]
    covered = cv2.erode(np.uint8(mosaic.weight > 0), np.ones((9, 9)), borderValue=0) > 0
    assert np.abs(mosaic.image - map_coordinates(picture, [y, x], order=3))[covered].max() < 0.02
    image, weight, places = st.blend([np.zeros((20, 30)), np.ones((20, 30))], np.array([[0, 0], [0, 20]]), np.ones(2))
    ramp = image[10, 20:30]
    np.testing.assert_allclose(ramp, np.arange(1, 11) / 11, atol=1e-6)
    image, weight, _ = st.blend([np.full((8, 8), 2.0)] * 2, np.array([[0, 0], [10.25, 10.0]]), np.ones(2))
    assert (image == 2).all() and (weight[:8, 8:] == 0).all() and weight[10, 12] == 0  # a row that the shifted frame does not reach


def test_gains_make_overlaps_equal():
    frames, nominal, true = scan(texture(5, frame_of((2, 3), 96)), (2, 3), 96, 5, error=0.0, noise=0.0, vignetting=0.2)
    gains = np.array([1.0, 1.3, 0.8, 1.1, 0.9, 1.0])
    found = st.equal_gains([g * frame for g, frame in zip(gains, frames, strict=True)], true)
    assert found * gains == pytest.approx(np.full(6, np.exp(np.log(gains).mean())), rel=0.03)
    bright = [np.float32(g * frame) for g, frame in zip(gains, frames, strict=True)]
    whole, even, uneven = (st.stitch(part, nominal, equalise=flag).image for part, flag in ((frames, False), (bright, True), (bright, False)))
    assert np.std(even / whole) < 0.2 * np.std(uneven / whole)
    with pytest.raises(ValueError, match="not positive"):
        st.equal_gains([frame - 5 for frame in frames], true)


def test_one_frame_is_its_own_mosaic():
    frame = texture(0, (64, 80))
    mosaic = st.stitch([frame], [[5, 3]])
    np.testing.assert_allclose(mosaic.image, frame, atol=1e-6)
    assert mosaic.places.tolist() == [[0, 0]] and mosaic.links == mosaic.alone == ()


@pytest.mark.parametrize(
    ("frames", "places", "message"),
    [
        ([], np.zeros((0, 2)), "one shape"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], np.zeros((2, 2)), "one shape"),
        ([np.zeros((8, 8))], np.zeros((2, 2)), "finite places"),
        ([np.zeros((8, 8))], [[np.nan, 0]], "finite places"),
        ([np.full((8, 8), np.nan)], np.zeros((1, 2)), "not finite"),
    ],
)
def test_bad_input_is_refused(frames, places, message):
    with pytest.raises(ValueError, match=message):
        st.stitch(frames, places)
