"""How long work took, and what follows for work of the same kind."""

from brainhive_cli.core.runs.work import Work

WORK = Work("demo, nice", 200, "epochs")
KEY = WORK.key("train-align", "cpu")


def test_time_and_memory_are_estimated_from_earlier_work(
    tmp_path,
):
    unknown = WORK.estimate(tmp_path, KEY)
    assert list(unknown) == ["time"]
    assert "200 epochs" in unknown["time"]
    for seconds in (50.0, 100.0):
        Work("demo, nice", 50, "epochs").remember(
            tmp_path, KEY, seconds, int(3e7 * seconds)
        )
    estimate = WORK.estimate(tmp_path, KEY)
    for fact in ("7 min", "200 epochs", "2 s"):
        assert fact in estimate["time"]
    assert "3.0 GB" in estimate["memory"]
    other_work = Work("demo, atm", 1, "epochs")
    assert list(
        other_work.estimate(tmp_path, other_work.key("train-align", "cpu"))
    ) == ["time"]


def test_a_damaged_file_of_paces_is_rewritten(
    tmp_path,
):
    (tmp_path / "pace.json").write_bytes(b"\xff")
    WORK.remember(tmp_path, KEY, 400.0, 1)
    assert WORK.estimate(tmp_path, KEY)["time"].startswith("about 7 min: ")
