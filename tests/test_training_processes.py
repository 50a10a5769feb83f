"""Training over two processes: the result of one, whichever of them fails on the way."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rdgap.ntc.quantization import Share, unit_noise
from rdgap.training import train
from tests._recipes import PRIORS, random_images, tiny_codec
from tests._training import recipe_text, tiny_recipe, write_photographs

ROOT = Path(__file__).resolve().parents[1]
BATCH = 3  # which two processes cannot share evenly
FAILING = """
import os, sys
from rdgap.training import __main__ as command, loop

take_step = loop._Run.take_step

def failing(run, files):
    if run.progress.step == 12 and os.environ["RANK"] == "1":
        raise RuntimeError("the second process is out of memory")
    take_step(run, files)

loop._Run.take_step = failing
sys.exit(command.main())
"""


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("python -m rdgap.training: error:")]


def rows_of(weights: Path) -> list[dict[str, float]]:
    with weights.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(entry) for name, entry in row.items() if name != "seconds"} for row in rows]


def test_two_processes_train_as_one_and_go_on_after_one_has_failed(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    (tmp_path / "tiny.toml").write_text(recipe_text(batch_size=BATCH))
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = [str(tmp_path / "tiny.toml"), "--images", str(photographs[0].parent), "--lmbda", "0.01"]
    arguments += ["--steps", "20", "--validate-every", "5", "--device", "cpu", "--out", str(tmp_path / "two")]

    failed = torchrun(2, str(tmp_path / "failing.py"), *arguments)
    assert failed.returncode != 0
    assert errors_of(failed) == ["python -m rdgap.training: error: the second process is out of memory"]
    assert not (tmp_path / "two" / "tiny-0.01.safetensors").exists()

    finished = torchrun(2, "-m", "rdgap.training", *arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("resumed at step 10") == 1  # said once
    assert finished.stdout.count("finished at step 20 of 20") == 1

    alone = train(
        tiny_recipe(batch_size=BATCH),
        images=photographs[1:],
        validation_images=photographs[:1],
        lmbda=0.01,
        out=tmp_path / "one",
        steps=20,
        validate_every=5,
    )
    two, one = rows_of(tmp_path / "two" / "tiny-0.01.safetensors"), rows_of(alone.weights)
    assert [row["step"] for row in two] == [5, 10, 15, 20]
    for here, there in zip(two, one, strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    assert one[-1]["train_lagrangian_bpp"] < 0.8 * one[0]["train_lagrangian_bpp"]
    here, there = (load_file(tmp_path / out / "tiny-0.01.checkpoint.safetensors") for out in ("two", "one"))
    averages = [name for name in there if name.startswith("average.")]
    assert averages
    for name in averages:
        torch.testing.assert_close(here[name], there[name], rtol=1e-2, atol=1e-3)


def test_what_all_processes_refuse_is_one_line(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    (tmp_path / "tiny.toml").write_text(recipe_text(batch_size=1))
    arguments = [str(tmp_path / "tiny.toml"), "--images", str(photographs[0].parent), "--lmbda", "0.01"]
    done = torchrun(2, "-m", "rdgap.training", *arguments, "--device", "cpu", "--out", str(tmp_path / "out"))
    assert done.returncode != 0
    (line,) = errors_of(done)
    assert line.endswith("every process must have a sample of each batch of 1, got 2 processes.")
    assert not (tmp_path / "out").exists()


def test_noise_belongs_to_the_sample_whoever_has_it() -> None:
    latents = torch.zeros(5, 2, 3, 4)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    whole = unit_noise(latents, generator())
    for samples in (range(2), range(2, 5), range(5)):
        part = unit_noise(latents[: len(samples)], Share(generator(), samples, 5))
        assert torch.equal(part, whole[samples.start : samples.stop])
    assert len(whole.unique()) == whole.numel()
    assert float(whole.abs().max()) <= 0.5


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("quantization", ["noise", "mixed"])
def test_every_parameter_takes_part_in_every_step(prior: str, quantization: str) -> None:
    """Processes would wait for ever for the gradient of one that does not."""
    codec = tiny_codec(prior=prior, quantization=quantization)
    rate_nats, sse = codec(random_images(2, 3, 64, 64), torch.Generator().manual_seed(1))
    (rate_nats.sum() + sse.sum()).backward()
    assert [name for name, parameter in codec.named_parameters() if parameter.grad is None] == []
