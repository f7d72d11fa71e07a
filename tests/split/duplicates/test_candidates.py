from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtool.split.duplicates import candidates as module
from medtool.split.duplicates.candidates import MOST_A_IMAGE, candidate_pairs
from medtool.split.duplicates.fingerprints import Fingerprints, fingerprints_of
from medtool.split.duplicates.links import Links
from medtool.split.duplicates.orientation import NAMES, inverse, turn
from tests.split.duplicates.conftest import BOTH, CROPPED, PLAIN, TURNED

CHANCE = np.random.default_rng(11)


def structured(seed, size=(96, 128)):
    """Return a picture with structure of all sizes, as pictures of nature have it."""
    chance = np.random.default_rng(seed)
    picture = np.zeros((*size, 3))
    for side in (2, 4, 8, 16, 32):
        noise = Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8))
        picture += np.asarray(noise.resize(size[::-1], Image.Resampling.BICUBIC), float) / np.sqrt(side)
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low) * 255).astype(np.uint8)


def fingerprints(folder, pictures, suffix=".png"):
    paths = [folder / f"{number:05}{suffix}" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return fingerprints_of(paths, cache=None, workers=1)


def pairs_of(found):
    return list(zip(found.first.tolist(), found.second.tolist(), strict=True))


def test_altered_copies_of_real_pictures_are_candidates(copies, copies_fingerprints):
    found = candidate_pairs(copies_fingerprints)
    pairs = set(pairs_of(found))
    first = {number: place for place, (number, name, _) in enumerate(copies) if name == "original"}
    for names, least in ((PLAIN, 1.0), (TURNED, 1.0), (CROPPED, 0.97), (BOTH, 0.94)):
        of_kind = [(first[number], place) for place, (number, name, _) in enumerate(copies) if name in names]
        assert np.mean([pair in pairs for pair in of_kind]) >= least, names
    assert {copies[one][0] == copies[other][0] for one, other in pairs} == {True}


def test_the_orientation_turns_the_second_into_the_first(copies, copies_fingerprints):
    names = {"mirrored": 1, "upside down": 2, "half turn": 3, "right": 5, "left": 6}
    names |= {"cropped and mirrored": 1, "cropped and right": 5} | dict.fromkeys(PLAIN + CROPPED, 0)
    found = candidate_pairs(copies_fingerprints)
    checked = 0
    for row, (one, other) in enumerate(pairs_of(found)):
        first, second = copies[one][1], copies[other][1]
        if first == "original":
            assert found.orientation[row] == inverse(names[second]), (first, second)
            checked += 1
    assert checked > 250


def test_what_is_cut_away_is_known_to_two_hundredths(tmp_path):
    whole = structured(1, (400, 600))
    cropped = [whole[20:, :], whole[: 400 - 36, 60:], whole[10 : 400 - 20, 30 : 600 - 12]]
    wanted = [(0.05, 0, 0, 0), (0, 0.09, 0.1, 0), (0.025, 0.05, 0.05, 0.02)]
    found = candidate_pairs(fingerprints(tmp_path, [whole, *cropped]))
    rows = zip(pairs_of(found), found.cut, found.is_second_larger, strict=True)
    cuts = {pair: (cut, larger) for pair, cut, larger in rows}
    for number, cut in enumerate(wanted, start=1):
        assert np.abs(cuts[0, number][0] - cut).max() <= 0.02
        assert not cuts[0, number][1]
    found = candidate_pairs(fingerprints(tmp_path, [cropped[1], np.ascontiguousarray(np.rot90(whole))]))
    assert pairs_of(found) == [(0, 1)]
    assert NAMES[int(found.orientation[0])] == "turned by 90° to the right"
    assert found.is_second_larger[0]
    assert np.abs(found.cut[0] - (0, 0.1, 0, 0.09)).max() <= 0.02


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_structured_picture_is_found_in_any_orientation(seed, orientation):
    from medtool.split.duplicates.fingerprint import encoded, spectrum_of

    picture = structured(seed)
    turned = np.ascontiguousarray(turn(picture, orientation))
    found = candidate_pairs(made_of([encoded(spectrum_of(one)[0]) for one in (picture, structured(seed + 1), turned)]))
    assert pairs_of(found) == [(0, 2)]
    assert found.orientation[0] == inverse(orientation)
    assert found.agreement[0] > 0.99


def made_of(spectra):
    """Return fingerprints with these spectra and nothing else in common."""
    made = Fingerprints.empty(len(spectra))
    for place, spectrum in enumerate(spectra):
        made.sha256[place] = f"{place:064x}"
        made.sizes[place] = 100 + place, 100
        made.spectra[place] = spectrum
    return made


def test_files_of_equal_bytes_are_a_chain(tmp_path):
    one, other = structured(1), structured(2)
    found = candidate_pairs(fingerprints(tmp_path, [one, other, one, one, other]))
    assert sorted(pairs_of(found)) == [(0, 2), (1, 4), (2, 3)]
    assert found.distance.tolist() == [0, 0, 0]
    assert found.agreement.tolist() == [1, 1, 1]


def test_files_that_cannot_be_read_and_files_of_several_pages_are_compared_by_bytes_alone():
    made = made_of([np.zeros((16, 16), np.int8)] * 5)
    made.sha256[0] = made.sha256[1] = ""
    made.sha256[3] = made.sha256[2]
    for place in (2, 3, 4):
        made.notes[place] = "3 pages, and one image is wanted"
    assert pairs_of(candidate_pairs(made)) == [(2, 3)]


def test_pictures_of_one_tone_are_compared_by_size_and_colour_alone(tmp_path):
    def plain(value, size=(50, 60)):
        return np.full((*size, 3), value, np.uint8)

    black = plain(0)
    black_with_a_speck = black.copy()
    black_with_a_speck[3, 4] = 1
    pictures = [black, plain(255), plain(0, (50, 61)), black_with_a_speck, plain(255)]
    paths = fingerprints(tmp_path, pictures)
    found = candidate_pairs(paths)
    assert sorted(pairs_of(found)) == [(0, 3), (1, 4)]
    assert "4 images of nearly one tone" in found.notes[0]


def test_no_images_and_one_image_have_no_candidates(tmp_path):
    assert len(candidate_pairs(Fingerprints.empty(0))) == 0
    assert len(candidate_pairs(Fingerprints.empty(3))) == 0
    assert len(candidate_pairs(fingerprints(tmp_path, [structured(1)]))) == 0


def test_pictures_that_have_nothing_in_common_are_no_candidates(tmp_path):
    assert len(candidate_pairs(fingerprints(tmp_path, [structured(seed, (64, 64)) for seed in range(300)]))) == 0


def test_a_picture_that_is_its_own_mirror_image_is_found_in_every_orientation(tmp_path):
    half = structured(4, (64, 64))
    picture = np.concatenate((half, half[:, ::-1]), axis=1)
    pictures = [picture, *(np.ascontiguousarray(turn(picture, orientation)) for orientation in range(1, 8))]
    found = candidate_pairs(fingerprints(tmp_path, pictures))
    links = Links()
    for pair in pairs_of(found):
        links.join(*pair)
    assert not any(links.join(0, other) for other in range(1, 8))


def test_of_thousands_of_copies_every_one_is_linked_by_few_pairs():
    from medtool.split.duplicates.fingerprint import encoded, spectrum_of

    chance = np.random.default_rng(0)
    spectrum = spectrum_of(structured(3))[0]
    noises = chance.normal(1, 0.1, (3000, 16, 16))
    noisy = [encoded(spectrum * noise) for noise in noises]
    others = [encoded(spectrum_of(structured(seed))[0]) for seed in range(50, 70)]
    made = made_of([*noisy, *others, *others])
    found = candidate_pairs(made)
    assert len(found) <= 3040 * MOST_A_IMAGE
    links = Links()
    for pair in pairs_of(found):
        links.join(*pair)
    assert not any(links.join(0, other) for other in range(1, 3000))
    assert {(3000 + number, 3020 + number) for number in range(20)} <= set(pairs_of(found))
    assert any("hash" in note for note in found.notes)


def test_where_too_many_look_alike_fewer_bits_may_differ_and_that_is_said(monkeypatch):
    from medtool.split.duplicates.fingerprint import encoded, spectrum_of

    monkeypatch.setattr(module, "_LEAST_ROWS", 100)
    monkeypatch.setattr(module, "_ROWS_PER_IMAGE", 1)
    spectrum = spectrum_of(structured(3))[0]
    made = made_of([encoded(spectrum * CHANCE.normal(1, 0.5, (16, 16))) for _ in range(60)])
    found = candidate_pairs(made)
    assert any("altered copies may be missed" in note for note in found.notes)


def test_look_alikes_leave_few_candidates(shared_data):
    paths = sorted((shared_data / "ham10000" / "images").glob("*.jpg"))[:500]
    found = candidate_pairs(fingerprints_of(paths, cache=None, workers=1))
    assert len(found) < 0.1 * len(paths)


def test_candidates_do_not_depend_on_the_order_of_the_images(copies, copies_fingerprints):
    count = 200
    order = CHANCE.permutation(count)
    names = [copies_fingerprints.sha256[place] for place in range(count)]
    straight, shuffled = part(copies_fingerprints, range(count)), part(copies_fingerprints, order)
    wanted = {frozenset((names[a], names[b])) for a, b in pairs_of(candidate_pairs(straight))}
    assert {frozenset((names[order[a]], names[order[b]])) for a, b in pairs_of(candidate_pairs(shuffled))} == wanted


def part(whole, places):
    made = Fingerprints.empty(len(places))
    for row, place in enumerate(places):
        made.sha256[row] = whole.sha256[place]
        for name in ("sizes", "spectra", "colours", "is_blank"):
            getattr(made, name)[row] = getattr(whole, name)[place]
    return made
