"""Conventional codecs are real files: counted whole, decoded as any reader decodes them."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from rdgap.conventional import CODECS, command, transcode
from rdgap.metrics import mse, psnr_db

ANYWHERE = [name for name in CODECS if name not in ("hevc", "bpg")]


def waves(height: int, width: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(rows / a + columns / 7) for a in (3.0, 5.0, 9.0)])


def needs(codec: str) -> None:
    if codec == "hevc":
        pytest.importorskip("pillow_heif", reason="HEVC comes with the extra [hevc]")
    if codec == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")


@pytest.fixture
def bpg_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs on the PATH with bpgenc's and bpgdec's options, which log them and store a palette of colors."""
    folder = tmp_path / "programs"
    folder.mkdir()
    encoder = """
import sys
from pathlib import Path
from PIL import Image
if sys.argv[1:] == ["-h"]:
    print("BPG Image Encoder version 0.9.8"); sys.exit(1)
Path(__file__).with_name("log").open("a").write(" ".join(sys.argv[1:]) + "\\n")
qp, target, source = int(sys.argv[2]), sys.argv[-2], sys.argv[-1]
if qp == 13: print("no such QP", file=sys.stderr); sys.exit(3)
Image.open(source).quantize(max(2, 256 >> qp // 8)).save(target, "PNG")
"""
    decoder = """
import sys
from PIL import Image
Image.open(sys.argv[3]).convert("RGB").save(sys.argv[2], "PNG")
"""
    for name, body in (("bpgenc", encoder), ("bpgdec", decoder)):
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(("codec", "optimize"), [("jpeg", True), ("jpeg-default", False)])
def test_jpeg_is_pillows_with_420_chroma(codec: str, optimize: bool) -> None:
    image = waves(33, 47)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40, subsampling=2, optimize=optimize)
    coded = transcode(codec, image, 40)
    assert coded.bits == 8 * len(file.getvalue())
    expected = np.array(Image.open(file).convert("RGB"))
    assert np.array_equal((coded.decoded * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_optimised_tables_save_bits_and_change_no_pixel() -> None:
    image = waves(64, 96)
    plain, optimised = transcode("jpeg-default", image, 30), transcode("jpeg", image, 30)
    assert optimised.bits < plain.bits
    assert torch.equal(optimised.decoded, plain.decoded)


@pytest.mark.parametrize("codec", [*ANYWHERE, "hevc"])
def test_more_quality_is_more_bits_and_less_error(codec: str) -> None:
    needs(codec)
    image = waves(64, 96)
    grid = sorted(CODECS[codec].grid, reverse=CODECS[codec].knob == "ratio")
    coded = [transcode(codec, image, setting) for setting in (grid[0], grid[len(grid) // 2], grid[-1])]
    errors = [float(mse(image[None], one.decoded[None])) for one in coded]
    assert coded[0].bits < coded[1].bits < coded[2].bits
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 20  # some subsample chroma


@pytest.mark.parametrize("codec", [*ANYWHERE, "hevc"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 5)])
def test_any_size_comes_back_in_its_size(codec: str, size: tuple[int, int]) -> None:
    needs(codec)
    coded = transcode(codec, waves(*size), CODECS[codec].grid[-3])
    assert coded.decoded.shape == (3, *size)
    assert 0 <= coded.decoded.min() <= coded.decoded.max() <= 1


@pytest.mark.parametrize("codec", ["avif", "hevc", "jpeg2000"])
def test_chroma_is_not_subsampled(codec: str) -> None:
    # Columns of red and blue by turns: with one chroma sample for two columns they all become purple.
    needs(codec)
    image = torch.zeros(3, 32, 32)
    image[0, :, ::2], image[2, :, 1::2] = 1.0, 1.0
    setting = 5 if codec == "jpeg2000" else CODECS[codec].grid[-1]
    decoded = transcode(codec, image, setting).decoded
    assert float(psnr_db(mse(image[None], decoded[None]))) > 20
    assert float(psnr_db(mse(image[None], transcode("jpeg", image, 100).decoded[None]))) < 15


@pytest.mark.parametrize(
    ("codec", "setting", "message"),
    [
        ("jpeg", 0, "The quality of jpeg must be from 1 to 100, got 0"),
        ("webp", 101, "The quality of webp must be from 1 to 100, got 101"),
        ("bpg", 52, "The QP of bpg must be from 0 to 51, got 52"),
        ("gif", 50, "one of jpeg, jpeg-default, jpeg2000, webp, avif, hevc, bpg, got 'gif'"),
    ],
)
def test_unknown_codecs_and_settings_are_refused(codec: str, setting: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transcode(codec, waves(4, 4), setting)


# ---- BPG


def test_bpg_runs_the_literatures_command_and_counts_the_whole_file(bpg_programs: Path) -> None:
    image = waves(20, 31)
    coarse, fine = transcode("bpg", image, 47), transcode("bpg", image, 22)
    assert coarse.bits < fine.bits
    assert mse(image[None], coarse.decoded[None]) > mse(image[None], fine.decoded[None])
    runs = (bpg_programs / "log").read_text().splitlines()
    assert runs[0].startswith("-q 47 -f 444 -c ycbcr -b 8 -e x265 -m 8 -o ")
    assert command("bpg", 47) == ("bpgenc 0.9.8: bpgenc -q 47 -f 444 -c ycbcr -b 8 -e x265 -m 8 -o OUT.bpg IN.png")


def test_a_bpgenc_that_fails_is_quoted(bpg_programs: Path) -> None:
    with pytest.raises(RuntimeError, match=r"bpgenc -q 13 .* failed with exit code 3 and said: no such QP"):
        transcode("bpg", waves(9, 9), 13)


def test_codecs_that_are_not_there_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="bpgenc and bpgdec on the PATH: build libbpg from"):
        transcode("bpg", waves(9, 9), 30)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rdgap\[hevc\]'"):
        command("hevc", 30)


def test_commands_name_versions_and_every_setting() -> None:
    said = command("jpeg2000", 20)
    assert said.startswith("Pillow ")
    assert "OpenJPEG 2." in said
    assert said.endswith("save('JPEG2000', quality_mode='rates', quality_layers=[20], irreversible=True, mct=1)")
    assert len({command(codec, setting) for codec in ANYWHERE for setting in CODECS[codec].grid}) == sum(
        len(CODECS[codec].grid) for codec in ANYWHERE
    )
