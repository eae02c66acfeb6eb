"""Pictures of the images that flip most: the right ones, small, and only where the data block allows it."""

from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import CODE, Synthetic, as_an_older_version_collected, make_params, write_study
from tests.report.drafts import draft_of

from twinrun.collect.collect import collect
from twinrun.collect.pictures import LARGEST, flipping_places, pictures
from twinrun.collect.study import load_study
from twinrun.report.build import analyze
from twinrun.report.page import write_report
from twinrun.report.sections.hidden import SECTION, figures, read_pictures
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.layout import Layout
from twinrun.study.params import Params

SPEC = Synthetic(tasks=("digits",), seeds=(0, 42), n_test=50, epochs=1, spread=0.4)


def study(root: Path, *, show: bool) -> tuple[Params, Layout]:
    _, layout = write_study(root, SPEC)
    images = np.zeros((100 + SPEC.n_test, 3, 8, 8), np.uint8)
    images += np.arange(len(images), dtype=np.uint8)[:, None, None, None]
    np.save(layout.prepared("digits") / "images.npy", images)
    content = make_params(SPEC).model_dump(by_alias=True)
    content["tasks"]["digits"]["show_images"] = show
    return Params.model_validate(content), layout


def test_the_sheet_shows_the_images_of_the_table(tmp_path: Path) -> None:
    params, layout = study(tmp_path, show=True)
    collect(params, layout, code_digest=CODE)
    found = load_study(layout.collected)
    draft = draft_of(found, SECTION)
    places, images = read_pictures(found, "digits")
    assert places == draft.frame("flips")["place"].tolist()
    assert images[:, 0, 0, 0].tolist() == [100 + place for place in places]  # the training images come first
    assert "pictures_digits" in [figure.name for figure in figures(draft)]
    analyze(layout.collected, layout.analysis)
    page = write_report(layout.analysis, layout.collected, layout.report).read_text()
    assert 'id="figure-pictures_digits"' in page


def test_no_picture_without_leave(tmp_path: Path) -> None:
    params, layout = study(tmp_path, show=False)
    collect(params, layout, code_digest=CODE)
    assert not (layout.collected / "digits/flipping.npy").exists()
    found = load_study(layout.collected)
    assert read_pictures(found, "digits") is None
    assert not any("pictures" in figure.name for figure in figures(draft_of(found, SECTION)))


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    params, layout = study(tmp_path, show=True)
    collect(params, layout, code_digest=CODE)
    as_an_older_version_collected(layout.collected)
    np.save(layout.collected / "digits/flipping.npy", np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(MismatchError, match=r"flipping\.npy: not the 10 pictures"):
        analyze(layout.collected, layout.analysis)
    assert not layout.analysis.exists()


def test_missing_and_foreign_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.npy: no such file"):
        pictures(tmp_path / "images.npy", 0, [1])
    np.save(tmp_path / "images.npy", np.zeros((3, 1, 8, 8), np.uint8))
    with pytest.raises(MismatchError, match="not the packed images"):
        pictures(tmp_path / "images.npy", 2, [1])
    (tmp_path / "images.npy").write_bytes(b"cut")
    with pytest.raises(MismatchError, match="not a whole numpy array"):
        pictures(tmp_path / "images.npy", 2, [1])


def test_large_images_are_made_smaller(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 300, 300), dtype=np.uint8)
    np.save(tmp_path / "images.npy", image)
    small = pictures(tmp_path / "images.npy", 1, [0])
    assert small.shape == (1, 3, 100, 100)
    assert max(small.shape[2:]) <= LARGEST
    assert small[0, 1, 2, 3] == np.rint(image[1, 1, 6:9, 9:12].mean())
    assert pictures(tmp_path / "images.npy", 2, []).shape[0] == 0
    with pytest.raises(MismatchError, match="not the packed images"):
        pictures(tmp_path / "images.npy", 3, [])


def test_what_flips_is_counted_within_cells() -> None:
    classes = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]])
    probabilities = np.eye(2, dtype=np.float32)[classes]
    assert flipping_places(probabilities, [[0, 1], [2, 3]]) == [1, 2]
    assert flipping_places(probabilities, [[0, 1], [2, 3]], most=1) == [1]
    assert flipping_places(probabilities, [[0]]) == []
