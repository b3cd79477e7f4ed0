"""Fine-tuning: the same logits from the same weights, and a fresh classifier for other classes."""

import json
from pathlib import PurePosixPath
import socket
from urllib.parse import urlparse

import pytest
from safetensors.torch import save_file
import torch
from torch import nn
import torchvision

from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.models import Start, build_model, check_start, start_from

CLASSES = ("cat", "dog", "owl")


def started(config, *, class_names=CLASSES, in_channels=3, image_size=64):
    """Build a model, load its weights, and return it in evaluation mode with its Start."""
    torch.manual_seed(7)
    model = build_model(config, num_classes=len(class_names), in_channels=in_channels, image_size=image_size)
    return model.eval(), start_from(model, config, class_names=class_names, image_size=image_size)


def saved(model, path):
    """Write the weights, with random normalisation layers that a skipped tensor would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
    if path.suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    return str(path)


def saved_resnet8(path, class_names=CLASSES, **settings):
    """Write a model file like that of a finished run; return its model."""
    config = ModelConfig(name="resnet8", width=8, **settings)
    model = build_model(config, num_classes=len(class_names), in_channels=3, image_size=8)
    nn.init.normal_(model.fc.weight)
    metadata = {"format": "raytricks-model-1", "class_names": json.dumps(class_names)}
    save_file(model.state_dict(), path / "model.safetensors", metadata)
    return model


def test_start_is_none_unless_asked_for():
    model, start = started(ModelConfig(name="resnet8", width=8), image_size=8)
    torch.manual_seed(7)
    untouched = build_model(ModelConfig(name="resnet8", width=8), num_classes=3, in_channels=3, image_size=8)
    assert start is None
    assert all(torch.equal(tensor, untouched.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("theirs", "ours", "suffix"),
    [
        ("timm:resnet50d", ModelConfig(name="resnet50", variant="D", stem="imagenet"), ".safetensors"),
        ("torchvision:resnet18", ModelConfig(name="resnet18", variant="B", stem="imagenet"), ".pth"),
    ],
)
def test_start_gives_the_same_logits_in_either_model(tmp_path, theirs, ours, suffix):
    if theirs.startswith("timm:"):
        pytest.importorskip("timm")
    fresh = build_model(ModelConfig(name=theirs), num_classes=3, in_channels=3, image_size=64)
    path = saved(fresh, tmp_path / f"weights{suffix}")
    first, first_start = started(ModelConfig(name=theirs, init_from=path))
    second, second_start = started(ours.model_copy(update={"init_from": path}))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = fresh.eval()(images)
        torch.testing.assert_close(first(images), expected, atol=0, rtol=0)
        torch.testing.assert_close(second(images), expected, atol=1e-4, rtol=1e-4)
    assert first_start == second_start == Start(path, ())


@pytest.mark.parametrize(
    ("class_names", "is_kept"),
    [
        (CLASSES, True),
        (("cat", "owl", "dog"), False),  # another order
        (("cat", "dog", "emu"), False),
        (("cat", "dog"), False),
        ((*CLASSES, "yak"), False),
    ],
)
def test_start_keeps_the_classifier_for_the_same_classes_only(tmp_path, class_names, is_kept):
    source = saved_resnet8(tmp_path)
    config = ModelConfig(name="resnet8", width=8, init_from=str(tmp_path))
    model, start = started(config, class_names=class_names, image_size=8)
    assert start.fresh == (() if is_kept else ("fc.weight", "fc.bias"))
    for name, tensor in source.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert model.fc.out_features == len(class_names)
    if is_kept:
        assert torch.equal(model.fc.weight, source.fc.weight)
    else:
        assert model.fc.weight.std() < 0.02  # as initialised; the source's has 1


@pytest.mark.parametrize(("num_classes", "is_kept"), [(3, True), (4, False)])
def test_start_goes_by_the_number_of_classes_where_names_are_unknown(tmp_path, num_classes, is_kept):
    source = torchvision.models.mobilenet_v3_small(num_classes=3)
    config = ModelConfig(name="torchvision:mobilenet_v3_small", init_from=saved(source, tmp_path / "theirs.pth"))
    _, start = started(config, class_names=[str(number) for number in range(num_classes)])
    assert start.fresh == (() if is_kept else ("classifier.3.weight", "classifier.3.bias"))


@pytest.mark.parametrize(
    ("name", "classifier", "image_size"),
    [
        ("torchvision:squeezenet1_1", "classifier.1", 64),  # a convolution
        ("timm:convnext_atto", "head.fc", 64),
        ("timm:deit_tiny_distilled_patch16_224", "head head_dist", 32),
    ],
)
def test_start_finds_the_classifier_of_many_architectures(tmp_path, name, classifier, image_size):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    source = build_model(ModelConfig(name=name), num_classes=3, in_channels=3, image_size=image_size)
    path = saved(source, tmp_path / "weights.pth")
    model, start = started(ModelConfig(name=name, init_from=path), class_names="abcd", image_size=image_size)
    expected = {f"{layer}.{kind}" for layer in classifier.split() for kind in ("weight", "bias")}
    assert set(start.fresh) == expected
    for tensor_name, tensor in source.state_dict().items():
        assert tensor_name in expected or torch.equal(model.state_dict()[tensor_name], tensor)


def test_start_without_a_classifier_in_the_weights_keeps_ours_fresh(tmp_path):
    source = saved_resnet8(tmp_path)
    backbone = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    config = ModelConfig(name="resnet8", width=8, init_from=str(tmp_path / "backbone.pth"))
    assert started(config, image_size=8)[1].fresh == ("fc.weight", "fc.bias")


def test_start_without_batch_counts_is_complete(tmp_path):
    """State dicts from before torch 0.4.1 have no num_batches_tracked; torchvision publishes some."""
    source = saved_resnet8(tmp_path)
    old = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    assert started(ModelConfig(name="resnet8", width=8, init_from=str(tmp_path / "old.pth")), image_size=8)[1]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18d", "resnet8"])
def test_start_sums_the_color_kernel_for_gray_images(tmp_path, name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    color = build_model(ModelConfig(name=name), num_classes=3, in_channels=3, image_size=64)
    config = ModelConfig(name=name, init_from=saved(color, tmp_path / "weights.pth"))
    gray, start = started(config, in_channels=1)
    first = next(key for key in color.state_dict() if key.startswith("conv1"))
    assert torch.equal(gray.state_dict()[first], color.state_dict()[first].sum(1, keepdim=True))
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = color.eval()(image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(gray(image), expected, atol=1e-4, rtol=1e-4)
    assert start.fresh == ()


def test_start_refuses_gray_weights_for_color_images(tmp_path):
    gray = build_model(ModelConfig(name="resnet8"), num_classes=3, in_channels=1, image_size=8)
    config = ModelConfig(name="resnet8", init_from=saved(gray, tmp_path / "gray.pth"))
    with pytest.raises(ConfigError, match=r"conv1.weight \(shape \[16, 1, 3, 3\], not \[16, 3, 3, 3\]\); .*channels"):
        started(config, image_size=8)


@pytest.mark.parametrize(
    ("settings", "count", "first"),
    [
        ({"name": "resnet8", "width": 12}, None, "conv1.weight (shape [8, 3, 3, 3], not [12, 3, 3, 3])"),
        ({"name": "resnet14", "width": 8}, None, "layer1.1.conv1.weight (missing)"),
        ({"name": "resnet8", "width": 8, "variant": "B"}, None, "layer2.0.downsample.0.weight (missing)"),
        ({"name": "resnet8", "width": 8, "norm": "group"}, 27, ""),
    ],
)
def test_start_refuses_another_architecture(tmp_path, settings, count, first):
    saved_resnet8(tmp_path)
    with pytest.raises(ConfigError) as raised:
        started(ModelConfig(init_from=str(tmp_path), **settings), image_size=8)
    (problem,) = raised.value.problems
    assert problem.startswith(f"model.init_from: {tmp_path} does not fit {settings['name']} for images of 8 pixels: ")
    assert problem.partition(" first ")[2].startswith(first)
    assert problem.count("(shape") + problem.count("(missing)") + problem.count("(not in") == 3
    assert count is None or f": {count} of " in problem


def test_start_leaves_the_model_alone_when_it_refuses(tmp_path):
    saved_resnet8(tmp_path)
    config = ModelConfig(name="resnet14", width=8, init_from=str(tmp_path))
    model = build_model(config, num_classes=3, in_channels=3, image_size=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError):
        start_from(model, config, class_names=CLASSES, image_size=8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_start_takes_the_names_that_torchvision_gave_up(tmp_path):
    """The files of its DenseNets and vision transformers have them; its own models rename them too."""
    model = torchvision.models.densenet.DenseNet(4, (1, 1, 1, 1), 8, num_classes=3)
    check_old_names(tmp_path, model, {".norm1.": ".norm.1.", ".conv2.": ".conv.2."}, "torchvision:densenet121")
    model = torchvision.models.VisionTransformer(16, 8, 1, 1, 8, 16, num_classes=3)
    check_old_names(tmp_path, model, {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}, "torchvision:vit_b_16")


def check_old_names(tmp_path, model, renamed, name):
    old = {}
    for key, tensor in model.state_dict().items():
        for new_part, old_part in renamed.items():
            key = key.replace(new_part, old_part)
        old[key] = tensor + 1
    assert len(old.keys() - model.state_dict().keys()) >= 4
    torch.save(old, tmp_path / "old.pth")
    expected = {key: tensor + 1 for key, tensor in model.state_dict().items()}
    start_from(model, ModelConfig(name=name, init_from=str(tmp_path / "old.pth")), class_names=CLASSES, image_size=16)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_start_ignores_the_auxiliary_heads_of_weights(tmp_path):
    source = torchvision.models.GoogLeNet(num_classes=3, aux_logits=True, init_weights=False)
    file = saved(source, tmp_path / "weights.pth")
    config = ModelConfig(name="torchvision:googlenet", init_from=file, transform_input=False)
    model, start = started(config)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), source.eval()(images), atol=0, rtol=0)
    assert start.fresh == ()


@pytest.mark.parametrize("kind", ["googlenet", "inception_v3"])
def test_start_from_a_file_of_torchvision_converts_the_input_as_torchvision_does(tmp_path, kind):
    torch.manual_seed(1)
    theirs = torchvision.models.get_model(
        kind, num_classes=3, aux_logits=False, init_weights=False, transform_input=True
    )
    file = saved(theirs.eval(), tmp_path / "weights.pth")
    model, _ = started(ModelConfig(name=f"torchvision:{kind}", init_from=file), image_size=96)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(model(images), theirs(images))
    as_is = build_model(
        ModelConfig(name=f"torchvision:{kind}", init_from=file, transform_input=False),
        num_classes=3,
        in_channels=3,
        image_size=96,
    )
    assert as_is.transform_input is False


def test_transform_input_is_refused_for_models_that_have_none():
    for name in ("resnet8", "torchvision:resnet18"):
        with pytest.raises(ConfigError, match=f"model.transform_input is for torchvision:googlenet .* got {name};"):
            started(ModelConfig(name=name, transform_input=True))


@pytest.mark.parametrize(
    ("trained", "wanted", "line"),
    [
        ({"variant": "B"}, {"variant": "A"}, "was trained with variant B, this model has A; set model.variant=B or"),
        (
            {"stem": "small"},
            {"stem": "small_stride2"},
            "was trained with stem small, this model has small_stride2; set model.stem=small or",
        ),
    ],
)
def test_start_from_a_network_of_the_same_shapes_that_computes_otherwise_is_refused(tmp_path, trained, wanted, line):
    """The tensors fit in name and shape, the logits would be off."""
    base = {"name": "resnet50", "width": 8, "stem": "small", "variant": "B"}
    config = ModelConfig(**base | trained)
    model = build_model(config, num_classes=3, in_channels=3, image_size=32)
    metadata = {"format": "raytricks-model-1", "class_names": json.dumps(CLASSES), "model": config.model_dump_json()}
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata)
    other = ModelConfig(**base | wanted, init_from=str(tmp_path))
    assert build_model(other, num_classes=3, in_channels=3, image_size=32).load_state_dict(model.state_dict())
    with pytest.raises(ConfigError, match=line):
        check_start(other)
    check_start(ModelConfig(**base | trained, init_from=str(tmp_path)))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Empty caches of weights, and a proxy that refuses every connection."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def hugging_face_cache(monkeypatch, tmp_path):
    """An empty cache, and the setting of the client that makes it fail without its minute of retries."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("torchvision:resnet18", torchvision.models.ResNet18_Weights.DEFAULT.url),
        ("timm:resnet18", "https://huggingface.co/timm/resnet18.a1_in1k"),
    ],
)
def test_pretrained_without_network_is_one_line_with_the_remedy(no_network, hugging_face_cache, capfd, name, address):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError) as raised:
        started(ModelConfig(name=name, pretrained=True))
    (problem,) = raised.value.problems
    assert "\n" not in problem
    assert problem.startswith(f"model.pretrained: the weights of {name} cannot be loaded (")
    assert problem.endswith(f"; download {address} elsewhere and give the file as model.init_from")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("num_classes", "is_kept"), [(3, False), (1000, True)])
def test_pretrained_timm_loads_what_its_client_has_downloaded(hugging_face_cache, num_classes, is_kept):
    timm = pytest.importorskip("timm")
    published = timm.create_model("resnet18").state_dict()
    repository = hugging_face_cache / "models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(published, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    config = ModelConfig(name="timm:resnet18", pretrained=True)
    model, start = started(config, class_names=[str(number) for number in range(num_classes)], in_channels=1)
    assert start == Start("published weights of timm:resnet18", () if is_kept else ("fc.weight", "fc.bias"))
    assert torch.equal(model.conv1.weight, published["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(model.layer1[0].conv1.weight, published["layer1.0.conv1.weight"])
    assert torch.equal(model.fc.weight, published["fc.weight"]) == is_kept


def cached(directory, content):
    """Put a file where torch.hub looks for the published weights of ResNet-18 before it downloads."""
    directory.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    torch.save(content, directory / PurePosixPath(urlparse(url).path).name)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_pretrained_loads_downloaded_weights_with_a_fresh_classifier(no_network, in_channels):
    torch.manual_seed(1)
    published = torchvision.models.resnet18().state_dict()
    cached(no_network, published)
    model, start = started(ModelConfig(name="torchvision:resnet18", pretrained=True), in_channels=in_channels)
    assert start == Start("published weights of torchvision:resnet18", ("fc.weight", "fc.bias"))
    kernel = published["conv1.weight"] if in_channels == 3 else published["conv1.weight"].sum(1, keepdim=True)
    assert torch.equal(model.conv1.weight, kernel)
    assert torch.equal(model.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("class_names", "is_kept"),
    [
        (torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"], True),
        ([f"n{number:08}" for number in range(1000)], True),  # ImageNet's folders, in the same order
        ([f"class {number}" for number in range(1000)], False),
    ],
)
def test_pretrained_keeps_the_classifier_on_imagenet_itself(no_network, class_names, is_kept):
    published = torchvision.models.resnet18().state_dict()
    cached(no_network, published)
    config = ModelConfig(name="torchvision:resnet18", pretrained=True)
    model, start = started(config, class_names=class_names)
    assert (start.fresh == ()) == is_kept
    assert torch.equal(model.fc.weight, published["fc.weight"]) == is_kept


def test_pretrained_runs_no_code_from_the_cache(no_network):
    cached(no_network, {"fc.weight": PurePosixPath("any class")})
    with pytest.raises(ConfigError, match="the weights of torchvision:resnet18 cannot be loaded"):
        started(ModelConfig(name="torchvision:resnet18", pretrained=True))


@pytest.mark.parametrize("name", ["resnet50", None])
def test_pretrained_is_refused_early_for_our_resnets(name):
    with pytest.raises(ConfigError) as raised:
        check_start(ModelConfig(name=name, pretrained=True))
    assert str(raised.value) == (
        "model.pretrained: our ResNets have no published weights; give a file of weights as model.init_from, "
        "or set model.name=torchvision:resnet50"
    )


def test_pretrained_is_refused_early_where_timm_has_no_weights():
    timm = pytest.importorskip("timm")
    name = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(ConfigError, match=f"timm has no published weights for timm:{name}; give a file"):
        check_start(ModelConfig(name=f"timm:{name}", pretrained=True))


def test_start_is_checked_without_network_or_reading(tmp_path, no_network):
    (tmp_path / "weights.pth").write_bytes(b"not looked at")
    check_start(ModelConfig(name="resnet8", init_from=str(tmp_path / "weights.pth")))
    check_start(ModelConfig(name="torchvision:resnet18", pretrained=True))
    check_start(ModelConfig(name="resnet8"))
    with pytest.raises(ConfigError, match="model.init_from: .*missing.pth does not exist"):
        check_start(ModelConfig(name="resnet8", init_from=str(tmp_path / "missing.pth")))
