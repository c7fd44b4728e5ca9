from byok.engine.progress import ProgressFile, read_progress


def test_progress_sums_over_shards_and_writes_no_more_often_than_asked(tmp_path):
    now = [0.0]
    first = ProgressFile(tmp_path / "answer-00000.json", 10, every_s=1.0, clock=lambda: now[0])
    second = ProgressFile(tmp_path / "answer-00001.json", 5, every_s=1.0, clock=lambda: now[0])
    first.add(failed=False)
    second.add(failed=True)
    assert read_progress(tmp_path)["answer"].done == 0  # written at the start, not again within the second
    now[0] = 1.5
    first.add(failed=False)
    second.add(failed=False)
    told = read_progress(tmp_path)["answer"]
    assert (told.done, told.failed, told.total) == (4, 1, 15)
    assert list(tmp_path.glob("*.part")) == []


def test_stages_keep_apart_even_when_a_judge_has_dashes_in_its_name(tmp_path):
    ProgressFile(tmp_path / "answer-00000.json", 3)
    ProgressFile(tmp_path / "judge-very-strict-00000.json", 2)
    assert {name: counts.total for name, counts in read_progress(tmp_path).items()} == {"answer": 3, "judge-very-strict": 2}
