"""The runner: finding chapters, what a kernel gets, which cells run, and what is kept of a run."""
from __future__ import annotations

import json
import math
import os
import sys

import nbformat
import psutil
import pytest
from conftest import ROOT, write_chapter
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dlbook.kit import results, runner


def run(folder, *stems, **options):
    "Runs chapters of `folder`, and returns a `Run` each."
    chapters = runner.find_chapters(list(stems), runner.list_chapters(folder))
    return runner.run_chapters(chapters, out=folder.parent / 'out', **options)


def text_of(notebook, number):
    "What cell `number` (from 1) of an executed notebook printed."
    cell = nbformat.read(notebook, as_version=4).cells[number - 1]
    return ''.join(output.get('text', '') for output in cell.outputs)


# --- finding chapters

@pytest.fixture
def chapters(book):
    for stem in ('01_neurons', '02_activations', '04_backprop', '10_attention'):
        write_chapter(book, stem, 'x = 1')
    return runner.list_chapters(book)


@pytest.mark.parametrize('wanted, expected', [
    ([], [1, 2, 4, 10]), (['4'], [4]), (['04'], [4]), (['backprop'], [4]), (['04_backprop'], [4]), (['Backprop'], [4]),
    (['04_backprop.ipynb'], [4]), (['1-4'], [1, 2, 4]), (['2-2'], [2]), (['10', '1', '01_neurons'], [1, 10]),
])
def test_find_chapters(chapters, wanted, expected):
    assert [chapter.number for chapter in runner.find_chapters(wanted, chapters)] == expected


@pytest.mark.parametrize('wanted, near', [
    ('bakprop', '04_backprop'), ('4_backprop', '04_backprop'), ('NEURON', '01_neurons'), ('3', '02_activations'),
    ('11-12', 'the chapters are'), ('4-1', 'the chapters are'), ('', 'the chapters are'), ('../x', 'the chapters are'),
])
def test_unknown_chapters_are_answered_with_the_nearest(chapters, wanted, near):
    with pytest.raises(runner.UnknownChapter, match=near):
        runner.find_chapters([wanted], chapters)


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_find_chapters_never_fails_otherwise(wanted):
    chapters = [runner.Chapter(ROOT / 'nbs' / f'{stem}.ipynb') for stem in ('01_neurons', '04_backprop')]
    try:
        assert runner.find_chapters([wanted], chapters)
    except runner.UnknownChapter as error:
        assert '\n' not in str(error)


def test_read_chapter(book):
    path = write_chapter(book, '04_backprop', 'x = 1', title='Back *propagation* in `code`', data='[digits](x.html), `wine`')
    chapter = runner.read_chapter(path)
    assert (chapter.number, chapter.name, chapter.stem) == (4, 'backprop', '04_backprop')
    assert (chapter.title, chapter.data) == ('Back propagation in code', 'digits, wine')
    assert (chapter.needs, chapter.cpu_time, chapter.gpu_time) == ('none', '5 s', '2 s')
    assert chapter.summary == 'After this chapter you can test the runner.'


def test_read_chapter_forgives_a_missing_table_but_not_a_broken_file(book):
    nbformat.write(new_notebook(cells=[new_code_cell('x = 1')]), book / '01_empty.ipynb')
    assert runner.list_chapters(book)[0].title == ''
    for text in ('', '{"cells": 3}', '[]', '{"cells": [{}]}'):
        (book / '02_broken.ipynb').write_text(text)
        with pytest.raises(ValueError, match='02_broken.ipynb is not a notebook'):
            runner.list_chapters(book)


def test_chapters_dir_can_be_overridden(monkeypatch, tmp_path):
    monkeypatch.setenv('DLBOOK_CHAPTERS', str(tmp_path))
    assert runner.chapters_dir() == tmp_path.resolve()
    monkeypatch.setenv('DLBOOK_CHAPTERS', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError):
        runner.chapters_dir()


# --- cleaning

def messy_notebook():
    "A notebook with everything that a run leaves behind."
    figure = 'iVBORw0KGgo=\n'
    outputs = [
        new_output('stream', name='stdout', text='<a at 0x7F00>\n<b at 0x1> and <c at 0x2>\nno address at 0x3\n'),
        new_output('stream', name='stderr', text='a warning\n'),
        new_output('execute_result', {'text/plain': '[<function f at 0xabc>,\n <g at 0xdef>]', 'text/html': '<p>\n<x at 0x1>'},
                   execution_count=7, metadata={'tags': ['x']}),
        new_output('display_data', {'image/png': figure, 'image/svg+xml': '<svg>\n</svg>\n', 'text/plain': '<Figure>',
                                    'application/vnd.google.colaboratory.intrinsic+json': {'type': 'string'}}),
        new_output('display_data', {'application/json': {'a': [1, {'b': 'at 0x1>'}]}, 'text/plain': ''}),
        new_output('error', ename='E', evalue='v', traceback=['<t at 0x1>']),
    ]
    cells = [new_markdown_cell('# Größe\n\n> at 0x1>', metadata={'tags': ['a'], 'hide_input': True}),
             new_code_cell('f()', execution_count=3, outputs=outputs, metadata={'execution': {'x': 'y'}, 'scrolled': True}),
             new_code_cell('', metadata={'collapsed': True}), new_markdown_cell('')]
    metadata = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3 (ipykernel)', 'language': 'python'},
                'language_info': {'name': 'python', 'version': '3.11'}, 'jupytext': {'x': 1},
                'widgets': {'application/vnd.jupyter.widget-state+json': {'state': {}}}}
    return new_notebook(cells=cells, metadata=metadata)


def test_cleaning_leaves_nothing_to_do_for_nbdev(tmp_path, monkeypatch):
    nbdev = pytest.importorskip('nbdev.clean')
    monkeypatch.chdir(ROOT)
    path = tmp_path / 'a.ipynb'
    for notebook in (messy_notebook(), new_notebook(cells=[]), new_notebook(cells=[new_code_cell('x')])):
        path.write_text(runner.notebook_text(runner.clean_notebook(notebook)), encoding='utf-8', newline='\n')
        before = path.read_bytes()
        nbdev.nbdev_clean(fname=str(path))
        assert path.read_bytes() == before
        assert runner.notebook_text(runner.clean_notebook(nbformat.read(path, as_version=4))).encode() == before


def test_cleaning_does_what_nbdev_does_except_for_widget_state(tmp_path, monkeypatch):
    nbdev = pytest.importorskip('nbdev.clean')
    monkeypatch.chdir(ROOT)
    path = tmp_path / 'a.ipynb'
    notebook = messy_notebook()
    nbformat.write(notebook, path)
    nbdev.nbdev_clean(fname=str(path))
    theirs = json.loads(path.read_text(encoding='utf-8'))
    del theirs['metadata']['widgets']
    ours = json.loads(runner.notebook_text(runner.clean_notebook(notebook)))
    assert ours == theirs


def test_cleaning_joins_the_pieces_of_a_stream():
    pieces = [('stdout', 'a\n'), ('stdout', 'b'), ('stderr', 'c'), ('stdout', 'd'), ('stdout', 'e\n')]
    notebook = new_notebook(cells=[new_code_cell('x', outputs=[new_output('stream', name=n, text=t) for n, t in pieces])])
    outputs = runner.clean_notebook(notebook).cells[0].outputs
    assert [(output.name, output.text) for output in outputs] == [('stdout', 'a\nb'), ('stderr', 'c'), ('stdout', 'de\n')]


# --- which cells run

@pytest.mark.parametrize('source, flags', [
    ('x = 1', set()), ('', set()), ('#| export\nx', set()), ('#| cuda\nx', {'cuda'}), ('#|online\nx', {'online'}),
    ('# | cuda\nx', {'cuda'}), ('\n\n#| export\n#| cuda\n#| online\nx', {'cuda', 'online'}),
    ('#| cuda online\nx', {'cuda', 'online'}), ('#| notest online\nx', {'online'}), ('#| notest\nx', set()),
    ('#| eval: false\nx', {'never'}), ('#| eval: False\nx', {'never'}), ('#| eval: true\nx', set()),
    ('x = 1\n#| cuda', set()), ('#| fig-cap: "cuda online"\nx', set()), ('#| export cuda\nx', set()),
])
def test_cell_flags(source, flags):
    assert runner.cell_flags(source) == flags


def saved_output(path, number, text):
    "Gives cell `number` of a notebook a saved output."
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[number - 1].outputs = [new_output('stream', name='stdout', text=text)]
    path.write_text(runner.notebook_text(notebook), encoding='utf-8', newline='\n')


def test_skipped_cells_keep_their_saved_outputs(book):
    path = write_chapter(book, '01_flags', 'print("plain")', '#| cuda\nraise SystemExit("cuda")',
                         '#| online\nprint("online ran")', '#| eval: false\nraise SystemExit("never")')
    import torch
    for number in (4, 5, 6):
        saved_output(path, number, f'saved {number}\n')
    if torch.cuda.is_available():
        pytest.skip('a CUDA device is there')
    first, = run(book)
    out = book.parent / 'out' / '01_flags.ipynb'
    assert first.ok and (first.executed, first.skipped) == (1, 3)
    assert [text_of(out, number) for number in (3, 4, 5, 6)] == ['plain\n', 'saved 4\n', 'saved 5\n', 'saved 6\n']
    second, = run(book, online=True, save=True)
    assert second.ok and (second.executed, second.skipped) == (2, 2)
    assert [text_of(path, number) for number in (3, 4, 5, 6)] == ['plain\n', 'saved 4\n', 'online ran\n', 'saved 6\n']


def test_cuda_cells_run_where_the_kernel_has_cuda(book):
    fake = ('import sys, types\ncuda = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "Fake GPU")\n'
            'sys.modules["torch"] = types.SimpleNamespace(cuda=cuda, __version__="9.9")')
    write_chapter(book, '01_fake', fake, '#| cuda\nprint("on the GPU")')
    done, = run(book)
    assert done.ok and (done.executed, done.skipped) == (2, 0)
    assert (done.ledger['run']['torch'], done.ledger['run']['device']) == ('9.9', 'Fake GPU')


# --- the kernel

def test_the_kernel_is_this_python_in_an_empty_folder_with_its_own_files(book, monkeypatch, tmp_path):
    foreign = tmp_path / 'share' / 'kernels' / 'python3'
    foreign.mkdir(parents=True)
    (foreign / 'kernel.json').write_text(json.dumps({'argv': ['/nowhere/python'], 'display_name': 'x', 'language': 'python'}))
    profile = tmp_path / 'ipython' / 'profile_default' / 'startup'
    profile.mkdir(parents=True)
    (profile / '00.py').write_text('raise SystemExit("a start-up file of the reader ran")')
    (tmp_path / 'data').mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'share'))
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    monkeypatch.setenv('DLBOOK_DATA', 'data')
    monkeypatch.setenv('DLBOOK_LEDGER', str(tmp_path / 'ledger-of-the-reader.json'))
    write_chapter(book, '03_seen', 'import json, os, sys\nimport dlbook\nfrom dlbook.kit.results import record\n'
                                   'record("a", 1.0, low=0)\nopen("written.txt", "w").close()',
                  'names = [name for name in os.environ if name.startswith("DLBOOK_")]\n'
                  'print(json.dumps([sys.executable, dlbook.__file__, os.getcwd(), os.listdir(),'
                  ' {name: os.environ[name] for name in names}]))')
    done, = run(book)
    assert done.ok, done.failure
    executable, package, folder, files, env = json.loads(text_of(book.parent / 'out' / '03_seen.ipynb', 4))
    assert executable == sys.executable and os.path.dirname(package) == str(runner.package_dir())
    assert files == ['written.txt'] and not os.path.exists(folder)
    assert env['DLBOOK_STILL'] == '1' and env['DLBOOK_CHAPTER'] == '03_seen' and env['DLBOOK_DATA'] == str(tmp_path / 'data')
    assert not os.path.exists(env['DLBOOK_LEDGER']) and 'reader' not in env['DLBOOK_LEDGER']
    assert not (tmp_path / 'ledger-of-the-reader.json').exists()
    assert done.ledger['entries'][0]['name'] == 'a'


def test_threads_are_left_alone_unless_kernels_share_the_cores(monkeypatch, tmp_path):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    assert 'OMP_NUM_THREADS' not in runner.kernel_environment('x', tmp_path)
    assert runner.kernel_environment('x', tmp_path, threads=3)['OMP_NUM_THREADS'] == '3'
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    assert runner.kernel_environment('x', tmp_path, threads=3)['OMP_NUM_THREADS'] == '5'


def test_peak_memory_counts_the_kernel_and_its_children(book):
    eat = 'import subprocess, sys, time\n'
    child = "import time; x = b'x' * 150_000_000; time.sleep(1.5)"
    write_chapter(book, '01_small', 'x = 1')
    write_chapter(book, '02_brief', "x = b'x' * 200_000_000\ndel x")
    write_chapter(book, '03_child', eat + f'subprocess.run([sys.executable, "-c", {child!r}])')
    small, brief, with_child = (done.peak_mb for done in run(book))
    assert 20 < small < 150
    assert with_child - small > 120
    if sys.platform == 'linux':
        assert 170 < brief - small < 240


@pytest.mark.skipif(os.name != 'posix', reason='kills by signal')
def test_a_kernel_that_dies_is_a_failure_of_its_chapter(book):
    write_chapter(book, '01_dies', 'x = 1', 'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)', 'print("never")')
    write_chapter(book, '02_good', 'print("fine")')
    dies, good = run(book)
    assert dies.failure.cell == 4 and 'the kernel died' in dies.failure.error and good.ok
    assert "os.kill" in runner.failure_text(dies.failure)


def test_processes_that_a_chapter_left_running_end_with_its_kernel(book, tmp_path):
    here = tmp_path / 'pid'
    write_chapter(book, '01_leaves', 'import pathlib, subprocess, sys\n'
                  'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)\n'
                  f'pathlib.Path({str(here)!r}).write_text(str(child.pid))')
    assert run(book)[0].ok
    assert not psutil.pid_exists(int(here.read_text()))


def test_large_outputs_and_warnings_are_kept(book):
    write_chapter(book, '01_loud', 'import sys, warnings\nfor i in range(20_000): print(i)',
                  'warnings.warn("look here")', 'print("\\x1b[31mred\\x1b[0m")')
    assert run(book)[0].ok
    out = book.parent / 'out' / '01_loud.ipynb'
    assert text_of(out, 3) == ''.join(f'{i}\n' for i in range(20_000))
    assert 'look here' in text_of(out, 4) and text_of(out, 5) == '\x1b[31mred\x1b[0m\n'


def test_widget_state_is_not_stored(book):
    path = write_chapter(book, '01_widgets', 'import ipywidgets\nipywidgets.IntSlider()')
    assert run(book, save=True)[0].ok
    assert 'widgets' not in nbformat.read(path, as_version=4).metadata


# --- what is kept

def test_a_value_that_is_not_a_number_fails_its_chapter(book):
    write_chapter(book, '01_nan', 'from dlbook.kit.results import chapter, record\nchapter("01_nan")',
                  'record("loss", float("nan"), high=1)')
    done, = run(book)
    assert done.failure.cell == 4 and 'OutOfBand' in done.failure.error
    ledger = results.read_ledger(book.parent / 'out' / 'ledger.json')
    assert not ledger['chapters']['01_nan']['run']['ok'] and not runner.in_band(done.ledger['entries'][0])


@given(st.floats(), st.none() | st.floats(allow_nan=False), st.none() | st.floats(allow_nan=False))
def test_in_band(value, low, high):
    value = value if math.isfinite(value) else repr(value)
    expected = not isinstance(value, str) and (low is None or low <= value) and (high is None or value <= high)
    assert runner.in_band({'value': value, 'low': low, 'high': high}) == expected


def test_a_second_run_keeps_the_results_of_other_chapters_and_survives_a_damaged_ledger(book):
    for stem in ('01_one', '02_two'):
        write_chapter(book, stem, 'x = 1')
    ledger = book.parent / 'out' / 'ledger.json'
    run(book, '1')
    run(book, '2')
    assert list(results.read_ledger(ledger)['chapters']) == ['01_one', '02_two']
    ledger.write_text('{"version": 1, "chap')
    run(book, '2')
    assert list(results.read_ledger(ledger)['chapters']) == ['02_two']


def test_an_invalid_notebook_is_a_failure_of_its_chapter(book):
    path = write_chapter(book, '01_odd', 'x = 1')
    notebook = json.loads(path.read_text())
    notebook['cells'][2]['outputs'] = 'none'
    path.write_text(json.dumps(notebook))
    write_chapter(book, '02_good', 'x = 1')
    odd, good = run(book)
    assert odd.failure.cell is None and 'not a valid notebook' in odd.failure.error and good.ok


def test_wrong_arguments(book):
    write_chapter(book, '01_one', 'x = 1')
    chapters = runner.list_chapters(book)
    for options in ({'jobs': 0}, {'timeout': 0}, {'out': book}):
        with pytest.raises(ValueError):
            runner.run_chapters(chapters, **{'out': book.parent / 'out', **options})


def test_handlers_of_signals_are_put_back(book):
    import signal
    write_chapter(book, '01_one', 'x = 1')
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(book)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
