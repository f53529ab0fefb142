"""comparison.json: read back, also the version that earlier releases wrote."""

import json

import pytest
from msgspec import structs

from profiling.verdict.record import read_comparison, write_comparison
from profiling.vocabulary import COMPARISON_FILE
from tests.profiling.report.reports import ARMS, compared, recorded, samples


def as_version_3(folder):
    """Rewrite a comparison as earlier releases had it."""
    file = folder / COMPARISON_FILE
    content = json.loads(file.read_text())
    content["schema_version"] = 3
    content["comparison"]["schema_version"] = 3
    content["samples"] = content.pop("timings")
    for timings in content["samples"].values():
        del timings["cores_apart"]
        timings["reference_s"] = timings.pop("probe_s")
        timings["nearest_s"] = None
    file.write_text(json.dumps(content))


@pytest.fixture
def record():
    timings = samples(1.25, 0.004)
    launches = len(timings.baseline_s_per_sample)
    probes_s = [75e-6] * (launches - 4) + [127e-6] * 4
    marked = type(timings)(*timings.arms, probe_s=probes_s, cores_apart=[s > 1e-4 for s in probes_s])
    return recorded(compared("nograd_off", 1.25), timings={"evaluate": marked}, arms=ARMS)


def test_a_comparison_comes_back_as_it_was(record, tmp_path):
    write_comparison(record, tmp_path)
    assert read_comparison(tmp_path) == read_comparison(tmp_path / COMPARISON_FILE) == record


def test_version_3_is_read_and_its_launches_are_marked(record, tmp_path):
    write_comparison(record, tmp_path)
    as_version_3(tmp_path)
    assert read_comparison(tmp_path) == record
    assert "4 of " in read_comparison(tmp_path).notes[0]


def test_the_reason_for_slow_probes_is_what_others_used_where_that_is_known(record):
    launches = len(record.timings["evaluate"].apart_launches)
    assert "4 of 40 launches left out: the machine's cores were far from each other." in record.notes
    busy = structs.replace(record, others_cores=[0.0] * (launches - 4) + [0.66] * 4)
    assert busy.notes == ["4 of 40 launches left out: other processes were using 66 % of a core."]


def test_another_version_is_refused_in_one_line(record, tmp_path):
    write_comparison(record, tmp_path)
    file = tmp_path / COMPARISON_FILE
    file.write_text(file.read_text().replace('"schema_version": 4', '"schema_version": 5'))
    with pytest.raises(ValueError, match=f"{file}: schema version 5, this program reads 3 and 4"):
        read_comparison(tmp_path)
