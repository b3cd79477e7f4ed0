"""timm's models by name, and what happens without timm."""

import importlib
import subprocess
import sys

import pytest
import torch

from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.models import build_model, list_timm_models

pytest.importorskip("timm")


def build(name, *, in_channels=3, image_size=32, **settings):
    config = ModelConfig(name=name, **settings)
    return build_model(config, num_classes=5, in_channels=in_channels, image_size=image_size)


def problem_of(name, **options):
    with pytest.raises(ConfigError) as raised:
        build(name, **options)
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:resnet18.a1_in1k"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_timm_resnet_gives_a_logit_a_class(name, in_channels):
    model = build(name, in_channels=in_channels).eval()
    assert model(torch.randn(2, in_channels, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(("image_size", "tokens"), [(32, 4 + 1), (64, 16 + 1)])
def test_timm_transformer_is_made_for_the_image_size(image_size, tokens):
    model = build("timm:vit_tiny_patch16_224", image_size=image_size).eval()
    assert model.pos_embed.shape[1] == tokens
    assert model(torch.randn(2, 3, image_size, image_size)).shape == (2, 5)


def test_timm_models_start_fresh_and_alike_for_a_seed():
    torch.manual_seed(3)
    first = build("timm:resnet18").state_dict()
    torch.manual_seed(3)
    second = build("timm:resnet18").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_timm_names_are_listed_apart_from_ours():
    names = list_timm_models()
    assert len(names) == len(set(names)) > 500
    assert "timm:resnet50d" in names
    assert all(name.startswith("timm:") and "." not in name for name in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet50dd", "model.name: unknown model 'timm:resnet50dd'; did you mean timm:resnet50d"),
        ("timm:ResNet50D", "model.name: unknown model 'timm:ResNet50D'; did you mean timm:resnet50d?"),
        (
            "timm:resnet18.a1_in2k",
            "model.name: unknown model 'timm:resnet18.a1_in2k'; did you mean timm:resnet18.a1_in1k",
        ),
        ("timm:hf-hub:some/one", "model.name: unknown model 'timm:hf-hub:some/one'"),
        (
            "xcit_nano_12_p8_224",
            "model.name: unknown model 'xcit_nano_12_p8_224'; did you mean timm:xcit_nano_12_p8_224?",
        ),
    ],
)
def test_timm_hints_at_likely_names(name, message):
    problem = problem_of(name)
    assert problem.startswith(message)
    command = "raytricks models --timm" if name.startswith("timm:") else "raytricks models"
    assert problem.endswith(f" '{command}' lists all")


def test_timm_models_have_no_setting_of_our_resnets():
    with pytest.raises(ConfigError) as raised:
        build("timm:resnet18", stem="small", width=32, norm="group")
    assert [problem.split()[0] for problem in raised.value.problems] == ["model.stem", "model.width", "model.norm"]


def test_timm_refuses_images_too_small_for_the_model():
    assert problem_of("timm:vgg11", image_size=8).startswith("model.name: timm:vgg11 cannot take images of 8 pixels (")


def test_timm_missing_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # the import system refuses it from here on
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("timm")
    assert list_timm_models() == []
    assert problem_of("timm:resnet50d") == ("model.name: timm:resnet50d needs timm; pip install 'raytricks[timm]'")
    assert problem_of("zzzz") == "model.name: unknown model 'zzzz'; 'raytricks models' lists all"


def test_timm_is_not_imported_for_other_models(repository):
    program = (
        "import sys; from raytricks.config.schema import ModelConfig; from raytricks.models import build_model\n"
        "build_model(ModelConfig(name='resnet8'), num_classes=2, in_channels=3, image_size=8)\n"
        "try: build_model(ModelConfig(name='resnet5d'), num_classes=2, in_channels=3, image_size=8)\n"
        "except Exception: pass\n"
        "print('timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("False", 0)
