"""The programs of the README and of examples/ run, and print what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

import pytest

HERE = Path(__file__).resolve().parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS: List[Tuple[str, str]] = re.findall(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", README, flags=re.S | re.M
)
EXAMPLES = {
    "buffered.py": r"2000 stored in [0-9]+ requests",
    "groups.py": r"(billing has handled 5\nshipping has handled 5|shipping has handled 5\nbilling has handled 5)",
    "prefork.py": r"\['/parent', '/worker/0', '/worker/1'\]",
    "transaction.py": r"bill {'order': 7, 'due': 1250}",
}


def run(*command: str) -> str:
    # Python 3.12 and later warn of every fork in a process with threads, also of those that the child never needs.
    python = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run([*python, *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme(number: int, tmp_path: Path) -> None:
    program, printed = BLOCKS[number]
    path = tmp_path / f"test_readme_{number}.py"
    path.write_text(program, encoding="utf-8")
    if "def test_" in program:
        assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(path))
    else:
        assert printed and run(str(path)) == printed


def test_readme_has_its_programs() -> None:
    assert len(BLOCKS) == 3 == README.count("```python")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(name: str) -> None:
    assert re.fullmatch(EXAMPLES[name] + "\n", run(str(HERE / "examples" / name)))


def test_every_example_is_run() -> None:
    assert {path.name for path in (HERE / "examples").glob("*.py")} == set(EXAMPLES)
