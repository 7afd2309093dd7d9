"""TensorBoard reads what the C++ writer wrote."""
import os
import subprocess

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_tensorboard_reads_every_scalar(tessera, tmp_path):
    program = tessera.parent / "core_test"
    subprocess.run([program, "--gtest_filter=TensorBoard.WritesAFileOfFramedEvents"], check=True, timeout=60,
                   capture_output=True, env={**os.environ, "TESSERA_TEST_OUTPUT": str(tmp_path)})
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "valid/loss"]
    loss = events.Scalars("train/loss")
    assert [point.step for point in loss] == list(range(300))
    for point in loss:
        assert abs(point.value - 8 / (1 + point.step)) < 1e-6 * 8  # stored as float32
    assert [point.value for point in events.Scalars("valid/loss")] == [-1.5] * 3
    assert abs(loss[0].wall_time - loss[-1].wall_time) < 60
