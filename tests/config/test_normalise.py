"""How pixels are scaled: which encoder sees which pixels by default, and what is refused."""

import pytest
from zoolib.config.normalise import NAMED, check_normalise, mean_and_std, usual_normalise
from zoolib.job.logs import UserError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://mwalmsley/zoobot-encoder-convnext_nano", "unit"),
        ("hf://mwalmsley/zoobot-encoder-greyscale-resnet50@refs/pr/1", "unit"),
        ("hf://timm/resnet18.a1_in1k", "encoder"),
        ("hf://notmwalmsley/zoobot-encoder-resnet18", "encoder"),
        ("mwalmsley/encoder", "encoder"),
        ("/home/mwalmsley/encoder", "encoder"),
        ("imagenet", "encoder"),
    ],
)
def test_only_zoobot_s_repositories_see_pixels_from_0_to_1_by_default(source, expected):
    assert usual_normalise(source)[0] == expected


@pytest.mark.parametrize(
    ("value", "probe", "words"),
    [
        ("units", True, "'units', expected one of unit, imagenet, unit/255, encoder, probe, null, or"),
        (
            "probe",
            False,
            "'probe', expected one of unit, imagenet, unit/255, encoder, null, .*only tasks have probe",
        ),
        (
            {"mean": [0, 0], "std": [1, 1]},
            True,
            r"mean \[0, 0\], std \[1, 1\], expected mean and std, lists of 3",
        ),
        ({"mean": [0, 0, 0], "std": [1]}, True, "lists of 3 numbers for colour or 1 for grey"),
        ({"mean": [0], "std": [0]}, True, "std above 0; fix them"),
        ({"mean": 0, "std": 1}, True, "mean 0, std 1, expected mean and std, lists"),
        ({"mean": ["0"], "std": [True]}, True, "expected mean and std, lists"),
        ({"std": [1]}, True, r"std \[1\], expected mean and std"),
        ({"mean": [0], "std": [1], "scale": 2}, True, "scale 2, expected mean and std"),
        ({}, True, "nothing, expected"),
    ],
)
def test_a_wrong_value_is_one_sentence(value, probe, words):
    with pytest.raises(UserError, match=f"^Configuration: x.normalise (is|has) .*{words}"):
        check_normalise(value, "x.normalise", probe)


@pytest.mark.parametrize("value", [None, *NAMED, "encoder", "probe", {"mean": [0.5], "std": [0.2]}])
def test_a_right_value_is_none(value):
    check_normalise(value, "x.normalise")


def test_grey_has_the_averages_of_the_colours():
    mean, std = mean_and_std("imagenet", 1, "x")
    assert (mean, std) == ([pytest.approx(0.449)], [pytest.approx(0.226)])
    with pytest.raises(UserError, match="x has 3 numbers for mean and std, but the model sees 1 channel"):
        mean_and_std({"mean": [0] * 3, "std": [1] * 3}, 1, "x")
