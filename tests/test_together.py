"Tests that share a server, a browser or an environment run in one process, whichever pytest and xdist are installed."
import re
import subprocess
import sys

from conftest import ROOT


def test_a_file_that_shares_something_costly_stays_in_one_process(tmp_path):
    text = "import pytest\n\n@pytest.mark.parametrize('n', ['a', '::', 'x@y', 4, 5, 6])\ndef test_it(n): pass\n\n\ndef test_other(): pass\n"
    for name in ("test_site.py", "test_browser.py", "test_others.py"): (tmp_path / name).write_text(text)
    for name in ("tests/conftest.py", "pyproject.toml"): (tmp_path / name.rpartition("/")[2]).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "pytest", "-v", "-n", "3", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"^\[(gw\d)\] .*PASSED (test_\w+\.py)::", done.stdout, re.MULTILINE)
    assert len(ran) == 21
    for name in ("test_site.py", "test_browser.py"): assert len({worker for worker, file in ran if file == name}) == 1, done.stdout
    assert len({worker for worker, _ in ran}) > 1, "nothing ran side by side"


def test_a_mark_that_would_do_nothing_is_refused(tmp_path):
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tmp_path / "test_marked.py").write_text("import pytest\npytestmark = pytest.mark.xdist_group('x')\ndef test_it(): pass\n")
    for processes in ("0", "2"):
        done = subprocess.run([sys.executable, "-m", "pytest", "-n", processes, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and "name the file in TOGETHER" in done.stdout
