"""Tables are read and written strictly, and equal content gives equal bytes."""

import math

import numpy as np
import pandas as pd
import pytest

from rdgap.schemas import EVALUATION
from rdgap.tables import append_rows, read_table, write_table


def frame(**changes):
    columns = {
        "codec": ["b", "a"],
        "setting": [0.01, 35.0],
        "dataset": ["kodak", "kodak"],
        "image": ["0001", "NA"],  # neither a number nor a missing value
        "num_pixels": [393216, 1],
        "bits": [1 / 3, 8.0],
        "rate_kind": ["estimated", "coded"],
        "mse": [0.1 + 0.2, 0.0],
        "psnr_db": [30.5, math.inf],
        "ms_ssim": [0.98765, math.nan],
    }
    return pd.DataFrame(columns | changes)


def test_what_is_written_is_read_back_exactly_and_sorted(tmp_path):
    write_table(tmp_path / "t.csv", frame(), EVALUATION)
    defaults = {"lpips": math.nan, "encoder": "own", "encoder_steps": 0, "encoder_seed": 0, "encoder_bf16": 0}
    expected = frame().sort_values("codec", ignore_index=True).assign(**defaults)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv", EVALUATION), expected, check_exact=True)


def test_order_of_rows_and_columns_leaves_the_bytes_alone(tmp_path):
    write_table(tmp_path / "a.csv", frame(), EVALUATION)
    write_table(tmp_path / "b.csv", frame().iloc[::-1, ::-1], EVALUATION)
    content = (tmp_path / "a.csv").read_bytes()
    assert content == (tmp_path / "b.csv").read_bytes()
    assert content.decode().splitlines()[1:] == [
        "a,35.0,kodak,NA,1,8.0,coded,0.0,inf,",
        "b,0.01,kodak,0001,393216,0.3333333333333333,estimated,0.30000000000000004,30.5,0.98765",
    ]
    assert b"\r" not in content
    assert content.endswith(b"\n")


def test_a_column_that_holds_its_default_alone_is_left_out_and_read_as_such(tmp_path):
    write_table(tmp_path / "old.csv", frame(), EVALUATION)
    write_table(tmp_path / "new.csv", frame(encoder="own", encoder_steps=0), EVALUATION)
    assert (tmp_path / "old.csv").read_bytes() == (tmp_path / "new.csv").read_bytes()
    mixed = frame(encoder=["sga", "own"], encoder_steps=[500, 0])
    write_table(tmp_path / "mixed.csv", mixed, EVALUATION)
    read = read_table(tmp_path / "mixed.csv", EVALUATION)
    assert read[["codec", "encoder", "encoder_steps"]].values.tolist() == [["a", "own", 0], ["b", "sga", 500]]
    with pytest.raises(ValueError, match="`encoder_steps` must be a whole number of at least 0, got -1"):
        write_table(tmp_path / "t.csv", frame(encoder_steps=[-1, 0]), EVALUATION)


def test_columns_may_come_in_any_order_and_from_a_spreadsheet(tmp_path):
    path = tmp_path / "t.csv"
    frame().iloc[:, ::-1].to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    assert list(read_table(path, EVALUATION).columns) == list(EVALUATION)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda t: t.drop(columns="bits"), "missing: bits; unknown or twice: none"),
        (lambda t: t.rename(columns={"bits": "bpp"}), "missing: bits; unknown or twice: bpp"),
        (lambda t: t.assign(seed=1), "missing: none; unknown or twice: seed"),
        (lambda t: pd.concat([t, t[["mse"]]], axis=1), "missing: none; unknown or twice: mse"),
        (lambda t: t.iloc[:0], "at least one row"),
        (lambda t: t.assign(num_pixels=1.5), "`num_pixels` must be a whole number of at least 1, got"),
        (lambda t: t.assign(num_pixels=0), "`num_pixels` must be a whole number of at least 1, got"),
        (lambda t: t.assign(bits=-1.0), "`bits` must be a number of at least 0, got"),
        (lambda t: t.assign(bits="many"), "`bits` must be a number of at least 0, got 'many'"),
        (lambda t: t.assign(mse=math.nan), "`mse` must be a number"),
        (lambda t: t.assign(mse=math.inf), "`mse` must be a number"),
        (lambda t: t.assign(psnr_db=-math.inf), "`psnr_db` must be a number"),
        (lambda t: t.assign(codec=""), "`codec` must be a text, got ''"),
        (lambda t: t.assign(rate_kind="guessed"), "`rate_kind` must be 'estimated' or 'coded', got 'guessed'"),
    ],
)
def test_other_tables_are_refused_when_read_and_when_written(tmp_path, change, rule):
    changed = change(frame())
    with pytest.raises(ValueError, match=rule) as caught:
        write_table(tmp_path / "written.csv", changed, EVALUATION)
    assert "written.csv" in str(caught.value)
    assert not (tmp_path / "written.csv").exists()
    changed.to_csv(tmp_path / "read.csv", index=False)
    with pytest.raises(ValueError, match=rule) as caught:
        read_table(tmp_path / "read.csv", EVALUATION)
    assert "read.csv" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'codec,"setting'])
def test_what_is_no_csv_is_refused_by_name(tmp_path, content):
    (tmp_path / "no.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"no\.csv"):
        read_table(tmp_path / "no.csv", EVALUATION)


def test_a_row_that_was_cut_is_refused(tmp_path):
    write_table(tmp_path / "t.csv", frame(), EVALUATION)
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().removesuffix(",0.98765\n"))
    with pytest.raises(ValueError, match="row 2 must have 10 entries, got 9"):
        read_table(tmp_path / "t.csv", EVALUATION)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        read_table(tmp_path / "gone.csv", EVALUATION)


def test_booleans_and_numbers_are_no_texts_and_booleans_no_numbers(tmp_path):
    for wrong in ({"codec": [1, 2]}, {"num_pixels": [True, True]}, {"bits": np.array([True, False])}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            write_table(tmp_path / "t.csv", frame(**wrong), EVALUATION)


def test_a_table_that_grows_is_read_but_for_the_line_that_a_kill_has_cut(tmp_path):
    path, rows = tmp_path / "t.csv", frame()
    for number in range(len(rows)):
        append_rows(path, rows.iloc[[number]], EVALUATION)
    assert path.read_text().splitlines()[0] == ",".join(EVALUATION)
    pd.testing.assert_frame_equal(read_table(path, EVALUATION, growing=True), read_table(path, EVALUATION))
    assert list(read_table(path, EVALUATION)["codec"]) == list(rows["codec"])  # as they came
    path.write_text(path.read_text()[:-1])  # all but the end of the line
    assert len(read_table(path, EVALUATION, growing=True)) == len(rows) - 1
    write_table(tmp_path / "sorted.csv", rows, EVALUATION)
    assert list(read_table(tmp_path / "sorted.csv", EVALUATION)["codec"]) == sorted(rows["codec"])
    with pytest.raises(ValueError, match="the columns must be"):
        append_rows(path, rows.drop(columns="bits"), EVALUATION)
