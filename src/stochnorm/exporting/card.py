"""The model card: what a stranger must know of a model before use, made from the run."""

from __future__ import annotations

import json
from typing import Any

from stochnorm.exporting.about import licence_of
from stochnorm.methods.catalogue import methods_of
from stochnorm.models import Classifier
from stochnorm.runs.directory import Run
from stochnorm.runs.names import data_name
from stochnorm.text import interval

__all__ = ["model_card"]

_USE = {
    "timm": """```python
import timm, torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()    # "hf-hub:OWNER/NAME" from the Hub
transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
with torch.no_grad():
    probabilities = model(transform(Image.open("new.jpg").convert("RGB"))[None]).{activation}
```""",
    "onnx": """```python
import json, numpy, onnxruntime

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
probabilities = session.run(None, {{"images": images}})[0]    # images: {input}
```""",
    "torch": """```python
import torch

model = torch.export.load("{file}").module()
probabilities = model(images)    # images: {input}
```""",
    "torchscript": """```python
import torch

model = torch.jit.load("{file}")
probabilities = model(images)    # images: {input}
```""",
    "safetensors": """```python
from safetensors.torch import load_file

network.load_state_dict(load_file("{file}"))    # network: {backbone} with {count} classes
```""",
}


def model_card(run: Run, classifier: Classifier, about: dict[str, Any], format: str, file: str) -> str:
    """Return the card in Markdown, with the head that the Hugging Face Hub reads.

    Args:
        run: The run; a model file alone has no figures.
        classifier: Its model.
        about: Metadata of the exported file.
        format: Format of the file.
        file: Its name.
    """
    result: dict[str, Any] = run.read_result() if run.result.is_file() else {}
    config = result.get("config", {})
    licence = licence_of(classifier)
    name = about["run"]
    tags = ["image-classification", "stochnorm", *(["timm"] if format == "timm" else [])]
    head = ["---", f"license: {licence if licence not in ('', 'unknown') else 'other'}", "tags:"]
    head += [f"- {tag}" for tag in tags]
    head += ["pipeline_tag: image-classification"]
    head += ["library_name: timm"] if format == "timm" else []
    parts = [
        "\n".join([*head, "---"]),
        f"# {_plain(name)}",
        f"{_plain(classifier.backbone)}, fine-tuned with stochnorm to tell "
        f"{len(classifier.classes)} {'findings' if classifier.multi_label else 'classes'} of images apart: "
        + ", ".join(_plain(each) for each in classifier.classes)
        + ".",
        f"## Use\n\n{_use(classifier, about, format, file)}",
        f"## Data and method\n\n{_method(result, config, classifier)}",
        f"## How good it is\n\n{_figures(result)}",
        f"## Limits\n\n{_limits(result, classifier)}",
        f"## Licence\n\n{_licence(licence, classifier)}",
    ]
    return "\n\n".join(parts) + "\n"


def _use(classifier: Classifier, about: dict[str, Any], format: str, file: str) -> str:
    wanted = about["input"]
    given = f"{wanted['dtype']} ({', '.join(map(str, wanted['shape']))}), RGB" + (
        "" if wanted["dtype"] == "uint8" else ", normalized"
    )
    activation = "sigmoid()" if classifier.multi_label else "softmax(-1)"
    text = _USE[format].format(
        file=file, input=given, activation=activation, backbone=classifier.backbone, count=len(classifier.classes)
    )
    how = about["preprocessing"]
    steps = {
        "squash": f"resized to {how['resize']} x {how['resize']} without keeping the aspect",
        "crop": f"scaled so that the shorter side is {how['resize']}",
        "pad": f"scaled into a square of {how['resize']} with a border of the mean colour",
    }[how["fit"]]
    where = "The graph does this itself: an" if how["in_graph"] else "An"
    flip = "; the logits of each image and its mirror image are averaged" if how["flip"] else ""
    text += (
        f"\n\n{where} upright RGB image is {steps} ({how['interpolation']}, antialiased), its middle {how['crop']} x "
        f"{how['crop']} cut out, divided by 255, less the mean {_numbers(how['mean'])}, divided by the standard "
        f"deviation {_numbers(how['std'])}{flip}."
    )
    if about["threshold"] is not None:
        text += f" A finding is present from a probability of {about['threshold']:g} on."
    return text


def _method(result: dict[str, Any], config: dict[str, Any], classifier: Classifier) -> str:
    if not result:
        return "Unknown: the card was made from a model file without its run."
    counts = result.get("images", {})
    images = ", ".join(f"{counts[split]:,} {split}" for split in ("train", "val", "test") if counts.get(split))
    method = config["method"]
    titles = " + ".join(part.title for part in methods_of(method)) if method else ""
    lines = [
        f"- Data: `{data_name(config['data'])}`; images: {images}",
        f"- Method: {titles or method} (`{method}`), from {_origin(classifier)} weights",
        f"- {config['steps']} steps of {config['batch_size']} images, {config['optimizer']}, learning rate "
        f"{config['lr']:g}, seed {config['seed']}; selected: {result['selected'].get('by', 'as planned')}",
    ]
    return "\n".join(lines)


def _origin(classifier: Classifier) -> str:
    known = ("bundled", "pretrained", "random")
    return classifier.weights if classifier.weights in known else "earlier"


def _figures(result: dict[str, Any]) -> str:
    score = result.get("score")
    rows = []
    for split in ("test", "validation"):
        metrics = result.get(split) or {}
        if score and metrics.get(score) is not None:
            bounds = metrics.get(f"{score}_interval")
            between = interval(bounds) if bounds else "-"
            rows.append(f"| {split} | {metrics['images']:,} | {metrics[score]:.1f} % | {between} |")
    if not rows:
        return "Unknown."
    title = {"top1": "top-1", "mean_auc": "mean AUC"}.get(str(score), str(score))
    table = "\n".join([f"| split | images | {title} | 95 % interval |", "|---|---:|---:|---|", *rows])
    note = (
        "The model was selected on the validation images, so their figure is too good; the test images were used once."
    )
    majority = (result.get("test") or {}).get("majority")
    if majority is not None:
        note += f" Always answering with the largest class would reach {majority:.1f} % on the test images."
    return f"{table}\n\n{note}"


def _limits(result: dict[str, Any], classifier: Classifier) -> str:
    lines = [
        "- It knows these classes only, and names one of them for any image, also for one of something else."
        if not classifier.multi_label
        else "- It knows these findings only.",
        "- The figures hold for images like those of the data: the same kinds of cameras, places and people.",
        "- Probabilities are not calibrated for other images. Do not use it alone where an error does harm.",
    ]
    test = result.get("test") or {}
    if scores := [s for s in test.get("per_class", []) if s is not None]:
        worst = min(range(len(scores)), key=scores.__getitem__)
        names = [n for n, s in zip(classifier.classes, test["per_class"], strict=True) if s is not None]
        lines.append(f"- Its weakest class on the test images is {_plain(names[worst])} ({scores[worst]:.1f} %).")
    return "\n".join(lines)


def _licence(licence: str, classifier: Classifier) -> str:
    if not licence:
        return "The weights began at random, so they have no licence but yours and that of your images."
    if licence == "unknown":
        return (
            f"The weights come from others ({_plain(classifier.backbone)}) under a licence that is not known here: "
            "look it up before you publish them. That of your images applies too."
        )
    return f"The weights that it began with are {licence}; that of your images applies too."


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _plain(text: str) -> str:
    """Return a name without the marks that Markdown and HTML obey."""
    shown = json.dumps(text, ensure_ascii=False)[1:-1] if not text.isprintable() else text
    for mark in "\\`*_[]<>#|":
        shown = shown.replace(mark, f"\\{mark}")
    return shown
