"""The commands: one training, and a grid of them, each in a process that ends with the grid."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rdgap.training import grid
from rdgap.training.__main__ import main
from rdgap.zoo import read_codec
from tests._training import JPEG_LIKE, recipe_text, write_photographs

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def command(photographs, tmp_path):
    """Return the arguments of a training of three steps, or of a grid of two recipes; more may be added."""
    recipes = {"tiny": {}, "other": {"synthesis": JPEG_LIKE}, "wide": {"crop_size": 512}}
    for name, options in recipes.items():
        (tmp_path / f"{name}.toml").write_text(recipe_text(name, steps=3, **options))

    def arguments(*names: str, lmbda: str = "0.01", out: Path = tmp_path / "out") -> list[str]:
        paths = [str(tmp_path / f"{name}.toml") for name in names]
        images = ["--images", str(photographs[0].parent)]
        return [*paths, "--lmbda", lmbda, "--device", "cpu", "--out", str(out), *images]

    return arguments


def refusal(capsys, arguments: list[str]) -> str:
    """Run the command, which must end in exit code 2 and one line, and return the line."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr().err
    assert code == 2
    assert written.count("\n") == 1
    return written


# one training


def test_the_command_trains_as_it_is_told(command, tmp_path, capsys):
    assert main([*command("tiny"), "--seed", "4", "--steps", "2", "--bf16", "--validate-every", "1"]) == 0
    said = capsys.readouterr().out
    assert "tiny-0.01: 4 images, 0 too small, 1 held out; starts afresh" in said
    assert "tiny-0.01.safetensors: finished at step 2 of 2; validation L " in said
    card = (tmp_path / "out" / "tiny-0.01.md").read_text()
    assert f"python -m rdgap.training {tmp_path}/tiny.toml --lmbda 0.01 --device cpu" in card
    assert "| seed | 4 |" in card
    assert "bfloat16" in card
    assert read_codec(tmp_path / "out" / "tiny-0.01.safetensors").lmbda == 0.01


def test_the_command_says_that_its_time_is_up_and_goes_on(command, capsys):
    assert main([*command("tiny"), "--minutes", "1e-9"]) == 0
    assert "stopped by the time budget, the same command goes on at step 0 of 3" in capsys.readouterr().out
    assert main(command("tiny")) == 0
    assert "finished at step 3 of 3" in capsys.readouterr().out
    assert main(command("tiny")) == 0
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_training_leaves_heavy_libraries_alone_and_the_help_is_there(command, tmp_path):
    script = f"""if True:
        import sys, rdgap.training, rdgap.training.__main__
        assert rdgap.training.__main__.main({command("tiny")!r}) == 0
        heavy = {{"constriction", "pandas", "matplotlib", "scipy", "seaborn", "pytorch_msssim"}} & set(sys.modules)
        assert not heavy, heavy
        """
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for arguments in (["-c", script], ["-W", "error", "-m", "rdgap.training", "--help"]):
        ended = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    assert "--init-from" in ended.stdout
    assert "example:\n  python -m rdgap.training models/two-layer-lite.toml --images" in ended.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images", "missing"], "No such image file or folder: missing"),
        (["--lmbda", "-1"], "must be positive and finite, got -1"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--minutes", "0"], "must be positive and finite, got 0"),
        (["--seed", "-3"], "`seed` must not be negative, got -3"),
        (["--device", "abacus"], "`--device` must name a device of this machine, got 'abacus'"),
        (["--init-from", "missing.safetensors"], "there are no weights missing.safetensors"),
        (["--unheard-of"], "unrecognized arguments: --unheard-of"),
    ],
)
def test_bad_input_is_one_line(command, capsys, more, message):
    assert message in refusal(capsys, [*command("tiny"), *more])


def test_bad_recipes_and_images_are_one_line(command, photographs, tmp_path, capsys):
    assert "there is no recipe 'no-such'" in refusal(capsys, ["no-such", *command("tiny")[1:]])
    assert "no training image holds a crop of 512 x 512; 4 were read." in refusal(capsys, command("wide"))
    in_both = [*command("tiny"), "--validation", str(photographs[1])]
    assert "held-out images must not be trained on" in refusal(capsys, in_both)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert f"{broken}: not a PNG" in refusal(
        capsys, [*command("tiny"), "--images", *map(str, photographs), str(broken)]
    )


# a grid


def test_a_grid_out_of_time_is_finished_by_the_same_command_and_names_what_failed(command, tmp_path, capfd):
    arguments = ["grid", *command("tiny", "wide", "other"), "--jobs", "3", "--steps", "2"]
    assert main([*arguments, "--minutes", "1e-9"]) == 0
    assert "0 of 3 trainings are finished; the same command goes on with the rest." in capfd.readouterr().out
    assert main(arguments) == 1
    said = capfd.readouterr()
    assert "2 of 3 trainings are finished" in said.out
    assert "no training image holds a crop of 512 x 512" in said.out
    log = tmp_path / "out" / "wide-0.01.log"
    assert said.err == f"python -m rdgap.training grid: error: 1 of the trainings failed; see {log}.\n"
    for name in ("tiny", "other"):
        assert read_codec(tmp_path / "out" / f"{name}-0.01.safetensors").name == name
        assert "finished at step 2 of 2" in (tmp_path / "out" / f"{name}-0.01.log").read_text()


def test_a_grid_that_is_killed_takes_its_trainings_with_it(command, tmp_path):
    arguments = ["grid", *command("tiny"), "--steps", "100000", "--validate-every", "1"]
    parent = subprocess.Popen([sys.executable, "-m", "rdgap.training", *arguments], env=ENVIRONMENT)
    course = tmp_path / "out" / "tiny-0.01.csv"
    while not (course.exists() and course.read_bytes().count(b"\n") > 2):
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    time.sleep(0.5)
    after = course.read_bytes()
    time.sleep(0.5)  # some twenty more rows, if it were alive
    assert course.read_bytes() == after


def test_a_grid_starts_each_recipe_at_each_lmbda_within_its_jobs(command, tmp_path, monkeypatch):
    started = []

    class Ended:
        exitcode, sentinel = 0, 0

        def join(self) -> None: ...

    def start(arguments, log, deadline, jobs):
        started.append((Path(arguments[0]).stem, float(arguments[2]), log.name, jobs))
        log.write_text("done\n")
        return Ended()

    monkeypatch.setattr(grid, "_start", start)
    monkeypatch.setattr(
        grid, "wait", lambda sentinels: time.sleep(0) if len(sentinels) <= 2 else pytest.fail("too many")
    )
    assert main(["grid", *command("tiny", "other"), "--lmbda", "0.01", "0.04", "--jobs", "2"]) == 0
    assert started == [
        (name, lmbda, f"{name}-{lmbda:g}.log", 2) for name in ("tiny", "other") for lmbda in (0.01, 0.04)
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lmbda", "0.01", "0.0100000001"], "each recipe and lmbda must be given once, got tiny-0.01 2 times"),
        (["--jobs", "0"], "must be at least 1, got 0"),
        (["--images", "missing"], "No such image file or folder: missing"),
        (["--init-from", "missing.safetensors"], "there are no weights missing.safetensors"),
        (["--afresh", "prior"], "`afresh` must come with `init_from`"),
    ],
)
def test_bad_input_of_a_grid_is_one_line_before_anything_is_trained(command, tmp_path, capsys, more, message):
    assert message in refusal(capsys, ["grid", *command("tiny"), *more])
    assert not (tmp_path / "out").exists()
