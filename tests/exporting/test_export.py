"""Exported files predict what the run predicts, say what they are, and replace nothing of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from stochnorm import Export, FinetuneConfig, build_classifier, export, finetune, load_classifier
from stochnorm.cli.main import main
from stochnorm.exporting.about import KEY, about_of
from stochnorm.exporting.images import Images, read_images_of
from stochnorm.models import Classifier
from stochnorm.runs.directory import Run
from stochnorm.runs.predictions import Predictions, read_predictions

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")

SETTINGS: dict[str, Any] = {
    "backbone": "test_resnet", "weights": "random", "image_size": 32, "batch_size": 8, "steps": 12, "eval_every": 4,
    "precision": "32", "device": "cpu", "report": False, "method": "stochnorm",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on images of three colors and several shapes: 18 for training, 6 for validation, 6 for the test."""
    root = tmp_path_factory.mktemp("export")
    random = np.random.default_rng(0)
    for name, color in (("blue", (40, 40, 200)), ("green", (40, 160, 40)), ("red", (200, 40, 40))):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(10):
            noise = random.integers(-30, 31, (40 + 5 * (i % 3), 52 - 9 * (i % 2), 3))
            pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        return Run(finetune(FinetuneConfig(str(root / "photos"), out=str(root / "run"), **SETTINGS), quiet=True).run)


@pytest.fixture(scope="module")
def classifier(run: Run) -> Classifier:
    return load_classifier(run.path)


@pytest.fixture(scope="module")
def images(run: Run, classifier: Classifier) -> Images:
    return read_images_of(run, classifier, ("test",), 1000)


@pytest.fixture(scope="module")
def known(run: Run) -> Predictions:
    """What the run wrote down."""
    return read_predictions(run.predictions, multi_label=False, probabilities=True)


@pytest.fixture(scope="module")
def onnx_files(run: Run) -> Export:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return export(run.path, "onnx", precision=("fp32", "int8"), max_drop=100)


@pytest.fixture(scope="module")
def other_files(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(run.path, "torchscript,safetensors,timm", tmp_path_factory.mktemp("others"))


def file_of(done: Export, format: str, precision: str = "fp32") -> Path:
    return next(file.path for file in done.files if (file.format, file.precision) == (format, precision))


def probabilities_of(path: Path, inputs: Tensor) -> np.ndarray[Any, Any]:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": inputs.numpy()})[0])


def test_onnx_runtime_predicts_what_the_run_wrote_down_in_batches_of_any_size(
    onnx_files: Export, images: Images, known: Predictions
) -> None:
    path, inputs = file_of(onnx_files, "onnx"), images.inputs()
    assert [row.path for row in images.store.rows] == known.paths
    for size in (1, 4, 6):
        parts = [probabilities_of(path, inputs[i : i + size]) for i in range(0, 6, size)]
        assert np.concatenate(parts) == pytest.approx(known.probabilities, abs=1e-5)
    check = onnx_files.files[0].check
    assert check is not None
    assert (check.images, check.split, check.agreement, check.change) == (6, "test", 100, 0)
    assert check.difference < 1e-5
    assert onnx_files.recorded == (6, 6)


def test_a_process_without_stochnorm_gets_the_same_classes(
    onnx_files: Export, images: Images, known: Predictions, tmp_path: Path
) -> None:
    np.save(tmp_path / "inputs.npy", images.inputs().numpy())
    code = """
import json, sys
sys.modules["stochnorm"] = sys.modules["torch"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(probabilities,) = session.run(None, {"images": numpy.load(sys.argv[2])})
print(json.dumps([classes[i] for i in probabilities.argmax(1)]))
"""
    command = [sys.executable, "-c", code, str(file_of(onnx_files, "onnx")), str(tmp_path / "inputs.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == known.predicted


def test_int8_is_smaller_and_near_the_run(onnx_files: Export) -> None:
    whole, small = onnx_files.files
    assert small.path.name == f"{onnx_files.run.name}-int8.onnx"
    assert small.size < 0.5 * whole.size
    assert small.check is not None
    assert 0 < small.check.difference < 0.3
    assert small.about["batch_norm"] == "folded"


def test_onnx_says_classes_preprocessing_and_open_sizes(onnx_files: Export, classifier: Classifier) -> None:
    import onnxruntime

    for precision in ("fp32", "int8"):
        session: Any = onnxruntime.InferenceSession(
            str(file_of(onnx_files, "onnx", precision)), providers=["CPUExecutionProvider"]
        )
        about = session.get_modelmeta().custom_metadata_map
        assert json.loads(about["classes"]) == ["blue", "green", "red"]
        assert about["precision"] == precision
        assert about["threshold"] == "null"
        how = json.loads(about["preprocessing"])
        assert (how["fit"], how["resize"], how["crop"], how["interpolation"]) == ("squash", 37, 32, "bilinear")
        assert (how["mean"], how["std"]) == (list(classifier.preprocessing.mean), list(classifier.preprocessing.std))
        assert not how["in_graph"]
        (given,), (returned,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.shape, returned.shape) == ("images", ["batch", 3, 32, 32], ["batch", 3])


def test_timm_loads_the_folder_with_equal_logits(other_files: Export, images: Images, classifier: Classifier) -> None:
    model: Any = timm.create_model(f"local-dir:{file_of(other_files, 'timm')}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(images.inputs()), classifier.model(images.inputs()))
    data = timm.data.resolve_model_data_config(model)
    transform: Any = timm.data.create_transform(**data)
    assert data["crop_mode"] == "squash"
    seen = transform(Image.open(images.files[0]).convert("RGB"))
    assert torch.equal(seen.shape == images.inputs()[0].shape and (seen - images.inputs()[0]).abs() < 0.02,
                       torch.ones_like(seen, dtype=torch.bool))  # fmt: skip
    config = json.loads((file_of(other_files, "timm") / "config.json").read_text())
    assert config["label_names"] == ["blue", "green", "red"]


def test_the_model_card_has_data_method_figures_and_limits(other_files: Export, run: Run) -> None:
    card = (file_of(other_files, "timm") / "README.md").read_text()
    test = run.read_result()["test"]
    low, high = test["top1_interval"]
    assert f"| test | 6 | {test['top1']:.1f} % | {low:.1f} to {high:.1f} |" in card
    for said in (
        "library_name: timm",
        "`photos`; images: 18 train, 6 val, 6 test",
        "`stochnorm`",
        "## Limits",
        "random",
    ):
        assert said in card
    assert str(run.path.parent) not in card


def test_torchscript_and_safetensors_hold_the_model_and_its_description(
    other_files: Export, images: Images, known: Predictions, classifier: Classifier
) -> None:
    extra = {f"{KEY}.json": ""}
    script: Any = torch.jit.load(file_of(other_files, "torchscript"), _extra_files=extra)
    with torch.no_grad():
        assert script(images.inputs()).numpy() == pytest.approx(known.probabilities, abs=1e-5)
    with safe_open(file_of(other_files, "safetensors"), "pt") as content:
        state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
        about = json.loads(content.metadata()[KEY])
    own = classifier.model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)
    assert about["output"] == "logits"
    assert json.loads(extra[f"{KEY}.json"]) == about | {"output": "probabilities"}


def test_torch_export_takes_raw_images_of_any_size(
    run: Run, images: Images, known: Predictions, tmp_path: Path
) -> None:
    done = export(run.path, "torch", tmp_path / "model.pt2", preprocess=True, fold=True)
    extra = {f"{KEY}.json": ""}
    model = torch.export.load(done.files[0].path, extra_files=extra).module()
    about = json.loads(extra[f"{KEY}.json"])
    assert about["input"] == {"dtype": "uint8", "shape": ["batch", "height", "width", 3], "colours": "RGB"}
    assert about["batch_norm"] == "folded"
    for i in range(6):
        pixels = torch.from_numpy(np.array(Image.open(images.files[i])))[None]
        found = model(pixels.repeat(2, 1, 1, 1))
        assert [known.classes[j] for j in found.argmax(1).tolist()] == 2 * [known.predicted[i]]
    check = done.files[0].check
    assert check is not None
    assert check.pixels is not None
    assert check.pixels < 0.6


def test_fp16_is_half_as_large_and_near_the_run(run: Run, tmp_path: Path, other_files: Export) -> None:
    done = export(run.path, "safetensors,timm", tmp_path, precision="fp16")
    for file in done.files:
        whole = next(other for other in other_files.files if other.format == file.format)
        assert file.size < 0.6 * whole.size
        assert file.check is not None
        assert 0 < file.check.difference < 0.01


def test_a_file_that_disagrees_is_an_error_and_is_not_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stochnorm.exporting import export as module

    def turned(path: Path, format: str, model: Any) -> Any:
        return lambda inputs: model(inputs).roll(1, dims=1)

    monkeypatch.setattr(module, "opened", turned)
    with pytest.raises(ValueError, match=r"x\.torchscript was not written: its probabilities differ from the run's by"):
        export(run.path, "torchscript", tmp_path / "x.torchscript")
    with pytest.raises(ValueError, match="x-timm was not written"):
        export(run.path, "timm", tmp_path / "x-timm")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_others_is_replaced(run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("mine")
    for format in ("torchscript", "safetensors"):
        with pytest.raises(FileExistsError, match="is no file of"):
            export(run.path, format, notes / "a.txt", check=False)
    with pytest.raises(FileExistsError, match="files that are no model that stochnorm wrote"):
        export(run.path, "timm", notes, check=False)
    with pytest.raises(FileExistsError, match="is no file of"):  # the run itself
        export(run.path, "safetensors", run.model, check=False)
    assert (notes / "a.txt").read_text() == "mine"
    for _ in range(2):  # its own are
        export(run.path, "torchscript", tmp_path / "x.pt", check=False)
        export(run.path, "timm", tmp_path / "folder", check=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "notes", "x.pt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "tflite"}, "format must be onnx or torch or torchscript or safetensors or timm, got tflite"),
        ({"format": "torch", "precision": "int8"}, "format torch has no precision int8"),
        ({"format": "timm", "preprocess": True}, "format timm cannot hold the preprocessing"),
        ({"format": "safetensors", "fold": True}, "names of plain BatchNorm; remove --fold"),
        ({"repository": "photos"}, "--push needs the name of a repository such as me/photos, got 'photos'"),
        ({"images": 0}, "must be at least 1"),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(run: Run, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        export(run.path, **options)


def test_a_model_file_alone_is_exported_without_a_check(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images to check the file on"):
        export(run.model, "safetensors", tmp_path / "x.safetensors")
    done = export(run.model, "safetensors", tmp_path / "x.safetensors", check=False)
    assert done.files[0].check is None


def test_findings_have_a_threshold() -> None:
    model = build_classifier("test_resnet", "random", ("cold", "warm"), image_size=32, multi_label=True)
    about = about_of(model, name="x", raw=False, fold=False, precision="fp32", output="probabilities")
    assert (about["multi_label"], about["threshold"], about["weights_licence"]) == (True, 0.5, "none")


def test_push_uploads_files_and_card_to_a_private_repository(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    class Hub:
        def create_repo(self, name: str, **options: Any) -> None:
            seen["made"] = (name, options)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
            seen["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
            return SimpleNamespace(repo_url=f"https://hub.invalid/{repo_id}")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "folder"
    assert main(["export", str(run.path), "--format", "timm", "--out", str(out), "--push", "me/photos"]) == 0
    assert seen["made"] == ("me/photos", {"private": True, "exist_ok": True})
    assert seen["files"] == {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(seen["files"]) == ["README.md", "config.json", "model.safetensors"]
    shown = capsys.readouterr().out
    assert "pushed to https://hub.invalid/me/photos" in shown
    assert "the run, in PyTorch" in shown
    assert "6 of 6 are the same class" in shown
