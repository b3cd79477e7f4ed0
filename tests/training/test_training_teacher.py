"""The teacher: the model that was saved, on the student's images, for the same classes."""

from dataclasses import replace
import re

import pytest
from safetensors.torch import save_file
import torch
import torchvision

from raytricks.config.schema import ModelConfig
from raytricks.data.prepared import PUBLISHED_STATISTICS, PreparedData
from raytricks.errors import CheckpointError, ConfigError, RaytricksError
from raytricks.inference.model_file import load_model, save_model
from raytricks.models.registry import build_model
from raytricks.models.weights import published_weights
from raytricks.training.loop import run_epochs
from raytricks.training.teacher import (
    Teacher,
    _require_published_classes,
    content_digest,
    load_teacher,
)
from raytricks.training.worker import Worker
from raytricks.tricks.distillation import distillation_losses

KEY = "tricks.distillation.teacher"
SMALL_TORCHVISION = "torchvision:shufflenet_v2_x0_5"


def load(spec: object, data: PreparedData, **changes) -> Teacher:
    options = {"weights": None, "device": torch.device("cpu"), "precision": "fp32", "channels_last": True}
    return load_teacher(str(spec), data=data, **options | changes)  # type: ignore[arg-type]


def refusal(spec: object, data: PreparedData, kind: type[RaytricksError] = ConfigError, **changes) -> str:
    with pytest.raises(kind) as caught:
        load(spec, data, **changes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(KEY)
    return str(caught.value)


def colored(data: PreparedData, mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.4)) -> PreparedData:
    return replace(data, channels=3, transform=replace(data.transform, mean=mean, std=std))


def save(path, data: PreparedData, name: str = "resnet8") -> None:
    """Save a model that was never trained; its classifier is enlarged so that the logits differ."""
    config = ModelConfig(name=name, width=8 if name == "resnet8" else None)
    torch.manual_seed(1)
    model = build_model(
        config, num_classes=data.num_classes, in_channels=data.channels, image_size=data.transform.image_size
    )
    with torch.no_grad():
        list(model.parameters())[-2].mul_(100)
    save_model(path, model.state_dict(), config, data, {})


@pytest.fixture
def data(make_job) -> PreparedData:
    return make_job().data


@pytest.fixture
def path(tmp_path, data):
    """The file of a teacher for the digits."""
    path = tmp_path / "teacher.safetensors"
    save(path, data)
    return path


def pixels(channels: int = 1) -> torch.Tensor:
    shape, generator = (6, channels, 8, 8), torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def answers(path, images: torch.Tensor) -> torch.Tensor:
    """Return what the saved model says of pixels, normalised by itself."""
    trained = load_model(path)
    with torch.no_grad():
        return trained.model(trained.preprocess.transform.normalize(images))


def test_teacher_is_the_model_of_the_finished_run(make_job):
    job = make_job("teacher", recipe__epochs=2)
    list(run_epochs(job, Worker()))
    inputs = job.data.transform.normalize(torch.from_numpy(job.data.evaluation.images.pixels))
    by_directory, by_file = load(job.run_dir, job.data), load(job.run_dir / "model.safetensors", job.data)
    expected = answers(job.run_dir, torch.from_numpy(job.data.evaluation.images.pixels))
    torch.testing.assert_close(by_directory.logits(inputs), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(by_file.logits(inputs), by_directory.logits(inputs))
    assert by_file.digest == by_directory.digest
    accuracy = float((by_file.logits(inputs).argmax(1).numpy() == job.data.evaluation.labels).mean())
    assert accuracy == pytest.approx(load_model(job.run_dir).metrics["val_top1"])


def test_teacher_is_in_evaluation_mode_and_frozen(path, data):
    teacher = load(path, data)
    inputs = data.transform.normalize(pixels())
    before = content_digest(teacher.model)
    together, alone = teacher.logits(inputs), teacher.logits(inputs[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)  # no batch statistics
    assert content_digest(teacher.model) == before == teacher.digest
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not together.requires_grad and not together.is_inference()


def test_teacher_teaches_with_gradients_for_the_student_alone(path, data):
    teacher = load(path, data)
    student = build_model(ModelConfig(name="resnet8", width=8), num_classes=10, in_channels=1, image_size=8)
    names, count = list(student.state_dict()), len(list(student.parameters()))
    student.teacher = teacher  # even where someone keeps it on the student
    assert list(student.state_dict()) == names and len(list(student.parameters())) == count
    inputs = data.transform.normalize(pixels())
    distillation_losses(student(inputs), teacher.logits(inputs), 4.0).sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.model.parameters())


def test_teacher_replaces_the_normalisation_of_the_student(path, data):
    images, other = pixels(), replace(data.transform, mean=(0.9,), std=(0.05,))
    ours = load(path, replace(data, transform=other)).logits(other.normalize(images))
    torch.testing.assert_close(ours, answers(path, images), rtol=1e-4, atol=1e-4)
    unchanged = load(path, data).logits(other.normalize(images))
    assert (ours - unchanged).abs().max() > 0.1


def test_teacher_of_colour_sees_a_gray_image_three_times(path, data):
    save(path, colored(data))
    ours = load(path, data).logits(data.transform.normalize(pixels()))
    torch.testing.assert_close(ours, answers(path, pixels().expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_teacher_of_gray_sees_the_luma_of_a_colour_image(path, data):
    student, images = colored(data), pixels(3)
    ours = load(path, student).logits(student.transform.normalize(images))
    red, green, blue = images.float().unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    torch.testing.assert_close(ours, answers(path, luma), rtol=1e-4, atol=1e-4)


def test_teacher_sees_mixed_images_as_the_student_does(path, data):
    other = replace(data.transform, mean=(0.9,), std=(0.05,))
    images = pixels().float()
    mixed = 0.3 * images + 0.7 * images.roll(1, 0)
    inputs = other.normalize(images)
    ours = load(path, replace(data, transform=other)).logits(0.3 * inputs + 0.7 * inputs.roll(1, 0))
    torch.testing.assert_close(ours, answers(path, mixed), rtol=1e-4, atol=1e-4)


def test_teacher_answers_bf16_runs_in_fp32(path, data):
    inputs = data.transform.normalize(pixels())
    exact, half = load(path, data).logits(inputs), load(path, data, precision="bf16").logits(inputs)
    assert half.dtype == exact.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_teacher_digest_is_of_layers_names_types_shapes_and_bytes():
    def digest(stride=1, value=0.5, dtype=torch.float32, shape=(1, 1, 3, 3), name="0"):
        model = torch.nn.Sequential()
        model.add_module(name, torch.nn.Conv2d(1, 1, 3, stride, bias=False))
        model[0].weight = torch.nn.Parameter(torch.full(shape, value, dtype=dtype))
        return content_digest(model)

    assert digest() == digest()
    changed = [digest(stride=2), digest(value=0.25), digest(dtype=torch.bfloat16), digest(shape=(1, 1, 9, 1))]
    assert len({digest(), *changed, digest(name="first")}) == 6


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("0123456798", "class 8 of .* is '8', of the data '9' \\(the same classes in another order\\)"),
        ("01234567x9", "class 8 of .* is '8', of the data 'x' \\(other classes\\)"),
        ("012345678", "tells 10 classes apart, the data has 9"),
        ("0123456789x", "tells 10 classes apart, the data has 11"),
    ],
)
def test_teacher_of_other_classes_is_refused(path, data, names, message):
    line = refusal(path, replace(data, class_names=tuple(names)))
    assert re.search(message, line), line


def test_teacher_that_is_missing_is_refused(tmp_path, data):
    assert "does not exist; give a finished run's directory" in refusal(tmp_path / "nowhere", data)
    assert "'resnet50' does not exist" in refusal("resnet50", data)


def test_teacher_that_has_not_finished_is_refused(make_job, data):
    job = make_job("unfinished")
    assert "has no model.safetensors, so it is no finished run" in refusal(job.run_dir, data)


@pytest.mark.parametrize("kind", ["emptied", "truncated", "text", "foreign"])
def test_teacher_whose_file_is_damaged_is_refused(path, data, kind):
    if kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes({"emptied": b"", "truncated": path.read_bytes()[:-9], "text": b"<html>"}[kind])
    assert f"{KEY}: {path}: not a" in refusal(path, data, CheckpointError)


def test_teacher_weights_are_for_published_models(path, data):
    line = refusal(path, data, weights=str(path))
    assert line.startswith(f"{KEY}_weights: only a torchvision: or timm: teacher takes a file of weights")


@pytest.fixture
def torchvision_file(tmp_path):
    torch.manual_seed(1)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return model, str(tmp_path / "weights.pth")


def test_teacher_of_torchvision_sees_imagenet_normalised_colour(torchvision_file, data):
    model, file = torchvision_file
    ours = load(SMALL_TORCHVISION, data, weights=file).logits(data.transform.normalize(pixels()))
    mean, std = PUBLISHED_STATISTICS["imagenet"]
    imagenet = replace(data.transform, mean=mean, std=std)
    with torch.no_grad():
        expected = model(imagenet.normalize(pixels().expand(-1, 3, -1, -1)))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_teacher_of_torchvision_needs_its_own_classifier(torchvision_file, data):
    line = refusal(SMALL_TORCHVISION, replace(data, class_names=tuple("abc")), weights=torchvision_file[1])
    assert "knows other classes than the data's 3" in line


def test_teacher_of_torchvision_speaks_of_the_teachers_keys(torchvision_file, data, tmp_path):
    assert f"{KEY}: unknown model 'torchvision:resnet5'" in refusal("torchvision:resnet5", data)
    missing = refusal(SMALL_TORCHVISION, data, weights=str(tmp_path / "none.pth"))
    assert missing.startswith(f"{KEY}_weights: ") and "does not exist" in missing
    misfit = refusal("torchvision:squeezenet1_1", resized(data, 32), weights=torchvision_file[1])
    assert misfit.startswith(f"{KEY}_weights: ") and "does not fit torchvision:squeezenet1_1" in misfit


def resized(data: PreparedData, size: int) -> PreparedData:
    return replace(data, transform=replace(data.transform, image_size=size))


def test_teacher_of_torchvision_that_needs_larger_images_is_refused(data):
    assert "cannot take images of 8 pixels" in refusal("torchvision:squeezenet1_1", data)


def test_teacher_with_published_weights_is_refused_before_they_are_downloaded(data):
    line = refusal(SMALL_TORCHVISION, data)
    assert "tells 1000 classes apart, the data has 10" in line


def test_teacher_of_imagenet_is_compared_by_words_or_counted_by_wordnet_ids():
    published = tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])
    words = list(published)
    _require_published_classes("torchvision:resnet18", published, published)
    words[3], words[4] = words[4], words[3]
    with pytest.raises(ConfigError, match="class 3 of torchvision:resnet18 is 'tiger shark', .* another order"):
        _require_published_classes("torchvision:resnet18", published, tuple(words))
    ids = tuple(f"n{number:08d}" for number in range(1000))
    _require_published_classes("torchvision:resnet18", published, ids)
    with pytest.raises(ConfigError, match="class 0 of torchvision:resnet18 is 'tench', of the data 'n00000999'"):
        _require_published_classes("torchvision:resnet18", published, ids[::-1])
    with pytest.raises(ConfigError, match="tells 1000 classes apart, the data has 999"):
        _require_published_classes("torchvision:resnet18", published, ids[:-1])


def test_teacher_normalisation_is_the_published_one():
    pytest.importorskip("timm")
    found = [published_weights(name) for name in ("torchvision:resnet50", "torchvision:efficientnet_v2_l")]
    found += [published_weights(name) for name in ("timm:resnet18", "timm:vit_tiny_patch16_224")]
    half = ((0.5,) * 3,) * 2
    imagenet = PUBLISHED_STATISTICS["imagenet"]
    assert [(one.mean, one.std) for one in found if one] == [imagenet, half, imagenet, half]


def test_teacher_of_timm_with_weights_of_a_file(tmp_path, data):
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    student = resized(data, 32)
    images = torch.randint(256, (3, 1, 32, 32), dtype=torch.uint8)
    teacher = load("timm:test_resnet", student, weights=str(tmp_path / "weights.safetensors"))
    theirs = model.pretrained_cfg
    own = replace(student.transform, mean=tuple(theirs["mean"]), std=tuple(theirs["std"]))
    with torch.no_grad():
        expected = model(own.normalize(images.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(teacher.logits(student.transform.normalize(images)), expected, rtol=1e-4, atol=1e-5)


def test_teacher_that_cannot_take_the_students_size_is_refused(path, data):
    save(path, resized(data, 32), "torchvision:squeezenet1_1")
    load(path, resized(data, 32))
    assert "cannot take the student's images of 8 pixels" in refusal(path, data)
