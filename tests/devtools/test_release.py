"""scripts/release: it builds both distributions, and each of its checks refuses the fault that it is for."""

from __future__ import annotations

import re
import shutil
import tarfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from devtools import release
from devtools.paths import ROOT
from devtools.release import Release, Unfit


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release.checkout(ROOT, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release.build(source, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def about(built: Release) -> Message:
    return BytesParser().parsebytes(
        next(content for name, content in release.contents(built.wheel).items() if name.endswith("METADATA"))
    )


def description(text: str) -> Message:
    message = Message()
    message["Description-Content-Type"] = "text/markdown"
    message.set_payload(text)
    return message


def test_this_checkout_makes_a_release(source: Path, built: Release) -> None:
    version = release.version_of(source)
    assert built.wheel.name == f"heatserve-{version}-py3-none-any.whl"
    assert built.sdist.name == f"heatserve-{version}.tar.gz"
    release.check(built, source, version)
    release.check_one_version(source, version)
    release.check_changelog((source / "CHANGELOG.md").read_text(encoding="utf-8"), version)


def test_the_handler_is_data_of_the_tools_and_no_module_of_its_own(built: Release) -> None:
    members = release.contents(built.wheel)
    (top_level,) = (content for name, content in members.items() if name.endswith("top_level.txt"))
    assert top_level.decode().split() == ["heatserve", "heatserve_tools"]
    assert members["heatserve_tools/handlers/explain_handler.py"] == (ROOT / "handlers/explain_handler.py").read_bytes()
    assert "heatserve/py.typed" in members


def test_a_mere_client_needs_neither_torch_nor_torchserve(about: Message) -> None:
    needed = [requirement for requirement in about.get_all("Requires-Dist", []) if "extra ==" not in requirement]
    assert {re.split(r"\W", requirement)[0] for requirement in needed} == {"numpy", "pillow", "click", "rich"}
    assert set(about.get_all("Provides-Extra", [])) == {"model", "serve", "demo", "all", "timm", "huggingface"}


def test_files_that_the_readme_names_for_an_index_are_in_the_source_distribution(
    about: Message, built: Release
) -> None:
    text = str(about.get_payload(decode=True).decode("utf-8"))  # type: ignore[union-attr]
    links = re.findall(r"\]\((?!https?:|#)([^)\s#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links and not re.search(r"\]\((?!https?:)", text)
    with tarfile.open(built.sdist) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    assert {link.rstrip("/") for link in links} <= names


@pytest.mark.parametrize(
    "text",
    ["see [the page](docs/operate.md)", "![picture](docs/panel.jpg)", "[below](#not-here)", '<img src="docs/a.png">'],
)
def test_a_readme_whose_links_lead_nowhere_outside_the_repository_is_refused(text: str) -> None:
    with pytest.raises(Unfit, match="lead nowhere"):
        release.check_readme(description(text))
    release.check_readme(
        description("# Here\n\n[an address](https://example.org/docs) and ![one](https://e.org/a.png)")
    )


def test_a_readme_that_an_index_would_show_as_plain_text_is_refused() -> None:
    message = description("text")
    message.replace_header("Description-Content-Type", "text/plain")
    with pytest.raises(Unfit, match="cannot render"):
        release.check_readme(message)


def test_a_wheel_that_lacks_a_file_or_holds_another_is_refused(built: Release, source: Path) -> None:
    names = set(release.contents(built.wheel))
    release.check_contents(names, source)
    with pytest.raises(Unfit, match=r"lacks heatserve/py\.typed"):
        release.check_contents(names - {"heatserve/py.typed"}, source)
    with pytest.raises(Unfit, match=r"holds explain_handler\.py"):
        release.check_contents(names | {"explain_handler.py"}, source)


def test_a_source_distribution_that_builds_another_wheel_is_refused(
    built: Release, source: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(source, tmp_path / "changed")
    (changed / "handlers" / "heatserve" / "added.py").write_text("")
    with pytest.raises(Unfit, match=r"another wheel than the checkout: .*heatserve/added\.py"):
        release.check(built, changed, release.version_of(source))


def test_what_git_ignores_does_not_reach_a_release(tmp_path: Path) -> None:
    assert not any(part in ("build", "__pycache__", ".venv") for name in release_names(tmp_path) for part in name.parts)


def release_names(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in release.checkout(ROOT, folder).rglob("*")]


@pytest.mark.parametrize("text", ["", "## 0.1.10\n\n- a\n", "## 0.1.0\n\n## 0.0.9\n\n- a\n", "### 0.1.0\n\n- a\n"])
def test_a_version_without_an_entry_in_the_changelog_is_refused(text: str) -> None:
    with pytest.raises(Unfit, match=r"no entry `## 0\.1\.0`"):
        release.check_changelog(text, "0.1.0")


def test_an_entry_without_a_date_is_noted() -> None:
    assert release.check_changelog("## 0.1.0, 2026-01-31\n\n- a\n", "0.1.0") == ""
    assert "no date" in release.check_changelog("## 0.1.0, unreleased\n\n- a\n", "0.1.0")


def test_a_version_that_stands_in_a_second_place_is_refused(source: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(source, tmp_path / "changed")
    version = release.version_of(source)
    (changed / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    with pytest.raises(Unfit, match=r"pyproject\.toml as well as in handlers/heatserve"):
        release.check_one_version(changed, version)
