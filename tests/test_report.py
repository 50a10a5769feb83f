"""The page: it holds what was measured, and asks for nothing else."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdgap import __main__ as dispatch
from rdgap.images import read_image, to_8bit
from rdgap.report import page
from rdgap.report.__main__ import _heat, main
from rdgap.schemas import CURVATURE, EVALUATION, GAPS
from rdgap.tables import read_table
from tests._toys import patch_means

MODEL = "tests._toys:patch_means"
QUICK = ["--model", MODEL, "--lmbda", "0.01", "--crop", "8", "--temperatures", "2", "--fit-steps", "2"]
FEW = ["--gap-images", "1", "--pairs", "2", "--samples", "1"]


class Seen(HTMLParser):
    """What a browser would ask for, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [str(given[name]) for name in ("src", "href", "srcset", "data") if name in given]
        if tag == "img":
            assert given["alt"]
            self.pictures[str(given["alt"])] = base64.b64decode(str(given["src"]).split(",")[1])
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pho<tos>"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        smooth = np.kron(draw.integers(0, 256, (4, 5, 3)), np.ones((4, 4, 1)))
        Image.fromarray((0.7 * smooth + 0.3 * draw.integers(0, 256, smooth.shape)).astype(np.uint8)).save(
            folder / f"{name}.png"
        )
    return folder


@pytest.fixture(scope="module")
def report(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    cache = str(tmp_path_factory.mktemp("cache"))
    assert main([str(folder), "--images", str(photos), *QUICK, *FEW, "--cache", cache]) == 0
    return folder


@pytest.fixture(scope="module")
def seen(report: Path) -> Seen:
    return Seen((report / "index.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_and_asks_for_nothing(seen: Seen, report: Path) -> None:
    assert seen.open == []
    assert all(source.startswith(("data:", "#")) for source in seen.sources)
    text = (report / "index.html").read_text(encoding="utf-8")
    for outside in ("http:", "https:", "<script", "@import", "url("):
        assert outside not in text
    assert sorted(path.name for path in report.iterdir()) == [
        "curvature.csv", "evaluation.csv", "gaps.csv", "index.html",
    ]  # fmt: skip


def test_the_page_shows_the_numbers_of_its_tables(seen: Seen, report: Path) -> None:
    words = " ".join(seen.words)
    points = read_table(report / "evaluation.csv", EVALUATION)
    own = points[points["codec"] == MODEL]
    assert f"{(own['bits'] / own['num_pixels']).mean():.4f}" in words
    assert f"{own['psnr_db'].mean():.2f}" in words
    gaps = read_table(report / "gaps.csv", GAPS).to_dict("records")[0]
    for name in ("encoder", "neg_log_gamma_upper", "amortization_gap_lower", "inference_gap_lower"):
        assert f"{gaps[f'{name}_bpp']:.4f} ± {gaps[f'{name}_stderr_bpp']:.4f}" in words
    eta = read_table(report / "curvature.csv", CURVATURE)["eta"]
    assert f"{eta.median():.5f}" in words
    # A curve of one point has no BD-rate, and the page says why.
    assert re.search(rf"None of {MODEL} over jpeg.*at least two points|None of {MODEL}.* two", words)


def test_reconstructions_are_the_pixels_that_the_codec_gives(seen: Seen, photos: Path) -> None:
    image = read_image(photos / "a.png")
    codec = patch_means()
    decoded = to_8bit(codec.decode(codec.quantize(codec.infer(image[None]))))[0]

    def shown(name: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(seen.pictures[name])))

    assert np.array_equal(shown("original"), np.asarray(Image.open(photos / "a.png")))
    assert np.array_equal(shown(f"reconstruction by {MODEL}"), (255 * decoded).round().permute(1, 2, 0).numpy())
    error = (255 * (decoded - image)).square().mean(0).sqrt().numpy()
    brightness = shown(f"errors of {MODEL}").astype(float).sum(2)
    order = np.argsort(error, axis=None)
    assert (np.diff(brightness.ravel()[order]) >= -3).all()  # brighter where the error is larger
    assert np.ptp(brightness) > 150


def test_heat_goes_from_black_to_white() -> None:
    colours = _heat(torch.tensor([[0.0, 0.5, 1.0, 7.0]])).astype(int).sum(2)[0]
    assert colours[0] < 20
    assert colours[2] == colours[3] > 600
    assert colours[0] < colours[1] < colours[2]


def test_a_rerun_goes_on_with_the_gaps_and_writes_the_same_page(report: Path, photos: Path, tmp_path: Path) -> None:
    before = (report / "index.html").read_bytes()
    gaps = (report / "gaps.csv").read_bytes()
    assert main([str(report), "--images", str(photos), *QUICK, *FEW, "--cache", str(tmp_path)]) == 0
    assert (report / "index.html").read_bytes() == before
    assert (report / "gaps.csv").read_bytes() == gaps  # with its seconds, so that nothing was measured again


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--images", "{photos}", *QUICK, "--model", "none"], "there is no trained model 'none'"),
        (["--images", "{photos}", *QUICK, "--at", "0.02"], "`--at` must be a point of every model's curve, got 0.02"),
        (["--images", "{photos}", *QUICK, "--crop", "17"], "at least `--crop` 17 pixels"),
        (["--images", "{photos}/a.png", *QUICK], "`--pairs` needs at least two images, got 1"),
        (["--images", "{photos}", *QUICK, "--model", MODEL, MODEL], "--model must be different from each other"),
        (["--images", "{photos}", *QUICK, "--anchor", "gif"], "--anchor"),
        (["--images", "{photos}", *QUICK, "--temperatures", "1"], "at least 2"),
        (["--images", "gone", *QUICK], "gone"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], rule: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "report"
    given = [str(folder), *(argument.replace("{photos}", str(photos)) for argument in arguments)]
    assert main(given) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.count("\n") == 1
    assert re.search(rule, errors)
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_text("mine")
    assert main([str(tmp_path / "report"), "--images", str(photos), *QUICK]) == 2
    assert "FOLDER must be a folder" in capsys.readouterr().err
    assert (tmp_path / "report").read_text() == "mine"


def test_what_users_name_is_escaped() -> None:
    rows = [("codec", "bpp"), ("<script>alert(1)</script>", "a & b")]
    text = page.page("<b>", page.paragraph("1 < 2"), [("A & B", page.table(rows))])
    assert "<script" not in text
    assert "<b>" not in text
    assert "".join(Seen(text).words).count("<script>alert(1)</script>") == 1


# ---------------------------------------------------------------- python -m rdgap COMMAND


def test_every_command_is_listed_and_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.main([]) == 0
    listed = capsys.readouterr().out
    packages = {path.parent.name for path in Path(dispatch.__file__).parent.glob("*/__main__.py")} | {"demo"}
    assert set(dispatch.COMMANDS) == packages
    for name in dispatch.COMMANDS:
        assert f"  {name} " in listed
        with pytest.raises(SystemExit) as ended:
            dispatch.main([name, "--help"])
        assert ended.value.code == 0
        assert f"python -m rdgap.{name}" in capsys.readouterr().out
    assert dispatch.main(["evaluate"]) == 2
    assert "COMMAND must be one of evaluation" in capsys.readouterr().err
