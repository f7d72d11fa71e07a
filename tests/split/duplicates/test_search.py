from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtool.split.duplicates import search
from medtool.split.duplicates.links import Links
from medtool.split.duplicates.pairs import Kind
from medtool.split.duplicates.search import find_duplicates
from tests.split.duplicates.conftest import altered
from tests.split.duplicates.dying import ended_by_seven, nothing


def found_in(paths, **options):
    return find_duplicates(paths, cache=None, **{"workers": 1, **options})


def groups_of(pairs, names):
    links = Links()
    for pair in pairs:
        links.join(pair.first, pair.second)
    groups = {}
    for place, name in enumerate(names):
        groups.setdefault(links.top(place), set()).add(name)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


@pytest.fixture(scope="module")
def collection(shared_data, tmp_path_factory):
    """Return a folder with copies of each kind, and what belongs together in it."""
    folder = tmp_path_factory.mktemp("collection")
    originals = sorted((shared_data / "isic2017" / "images").glob("*.jpg"))[100:112]
    for number, path in enumerate(originals):
        shutil.copy(path, folder / f"{number:02}.jpg")
    groups = set()
    for name in ("copy 1", "copy 2", "copy 3"):
        shutil.copy(originals[0], folder / f"00 {name}.jpg")
    groups.add(frozenset(["00.jpg", "00 copy 1.jpg", "00 copy 2.jpg", "00 copy 3.jpg"]))
    with Image.open(originals[1]) as opened:
        picture = opened.convert("RGB")
    picture.save(folder / "01 pixels.png")
    picture.save(folder / "01 pixels.tif")
    groups.add(frozenset(["01.jpg", "01 pixels.png", "01 pixels.tif"]))
    with Image.open(originals[2]) as opened:
        picture = opened.convert("RGB")
    names = ["02.jpg"]
    for name, copy, quality in altered(picture, np.random.default_rng(0)):
        names.append(f"02 {name}.jpg")
        copy.save(folder / names[-1], quality=quality)
    groups.add(frozenset(names))
    for name, tone, suffix in (("a", 255, "png"), ("b", 255, "tif"), ("c", 0, "png"), ("d", 255, "bmp")):
        Image.fromarray(np.full((60, 80), tone, np.uint8)).save(folder / f"blank {name}.{suffix}")
    groups.add(frozenset(["blank a.png", "blank b.tif", "blank d.bmp"]))
    tifffile.imwrite(folder / "pages.tif", np.zeros((3, 50, 60), np.uint8), photometric="minisblack")
    shutil.copy(folder / "pages.tif", folder / "pages again.tif")
    groups.add(frozenset(["pages.tif", "pages again.tif"]))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    return sorted(folder.iterdir()), groups


@pytest.fixture(scope="module")
def found(collection):
    return found_in(collection[0])


def kinds_in(found, paths, stem):
    return sorted(pair.kind for pair in found.pairs if paths[pair.first].name.startswith(stem))


def test_everything_that_belongs_together_is_linked_and_nothing_else(collection, found):
    paths, groups = collection
    assert groups_of(found.pairs, [path.name for path in paths]) == groups


def test_equal_files_and_equal_pixels_come_as_chains_of_their_kind(collection, found):
    paths, _ = collection
    assert kinds_in(found, paths, "00") == [Kind.BYTES] * 3
    assert kinds_in(found, paths, "01") == [Kind.PIXELS] * 2
    # To compress a file again as it was compressed before changes no pixel.
    assert set(kinds_in(found, paths, "02")) <= {Kind.NEAR, Kind.PIXELS}
    assert len(kinds_in(found, paths, "02")) == 16
    assert kinds_in(found, paths, "blank") == [Kind.PIXELS] * 2
    assert kinds_in(found, paths, "pages") == [Kind.BYTES]


def test_pairs_are_ordered_and_say_what_was_done(found):
    places = [(pair.first, pair.second) for pair in found.pairs]
    assert places == sorted(set(places))
    assert all(first < second for first, second in places)
    for pair in found.pairs:
        assert 0.95 <= pair.similarity <= 1
        assert (pair.alteration == "") == (pair.kind is not Kind.NEAR)
    assert any("mirrored" in pair.alteration for pair in found.pairs)
    assert any("cropped to" in pair.alteration for pair in found.pairs)


def test_an_unreadable_file_is_a_problem_and_files_of_several_pages_are_a_note(collection, found):
    paths, _ = collection
    assert [paths[place].name for place in found.problems] == ["broken.jpg"]
    assert "2 files hold several pages or volumes: only their bytes were compared" in found.notes


def test_several_workers_find_the_same(collection, found):
    again = found_in(collection[0], workers=2)
    assert again.pairs == found.pairs
    assert (again.problems, again.notes) == (found.problems, found.notes)


def test_another_order_links_the_same_images(collection):
    paths, groups = collection
    shuffled = [paths[place] for place in np.random.default_rng(1).permutation(len(paths))]
    assert groups_of(found_in(shuffled).pairs, [path.name for path in shuffled]) == groups


def test_images_that_are_not_there_keep_their_places(collection):
    paths, _ = collection
    wanted = [path for path in paths if path.name.startswith("00")][:2]
    found = found_in([None, wanted[0], None, wanted[1]])
    assert [(pair.first, pair.second, pair.kind) for pair in found.pairs] == [(1, 3, Kind.BYTES)]
    assert found.problems == {}
    assert found_in([]).pairs == found_in([None]).pairs == ()


def test_a_path_that_comes_twice_is_a_copy_of_itself(collection):
    path = collection[0][0]
    assert [pair.kind for pair in found_in([path, path]).pairs] == [Kind.BYTES]


def test_many_copies_of_one_picture_take_few_comparisons(collection, monkeypatch):
    paths = [path for path in collection[0] if path.name.startswith("02")]
    compared = []
    verify = search.verify
    monkeypatch.setattr(search, "verify", lambda *args, **options: compared.append(1) or verify(*args, **options))
    found = found_in(paths)
    assert len(found.pairs) == len(paths) - 1
    assert len(compared) < 2 * len(paths)


def test_look_alikes_are_compared_and_not_reported(shared_data):
    names = (
        "0012735",
        "0012177",
        "0012681",
        "0013248",
        "0013687",
        "0011083",
        "0009929",
        "0010444",
        "0010356",
        "0009889",
    )
    assert found_in([shared_data / "isic2017" / "images" / f"ISIC_{name}.jpg" for name in names]).pairs == ()


def test_a_file_that_vanishes_after_its_fingerprint_is_a_problem(collection, tmp_path, monkeypatch):
    paths = [Path(shutil.copy(path, tmp_path)) for path in collection[0] if path.name in ("02.jpg", "02 mirrored.jpg")]
    candidate_pairs = search.candidate_pairs

    def removing(fingerprints):
        paths[0].unlink()
        return candidate_pairs(fingerprints)

    monkeypatch.setattr(search, "candidate_pairs", removing)
    found = found_in(paths)
    assert found.pairs == ()
    assert list(found.problems) == [0]
    assert "no such file" in found.problems[0]


def test_the_progress_counts_every_image_and_every_comparison(collection):
    counted = {}

    @contextlib.contextmanager
    def steps(total, label):
        counted[label] = [total, 0]

        class Bar:
            def advance(self, label=""):
                counted[name][1] += 1

        name = label
        yield Bar()

    found_in(collection[0], steps=steps)
    assert all(total == done for total, done in counted.values())
    assert "Likely duplicates" in counted


def test_an_item_that_ends_its_worker_costs_no_other_its_answer():
    crew = search._Crew(2, None, search._unseen)
    answers = dict(crew.answers(ended_by_seven, range(6, 26), setup=nothing, label="x"))
    assert isinstance(answers.pop(7), search.WorkerDiedError)
    assert answers == {item: str(item) for item in range(6, 26) if item != 7}
