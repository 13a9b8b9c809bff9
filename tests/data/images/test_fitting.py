"""Images become squares with their aspect kept; training crops come from all of an image, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from stochnorm.data import ImageStore, Preprocessing, Row, Split
from stochnorm.data.images.augmentation import Augmentation, draw_crops
from stochnorm.data.images.batches import cut_batch
from stochnorm.data.images.device import HostBatches, batches_for

CPU = torch.device("cpu")
CROP = Preprocessing(image_size=28, mean=(1.0, 0.0, 0.0), fit="crop")  # a red border is no colour of the images
PAD = replace(CROP, fit="pad")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """An image of 120 x 60 pixels whose left quarter is green, right quarter white, and middle half blue."""
    image = Image.new("RGB", (120, 60), (0, 0, 255))
    image.paste((0, 255, 0), (0, 0, 30, 60))
    image.paste((255, 255, 255), (90, 0, 120, 60))
    image.save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def share(image: torch.Tensor, colour: tuple[int, int, int]) -> float:
    """Return the share of the pixels that have a colour."""
    near = (image.int() - torch.tensor(colour)[:, None, None]).abs().amax(0) < 8
    return float(near.float().mean())


def test_the_middle_square_is_evaluated_with_crop(wide: Path) -> None:
    image = CROP.read(wide)
    assert image.shape == (3, 32, 32)  # the paper's ratio
    assert share(image, (0, 0, 255)) > 0.9
    assert share(image, (255, 0, 0)) == 0


def test_the_whole_image_is_evaluated_with_pad(wide: Path) -> None:
    image = PAD.read(wide)
    assert image.shape == (3, 28, 28)
    assert torch.equal(PAD.center_crop(image), image)
    assert share(image, (255, 0, 0)) == 0.5  # half of the square is border, in the mean colour
    assert share(image, (0, 255, 0)) == pytest.approx(0.125, abs=0.03)
    border = PAD.normalize(image[None])[0, :, 0, 0]
    torch.testing.assert_close(border, torch.zeros(3))


def test_an_upright_file_that_is_shown_turned_is_read_as_it_is_shown(wide: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    with Image.open(wide) as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    training = CROP.training
    assert training.content(wide) == (22, 43)
    assert training.content(tmp_path / "turned.jpg") == (43, 22)
    shown = training.read(tmp_path / "turned.jpg")
    assert share(shown[:, :, :10], (255, 0, 0)) > 0.9  # border on the left
    assert share(shown[:, :10, 13:30], (0, 255, 0)) > 0.8  # the left quarter is on top


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3000, 2000)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_extreme_images_are_read(tmp_path: Path, fit: Literal["crop", "pad"], size: tuple[int, int]) -> None:
    Image.new("RGB", size, (0, 0, 255)).save(tmp_path / "extreme.jpg")
    preprocessing = replace(CROP, fit=fit)
    for each in (preprocessing, preprocessing.training):
        image = each.read(tmp_path / "extreme.jpg")
        assert image.shape == (3, each.resize, each.resize)
        assert share(image, (0, 0, 254)) > 0


def test_crops_of_a_rectangle_lie_within_it_and_reach_its_ends() -> None:
    contents = torch.tensor([[20, 40], [40, 13], [40, 40], [5, 40]]).repeat(500, 1)
    crops = draw_crops(2000, 40, torch.Generator().manual_seed(0), contents=contents)
    top, left, height, width, _ = crops.unbind(1)
    first = (40 - contents) // 2
    assert (top >= first[:, 0]).all()
    assert (left >= first[:, 1]).all()
    assert (top + height <= first[:, 0] + contents[:, 0]).all()
    assert (left + width <= first[:, 1] + contents[:, 1]).all()
    ratio = width / height
    assert ((ratio - 1).abs() < 0.45).float().mean() > 0.99  # 3/4 to 4/3, and whole pixels
    for kind in range(3):
        of_kind = slice(kind, None, 4)
        assert left[of_kind].min() == first[kind, 1]
        assert (left + width)[of_kind].max() == first[kind, 1] + contents[kind, 1]


def test_a_square_content_changes_no_crop() -> None:
    square = torch.full((64, 2), 32)
    some, others = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(draw_crops(64, 32, some), draw_crops(64, 32, others, contents=square))


def test_the_smallest_area_is_that_of_the_scale() -> None:
    crops = draw_crops(2000, 256, torch.Generator().manual_seed(0), scale=0.5)
    areas = crops[:, 2] * crops[:, 3] / 256**2
    assert 0.495 < areas.min() < 0.52


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Eight images of many aspects, as evaluation and as training read them."""
    rows = []
    for number, size in enumerate([(90, 60), (60, 90), (80, 80), (100, 30)] * 2):
        pixels = torch.randint(0, 255, (size[1], size[0], 3), dtype=torch.uint8)
        pixels[..., 0] = 0  # no red: the border has a colour of its own
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")
        rows.append(Row(f"{number}.png", "a", "train"))
    crops = Split(ImageStore(tmp_path, rows, CROP.training), list(range(8)), [0] * 8)
    return Split(ImageStore(tmp_path, rows, CROP), list(range(8)), [0] * 8, crops=crops)


@pytest.mark.parametrize("place", ["resident", "streamed"])
def test_a_device_cuts_the_crops_of_the_cpu(split: Split, place: Literal["resident", "streamed"]) -> None:
    there = batches_for(split, 4, seed=1, device=CPU, place=place)
    here = batches_for(split, 4, seed=1, device=CPU, place="host")
    for inputs, expected in zip(there.inputs(range(6)), here.inputs(range(6)), strict=True):
        images, _ = there.make(*inputs)
        assert images.shape == (4, 3, 28, 28)
        assert torch.equal(images, here.make(*expected)[0])


def test_no_crop_has_a_pixel_of_the_border(split: Split) -> None:
    plans = split.plans(8, seed=0)
    for step in range(20):
        images, _ = cut_batch(split.for_training, plans[step])
        assert images[:, 0].max() == 0


def test_the_images_of_evaluation_stay_those_of_evaluation(split: Split) -> None:
    (images,) = split.evaluation_batches(8)
    assert images.shape == (8, 3, 32, 32)
    assert torch.equal(images[0], CROP.read(split.store.root / "0.png"))


def test_a_test_size_changes_evaluation_alone() -> None:
    squash = Preprocessing(image_size=28, test_size=42)
    assert (squash.resize, squash.input_size) == (48, 42)
    assert squash.training == Preprocessing(image_size=28)
    assert squash.views(torch.zeros(2, 3, 48, 48)).shape == (2, 1, 3, 42, 42)


def test_only_what_changes_the_pixels_is_in_their_kind() -> None:
    plain = Preprocessing(image_size=28)
    assert replace(plain, flip=True, mean=(0.1, 0.1, 0.1)).kind == plain.kind == (32, "bilinear")
    kinds = [each.kind for each in (plain, CROP, CROP.training, PAD, replace(PAD, mean=(0.0, 0.0, 0.0)))]
    assert len(set(kinds)) == len(kinds)
    assert CROP.training.kind == PAD.training.kind  # one cache for both


def test_settings_of_a_model_without_the_newer_ones_are_the_first_versions() -> None:
    plain = Preprocessing(image_size=28)
    assert set(plain.as_dict()) == {"image_size", "mean", "std", "interpolation"}
    assert Preprocessing(**PAD.as_dict()) == PAD


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_policy_depends_on_seed_step_and_position_alone(split: Split, policy: Literal["trivial", "rand"]) -> None:
    changed = replace(split, crops=replace(split.for_training, augmentation=Augmentation(policy=policy)))
    state = torch.get_rng_state()
    plain, whole = ([*each.training_batches(4, range(4), seed=5)] for each in (split, changed))
    assert torch.equal(torch.get_rng_state(), state)
    differing = [not torch.equal(a, b) for (some, _), (others, _) in zip(plain, whole, strict=True) for a, b in
                 zip(some, others, strict=True)]  # fmt: skip
    assert sum(differing) > 8
    (later,) = changed.training_batches(4, range(3, 4), seed=5)
    assert torch.equal(later[0], whole[3][0])
    (second,) = changed.training_batches(4, range(3, 4), seed=5, rank=1, world_size=2, workers=1)
    assert torch.equal(second[0], whole[3][0][1::2])


def test_a_policy_is_computed_on_the_host(split: Split) -> None:
    changed = replace(split, crops=replace(split.for_training, augmentation=Augmentation(policy="rand")))
    assert isinstance(batches_for(changed, 4, seed=0, device=CPU, place="resident"), HostBatches)
