"""The files that say how jobs of a multirun ended."""

import json
from dataclasses import asdict

import pytest

from crane.runs.record import JOB_FILE, STARTED, JobOutcome, read_outcomes

FIRST = JobOutcome(0, ("attention=vv",), 1, "finished", "abc")
SECOND = JobOutcome(1, ("attention=clip",), 1, STARTED)


@pytest.fixture
def write(tmp_path):
    """Write the file of a job."""

    def put(number, text):
        path = tmp_path / f"job{number}" / JOB_FILE
        path.parent.mkdir()
        path.write_text(text)

    return put


def test_jobs_are_read_in_their_order(tmp_path, write):
    write("a", json.dumps(asdict(SECOND)))
    write("b", json.dumps(asdict(FIRST)))
    assert list(read_outcomes(tmp_path).values()) == [FIRST, SECOND]
    assert [outcome.name for outcome in (FIRST, SECOND)] == ["attention=vv", "attention=clip"]
    assert JobOutcome(0, (), 1, "finished").name == "all"


def test_files_of_version_0_1_are_read(tmp_path, write):
    write(1, json.dumps({**asdict(SECOND), "status": "begun"}))
    assert list(read_outcomes(tmp_path).values()) == [SECOND]


@pytest.mark.parametrize("content", ["[1]", "{}", '{"status": "finished"}', "5", "null"])
def test_files_of_other_programs_are_left_out(tmp_path, write, content):
    write(1, content)
    assert read_outcomes(tmp_path) == {}


@pytest.mark.parametrize(
    "content", ["", "{", "\x00", json.dumps({**asdict(FIRST), "number": "first"})]
)
def test_the_job_of_a_damaged_file_is_unfinished(tmp_path, write, content):
    write(1, content)
    write(2, json.dumps(asdict(SECOND)))
    broken, other = read_outcomes(tmp_path).values()
    assert other == SECOND
    assert (broken.status, broken.varies, broken.run_id) == (STARTED, ("job1",), None)
    assert "job1/job.json is damaged" in broken.error
