"""The load on servers: the results from it, and Locust's clients at a small server. Nothing here depends on speed."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import torch
from torchvision.models import resnet50

from devtools.bench import archives, bursts, crowd
from devtools.bench.bursts import FRONTEND, WORKER, Burst
from devtools.bench.children import ChildFailed
from devtools.bench.contest import Load, contest
from devtools.bench.crowd import Crowd, Locust
from devtools.bench.servers import Differs, same
from devtools.paths import ROOT
from heatserve.serving import integrity
from heatserve_tools.packaging.mar import sealed
from heatserve_tools.torchserve import server_log


def burst(*latencies, seconds=1.0, cpu=0.0, batches=0, size=0):
    return Burst(seconds, latencies, size, {WORKER: cpu, FRONTEND: cpu / 4}, batches)


def test_latencies_are_compared_by_the_median_of_each_round():
    ours = [burst(1.0, 2.0, 9.0), burst(3.0, 3.0), burst(8.0)]
    found = bursts.latency(ours, [burst(1.0), burst(1.0, 1.0), burst(2.0, 2.0)])
    assert (found.median, found.low, found.high, found.rounds) == (3.0, 2.0, 4.0, 3)


def test_rates_are_answers_a_second_whatever_the_bursts_sizes():
    found = bursts.rate([burst(*[0.1] * 8, seconds=2.0)] * 3, [burst(0.1, 0.1, seconds=4.0)] * 3)
    assert (found.low, found.median, found.high) == (8.0, 8.0, 8.0)


def test_processor_time_is_that_of_all_processes_for_each_answer_over_all_rounds():
    stock = [burst(0.1, cpu=0.1), burst(0.1, cpu=0.3), burst(0.1, cpu=0.2)]
    ours = [burst(0.1, 0.1, cpu=0.2), burst(0.1, 0.1, cpu=0.1), burst(0.1, 0.1, cpu=0.3)]
    assert bursts.processor(ours, stock).median == pytest.approx(0.5)
    steady = bursts.processor([burst(0.1, 0.1, cpu=0.2)] * 5, [burst(0.1, cpu=0.4)] * 5)
    assert (steady.low, steady.median, steady.high) == pytest.approx((0.25, 0.25, 0.25))


def test_a_summary_is_over_the_single_answers_of_all_rounds():
    rounds = [burst(*([0.010] * 50), cpu=1.0, batches=10, size=500), burst(*([0.030] * 50), cpu=3.0, batches=10)]
    assert bursts.summary(rounds, "ours") == {
        "ours_answers": 100,
        "ours_per_second": 50.0,
        "ours_p50_ms": pytest.approx(20.0),
        "ours_p95_ms": pytest.approx(30.0),
        "ours_p99_ms": pytest.approx(30.0),
        "ours_bytes_per_answer": 5.0,
        "ours_worker_cpu_ms_per_answer": 40.0,
        "ours_frontend_cpu_ms_per_answer": 10.0,
        "ours_answers_per_batch": 5.0,
    }


LOG = """\
2001-02-03T04:05:58,500 [DEBUG] W-9000-one_1.0 org.pytorch.serve.wlm.WorkerLifeCycle - Worker cmdline: [python]
2001-02-03T04:05:58,600 [DEBUG] W-9001-other_1.0 org.pytorch.serve.wlm.WorkerLifeCycle - Worker cmdline: [python]
2001-02-03T04:05:59,700 [DEBUG] W-9000-one_1.0 org.pytorch.serve.wlm.WorkerThread - W-9000-one_1.0 State change \
null -> WORKER_STARTED
2001-02-03T04:06:00,750 [DEBUG] W-9000-one_1.0 org.pytorch.serve.wlm.WorkerThread - W-9000-one_1.0 State change \
WORKER_STARTED -> WORKER_MODEL_LOADED
2001-02-03T04:06:01,000 [INFO ] W-9000-one_1.0-stdout MODEL_LOG - Backend received inference at: 981173161
2001-02-03T04:06:01,000 [INFO ] W-9001-other_1.0-stdout MODEL_LOG - Backend received inference at: 981173161
2001-02-03T04:06:02,000 [DEBUG] W-9000-one_1.0 org.pytorch.serve.wlm.WorkerThread - W-9000-one_1.0 State change \
WORKER_MODEL_LOADED -> WORKER_SCALED_DOWN
2001-02-03T04:06:03,000 [DEBUG] W-9002-one_1.0 org.pytorch.serve.wlm.WorkerLifeCycle - Worker cmdline: [python]
2001-02-03T04:06:04,010 [DEBUG] W-9002-one_1.0 org.pytorch.serve.wlm.WorkerThread - W-9002-one_1.0 State change \
WORKER_STARTED -> WORKER_MODEL_LOADED
2001-02-03T04:06:05,000 [DEBUG] W-9003-one_1.0 org.pytorch.serve.wlm.WorkerLifeCycle - Worker cmdline: [python]
"""


def test_the_log_says_how_long_each_start_of_a_models_worker_took():
    assert server_log.seconds_to_ready(LOG, "one") == [2.25, 1.01]
    assert server_log.seconds_to_ready(LOG, "other") == []


def test_the_log_says_how_many_batches_a_model_was_given():
    assert [server_log.batches(LOG, model) for model in ("one", "other", "on")] == [1, 1, 0]


def test_classes_that_are_equally_probable_may_change_places():
    same({"a": 0.5, "b": 0.2, "c": 0.2}, {"a": 0.5, "c": 0.2, "b": 0.2})
    same({"a": 0.5, "b": 0.2, "c": 0.200001}, {"a": 0.5, "b": 0.200001, "d": 0.2})


@pytest.mark.parametrize("stock", [{"a": 0.5, "b": 0.1}, {"b": 0.5, "a": 0.2}, {"a": 0.5}, {"c": 0.5, "b": 0.2}])
def test_other_predictions_are_not_compared(stock):
    with pytest.raises(Differs):
        same({"a": 0.5, "b": 0.2}, stock)


def test_an_archive_with_other_settings_is_still_what_its_manifest_says(tmp_path):
    folder = tmp_path / "ours"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "model-config.yaml").write_text("batchSize: 1\n")
    manifest = {"model": {"configFile": "model-config.yaml"}, "heatserve": {}}
    members = {"model-config.yaml": folder / "model-config.yaml"}
    (folder / integrity.MANIFEST).write_bytes(sealed(manifest, members))
    changed = archives.batching(folder, 8)
    assert "batchSize: 8" in (changed / "model-config.yaml").read_text()
    assert integrity.check(changed, json.loads((changed / integrity.MANIFEST).read_text())).verified


def test_the_stock_handlers_resnet50_has_the_weights_of_torchvisions():
    defined: dict = {}
    exec(archives._RESNET50, defined)
    with torch.device("meta"):
        theirs, ours = defined["ResNet50"]().state_dict(), resnet50(weights=None).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in ours.items()}


class _Small(ThreadingHTTPServer):
    """Answers every image with five bytes, and keeps the images and the most that came at one time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.lock, self.now, self.most, self.came, self.connections = threading.Lock(), 0, 0, [], set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        server = self.server
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.01)
        with server.lock:
            server.now -= 1
            server.came.append((self.path, self.headers["Content-Type"], body))
            server.connections.add(self.client_address)
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.fixture
def small():
    with _Small() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_clients_send_the_image_so_often_and_keep_their_connections(small):
    with Locust(b"an image") as clients:
        found = [clients.burst(f"{small.url}/predictions/m", 3, 12) for _ in range(2)]
        child = clients._child.pid
        with pytest.raises(ChildFailed, match=r"4 of 4 requests .* were not answered well: .*500"):
            clients.burst(f"{small.url}/bad", 1, 4)
        assert len(clients.burst(f"{small.url}/predictions/m", 3, 12).latencies) == 12
    assert [(len(each.latencies), each.bytes) for each in found] == [(12, 60)] * 2
    assert all(0.01 <= latency <= each.seconds for each in found for latency in each.latencies)
    assert set(small.came[:36]) == {
        ("/predictions/m", "application/octet-stream", b"an image"),
        ("/bad", "application/octet-stream", b"an image"),
    }
    assert 1 <= small.most <= 3 and len(small.connections) <= 3 + 4
    assert not psutil.pid_exists(child)
    assert socket.socket.__module__ == "socket"


def test_a_crowd_whose_process_is_gone_says_so(small):
    with Locust(b"an image") as clients:
        clients._child.kill()
        clients._child.wait()
        with pytest.raises(ChildFailed, match="ended with -9"):
            clients.burst(small.url, 1, 1)


def test_the_clients_process_ends_when_no_order_can_come_any_more():
    assert subprocess.run([sys.executable, "-m", crowd.MODULE], cwd=ROOT, input=b"", timeout=120).returncode == 0


class _Server:
    """As much of a TorchServe as a contest looks at; it logs a batch each time that its log is read."""

    def __init__(self, url):
        self.inference, self.pid, self._reads = url, os.getpid(), 0

    def worker_pids(self, model):
        return [os.getpid()]

    def log(self):
        self._reads += 1
        return f"W-9000-{self.model}_1.0-stdout MODEL_LOG - Backend received inference at: 1\n" * self._reads

    model = "m"


def test_in_a_contest_the_kinds_take_turns_and_the_warm_up_is_left_out(small):
    server = _Server(small.url)
    loads = {
        "one": Load(server, "m", "predictions", 2, 4),
        "two": Load(server, "m", "explanations", 1, 3),
    }
    with Locust(b"an image") as clients:
        found = contest(clients, loads, 0, 2, lambda share: None)
    paths = [path for path, _, _ in small.came]
    assert paths == (["/predictions/m"] * 4 + ["/explanations/m"] * 3) * 4
    assert {name: [len(each.latencies) for each in rounds] for name, rounds in found.items()} == {
        "one": [4, 4],
        "two": [3, 3],
    }
    assert all(each.batches == 1 and each.cpu.keys() == {WORKER, FRONTEND} for each in found["one"])


def test_a_crowd_is_busy_until_the_block_ends_and_an_error_that_stopped_a_client_is_raised():
    asked, lock = [], threading.Lock()

    def ask():
        with lock:
            asked.append(threading.get_ident())
        time.sleep(0.002)

    with Crowd([ask] * 3) as clients:
        assert len(clients.burst(4).latencies) == 12
        assert len(clients.burst(2, clients=1).latencies) == 2
        asked.clear()
        with clients.busy() as stopped:
            time.sleep(0.1)
            assert len(set(asked)) == 3 and not stopped.is_set()
        after = len(asked)
        time.sleep(0.05)
        assert len(asked) == after > 3
    with (
        pytest.raises(ZeroDivisionError),
        Crowd([ask, lambda: 1 / 0]) as clients,
        clients.busy() as stopped,
    ):
        assert stopped.wait(5)
