"""Are several runs compared with correct intervals, and do the papers' tables stay free of measured values?"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_page import Page

from maskanim_jax.errors import UserError
from maskanim_jax.metrics.bootstrap import interval
from maskanim_jax.reports import comparison, comparison_page, published_tables
from maskanim_jax.reports import runs as compare_runs
from maskanim_jax.reports.differences import better
from maskanim_jax.reports.plots import bars, plots, svg
from maskanim_jax.workdir.logs import MetricWriter

RNG = np.random.default_rng(0)
HARD = RNG.uniform(0.04, 0.08, 12)


def make_run(folder, system="perturbed_masks", worse=0.0, seed=0, fingerprint="f", noise=0.001, clips=12, **extra):
    """A reconstructed run whose L1 is that of HARD, more by `worse`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = [
        {
            "name": f"c{i}",
            "identity": f"i{i}",
            "frames": 4 + i,
            "l1": float(HARD[i] + worse + rng.normal(0, noise)),
            "l1_copy_source": float(HARD[i] * 2),
            **{name: float(value + rng.normal(0, noise)) for name, value in extra.items()},
        }
        for i in range(clips)
    ]
    figures = {"checkpoint_step": 20, "data_fingerprint": fingerprint, "frames": 100, "l1": 0.1, "clips": rows}
    config = {"name": "toy", "system": system, "seed": seed, "batch_size": 4, "data": {"shards": "x/toys64"}}
    with MetricWriter(folder) as log:
        log.text(0, "parameters: a 1,000; together 1,234")
        for step in (10, 20):
            log.scalars(step, {"loss": 1 / step, "steps_per_second": 2.0, "test_l1": 1 / step})
    (folder / "reconstruction.json").write_text(json.dumps(figures))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def truth(variants, shift=0.0, pairs=6):
    def row(name, start, reference, level):
        found = [
            {
                "source": f"s{i}",
                "driving": f"d{i}",
                "frames": 3,
                "l1": level + 0.01 * i,
                "iou": 1 - level,
                "leak": 0.0,
                "shape_leak": level,
            }
            for i in range(pairs)
        ]
        return {"start": start, "variant": name, "reference": reference, "pairs": found}

    rows = [
        *(row("copying the source", start, True, 0.5) for start in ("own", "driver")),
        *(row(name, start, False, level + shift) for name, level in variants.items() for start in ("own", "driver")),
    ]
    return {"data": {"seed": 0}, "seed": 0, "frame_size": 64, "definitions": {"l1": "mean difference"}, "rows": rows}


@pytest.fixture
def runs(tmp_path):
    a, b = make_run(tmp_path / "pm"), make_run(tmp_path / "fomm", "fomm", worse=0.01, seed=1)
    (a / "truth.json").write_text(json.dumps(truth({"full": 0.1, "no_id": 0.12})))
    (b / "truth.json").write_text(json.dumps(truth({"relative": 0.3})))
    (a / "reconstruction" / "c1.mp4").parent.mkdir()
    (a / "reconstruction" / "c1.mp4").write_bytes(b"")
    return [a, b]


def test_the_mean_is_over_frames_and_the_interval_holds_it():
    found = interval([1.0, 2.0, 4.0], [1, 1, 2])
    assert found.mean == pytest.approx((1 + 2 + 8) / 4)
    assert 1 <= found.low < found.mean < found.high <= 4
    assert interval([1.0, 2.0, 4.0], [1, 1, 2]) == found
    assert interval([3.0]) == (3, 3, 3)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    drawn = [interval(rng.normal(0, 1, 30)) for _ in range(200)]
    assert 0.87 <= np.mean([found.low <= 0 <= found.high for found in drawn]) <= 0.99


def test_a_small_difference_on_the_same_clips_is_told_apart_where_single_intervals_overlap(runs):
    found = comparison.compare(compare_runs.read_runs(runs))["sets"][0]
    one, other = (row["figures"]["l1"] for row in found["rows"][:2])
    assert one["high"] > other["low"]
    paired = next(d for d in found["differences"] if d["against"] == "fomm")
    assert paired["difference"] == pytest.approx(-0.01, abs=0.002)
    assert paired["verdict"] == "better"
    assert paired["better_on"] == paired["clips"] == 12


def test_runs_that_are_the_same_are_not_told_apart(tmp_path):
    pair = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=5, noise=0.004)]
    found = comparison.compare(compare_runs.read_runs(pair))["sets"][0]
    assert next(d for d in found["differences"] if d["against"] == "b")["verdict"] == "no significant difference"
    assert found["seeds"][0]["seeds"] == [0, 5]


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of two systems; each run is worse than the one before by 0.01 in the truth."""
    folders = [make_run(tmp_path / f"pm-seed{seed}", seed=seed) for seed in range(3)]
    folders += [
        make_run(tmp_path / f"fomm-seed{seed}", "fomm", worse=0.01 * (1 + seed), seed=seed) for seed in range(3)
    ]
    for number, folder in enumerate(folders):
        (folder / "truth.json").write_text(json.dumps(truth({"full": 0.1 + 0.01 * number})))
    return folders


def test_runs_that_differ_only_in_their_seed_are_averaged_and_compared_as_one(seeds):
    found = comparison.compare(compare_runs.read_runs(seeds))
    reconstruction = found["sets"][0]
    assert [each["run"] for each in reconstruction["seeds"]] == ["pm (3 seeds)", "fomm (3 seeds)"]
    assert reconstruction["seeds"][1]["runs"] == ["fomm-seed0", "fomm-seed1", "fomm-seed2"]
    assert len(reconstruction["rows"]) == 6 + 1  # each run has its row, and copying the source
    (paired,) = [d for d in reconstruction["differences"] if d["against"] == "fomm (3 seeds)"]
    assert paired["run"] == "pm (3 seeds)"
    assert paired["difference"] == pytest.approx(-0.02, abs=1e-9)  # the noise of a seed is the same in both systems
    assert (paired["lowest"], paired["highest"]) == pytest.approx((-0.03, -0.01), abs=1e-9)
    assert (paired["verdict"], paired["better_on"]) == ("better", 12)

    own = found["truth"][0]["seeds"][0]
    assert (own["start"], own["variant"], own["seeds"]) == ("own", "full", [0, 1, 2])
    level = 0.1 + 0.01 * np.arange(6).mean()  # of the pairs, each 0.01 worse than the one before
    figure = own["figures"]["l1"]
    assert (figure["value"], figure["lowest"], figure["highest"]) == pytest.approx((level + 0.01, level, level + 0.02))
    assert figure["low"] < figure["value"] < figure["high"]
    across = [d for d in found["truth"][0]["differences"] if d["metric"] == "l1" and "copying" not in d["against"]]
    assert [(d["run"], d["against"]) for d in across] == [("pm (3 seeds): full", "fomm (3 seeds): full")] * 2
    assert [across[0][name] for name in ("difference", "lowest", "highest")] == pytest.approx([-0.03] * 3)


def test_the_average_of_seeds_holds_each_clip_that_any_seed_has(tmp_path):
    folders = [make_run(tmp_path / f"{name}-{seed}", name, seed=seed) for name in ("pm", "fomm") for seed in (0, 1)]
    figures = json.loads((folders[0] / "reconstruction.json").read_text())
    del figures["clips"][0]
    (folders[0] / "reconstruction.json").write_text(json.dumps(figures))
    (pm, fomm) = comparison.compare(compare_runs.read_runs(folders))["sets"][0]["seeds"]
    assert pm["figures"]["l1"]["clips"] == fomm["figures"]["l1"]["clips"] == 12


def test_a_single_run_is_compared_with_the_average_of_several(tmp_path):
    folders = [make_run(tmp_path / f"pm-{seed}", seed=seed, noise=0) for seed in (0, 1)]
    folders.append(make_run(tmp_path / "fomm", "fomm", worse=0.01, noise=0))
    found = comparison.compare(compare_runs.read_runs(folders))["sets"][0]
    paired = next(d for d in found["differences"] if d["against"] == "fomm")
    assert paired["run"] == "pm (2 seeds)"
    assert [paired[name] for name in ("difference", "lowest", "highest")] == pytest.approx([-0.01] * 3)


def test_the_tables_show_averages_of_seeds_and_the_lowest_and_highest_seed(seeds, tmp_path):
    text = comparison_page.markdown(comparison.compare(compare_runs.read_runs(seeds)))
    assert re.search(r"\| fomm \(3 seeds\) \| 0\.0\d+ \[[^]]+\] \(0\.0\d+ to 0\.0\d+\) \|", text)
    assert re.search(
        r"\| pm \(3 seeds\) \| fomm \(3 seeds\) \| l1 \| -0\.02 \[[^]]+\] \(-0\.03 to -0\.01\) \| 12 of 12", text
    )
    assert text.count("| own | pm (3 seeds) | full |") == text.count("| driver | pm (3 seeds) | full |") == 1
    assert "| own | copying the source |  | 0.525" in text
    after_costs = text.partition("### Reconstruction")[2]
    assert "seed0" not in after_costs
    written = comparison_page.write_comparison(seeds, tmp_path / "page")
    page = written.page.read_text()
    assert page.count("3 runs that differ only in their seed (0, 1, 2)") == 2 + 4
    assert "<th>single seeds</th>" in page
    assert "fomm-seed2" in page
    rows = [row for row in csv.DictReader(written.csv.open()) if row["run"] == "fomm (3 seeds)"]
    assert {row["table"] for row in rows} == {"reconstruction", "reconstruction, differences", "cross-identity truth"}
    assert all(float(row["lowest"]) <= float(row["highest"]) for row in rows)


def test_runs_of_one_name_have_their_folders_names_and_not_those_of_the_cache(tmp_path, monkeypatch):
    cached = {f"gs:/bucket/{name}/run": make_run(tmp_path / f"cache/{i}/run") for i, name in enumerate("ab")}
    monkeypatch.setattr(compare_runs, "fetched", lambda folder: cached[str(folder)])
    assert [run.label for run in compare_runs.read_runs(list(map(Path, cached)))] == ["a/run", "b/run"]


def test_repeating_the_source_is_a_row_and_every_run_is_set_against_it(runs):
    found = comparison.compare(compare_runs.read_runs(runs))["sets"][0]
    assert found["rows"][-1]["run"] == "copying the source"
    assert [d["run"] for d in found["differences"] if d["against"] == "copying the source"] == ["pm", "fomm"]
    assert "l1_copy_source" not in found["metrics"]


def test_runs_on_other_data_are_never_set_against_each_other(tmp_path):
    pair = [make_run(tmp_path / "a"), make_run(tmp_path / "b", fingerprint="g")]
    sets = comparison.compare(compare_runs.read_runs(pair))["sets"]
    assert [[row["run"] for row in found["rows"]] for found in sets] == [
        ["a", "copying the source"],
        ["b", "copying the source"],
    ]


def test_whatever_numbers_a_clip_has_are_figures_and_a_back_end_keeps_its_name(tmp_path):
    key = "akd[blazepose-full]"
    folder = make_run(tmp_path / "a", **{key: 3.0, "ssim": 0.8, "mask_mean": 0.2})
    clips = json.loads((folder / "reconstruction.json").read_text())
    del clips["clips"][3][key]
    (folder / "reconstruction.json").write_text(json.dumps(clips))
    figures = comparison.compare(compare_runs.read_runs([folder]))["sets"][0]["rows"][0]["figures"]
    assert figures[key]["clips"] == 11
    assert figures[key]["value"] == pytest.approx(3, abs=0.01)
    assert [better(name) for name in (key, "ssim", "csim[dlib]", "mask_mean")] == [-1, 1, 1, 0]


def test_the_truth_sets_every_variant_against_the_method(runs):
    found = comparison.compare(compare_runs.read_runs(runs))["truth"][0]
    assert found["pairs"] == 6
    assert [row["variant"] for row in found["rows"] if row["start"] == "own"] == [
        *("copying the source", "full", "no_id", "relative")
    ]
    repeated = [d for d in found["differences"] if d["against"] == "copying the source" and d["metric"] == "l1"]
    assert [(d["run"], d["start"]) for d in repeated] == [
        *(("pm: full", "own"), ("fomm: relative", "own"), ("pm: full", "driver"), ("fomm: relative", "driver"))
    ]
    against = {(d["start"], d["against"], d["metric"]): d["verdict"] for d in found["differences"]}
    assert against[("own", "fomm: relative", "l1")] == "better"
    assert against[("driver", "pm: no_id", "iou")] == "better"
    assert ("own", "pm: no_id", "leak") not in against
    assert against[("own", "pm: no_id", "shape_leak")] == "less"


def test_cost_is_that_of_the_steps(runs):
    described = comparison.compare(compare_runs.read_runs(runs))["runs"][0]
    assert described["hours"] == pytest.approx(20 / 2 / 3600)
    assert described["parameters"] == 1234
    assert compare_runs.training_hours([]) is None


def test_the_page_csv_and_json_have_the_figures_and_the_page_loads_nothing(runs, tmp_path):
    written = comparison_page.write_comparison(runs, tmp_path / "out")
    text = written.page.read_text()
    found = Page(text)
    for word in ("pm", "fomm", "no_id", "better", "1234", "Published, other data"):
        assert word in found.text
    assert [video["src"] for video in found.all("video")] == ["../pm/reconstruction/c1.mp4"]
    assert len(found.all("polyline")) >= 4
    assert not re.search(r"https?://|<script|<link|@import", text)
    rows = list(csv.DictReader(written.csv.open()))
    assert {row["table"] for row in rows} >= {"reconstruction", "cross-identity truth", "reconstruction, differences"}
    one = next(row for row in rows if row["run"] == "fomm" and row["metric"] == "l1")
    stored = json.loads(written.json.read_text())
    assert float(one["value"]) == stored["sets"][0]["rows"][1]["figures"]["l1"]["value"]


def test_published_tables_hold_published_figures_alone(runs, tmp_path):
    """No measured value, least of all a proxy's, gets into a table with the papers' columns."""
    text = comparison_page.write_comparison(runs, tmp_path / "out.html").page.read_text()
    start = text.index("What the papers report")
    assert "AKD" not in text[:start]
    shown = re.findall(r"<td>([^<]*)</td>", text[start:])
    wanted = [cell for table in published_tables.TABLES for name, values in table.rows for cell in (name, *values)]
    assert [cell.replace("&amp;", "&") for cell in shown] == wanted
    ours = dict(published_tables.TABLES[0].rows)["Perturbed Masks"]
    assert ours == ("0.047", "4.239", "0.015", "0.147", "0.034", "1.329", "0.130", "0.021")
    assert all(len(values) == len(table.columns) for table in published_tables.TABLES for _, values in table.rows)
    assert (tmp_path / "out.csv").is_file()


def test_hostile_names_stay_names(tmp_path):
    evil = "=cmd|'x'<script>alert(1)"
    folder = make_run(tmp_path / "a", system=evil)
    (folder / "truth.json").write_text(json.dumps(truth({evil: 0.2})))
    written = comparison_page.write_comparison([folder], tmp_path / "out")
    assert not Page(written.page.read_text()).all("script")
    variants = {row["variant"] for row in csv.DictReader(written.csv.open())}
    assert f"'{evil}" in variants
    assert "<script" not in comparison_page.markdown(written.figures)


def test_markdown_has_a_table_of_each_kind(runs):
    text = comparison_page.markdown(comparison.compare(compare_runs.read_runs(runs)))
    assert text.count("\n### ") == 2
    for line in [line for line in text.splitlines() if line.startswith("|")]:
        assert line.endswith("|")
    assert "| copying the source |" in text


def test_plots_share_one_scale_and_bars_begin_at_zero():
    logs = {"a": [{"step": 0, "test_l1": 1.0}, {"step": 10, "test_l1": 0.0}], "b": [{"step": 10, "test_l1": 2.0}]}
    (plot,) = plots(logs)
    assert [line.points for line in plot.lines] == ["0.0,60.0 300.0,120.0", "300.0,0.0"]
    assert svg([plot]).count("<polyline") == 2
    (bar,) = bars([("a", "#000", {"low": 1.0, "value": 2.0, "high": 4.0})])
    assert (bar.low, bar.mean, bar.high) == (75, 150, 300)


def test_what_can_not_be_compared_is_one_sentence(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no metrics"):
        compare_runs.read_runs([*runs, tmp_path / "empty"])
    with pytest.raises(UserError, match="isn't a folder"):
        compare_runs.read_runs([tmp_path / "absent"])
    with pytest.raises(UserError, match="twice"):
        compare_runs.read_runs([runs[0], runs[0]])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        comparison_page.write_comparison(runs, tmp_path / "file" / "x")


@pytest.mark.subprocess
def test_the_command_takes_runs_or_a_workdir(runs, tmp_path):
    command = [sys.executable, "-m", "maskanim_jax.report"]
    done = subprocess.run(
        [*command, *map(str, runs), f"--output={tmp_path / 'o'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "index.html").is_file()
    for wrong in ([], [str(runs[0]), f"--workdir={runs[0]}"]):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
