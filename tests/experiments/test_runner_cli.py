"""The command line: what it runs, how fields are set, and its error messages."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from experiments.__main__ import main
from experiments.harness.contract import RunError, with_fields


def test_the_default_suite_runs_what_is_marked_default(
    toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out")], toys) == 0
    text = capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == [
        "toy"
    ]
    # The table is aligned: numbers to the right, under their headings.
    assert "power   mean  ceiling\n    1      1      inf\n    2  1.667      inf" in text
    assert "toy: holds: 6 rows" in text
    assert f"report: {tmp_path / 'out' / 'report.html'}" in text


def test_list_shows_every_experiment_and_its_question(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list"], toys) == 0
    text = capsys.readouterr().out
    assert "toy (default)\n    Does the square grow?\n    Cost: a second." in text
    assert "needy (by name)\n    Where is the data?" in text
    assert "_helper" not in text


def test_help_of_an_experiment_shows_its_docstring_and_fields(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "--help"], toys) == 0
    text = capsys.readouterr().out
    assert "Question: Does the square grow?" in text
    assert re.search(r"--powers +float,float,... +default 1.0,2.0\n", text)
    assert re.search(r"--loud +true or false +default False\n", text)


def test_general_help_names_the_options(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"], toys) == 0
    text = capsys.readouterr().out
    for option in ("--list", "--quick", "--all", "--fresh", "--out DIR"):
        assert option in text


def test_an_unknown_experiment_is_told_which_there_are(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toi"], toys) == 1
    assert "no experiment 'toi'; there are needy, toy " in capsys.readouterr().err


def test_an_unknown_field_is_told_which_there_are(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "--epochs", "3"], toys) == 1
    text = capsys.readouterr().err
    assert "'toy' has no field '--epochs'; its fields are" in text
    assert re.search(r"--seeds +int +default 3\n", text)
    assert "--quick" in text


def test_fields_of_every_type_are_parsed(toy: ModuleType) -> None:
    words = "--seeds 5 --scale -1e-3 --powers 0.5,2 --shape 3,b --loud true --label=x"
    assert with_fields(toy, toy.Config(), words.split()) == toy.Config(
        seeds=5, scale=-1e-3, powers=(0.5, 2.0), shape=(3, "b"), loud=True, label="x"
    )
    assert with_fields(toy, toy.QUICK, ["--powers", "3"]).powers == (3.0,)
    assert with_fields(toy, toy.QUICK, ["--powers="]).powers == ()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--seeds 1.5", r"--seeds takes int, not '1\.5'"),
        ("--powers 1;2", r"--powers takes float,float,\.\.\., not '1;2'"),
        ("--shape 1", r"--shape takes int,str, not '1'"),
        ("--loud yes", r"--loud takes true or false, not 'yes'"),
        ("--seeds", r"--seeds needs a value: int"),
        ("5", r"has no field '5'; its fields are"),
    ],
)
def test_a_wrong_value_is_told_the_type(
    toy: ModuleType, words: str, match: str
) -> None:
    with pytest.raises(RunError, match=match):
        with_fields(toy, toy.Config(), words.split())


def test_fields_and_options_mix_on_the_command_line(
    toys: ModuleType, tmp_path: Path
) -> None:
    words = ["--quick", "toy", "--powers", "2,3", "--out", str(tmp_path / "out")]
    assert main([*words, "--scale", "-1e-3"], toys) == 0
    record = json.loads((tmp_path / "out/quick/toy/run.json").read_text())
    assert record["config"]["powers"] == [2.0, 3.0]
    assert record["command"] == (
        "python -m experiments toy --quick --scale -0.001 --powers 2.0,3.0"
    )


def test_quick_runs_have_their_own_folder_and_report(
    toys: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["toy", "--quick", "--out", str(out)], toys) == 0
    assert not (out / "report.html").exists()
    assert "quick runs" in (out / "quick" / "report.html").read_text()
    assert main(["toy", "--out", str(out)], toys) == 0
    assert json.loads((out / "toy" / "run.json").read_text())["cells"] == 6
    assert json.loads((out / "quick/toy/run.json").read_text())["cells"] == 2
    assert "quick runs" not in (out / "report.html").read_text()


def test_fields_for_several_experiments_raise(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "needy", "--seeds", "1"], toys) == 1
    assert "while 2 are to run; name exactly one" in capsys.readouterr().err


def test_names_with_all_raise(
    toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "--all"], toys) == 1
    assert "give names or --all, not both" in capsys.readouterr().err


def test_absent_data_skips_with_a_reason(
    toys: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "out")]
    monkeypatch.delenv("JAXREG_DATA", raising=False)
    assert main(["--all", *out], toys) == 0
    assert "needy: skipped, set JAXREG_DATA to the folder" in capsys.readouterr().out
    monkeypatch.setenv("JAXREG_DATA", str(tmp_path))
    # Asked for by name, a skipped experiment must not look like a success.
    assert main(["needy", *out], toys) == 1
    assert f"JAXREG_DATA={tmp_path} lacks digits" in capsys.readouterr().out
    (tmp_path / "digits").mkdir()
    assert main(["needy", *out], toys) == 0


def test_the_data_required_may_depend_on_the_config(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = importlib.import_module("toys.needy")
    monkeypatch.delenv("JAXREG_DATA", raising=False)
    monkeypatch.setattr(
        needy, "REQUIRES", lambda config: ("digits",) if config.loud else ()
    )
    words = ["needy", "--out", str(tmp_path / "out"), "--loud"]
    assert main([*words, "false"], toys) == 0
    assert main([*words, "true"], toys) == 1


def test_absent_packages_skip_with_what_to_install(
    toys: ModuleType,
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(toy, "PACKAGES", ("json", "no_such_package"), raising=False)
    monkeypatch.delenv("JAXREG_DATA", raising=False)
    assert main(["--all", *out], toys) == 0
    told = "toy: skipped, no_such_package not installed: pip install -e"
    assert told in capsys.readouterr().out
    assert main(["toy", *out], toys) == 1
    monkeypatch.setattr(toy, "PACKAGES", ("json",))
    assert main(["toy", *out], toys) == 0


def test_a_stopped_suite_keeps_the_report_of_what_finished(
    toys: ModuleType, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "digits").mkdir()
    monkeypatch.setenv("JAXREG_DATA", str(tmp_path))
    assert main(["needy", *out], toys) == 0
    monkeypatch.setenv("TOY_FAILS", "0")
    with pytest.raises(ValueError, match="the toy broke"):
        main(["needy", "toy", *out], toys)
    report = (tmp_path / "out" / "report.html").read_text()
    assert 'id="needy"' in report and 'id="toy"' not in report


def test_the_packages_own_experiments_keep_the_pattern(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--list"]) == 0
    assert "error" not in capsys.readouterr().err
