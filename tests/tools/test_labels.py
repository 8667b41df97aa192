import json

import pytest

from heatserve_tools.demo import imagenet
from heatserve_tools.errors import ToolError
from heatserve_tools.packaging import labels


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.txt", "tench\ngoldfish \n", {"0": "tench", "1": "goldfish"}),
        ("labels.json", '["tench", "goldfish"]', {"0": "tench", "1": "goldfish"}),
        ("labels.json", '{"1": "goldfish", "0": "tench"}', {"0": "tench", "1": "goldfish"}),
        ("labels.json", '{"0": ["n01440764", "tench"]}', {"0": ["n01440764", "tench"]}),
        ("labels.json", '{"object_type_names": ["tench"]}', {"0": "tench"}),
    ],
)
def test_every_usual_format_of_labels_is_read(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    read = labels.read(path)
    assert read == expected
    assert list(read) == [str(index) for index in range(len(expected))]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("labels.txt", "tench\n\ngoldfish\n", "Line 2"),
        ("labels.txt", "", "name no class"),
        ("labels.json", "{", "not JSON"),
        ("labels.json", '"tench"', "must be a list"),
        ("labels.json", '{"tench": 0}', "'tench'"),
        ("labels.json", '{"0": "tench", "2": "shark"}', "class 1"),
        ("labels.json", '{"0": 5}', "class 0"),
        ("labels.json", '{"0": []}', "class 0"),
        ("labels.json", " ", "not JSON: the file is empty"),
        ("labels.json", "[" * 100_000, "not JSON: maximum recursion"),
        ("labels.json", r'["\ud800"]', "half of a surrogate pair"),
    ],
)
def test_labels_that_cannot_name_every_class_are_refused(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ToolError, match=said):
        labels.read(path)


def test_labels_mean_to_the_stock_handlers_what_they_meant_in_the_file(tmp_path):
    util = pytest.importorskip("ts.utils.util")
    given, written = tmp_path / "labels.json", tmp_path / "index_to_name.json"
    given.write_text('{"0": ["n01440764", "tench"], "1": "goldfish"}')
    written.write_text(json.dumps(labels.read(given)))
    assert util.load_label_mapping(str(written)) == util.load_label_mapping(str(given))


def test_imagenet_has_a_thousand_classes_in_torchvisions_order():
    names = imagenet.labels()
    assert len(names) == 1000
    assert (names[0], names[285], names[999]) == ("tench", "Egyptian cat", "toilet tissue")
