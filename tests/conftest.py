"""Fixtures that several test modules share: small chapters, and the command `dlbook` as a process."""
from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # several processes with several threads each wait for one another


# Files whose tests share something costly: each of them goes to one process as a whole, with all its tests.
TOGETHER = {'test_browser.py', 'test_site.py', 'test_wheel.py'}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Keeps the files of TOGETHER whole. xdist's own marks do not since pytest 9.2 (pytest-dev/pytest-xdist#1386), and say nothing."
    if config.getoption('dist') != 'loadgroup':
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition('::')[0]
            return path if path.rpartition('/')[2] in TOGETHER else nodeid

    return Together(config, log)


def pytest_collection_modifyitems(items):
    "The longest tests first, or one process is left with them at the end."
    items.sort(key=lambda item: not item.get_closest_marker('wheel') and (2 if not item.get_closest_marker('book') else 1))


def pytest_runtest_setup(item):
    "An error of collection would say nothing here: xdist swallows what its processes say about it."
    if item.get_closest_marker('xdist_group'):
        pytest.fail('the mark xdist_group has no effect here: name the file in TOGETHER, in tests/conftest.py')


def write_chapter(folder: Path, stem: str, *cells: str, title: str = 'A chapter', data: str = '`digits`') -> Path:
    "A small chapter with the code cells `cells` (the first is cell 3 of the notebook), saved as nbdev would save it."
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    from dlbook.kit.runner import clean_notebook, notebook_text
    head = [f'# {title}\n\n> After this chapter you can test the runner.',
            '| Needs | Time on two CPU cores | Time on a GPU | Data |\n| --- | --- | --- | --- |\n'
            f'| none | 5 s | 2 s | {data} |\n\n[Open in Colab](https://example.org) · [Source](https://example.org)']
    notebook = new_notebook(cells=[new_markdown_cell(text) for text in head] + [new_code_cell(text) for text in cells])
    for number, cell in enumerate(notebook.cells):
        cell.id = f'cell-{number}'
    notebook.metadata['kernelspec'] = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    path = folder / f'{stem}.ipynb'
    path.write_text(notebook_text(clean_notebook(notebook)), encoding='utf-8', newline='\n')
    return path


@pytest.fixture
def book(tmp_path):
    "An empty folder for small chapters, and beside it an empty folder `desk` to run the command in."
    folder = tmp_path / 'book'
    folder.mkdir()
    (tmp_path / 'desk').mkdir()
    return folder


@pytest.fixture
def dlbook(book):
    "A function that runs the command `dlbook` on the chapters in `book`, or (`wait=False`) starts it."
    started = []

    def start(*arguments, wait=True, timeout=120, cwd=None, env=None, **options):
        command = [str(Path(sysconfig.get_path('scripts')) / 'dlbook'), *map(str, arguments)]
        outer = {name: value for name, value in os.environ.items() if name not in ('COLUMNS', 'FORCE_COLOR')}
        full = {**outer, 'DLBOOK_CHAPTERS': str(book), 'PYTHONIOENCODING': 'utf-8', **(env or {})}
        if 'PYTHONPATH' in (env or {}) and outer.get('PYTHONPATH'):  # where that names the checkout under test, keep it so
            full['PYTHONPATH'] = os.pathsep.join([env['PYTHONPATH'], outer['PYTHONPATH']])
        process = subprocess.Popen(command, cwd=cwd or book.parent / 'desk', env=full, encoding='utf-8',
                                   **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **options})
        started.append(process)
        if not wait:
            return process
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
