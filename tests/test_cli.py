"""What all commands share: how arguments are read, and how errors end a run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rdgap import _cli


def parser() -> argparse.ArgumentParser:
    arguments = _cli.parser("thing", "Does a thing.", "python -m rdgap.thing --size 3")
    arguments.add_argument("--size", type=_cli.positive_int, default=1)
    arguments.add_argument("--lmbda", type=_cli.positive_float, default=0.01)
    _cli.add_output(arguments, "--csv", "a table")
    _cli.add_plot(arguments, "a picture")
    _cli.add_device(arguments)
    return arguments


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--size", "0"], "argument --size: must be at least 1, got 0"),
        (["--size", "two"], "argument --size: invalid positive_int value: 'two'"),
        (["--lmbda", "-0.01"], "argument --lmbda: must be positive and finite, got -0.01"),
        (["--lmbda", "nan"], "argument --lmbda: must be positive and finite, got nan"),
        (["--plot", "picture.txt"], "argument --plot: must end in .pdf, .png or .svg, got picture.txt"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(argv, said, capsys):
    assert _cli.run(lambda options: None, parser(), argv) == 2
    assert capsys.readouterr().err == f"python -m rdgap.thing: error: {said}\n"


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "table.csv"):
        assert _cli.run(lambda options: pytest.fail("worked"), parser(), ["--csv", str(path)]) == 2
        assert "must be a file that can be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("`crop` must be small,\n got 9."), 2),
        (FileNotFoundError("no file a.png"), 2),
        (ModuleNotFoundError("pip install 'rdgap[demo]'"), 2),
        (RuntimeError("not finite"), 1),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_an_error_is_one_line(error, code, capsys):
    def fail(options: argparse.Namespace) -> None:
        raise error

    assert _cli.run(fail, parser(), []) == code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("python -m rdgap.thing: error: ")


def test_the_item_at_work_is_named_once(capsys):
    def fail(options: argparse.Namespace) -> None:
        error = ValueError("b.png: damaged" if options.csv else "damaged")
        error.add_note("b.png")
        raise error

    for argv in ([], ["--csv", "x.csv"]):
        _cli.run(fail, parser(), argv)
        assert capsys.readouterr().err == "python -m rdgap.thing: error: b.png: damaged\n"


def test_an_unknown_bug_keeps_its_traceback():
    def fail(options: argparse.Namespace) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        _cli.run(fail, parser(), [])


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path):
    run = "_cli.run(lambda o: print('line\\n' * 10**6), _cli.parser('x', 'y', 'z'), [])"
    code = f"import sys; from rdgap import _cli; sys.exit({run})"
    command = f'"{sys.executable}" -c "$CODE" | head -n 1; echo "${{PIPESTATUS[0]}}"'
    root = str(Path(__file__).parent.parent)
    result = subprocess.run(
        ["bash", "-c", command], env={"CODE": code, "PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stdout.split() == ["line", "0"]
    assert result.stderr == ""


def test_devices():
    assert _cli.device("cpu") == torch.device("cpu")
    assert _cli.device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="`--device` must name a device of this machine, got 'tpu9'"):
        _cli.device("tpu9")


@pytest.mark.parametrize(("bf16", "device", "has_it", "said"), [(True, "cpu", False, True), (True, "cpu", True, False),
                         (True, "cuda", False, False), (False, "cpu", False, False)])  # fmt: skip
def test_says_where_bfloat16_is_slower(bf16, device, has_it, said, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_it}, raising=False)
    _cli.note_slow_bf16(bf16, torch.device(device))
    assert ("bfloat16" in capsys.readouterr().err) == said
