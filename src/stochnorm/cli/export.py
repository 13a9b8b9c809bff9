"""Export the model of a run for other programs."""

from __future__ import annotations

from dataclasses import dataclass

from stochnorm.cli.options import Overwrite, RunPath

__all__ = ["Export"]


@dataclass(frozen=True)
class Export:
    """Write the model of a run for other programs, and check the files on the run's images."""

    run_path: RunPath
    """Directory of a finished run."""
    format: str = "onnx"
    """onnx, torch (torch.export), torchscript, safetensors or timm; several with commas between."""
    out: str = ""
    """File, or folder of format timm; with several files a folder for them. Empty: RUN/export."""
    precision: str = "fp32"
    """fp32, fp16 or int8 (ONNX alone, calibrated on training images); several with commas between."""
    preprocess: bool = False
    """Put resizing and normalization into the graph, which then takes raw uint8 images of any size (onnx, torch)."""
    fold: bool = False
    """Move BatchNorm into the convolutions before it; int8 always does."""
    check: bool = True
    """Compare each file with the run on its test images."""
    images: int = 1000
    """Maximum number of images of the check."""
    calibration: int = 128
    """Number of training images that int8 is calibrated on."""
    max_drop: float = 5.0
    """Largest fall of the score that is accepted, points."""
    push: str = ""
    """OWNER/NAME: repository on the Hugging Face Hub to push the files and a model card to."""
    public: bool = False
    """Let everyone see a repository that --push makes; by default it is private."""
    overwrite: Overwrite = False

    def run(self) -> None:
        from stochnorm.exporting.export import export
        from stochnorm.exporting.table import show
        from stochnorm.terminal import Terminal

        done = export(
            self.run_path,
            self.format,
            self.out,
            precision=self.precision,
            preprocess=self.preprocess,
            fold=self.fold,
            check=self.check,
            images=self.images,
            calibration=self.calibration,
            max_drop=self.max_drop,
            overwrite=self.overwrite,
            repository=self.push,
            public=self.public,
        )
        show(done, Terminal())
