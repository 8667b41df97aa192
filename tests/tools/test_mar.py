import os
import zipfile

from heatserve_tools.packaging import mar


def test_equal_members_give_equal_bytes(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(bytes(range(256)) * 4096)
    members = {"model.py": b"class Net: ...\n", "weights.pt": weights, "a/b.json": b"{}"}
    mar.write(tmp_path / "one.mar", members)
    os.utime(weights, (0, 0))
    weights.chmod(0o600)
    mar.write(tmp_path / "two.mar", dict(reversed(members.items())))
    assert (tmp_path / "one.mar").read_bytes() == (tmp_path / "two.mar").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.mar") as written:
        assert written.testzip() is None
        assert written.namelist() == ["a/b.json", "model.py", "weights.pt"]
        assert written.read("weights.pt") == weights.read_bytes()
        assert written.getinfo("weights.pt").compress_type == zipfile.ZIP_STORED
