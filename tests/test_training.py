"""The training loop: the paper's schedule, the averaged weights, the log, and a run that goes on after a kill."""

import csv
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rdgap.images import read_image
from rdgap.objective import cost
from rdgap.recipes import Recipe, build_codec
from rdgap.training import TrainingResult, checkpoint, loop, storing, train, validate
from rdgap.training.data import TrainingCrops, seeded
from rdgap.training.results import LOG_COLUMNS
from rdgap.training.schedule import average_decay, learning_rate_factor, lmbda_boost, parameter_groups
from rdgap.zoo import read_codec, write_codec
from tests._training import JPEG_LIKE, recipe_text, tiny_recipe, write_photographs

LMBDA = 0.01


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    """A finished run of 8 steps, never written to."""
    return run(photographs, tmp_path_factory.mktemp("finished"))


def run(photographs: list[Path], out: Path, recipe: Recipe | None = None, **options: object) -> TrainingResult:
    options = {"lmbda": LMBDA, "validate_every": 3} | options
    recipe = recipe or tiny_recipe()
    return train(recipe, images=photographs[1:], validation_images=photographs[:1], out=out, **options)  # pyright: ignore


def checkpoint_of(result: TrainingResult) -> Path:
    return result.weights.with_suffix(".checkpoint.safetensors")


def rows_of(result: TrainingResult) -> list[list[str]]:
    """The log without its column of seconds."""
    with result.weights.with_suffix(".csv").open(newline="") as file:
        return [[row[0], *row[2:]] for row in csv.reader(file)]


def assert_same_run(one: TrainingResult, other: TrainingResult) -> None:
    here, there = load_file(checkpoint_of(one)), load_file(checkpoint_of(other))
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    here, there = load_file(one.weights), load_file(other.weights)
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    assert rows_of(one) == rows_of(other)


def interrupt(photographs: list[Path], out: Path, before_step: int) -> None:
    """Begin the run of `finished` and press Ctrl-C."""
    take_step = loop._Run.take_step

    def interrupted(self, files):
        if self.progress.step == before_step:
            raise KeyboardInterrupt
        take_step(self, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "take_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(photographs, out)


@pytest.fixture
def weights_after_each_step(monkeypatch):
    """A list that fills with the weights at the start and after each step."""
    weights = []
    resume, take_step = loop._Run.resume, loop._Run.take_step

    def remember(method):
        def remembering(self, files):
            returned = method(self, files)
            weights.append({name: weight.clone() for name, weight in self.codec.state_dict().items()})
            return returned

        return remembering

    monkeypatch.setattr(loop._Run, "resume", remember(resume))
    monkeypatch.setattr(loop._Run, "take_step", remember(take_step))
    return weights


# schedule


def test_the_learning_rate_rises_linearly_then_falls_tenfold_at_80_percent():
    plan = tiny_recipe(decay='"step"', warmup_fraction=0.02).training
    factors = [learning_rate_factor(plan, step, 1000) for step in range(1000)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert set(factors[20:800]) == {1.0}
    assert set(factors[800:]) == {0.1}


def test_the_learning_rate_falls_along_half_a_cosine_to_one_percent():
    plan = tiny_recipe(decay='"cosine"', warmup_fraction=0.0).training
    factors = [learning_rate_factor(plan, step, 1000) for step in range(1001)]
    assert [factors[0], factors[500], factors[1000]] == pytest.approx([1.0, 0.505, 0.01])
    assert all(before > after for before, after in pairwise(factors))


@pytest.mark.parametrize(("lmbda", "boost"), [(0.00125, 10.0), (0.01, 10.0), (0.0101, 1.0), (0.08, 1.0)])
def test_lmbda_is_tenfold_in_the_first_fifth_of_the_steps_where_it_is_small(lmbda, boost):
    plan = tiny_recipe().training
    boosts = [lmbda_boost(plan, lmbda, step, 100) for step in range(100)]
    assert set(boosts[:20]) == {boost}
    assert set(boosts[20:]) == {1.0}


def test_relative_rates_are_in_units_of_each_tensors_root_mean_square():
    codec = build_codec(tiny_recipe())
    groups = parameter_groups(tiny_recipe().training, codec)
    assert [group["params"] for group in groups] == [[parameter] for parameter in codec.parameters()]
    sizes = [max(3e-3, math.sqrt(parameter.detach().double().square().mean())) for parameter in codec.parameters()]
    assert [group["scale"] for group in groups] == pytest.approx(sizes, rel=1e-5)
    assert max(sizes) > 10 * min(sizes)
    (group,) = parameter_groups(tiny_recipe(relative_learning_rate="false").training, codec)
    assert group["scale"] == 1.0
    assert len(group["params"]) == len(groups)


def test_the_first_step_moves_every_tensor_by_its_learning_rate(photographs, tmp_path, weights_after_each_step):
    """Adam's first step is the rate times the sign of the gradient."""
    run(photographs, tmp_path, tiny_recipe(warmup_fraction=0.5), steps=8)
    start, first = weights_after_each_step[:2]
    rate = 0.02 / 4  # of four steps of warm-up
    for name, tensor in start.items():
        size = max(3e-3, float(tensor.square().mean().sqrt()))
        moved = float((first[name] - tensor).abs().max()) / (rate * size)
        assert moved < 1.01, name
        assert moved > 0.95 or name.startswith("prior"), name  # where gradients are not as small as Adam's epsilon


def test_a_tenfold_lmbda_is_what_the_first_steps_minimize(photographs, tmp_path, weights_after_each_step):
    options = {"initialization": '"random"', "steps": 4}  # a principal start depends on lmbda
    run(photographs, tmp_path, tiny_recipe(boosted_fraction=0.5, **options), lmbda=0.01)
    run(photographs, tmp_path, tiny_recipe(boosted_fraction=0.0, **options), lmbda=0.1)
    boosted, plain = weights_after_each_step[:5], weights_after_each_step[5:]
    for step, (here, there) in enumerate(zip(boosted, plain, strict=True)):
        same = all(torch.equal(tensor, there[name]) for name, tensor in here.items())
        assert same == (step <= 2)


# what a training computes and leaves


def test_training_lowers_the_cost(photographs, tmp_path):
    result = run(photographs, tmp_path, steps=25, validate_every=1, lmbda=0.02)
    costs = [float(row[5]) for row in rows_of(result)[1:]]
    assert len(costs) == 25
    assert costs[-1] < 0.8 * costs[0]
    assert result.finished
    assert result.validation.lagrangian_bpp == costs[-1]


def test_the_weights_stored_are_the_running_average(photographs, tmp_path, weights_after_each_step):
    result = run(photographs, tmp_path, steps=3)
    average, *steps = weights_after_each_step
    assert len(steps) == 3
    for number, weights in enumerate(steps, start=1):
        past = (1 + number) / (10 + number)
        average = {name: past * average[name] + (1 - past) * weights[name] for name in average}
    saved, stored = load_file(checkpoint_of(result)), read_codec(result.weights).state_dict()
    for name, tensor in average.items():
        torch.testing.assert_close(saved[f"average.{name}"], tensor, rtol=1e-5, atol=1e-7)
        allowed = 0.1 if tensor.ndim == 4 else 1e-5  # kernels are rounded
        assert (stored[name] - tensor).norm() <= allowed * tensor.norm(), name
        assert torch.equal(saved[f"model.{name}"], steps[-1][name])
    assert average_decay(tiny_recipe().training, 10**6) == 0.999


def test_validation_is_of_rounded_latents_and_8_bit_images_of_any_size(photographs, finished):
    codec, images = read_codec(finished.weights), [read_image(path) for path in photographs[:2]]
    measured = validate(codec, images, LMBDA)
    bpps, mses = [], []
    for image in images:
        _, height, width = image.shape
        latents = codec.quantize(codec.infer(image[None]))
        decoded = codec.decode(latents)[0, :, :height, :width].clamp(0, 1)
        mses.append(float(((decoded * 255).round() - (image * 255).round()).double().square().mean()))
        bpps.append(float(-codec.log_prior(latents)) / math.log(2) / (height * width))
    assert measured.rate_bpp == pytest.approx(sum(bpps) / 2)
    assert measured.mse == pytest.approx(sum(mses) / 2)
    assert measured.psnr_db == pytest.approx(sum(10 * math.log10(255**2 / mse) for mse in mses) / 2)
    assert measured.lagrangian_bpp == pytest.approx(measured.rate_bpp + LMBDA * measured.mse)
    assert images[0].shape != images[1].shape


def test_the_log_has_a_row_per_validation_and_the_last_step(finished):
    with finished.weights.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == LOG_COLUMNS
    assert [row["step"] for row in rows] == ["3", "6", "8"]
    for row in rows:
        for kind in ("train", "validation"):
            bpp, mse = float(row[f"{kind}_bpp"]), float(row[f"{kind}_mse"])
            assert float(row[f"{kind}_lagrangian_bpp"]) == pytest.approx(bpp + LMBDA * mse)


def test_training_measures_are_means_since_the_last_row(photographs, tmp_path, finished):
    each = [[float(row[3]), float(row[4])] for row in rows_of(run(photographs, tmp_path, validate_every=1))[1:]]
    rows = [[float(row[3]), float(row[4])] for row in rows_of(finished)[1:]]
    for row, part in zip(rows, (each[0:3], each[3:6], each[6:8]), strict=True):
        assert row == pytest.approx([sum(column) / len(part) for column in zip(*part, strict=True)])


def test_kernels_are_stored_in_fewer_bits_only_where_it_costs_nothing(photographs, tmp_path, finished, monkeypatch):
    sizes = []
    for loss, kind, said in ((0.1, torch.uint8, "rounded to steps"), (1e-12, torch.float32, "stored as float32")):
        monkeypatch.setattr(storing, "_LARGEST_LOSS", loss)
        result = run(photographs, tmp_path / str(loss))
        weights = load_file(result.weights)
        assert (weights["analysis.0.weight"].dtype, weights["analysis.1.beta_root"].dtype) == (kind, torch.float32)
        assert f"kernels {said}" in result.weights.with_suffix(".md").read_text()
        sizes.append(result.weights.stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]
    monkeypatch.setattr(storing, "_LARGEST_LOSS", 0.0)
    with pytest.raises(RuntimeError, match="must cost what they did, got L "):
        run(photographs, tmp_path / "none")
    assert not (tmp_path / "none" / finished.weights.name).exists()


def test_sensitivities_are_mean_squared_differences_of_the_cost(photographs, finished, monkeypatch):
    monkeypatch.setattr(storing, "_CROPS", 2)
    crops = TrainingCrops(photographs[1:], 64, seed=0)
    codec = read_codec(finished.weights).double()
    sensitivities = storing.kernel_sensitivities(codec, LMBDA, crops)

    def lagrangian_bpp(number: int) -> float:
        rate_nats, squared_error = codec(crops.batch(number, 1).double(), seeded("cpu", number))
        return float(rate_nats / math.log(2) + LMBDA * squared_error) / 64**2

    # Not of the prior, where the gradient of the least scale is not its derivative.
    for name, row, column in (("synthesis.conv1.weight", 1, 2), ("synthesis.conv2.weight", 0, 1)):
        kernel = codec.get_parameter(name)
        taps = [(row, column, *tap) for tap in product(range(kernel.shape[2]), range(kernel.shape[3]))]
        squares = 0.0
        for number, tap in product(range(2), taps[::3]):
            costs = []
            for change in (1e-5, -2e-5):
                kernel[tap] += change
                costs.append(lagrangian_bpp(number))
            kernel[tap] += 1e-5
            squares += ((costs[0] - costs[1]) / 2e-5) ** 2
        of_taps = squares / 2 / len(taps[::3])
        assert float(sensitivities[name][row, column]) == pytest.approx(of_taps, rel=0.5), name  # a third of the taps
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_snapshots_are_the_average_on_the_way_and_change_nothing(
    photographs, tmp_path, finished, weights_after_each_step
):
    result = run(photographs, tmp_path, snapshots=(0, 1, 8))
    assert_same_run(result, finished)
    kept = {step: load_file(loop.snapshot_path(result.weights, step)) for step in (0, 1, 8)}
    assert sorted(path.name for path in tmp_path.glob("*-step-*")) == [
        f"tiny-0.01-step-{step}.safetensors" for step in kept
    ]
    start, first, *_ = weights_after_each_step
    last = load_file(checkpoint_of(result))
    for name, tensor in start.items():
        assert torch.equal(kept[0][name], tensor)
        torch.testing.assert_close(kept[1][name], 2 / 11 * tensor + 9 / 11 * first[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(kept[8][name], last[f"average.{name}"])
    assert read_codec(loop.snapshot_path(result.weights, 1)).lmbda == LMBDA


def test_the_card_says_where_the_weights_come_from(photographs, tmp_path):
    command = ["python", "-m", "rdgap.training", "a recipe.toml"]
    result = run(photographs, tmp_path, seed=5, command=command)
    card = result.weights.with_suffix(".md").read_text()
    assert "| command | `python -m rdgap.training 'a recipe.toml'` |" in card
    assert "| seed | 5 |" in card
    assert "| steps | 8 of 8 |" in card
    assert re.search(r"\| data \| 4 images, 0\.0 Mpx, sha256 [0-9a-f]{64} \|", card)
    assert re.search(r"\| held out \| 1 images, sha256 [0-9a-f]{64} \|", card)
    assert "| start | starts afresh, from principal components |" in card
    assert card.count("\n| 8 | ") == 1


def test_bfloat16_trains_to_nearly_the_same_cost(photographs, tmp_path, finished):
    result = run(photographs, tmp_path, bf16=True)
    assert result.validation.lagrangian_bpp == pytest.approx(finished.validation.lagrangian_bpp, rel=0.1)
    assert rows_of(result) != rows_of(finished)
    assert "bfloat16" in result.weights.with_suffix(".md").read_text()


# going on


def test_a_run_that_was_killed_equals_an_uninterrupted_one(photographs, tmp_path):
    (tmp_path / "tiny.toml").write_text(recipe_text(steps=60))
    command = [sys.executable, "-m", "rdgap.training", str(tmp_path / "tiny.toml"), "--lmbda", "0.01"]
    command += ["--images", str(photographs[0].parent), "--validate-every", "3", "--out", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL, env=environment)
    log = tmp_path / "killed" / "tiny-0.01.csv"
    while not (log.exists() and log.read_bytes().count(b"\n") > 3):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 3 <= checkpoint.read_header(log.with_suffix(".checkpoint.safetensors")).progress.step < 60
    with log.open("a") as file:
        file.write("59,0.1,0")  # as if it had been killed while it wrote
    assert_same_run(
        run(photographs, tmp_path / "killed", tiny_recipe(steps=60)), run(photographs, tmp_path, tiny_recipe(steps=60))
    )


def test_an_interrupted_run_goes_on_from_its_checkpoint(photographs, tmp_path, finished, capsys):
    interrupt(photographs, tmp_path, before_step=5)
    result = run(photographs, tmp_path)
    assert "resumed at step 3" in capsys.readouterr().out
    assert_same_run(result, finished)


def test_a_run_out_of_time_goes_on_by_the_same_call(photographs, tmp_path, finished):
    stopped = run(photographs, tmp_path, minutes=1e-9)
    assert (stopped.finished, stopped.step, stopped.steps) == (False, 0, 8)
    assert read_codec(stopped.weights).lmbda == LMBDA
    assert "| steps | 0 of 8 |" in stopped.weights.with_suffix(".md").read_text()
    result = run(photographs, tmp_path)
    assert result.finished
    assert_same_run(result, finished)


def test_the_budget_keeps_time_for_the_last_validation(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop._Run, "closing_seconds", lambda run: 3600.0)
    assert run(photographs, tmp_path, minutes=59).step == 0
    assert run(photographs, tmp_path, minutes=70).step == 8


def test_a_finished_run_is_recognized_without_reading_its_images(photographs, tmp_path, finished, monkeypatch, capsys):
    shutil.copytree(finished.weights.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(loop, "TrainingCrops", None)
    again = run(photographs, tmp_path)
    assert "tiny-0.01: finished before, nothing to do" in capsys.readouterr().out
    assert (again.finished, again.step, again.validation) == (True, 8, finished.validation)


def test_a_run_whose_weights_were_lost_writes_them_again(photographs, tmp_path, finished):
    shutil.copytree(finished.weights.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / finished.weights.name).unlink()
    assert_same_run(run(photographs, tmp_path), finished)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, r"`seed` was 0, now 1"),
        ({"lmbda": 0.01 + 1e-12}, r"`lmbda` was 0\.01, now 0\.01"),
        ({"steps": 9, "bf16": True}, r"`bf16` was False, now True; `steps` was 8, now 9"),
        ({"recipe": tiny_recipe(learning_rate=0.01)}, r"`recipe\.training\.learning_rate` was 0\.02, now 0\.01"),
        ({"recipe": tiny_recipe(synthesis=JPEG_LIKE)}, r"`recipe\.synthesis\.kind` was 'two-layer', now 'jpeg-like'"),
    ],
)
def test_another_runs_checkpoint_is_refused_before_images_are_read(
    photographs, finished, changed, message, monkeypatch
):
    monkeypatch.setattr(loop, "TrainingCrops", None)
    with pytest.raises(ValueError, match=rf"belongs to another run \({message}.*\)\. Choose another `--out`"):
        run(photographs, finished.weights.parent, **changed)


def test_other_images_are_another_run(photographs, finished):
    with pytest.raises(ValueError, match=r"belongs to another run \(`images` was '\w+', now '\w+'\)"):
        run([photographs[0], *photographs[2:]], finished.weights.parent)
    with pytest.raises(ValueError, match=r"another run \(`images` was '\w+', now '\w+'; `validation` was"):
        run([photographs[1], photographs[2], photographs[0]], finished.weights.parent)


def test_a_damaged_checkpoint_and_weights_without_one_are_refused(photographs, tmp_path, finished):
    shutil.copytree(finished.weights.parent, tmp_path, dirs_exist_ok=True)
    damaged = tmp_path / checkpoint_of(finished).name
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a readable checkpoint"):
        run(photographs, tmp_path)
    damaged.unlink()
    with pytest.raises(ValueError, match=r"tiny-0\.01\.safetensors has no checkpoint to go on from"):
        run(photographs, tmp_path)


# what goes wrong


def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(photographs, tmp_path, finished, monkeypatch):
    interrupt(photographs, tmp_path, before_step=5)
    kept = (tmp_path / checkpoint_of(finished).name).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingCrops, "batch", lambda *_: torch.full((2, 3, 64, 64), math.nan))
        patch.setattr(loop, "initialize_principal", lambda *_: None)
        with pytest.raises(RuntimeError, match=r"must be finite, got a cost of nan at step 3; the last good .*safeten"):
            run(photographs, tmp_path)
    assert (tmp_path / checkpoint_of(finished).name).read_bytes() == kept
    assert_same_run(run(photographs, tmp_path), finished)


def test_a_learning_rate_that_is_far_too_large_stops_before_a_checkpoint(photographs, tmp_path):
    recipe = tiny_recipe(learning_rate=1e30, relative_learning_rate="false")
    with pytest.raises(
        RuntimeError, match=r"must be finite, got a cost of \w+ at step 1; no checkpoint was reached yet"
    ):
        run(photographs, tmp_path, recipe, validate_every=1)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lmbda": -1.0}, "`lmbda` must be positive"),
        ({"seed": -1}, "`seed` must not be negative, got -1"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"validate_every": 0}, "`validate_every` must be at least 1, got 0"),
        ({"minutes": 0.0}, "`minutes` must be positive, got 0"),
    ],
)
def test_unusable_arguments_are_named(photographs, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        run(photographs, tmp_path / "nothing", **changed)
    assert not (tmp_path / "nothing").exists()


# other weights to start from


def test_another_lmbda_starts_from_all_weights_with_larger_latents(photographs, tmp_path, finished, capsys):
    result = run(photographs, tmp_path, lmbda=0.02, init_from=finished.weights, steps=1, minutes=1e-9)
    said = "took analysis and prior and synthesis from tiny-0.01.safetensors, latents times 1.41"
    assert said in capsys.readouterr().out
    assert f"| start | {said} |" in result.weights.with_suffix(".md").read_text()
    image = read_image(photographs[0])[None]
    here, there = read_codec(result.weights), read_codec(finished.weights)
    torch.testing.assert_close(here.infer(image)[1], math.sqrt(2) * there.infer(image)[1], rtol=0.01, atol=0.05)
    latents = here.quantize(here.infer(image))
    assert float(cost(here, latents, image, 0.02).mse) < float(
        cost(there, there.quantize(there.infer(image)), image, 0.02).mse
    )


def test_another_architecture_gives_what_fits_and_says_the_rest(photographs, tmp_path, finished, capsys):
    run(photographs, tmp_path, tiny_recipe(name="other", synthesis=JPEG_LIKE), init_from=finished.weights, steps=1)
    assert (
        "took analysis and prior from tiny-0.01.safetensors, latents times 1; synthesis starts afresh, "
        "from principal components" in capsys.readouterr().out
    )
    stored, source = (load_file(path) for path in (tmp_path / "other-0.01.safetensors", finished.weights))
    assert stored["synthesis.0.weight"].shape != source["synthesis.conv1.weight"].shape


def test_parts_start_afresh_where_that_is_asked_for(photographs, tmp_path, finished, capsys):
    asked = {"init_from": finished.weights, "afresh": ["prior"], "steps": 1, "minutes": 1e-9}
    result = run(photographs, tmp_path, **asked)
    assert (
        "took analysis and synthesis from tiny-0.01.safetensors, latents times 1; prior starts afresh, "
        "from principal components" in capsys.readouterr().out
    )
    here, there = read_codec(result.weights), read_codec(finished.weights)
    image = read_image(photographs[0])[None]
    torch.testing.assert_close(here.infer(image)[1], there.infer(image)[1], rtol=0.02, atol=0.1)
    assert (here.infer(image)[0] - there.infer(image)[0]).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"another run \(`afresh` was \['prior'\], now \[\]\)"):
        run(photographs, tmp_path, **asked | {"afresh": []})
    with pytest.raises(ValueError, match="`afresh` must name parts out of analysis, synthesis, prior, got decoder"):
        run(photographs, tmp_path / "other", **asked | {"afresh": ["decoder"]})
    with pytest.raises(ValueError, match="`afresh` must come with `init_from`"):
        run(photographs, tmp_path / "other", afresh=["prior"])


def test_weights_to_start_from_are_known_by_their_content(photographs, tmp_path, finished):
    source = tmp_path / "source.safetensors"
    shutil.copy(finished.weights, source)
    run(photographs, tmp_path / "out", init_from=source, steps=1)
    codec = read_codec(finished.weights)
    write_codec(source, tiny_recipe(), codec.state_dict(), {"lmbda": "0.01"}, kernels="float32")
    with pytest.raises(ValueError, match=r"another run \(`init_from_sha256` was '\w+', now '\w+'\)"):
        run(photographs, tmp_path / "out", init_from=source, steps=1)
    with pytest.raises(FileNotFoundError, match=r"there are no weights .*missing\.safetensors"):
        run(photographs, tmp_path / "out", init_from=tmp_path / "missing.safetensors")
