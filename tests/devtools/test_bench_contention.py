"""The suite of a short processor: its groups, its neighbour, and the results from known times."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
import torch

from devtools.bench import contention, operations
from devtools.bench.neighbour import Neighbour
from devtools.bench.quota import V1, V2, Unavailable, _own, quota


def _folders(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


@pytest.fixture
def root() -> Path:
    """The hierarchy of this machine, where a group can be made in it."""
    root = V1 if (V1 / "cpu.cfs_quota_us").exists() else V2
    try:
        with quota(1.0):
            pass
    except Unavailable as reason:
        pytest.skip(str(reason))
    return root


def test_what_is_started_in_a_group_has_its_quota_and_the_group_is_removed(root: Path) -> None:
    before, own = _folders(root), _own(root)
    with quota(1.5) as group:
        first = (group.folder / "cpu.cfs_quota_us").exists()
        file = group.folder / ("cpu.cfs_quota_us" if first else "cpu.max")
        assert int(file.read_text().split()[0]) == 150_000
        with group.starting():
            assert _own(root) == group.folder
            child = psutil.Popen(["sleep", "60"])
        try:
            assert _own(root) == own
            assert (group.folder / "cgroup.procs").read_text().split() == [str(child.pid)]
        finally:
            child.kill()
            child.wait()
    assert _folders(root) == before


def test_a_group_is_removed_when_the_measurement_is_interrupted(root: Path) -> None:
    before = _folders(root)
    with pytest.raises(KeyboardInterrupt), quota(1.0) as group, group.starting():
        raise KeyboardInterrupt
    assert _folders(root) == before


def test_where_no_group_can_be_made_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no control group"), quota(1.0, tmp_path / "missing"):
        pass
    with pytest.raises(Unavailable, match="no limit of processor time"), quota(1.0, tmp_path):
        pass
    assert not _folders(tmp_path)


def test_the_neighbour_works_only_when_it_is_told_to() -> None:
    with Neighbour(1) as neighbour:
        process = psutil.Process(neighbour._process.pid)

        def used() -> float:
            before = sum(process.cpu_times()[:2])
            time.sleep(0.3)
            return sum(process.cpu_times()[:2]) - before

        time.sleep(0.1)
        assert used() == 0
        with neighbour.working():
            time.sleep(0.2)
            assert used() > 0
        time.sleep(0.1)
        assert used() == 0
    assert not process.is_running()


def test_variables_are_taken_away_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with contention.without("OMP_NUM_THREADS", "NOT_THERE"):
        assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "7" and "NOT_THERE" not in os.environ


def test_each_setting_has_both_handlers_medians_and_tails() -> None:
    found = {}
    for environment in contention.ENVIRONMENTS:
        found[contention.OURS, environment] = [[0.02] * 20] * 3
        found[contention.STOCK, environment] = [[0.04] * 20] * 3
    lines = contention.results("quiet", found)
    assert len(lines) == 5 * len(contention.ENVIRONMENTS)
    assert [line.value for line in lines[:5]] == pytest.approx([0.5, 20, 20, 40, 40])
    slow = {key: [[3 * each for each in latencies] for latencies in rounds] for key, rounds in found.items()}
    assert [line.value for line in contention.tails("x", slow, found)] == pytest.approx(
        [3.0] * len(contention.ENVIRONMENTS)
    )


def test_the_shares_of_operations_add_up_and_name_the_one_that_takes_the_time() -> None:
    layer, image = torch.nn.Conv2d(32, 32, 3).eval(), torch.randn(1, 32, 64, 64)
    with torch.inference_mode():
        shares = operations.of(lambda: layer(image).relu_(), 5)
    assert sum(shares.values()) == pytest.approx(100)
    assert shares["convolutions"] > shares["elementwise"] > 0


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("mkldnn::_convolution_pointwise", "convolutions"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::hardtanh_", "elementwise"),
        ("aten::addmm", "matrix products"),
        ("aten::batch_norm", "normalisation"),
        ("aten::normal_", "random numbers"),
        ("aten::copy_", "copies and layouts"),
        ("aten::max_pool2d_with_indices", "pooling"),
        ("aten::argmax", operations.OTHER),
    ],
)
def test_an_operation_has_the_kind_of_its_name(operation: str, kind: str) -> None:
    assert operations.kind(operation) == kind
