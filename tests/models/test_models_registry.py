"""Models by name."""

import pytest
import torch
import torchvision

from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.models import build_model, default_stem, default_width, list_models


def build(name, *, in_channels=3, image_size=32, **settings):
    config = ModelConfig(name=name, **settings)
    return build_model(config, num_classes=5, in_channels=in_channels, image_size=image_size)


def test_registry_lists_ours_first_and_each_torchvision_model():
    names = list_models()
    assert names[0] == "resnet8"
    assert "torchvision:resnet50" in names
    assert len(names) == len(set(names)) > 80


@pytest.mark.parametrize(("image_size", "stem"), [(8, "small"), (64, "small"), (65, "imagenet")])
def test_registry_chooses_the_stem_by_size(image_size, stem):
    assert default_stem(image_size) == stem
    pooled = isinstance(build("resnet8", image_size=image_size).maxpool, torch.nn.MaxPool2d)
    assert pooled == (stem == "imagenet")


def test_registry_chooses_the_width_by_family():
    assert [default_width(name) for name in ("resnet8", "resnet20", "resnet18")] == [16, 16, 64]
    assert build("resnet8").fc.in_features == 64
    assert build("resnet8", width=12).fc.in_features == 48


def test_registry_passes_every_setting_on():
    model = build("resnet8", in_channels=1, variant="C", stem="imagenet", width=8, norm="group")
    assert len(model.conv1) == 7
    assert model.conv1[0].in_channels == 1
    assert isinstance(model.bn1, torch.nn.GroupNorm)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "image_size", "in_channels"),
    [
        ("mobilenet_v3_small", 32, 3),
        ("squeezenet1_1", 64, 1),
        ("googlenet", 64, 1),
        ("inception_v3", 96, 3),
        ("inception_v3", 96, 1),
        ("vit_b_32", 64, 1),
    ],
)
def test_registry_builds_torchvision_models(monkeypatch, name, image_size, in_channels):
    skip_initialisation(monkeypatch)
    model = build(f"torchvision:{name}", in_channels=in_channels, image_size=image_size).eval()
    assert model(torch.zeros(2, in_channels, image_size, image_size)).shape == (2, 5)


def skip_initialisation(monkeypatch):
    for name in ("kaiming_normal_", "kaiming_uniform_", "trunc_normal_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor.data.fill_(0.01))


def test_registry_gray_torchvision_model_equals_rgb_on_copied_channels():
    torch.manual_seed(0)
    gray = build("torchvision:resnet18", in_channels=1).eval()
    torch.manual_seed(0)
    color = torchvision.models.resnet18(num_classes=5).eval()
    image = torch.randn(1, 1, 32, 32)
    assert gray.conv1.stride == color.conv1.stride
    torch.testing.assert_close(gray(image), color(image.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_registry_refuses_unknown_names():
    with pytest.raises(ConfigError) as raised:
        build("resnet5d")
    (problem,) = raised.value.problems
    assert problem.startswith("model.name: unknown model 'resnet5d'; did you mean resnet50")
    assert problem.endswith("? 'raytricks models' lists all")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("VGG16", "model.name: unknown model 'VGG16'; did you mean torchvision:vgg16?"),
        ("zzzz", "model.name: unknown model 'zzzz'; 'raytricks models' lists all"),
        (None, "model.name: unknown model ''; 'raytricks models' lists all"),
    ],
)
def test_registry_hints_only_at_what_is_alike(name, message):
    with pytest.raises(ConfigError) as raised:
        build(name)
    assert str(raised.value).startswith(message)


def test_registry_refuses_images_too_small_for_the_model():
    with pytest.raises(ConfigError, match="torchvision:squeezenet1_0 cannot take images of 8 pixels"):
        build("torchvision:squeezenet1_0", image_size=8)
    with pytest.raises(ConfigError, match="torchvision:vit_b_32 cannot take images of 40 pixels"):
        build("torchvision:vit_b_32", image_size=40)


def test_registry_refuses_settings_that_torchvision_models_lack():
    with pytest.raises(ConfigError) as raised:
        build("torchvision:resnet18", stem="small", width=32, norm="group")
    assert [problem.split()[0] for problem in raised.value.problems] == [
        "model.stem",
        "model.width",
        "model.norm",
    ]


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_models_convert_their_input_where_the_published_weights_want_it(name, pretrained):
    config = ModelConfig(name=name, pretrained=pretrained)
    model = build_model(config, num_classes=3, in_channels=3, image_size=128)
    assert model.transform_input is pretrained
