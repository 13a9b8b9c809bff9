"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import csv
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
import torch

import stochnorm.__main__
import warm
from processes import torchrun
from stochnorm import cli
from stochnorm.cli.main import COMMANDS, main
from stochnorm.models.weights import read_state_dict

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_finetune_and_predict(photos: Path, tmp_path: Path, tiny_options: list[str], run_command: Run) -> None:
    trained = run_command("finetune", photos, *tiny_options, "--no-report", "--p", "0.3", "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    for text in (
        "18 train / 6 val / 6 test, 3 classes",
        "Stochastic Normalization p=0.3",
        "val top-1",
        "test",
        "95 % interval",
    ):
        assert text in trained.stdout
    predicted = run_command("predict", tmp_path / "run", photos / "red", "--csv", tmp_path / "out.csv")
    assert predicted.returncode == 0, predicted.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert set(rows[0]) == {"path", "predicted", "probability", "p(blue)", "p(green)", "p(red)"}
    assert all(row["predicted"] in predicted.stdout for row in rows)


def test_errors_are_one_line_without_traceback(
    photos: Path, tmp_path: Path, tiny_options: list[str], run_command: Run
) -> None:
    (photos / "empty").mkdir()
    failed = run_command("finetune", photos, *tiny_options, "--no-report", "--out", tmp_path / "run")
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {photos}/empty: the class folder has no images")
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
    assert "Traceback" in run_command("finetune", photos, *tiny_options, "--no-report", STOCHNORM_TRACEBACK="1").stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["finetune", "nowhere"], "error: nowhere: no such folder"),
        (["predict", "nowhere", "x.png"], "error: nowhere: no such model"),
    ],
)
def test_bad_input_is_named(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    assert message in capsys.readouterr().err


def test_predictions_are_not_begun_where_they_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no such run either, but that is looked at later."""
    for csv_path, message in (
        (tmp_path / "missing/out.csv", f"the folder {tmp_path}/missing does not exist; make it first"),
        (tmp_path, "it is a folder; choose a file name"),
    ):
        assert main(["predict", "nowhere", "x.png", "--csv", str(csv_path)]) == 1
        assert capsys.readouterr().err == f"error: cannot write {csv_path}: {message}\n"
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_of_several_processes_goes_on_with_torchrun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt("stopped after step 1 of 2")

    monkeypatch.setattr("stochnorm.training.finetune.finetune", stopped)
    for processes, command in (("1", "stochnorm"), ("2", "torchrun ... -m stochnorm")):
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert main(["finetune", "my photos", "--overwrite"]) == 130
        assert f"resume with: {command} finetune 'my photos' --resume\n" in capsys.readouterr().err


def test_a_value_out_of_range_is_named(run_command: Run) -> None:
    failed = run_command("finetune", "x", "--p", "2")
    assert failed.returncode == 1
    assert failed.stderr == "error: p must be in [0, 1], got 2.0\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "finetune x --method bss --l2sp.alpha 5",
            "method bss does not use l2sp.alpha, which is for l2sp; remove it, or",
        ),
        ("finetune x --method vanilla --freeze both", "method vanilla does not use freeze, which is for frozen"),
        (
            "finetune x --method l2sp --norm-layers a",
            "method l2sp does not use norm_layers, which is for stochnorm or bin or frozen",
        ),
        (
            "finetune x --method stochnorm --p-end 0.9",
            "p_end 0.9 needs a schedule, but p is constant; give --p-schedule linear",
        ),
        ("tune x --method l2sp --p 0.3", "method l2sp does not use p, which is for stochnorm"),
        ("compare x --methods vanilla,l2sp --p 0.3", "none of the methods vanilla,l2sp uses p; remove it"),
        ("compare x --methods l2sp:p=0.3", "method l2sp does not use p; remove it"),
        ("compare x --methods bss+stochnorm,stochnorm+bss", "stochnorm+bss: duplicate variant"),
        (
            "compare x --methods vanilla,bss --reference bs",
            "--reference must be one of the methods, got 'bs'; choose from vanilla, bss",
        ),
        (
            "finetune x --method bss --bss.k 5 --batch-size 8 --accumulate 2",
            "bss.k must be at most 4, the images of a forward pass",
        ),
        ("finetune x --method bss --bss.eta inf", "bss.eta must be at least 0 and finite, got inf"),
        ("finetune x --method delta --delta.attention-images 0", "delta.attention_images must be at least 1, got 0"),
        ("finetune x --method batchnorm", "unknown method 'batchnorm' in 'batchnorm', did you mean vanilla?"),
    ],
)
def test_settings_that_cannot_be_are_one_line(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_a_settings_file_serves_another_method_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what belongs to its own."""
    made = []
    monkeypatch.setattr("stochnorm.training.finetune.finetune", made.append)
    (tmp_path / "chosen.json").write_text('{"data": "x", "method": "stochnorm", "p": 0.3, "lr": 0.01}')
    assert main(["finetune", "x", "--settings", str(tmp_path / "chosen.json"), "--method", "vanilla"]) == 0
    assert (made[0].method, made[0].p, made[0].lr) == ("vanilla", 0.5, 0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_cannot_take_the_model_is_one_line_and_leaves_nothing_half(
    photos: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    """A limit of 200 kB a file stands in for a full disk: the metrics fit, the model (1.5 MB) does not."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
    code += "from stochnorm.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "finetune", photos, *tiny_options, "--no-report", "--out", tmp_path / "run"]
    failed = warm.run(command)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: cannot write {tmp_path}/run/model.safetensors: ")
    assert failed.stderr.count("\n") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "split.csv", "images.csv"}


def test_warnings_are_lines(photos: Path, tmp_path: Path, tiny_options: list[str], run_command: Run) -> None:
    (photos / "red/000.png").write_bytes(b"")
    trained = run_command("finetune", photos, *tiny_options, "--no-report", "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.startswith("warning: skipped 1 of 30 images")
    strict = run_command("finetune", photos, *tiny_options, "--no-report", "--out", tmp_path / "strict", "--strict")
    assert strict.returncode == 1
    assert strict.stderr.startswith(f"error: {photos}/red/000.png: cannot be read as an image")


def test_a_number_beyond_64_bits_is_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(photos), "--seed", "9" * 20]) == 1
    assert capsys.readouterr().err == f"error: seed must be int of 64 bits, got {'9' * 20}\n"


def test_ctrl_c_while_the_command_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stop(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "stochnorm.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "stochnorm.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Stop(), *sys.meta_path])
    assert stochnorm.__main__.main() == 130
    assert capsys.readouterr() == ("", "stopped\n")


def written(run: Path) -> int:
    """When a run's checkpoint was written; 0 where there is none."""
    try:
        return (run / "checkpoint.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, tiny_options: list[str], run_command: Run
) -> None:
    long = ["finetune", photos, *tiny_options, "--no-report", "--steps", "120", "--eval-every", "20", "--workers", "1"]
    assert run_command(*long, "--out", tmp_path / "whole").returncode == 0
    out, resume = tmp_path / "parts", []
    for kind in (signal.SIGINT, signal.SIGTERM):
        before = written(out)
        with (tmp_path / "errors").open("w") as file:
            process = warm.Popen([sys.executable, "-m", "stochnorm", *long, "--out", out, *resume], stderr=file)
        resume = ["--resume"]
        deadline = time.monotonic() + 60
        while written(out) in (before, 0):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(kind)
        status, errors = process.wait(60), (tmp_path / "errors").read_text()
        assert status == 130, errors
        assert "stopped after step" in errors
        assert f"resume with: stochnorm finetune {photos}" in errors
        assert "Traceback" not in errors
        assert not (out / "result.json").exists()
    assert run_command(*long, "--out", out, "--resume").returncode == 0
    whole, parts = (read_state_dict(run / "model.safetensors") for run in (tmp_path / "whole", out))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_two_processes_train_one_model(photos: Path, tmp_path: Path, tiny_options: list[str]) -> None:
    options = [photos, *tiny_options, "--no-report", "--out", tmp_path / "run"]
    printed = torchrun("-m", "stochnorm", "finetune", *options)
    assert printed.count("selected: step") == 1
    result = (tmp_path / "run/result.json").read_text()
    assert '"processes": 2' in result
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 3
    assert len((tmp_path / "run/csv/metrics.csv").read_text().splitlines()) == 1 + 3 + 1  # a header; the test


@pytest.mark.parametrize("command", ["finetune", "tune", "compare"])
def test_help_breaks_lines_where_the_screen_or_a_clause_ends(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the source's lines end."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help-all"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if line[1:23].isspace()]
    text = [line for line in lines if line]
    assert text
    for line, following in itertools.pairwise(text):
        room = len(line) + 1 + len(following.split()[0]) <= 54
        assert not room or line[-1] in ".;:)", f"{line!r} breaks before {following!r}"


def test_every_command_is_in_the_list_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    files -= {"__init__", "__main__", "main", "options", "standard", "help", "words"}
    assert {place.partition(".")[0] for place in COMMANDS.values()} == files
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: stochnorm {name} ")


@pytest.mark.parametrize(
    ("command", "own"),
    [("finetune", "--settings"), ("tune", "--trials"), ("compare", "--methods"), ("compare", "--out")],
)
def test_help_lists_the_options_of_the_command_before_those_of_a_run(
    command: str, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = re.findall(r"^[│ ] (--\w[\w.-]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(options) == len(set(options))
    assert options.index(own) < options.index("--lr")


def test_help_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from stochnorm import FinetuneConfig

    with pytest.raises(SystemExit) as stop:
        main(["finetune", "--help-all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in fields(FinetuneConfig):
        option = field.name.replace("_", "-")
        assert field.name == "data" or f"--{option}" in text or f"--no-{option}" in text


def test_the_package_is_the_command() -> None:
    script = "import sys; from stochnorm.cli.main import main; sys.exit(main())"  # as installed
    for args, status in (("--help", 0), ("report", 1)):
        command, *packages = (
            subprocess.run([sys.executable, *start, args], capture_output=True, text=True, check=False, timeout=120)
            for start in (["-c", script], ["-m", "stochnorm"], ["-m", "stochnorm.cli"])
        )
        for package in packages:
            assert package.returncode == status
            assert (package.stdout, package.stderr) == (command.stdout, command.stderr)
        assert package.stdout + package.stderr
