"""The command `dlbook`, as a process, on small chapters made for the purpose."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from conftest import ROOT, write_chapter

GOOD = ['from dlbook.kit.results import chapter, record\nchapter("01_good")',
        'record("accuracy", 0.97, low=0.95, source="made up")', 'object()']
posix = pytest.mark.skipif(os.name != 'posix', reason='needs POSIX signals, limits or terminals')


def one_line(result, code):
    "Checks that a command failed in one clear line."
    assert result.returncode == code, result.stdout + result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith('dlbook: '), result.stderr
    assert 'Traceback' not in result.stderr + result.stdout
    return result.stderr


def wait_for(condition, seconds=30):
    "Waits until `condition()` is true, and returns what it gave."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f'not within {seconds} s')


def alive(pids):
    "Those of `pids` that still run."
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            pass
    return found


# --- list, results, and the command alone

def test_alone_says_what_to_do_next(dlbook):
    result = dlbook()
    assert result.returncode == 0
    for command in ('list', 'run', 'lab', 'progress', 'results', 'doctor'):
        assert f'dlbook {command}' in result.stdout


def test_version_is_that_of_the_package(dlbook):
    from dlbook import __version__
    assert dlbook('--version').stdout == f'dlbook {__version__}\n'


def test_list_shows_number_title_time_data_and_recorded_results(book, dlbook):
    write_chapter(book, '01_good', 'x = 1', title='Neurons [and] **layers**', data='`breast_cancer`')
    write_chapter(book, '12_other', 'x = 1', title='Other')
    write_chapter(book, 'index', 'x = 1')
    (book / 'results.json').write_text(json.dumps({'version': 1, 'chapters': {'01_good': {'entries': [
        {'name': 'a', 'value': 1.0, 'low': 0, 'high': None, 'unit': '', 'source': ''}] * 3}}}))
    result = dlbook('list')
    assert result.returncode == 0, result.stderr
    rows = [re.split(r'\s*[│┃|]\s*', line)[1:-1] for line in result.stdout.splitlines() if 'good' in line or 'other' in line]
    assert rows == [['01', 'good', 'Neurons [and] layers', '5 s', '2 s', 'breast_cancer', '3'],
                    ['12', 'other', 'Other', '5 s', '2 s', 'digits', '']]


def test_list_in_a_narrow_window_and_without_unicode(book, dlbook):
    write_chapter(book, '01_good', 'x = 1', title='Größe ∑')
    result = dlbook('list', env={'PYTHONIOENCODING': 'ascii', 'COLUMNS': '60'})
    assert result.returncode == 0 and '01' in result.stdout, result.stderr


def test_results_prefer_the_run_in_this_folder(book, dlbook):
    def ledger(value):
        return json.dumps({'version': 1, 'chapters': {'01_good': {'entries': [
            {'name': 'accuracy', 'value': value, 'low': 0.9, 'high': 1.0, 'unit': '%', 'source': '[@who]'}]}}})
    desk = book.parent / 'desk'
    assert 'No results' in dlbook('results').stdout
    (book / 'results.json').write_text(ledger(0.91))
    assert '0.91' in dlbook('results').stdout
    (desk / 'dlbook-results.json').write_text(ledger(0.92))
    assert '0.92' in dlbook('results').stdout
    (desk / 'dlbook-run').mkdir()
    (desk / 'dlbook-run' / 'ledger.json').write_text(ledger(0.5))
    shown = dlbook('results').stdout
    assert '0.5' in shown and '0.9 to 1' in shown and 'OUT OF BAND' in shown and '[@who]' in shown
    assert json.loads(dlbook('results', '--json').stdout)['chapters']['01_good']['entries'][0]['value'] == 0.5
    (desk / 'dlbook-run' / 'ledger.json').write_text('{"half')
    assert 'ledger.json' in one_line(dlbook('results'), 1)


def test_quick_commands_import_nothing_heavy(book):
    write_chapter(book, '01_good', 'x = 1')
    code = ('import sys\nfrom typer.testing import CliRunner\nfrom dlbook.kit.cli import app\n'
            'for arguments in ([], ["list"], ["results"], ["run", "--help"]):\n'
            '    assert CliRunner().invoke(app, arguments).exit_code == 0\n'
            'print(sorted({"torch", "fastai", "numpy", "matplotlib", "nbclient", "nbformat"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', code], cwd=book, capture_output=True, text=True,
                          env={**os.environ, 'DLBOOK_CHAPTERS': str(book)})
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


# --- run

def test_run_of_a_good_chapter(book, dlbook):
    path = write_chapter(book, '01_good', *GOOD)
    before = path.read_bytes()
    result = dlbook('run', '1')
    assert result.returncode == 0, result.stderr
    assert result.stderr == '' and '\x1b' not in result.stdout
    assert re.search(r'01_good\W+ok\W+3\W+0\W+[\d.]+ s\W+\d+ MB\W+1\b', result.stdout)
    assert re.search(r'accuracy\W+0.97\W+at least 0.95\W+ok\W+made up', result.stdout)
    assert path.read_bytes() == before and sorted(file.name for file in book.iterdir()) == ['01_good.ipynb']
    out = book.parent / 'desk' / 'dlbook-run'
    assert sorted(file.name for file in out.iterdir()) == ['01_good.ipynb', 'ledger.json']
    executed = json.loads((out / '01_good.ipynb').read_text(encoding='utf-8'))
    assert 'accuracy: 0.97' in ''.join(executed['cells'][3]['outputs'][0]['text'])
    part = json.loads((out / 'ledger.json').read_text(encoding='utf-8'))['chapters']['01_good']
    assert part['title'] == 'A chapter' and part['entries'][0]['value'] == 0.97
    assert part['run']['ok'] and 0 < part['run']['seconds'] < 60 and part['run']['peak_mb'] > 20
    assert {'python', 'torch', 'device', 'date'} <= set(part['run'])


def test_a_failing_chapter_is_named_and_does_not_stop_the_others(book, dlbook):
    write_chapter(book, '01_bad', 'x = [1, 2, 3]', 'print("before")\nx[3]', 'print("never")')
    write_chapter(book, '02_band', 'from dlbook.kit.results import chapter, record\nchapter("02_band")',
                  'record("accuracy", 0.42, low=0.95)')
    write_chapter(book, '03_good', 'print("still here")')
    before = {path: path.read_bytes() for path in book.iterdir()}
    result = dlbook('run', '--save', '--out', 'elsewhere')
    assert result.returncode == 1
    assert {path: path.read_bytes() for path in before if '03' not in path.name} == {
        path: data for path, data in before.items() if '03' not in path.name}
    assert '\x1b' not in result.stderr
    assert f"{book / '01_bad.ipynb'}, cell 4: IndexError: list index out of range" in result.stderr
    assert 'Traceback (most recent call last)' in result.stderr and '----> 2 x[3]' in result.stderr
    assert f"{book / '02_band.ipynb'}, cell 4: OutOfBand: 02_band: accuracy: 0.42" in result.stderr
    assert 'at least 0.95' in result.stderr
    assert result.stderr.strip().endswith('2 of 3 chapters failed: 01_bad, 02_band')
    assert re.search(r'03_good\W+ok', result.stdout) and re.search(r'01_bad\W+FAILED', result.stdout)
    assert 'OUT OF BAND' in result.stdout
    desk = book.parent / 'desk'
    executed = json.loads((desk / 'elsewhere' / '01_bad.ipynb').read_text(encoding='utf-8'))
    assert executed['cells'][3]['outputs'][-1]['output_type'] == 'error' and not executed['cells'][4]['outputs']
    assert not (desk / 'dlbook-run').exists()
    assert list(json.loads((book / 'results.json').read_text(encoding='utf-8'))['chapters']) == ['03_good']


def test_save_replaces_the_notebook_as_nbdev_would_clean_it(book, dlbook, monkeypatch):
    path = write_chapter(book, '01_good', *GOOD, 'import matplotlib.pyplot as plt\nplt.plot([1, 2]);')
    (book / 'results.json').write_text(json.dumps({'version': 1, 'chapters': {'09_old': {'entries': []}}}))
    assert dlbook('run', '--save').returncode == 0
    saved = path.read_bytes()
    assert b'accuracy: 0.97' in saved and b'<object>' in saved and b'image/png' in saved
    assert b'"execution"' not in saved and b'"widgets"' not in saved
    assert saved == (book.parent / 'desk' / 'dlbook-run' / '01_good.ipynb').read_bytes()
    assert sorted(json.loads((book / 'results.json').read_text(encoding='utf-8'))['chapters']) == ['01_good', '09_old']
    assert sorted(file.name for file in book.iterdir()) == ['01_good.ipynb', 'results.json']
    nbdev = pytest.importorskip('nbdev.clean')
    monkeypatch.chdir(ROOT)  # where nbdev finds its settings
    nbdev.nbdev_clean(fname=str(path))
    assert path.read_bytes() == saved


def test_unknown_chapter_exits_2_with_the_nearest_names(book, dlbook):
    for stem in ('03_losses', '04_backprop', '05_optimizers'):
        write_chapter(book, stem, 'x = 1')
    message = one_line(dlbook('run', 'bakprop'), 2)
    assert "'bakprop'" in message and '04_backprop' in message and '03_losses' not in message
    assert '05_optimizers' in one_line(dlbook('run', '7'), 2)
    assert not (book.parent / 'desk' / 'dlbook-run').exists()


def test_wrong_options_exit_2(book, dlbook):
    path = write_chapter(book, '01_good', 'x = 1')
    assert '--out' in one_line(dlbook('run', '--out', book), 2)
    assert '--timeout' in one_line(dlbook('run', '--timeout', '-1'), 2)
    assert dlbook('run', '--jobs', '0').returncode == 2
    assert dlbook('run', '--unknown').returncode == 2
    assert 'outputs": []' in path.read_text()


def test_folders_that_do_not_exist_or_cannot_be_written(book, dlbook):
    write_chapter(book, '01_good', 'x = 1')
    (book.parent / 'desk' / 'file').write_text('in the way')
    assert 'file' in one_line(dlbook('run', '--out', 'file/out'), 1)
    assert 'file' in one_line(dlbook('run', '--out', 'file'), 1)
    assert 'file' in one_line(dlbook('lab', 'file/mine', '--no-launch'), 1)
    assert 'nowhere' in one_line(dlbook('list', env={'DLBOOK_CHAPTERS': 'nowhere'}), 1)
    if os.name == 'posix' and os.geteuid() != 0:
        (book.parent / 'locked').mkdir(mode=0o500)
        assert 'locked' in one_line(dlbook('run', '--out', '../locked'), 1)


@posix
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(book, dlbook):
    import resource
    path = write_chapter(book, '01_good', 'print("x" * 200_000)')
    before = path.read_bytes()

    def no_large_files():  # the nearest to a full disk that needs no rights: the system refuses to write on
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    message = one_line(dlbook('run', '--save', preexec_fn=no_large_files), 1)
    assert 'no space left' in message
    assert path.read_bytes() == before
    assert list((book.parent / 'desk' / 'dlbook-run').iterdir()) == []


BLOCK = """import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {names}: return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def without(folder, *names):
    "The environment of a Python in which `names` are not installed."
    folder.mkdir(exist_ok=True)
    (folder / 'sitecustomize.py').write_text(BLOCK.replace('{names}', repr(set(names))))
    return {'PYTHONPATH': str(folder)}


def test_missing_kernel_and_missing_jupyterlab(book, dlbook, tmp_path):
    write_chapter(book, '01_good', 'x = 1')
    env = without(tmp_path / 'site', 'ipykernel', 'ipykernel_launcher')
    assert 'pip install ipykernel' in one_line(dlbook('run', env=env), 1)
    env = without(tmp_path / 'site', 'jupyterlab')
    assert 'pip install jupyterlab' in one_line(dlbook('lab', 'mine', env=env), 1)
    env = without(tmp_path / 'site', 'nbclient')
    assert 'pip install nbclient' in one_line(dlbook('run', env=env), 1)


def test_kernel_that_does_not_start(book, dlbook, tmp_path):
    write_chapter(book, '01_good', 'x = 1')
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'ipykernel_launcher.py').write_text('raise SystemExit("broken on purpose")')
    assert 'broken on purpose' in one_line(dlbook('run', env={'PYTHONPATH': str(tmp_path / 'site')}), 1)


WAITING = """import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
pathlib.Path({here!r}).write_text(f'{{os.getpid()}} {{child.pid}}')
time.sleep(600)"""


@posix
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_kernel_behind(book, dlbook, tmp_path, number):
    paths, scratch = [], tmp_path / 'scratch'
    scratch.mkdir()
    for stem in ('01_one', '02_two'):
        here = tmp_path / stem
        paths.append(here)
        write_chapter(book, stem, WAITING.format(here=str(here)))
    before = {path: path.read_bytes() for path in book.iterdir()}
    process = dlbook('run', '--jobs', '2', '--save', wait=False, env={'TMPDIR': str(scratch)}, start_new_session=True)
    wait_for(lambda: all(path.exists() and len(path.read_text().split()) == 2 for path in paths))
    pids = [int(pid) for path in paths for pid in path.read_text().split()]
    assert len(alive(pids)) == 4
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert 'Traceback' not in err and err.strip().endswith('stopped; no kernel is left running')
    assert alive(pids) == []
    assert list(scratch.glob('dlbook-*')) == []
    assert {path: path.read_bytes() for path in book.iterdir()} == before


@posix
def test_a_signal_while_kernels_start(book, dlbook, tmp_path):
    write_chapter(book, '01_one', 'import time; time.sleep(600)')
    process = dlbook('run', wait=False)
    kernels = wait_for(lambda: psutil.Process(process.pid).children(recursive=True))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert 'Traceback' not in err and alive(kernel.pid for kernel in kernels) == []


@posix
def test_kernels_end_when_the_command_is_killed_outright(book, dlbook, tmp_path):
    here = tmp_path / 'pid'
    write_chapter(book, '01_one', f'import os, pathlib, time\npathlib.Path({str(here)!r}).write_text(str(os.getpid()))',
                  'time.sleep(600)')
    process = dlbook('run', wait=False)
    pid = int(wait_for(lambda: here.exists() and here.read_text()))
    process.kill()
    wait_for(lambda: not alive([pid]))


def test_timeout_is_per_chapter_and_says_where_it_was(book, dlbook):
    write_chapter(book, '01_slow', 'import time', 'time.sleep(1)', 'time.sleep(600)')
    write_chapter(book, '02_good', 'print("fine")')
    result = dlbook('run', '--timeout', '15')
    assert result.returncode == 1
    assert '01_slow.ipynb, cell 5: the chapter took longer than --timeout allows' in result.stderr
    assert 'time.sleep(600)' in result.stderr and re.search(r'02_good\W+ok', result.stdout)


def test_timeout_of_a_cell_that_cannot_be_interrupted(book, dlbook):
    write_chapter(book, '01_deaf', 'import time\nwhile True:\n    try:\n        time.sleep(600)\n'
                                   '    except KeyboardInterrupt:\n        pass')
    result = dlbook('run', '--timeout', '10', timeout=90)
    assert result.returncode == 1 and '01_deaf.ipynb, cell 3' in result.stderr


def test_jobs_run_at_the_same_time_and_share_the_cores(book, dlbook, tmp_path):
    meet = ('import os, pathlib, time\nhere = pathlib.Path({folder!r})\n(here / "{mine}").touch()\n'
            'end = time.time() + 30\nwhile not (here / "{other}").exists(): assert time.time() < end; time.sleep(0.05)\n'
            'print("threads", os.environ.get("OMP_NUM_THREADS"))')
    write_chapter(book, '01_one', meet.format(folder=str(tmp_path), mine='a', other='b'))
    write_chapter(book, '02_two', meet.format(folder=str(tmp_path), mine='b', other='a'))
    env = {'OMP_NUM_THREADS': ''}
    result = dlbook('run', '--jobs', '2', env=env)
    assert result.returncode == 0, result.stderr
    from dlbook.kit.runner import cpu_count
    text = (book.parent / 'desk' / 'dlbook-run' / '01_one.ipynb').read_text(encoding='utf-8')
    assert f'threads {max(1, cpu_count() // 2)}' in text


@posix
def test_progress_by_chapter_and_cell_on_a_terminal(book, dlbook):
    import pty
    write_chapter(book, '01_good', 'x = 1', 'import time; time.sleep(0.5)')
    outer, inner = pty.openpty()
    process = dlbook('run', wait=False, stdout=inner, stderr=inner, env={'TERM': 'xterm-256color', 'COLUMNS': '100'})
    os.close(inner)
    shown = b''
    try:
        while chunk := os.read(outer, 65536):
            shown += chunk
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(outer)
    assert process.wait(timeout=30) == 0
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', shown.decode())
    assert re.search(r'01_good.*1/2 cells', text) and re.search(r'chapters.*1/1 chapters', text)


def test_lines_instead_of_bars_when_not_on_a_terminal(book, dlbook):
    write_chapter(book, '01_good', 'x = 1')
    lines = dlbook('run', env={'FORCE_COLOR': '1'}).stdout.splitlines()
    assert lines[0] == '01_good: running' and re.fullmatch(r'01_good: ok, [\d.]+ s, \d+ MB', lines[1])


# --- lab

def test_lab_never_overwrites_what_the_reader_changed(book, dlbook):
    mine = book.parent / 'desk' / 'mine'
    write_chapter(book, '01_one', 'version = 1')
    write_chapter(book, '02_two', 'version = 1')
    assert dlbook('lab', 'mine', '--no-launch').returncode == 0
    assert (mine / '01_one.ipynb').read_bytes() == (book / '01_one.ipynb').read_bytes()
    (mine / '02_two.ipynb').write_text('my work')
    (mine / 'notes.txt').write_text('my notes')
    write_chapter(book, '01_one', 'version = 2')
    write_chapter(book, '02_two', 'version = 2')
    result = dlbook('lab', 'mine', '--no-launch')
    assert '01_one.ipynb: updated' in result.stdout and '02_two.ipynb: kept, new version beside it' in result.stdout
    assert (mine / '01_one.ipynb').read_bytes() == (book / '01_one.ipynb').read_bytes()
    assert (mine / '02_two.ipynb').read_text() == 'my work' and (mine / 'notes.txt').read_text() == 'my notes'
    assert (mine / '02_two.new.ipynb').read_bytes() == (book / '02_two.ipynb').read_bytes()
    # offered once: a new version that the reader threw away does not come back
    (mine / '02_two.new.ipynb').unlink()
    assert 'kept' in dlbook('lab', 'mine', '--no-launch').stdout and not (mine / '02_two.new.ipynb').exists()
    # work in the offered copy is kept as well
    write_chapter(book, '02_two', 'version = 3')
    dlbook('lab', 'mine', '--no-launch')
    (mine / '02_two.new.ipynb').write_text('work in the new version')
    write_chapter(book, '02_two', 'version = 4')
    dlbook('lab', 'mine', '--no-launch')
    assert (mine / '02_two.new.ipynb').read_text() == 'work in the new version'
    assert (mine / '02_two.new2.ipynb').read_bytes() == (book / '02_two.ipynb').read_bytes()
    # a damaged manifest: everything counts as the reader's
    (mine / '.dlbook-chapters.json').write_text('{')
    write_chapter(book, '01_one', 'version = 5')
    kept = (mine / '01_one.ipynb').read_bytes()
    dlbook('lab', 'mine', '--no-launch')
    assert (mine / '01_one.ipynb').read_bytes() == kept and (mine / '01_one.new.ipynb').exists()


def test_lab_refuses_the_folder_of_the_book(book, dlbook):
    write_chapter(book, '01_one', 'version = 1')
    assert 'another folder' in one_line(dlbook('lab', book, '--no-launch'), 2)


def test_lab_starts_a_server_that_answers_and_ends(book, dlbook):
    write_chapter(book, '01_one', 'version = 1')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    process = dlbook('lab', 'mine', '--no-browser', '--port', str(port), wait=False, stderr=subprocess.STDOUT, env={'JUPYTER_TOKEN': 'secret'})

    def answer(path='api'):
        assert process.poll() is None, process.stdout.read()
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/{path}?token=secret', timeout=5) as response:
                return json.load(response)
        except OSError:
            return None

    assert 'version' in wait_for(answer, 60)
    notebook = answer('lab/api/settings/@jupyterlab/notebook-extension:tracker')['schema']['properties']
    assert notebook['codeCellConfig']['default']['lineWrap'] is True, 'captions would be cut off'
    assert answer('lab/api/settings/@jupyterlab/apputils-extension:notification')['schema']['properties']['fetchNews']['default'] == 'false'
    tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.terminate()
    process.communicate(timeout=30)
    assert wait_for(lambda: not alive(tree), 10)


# --- progress

def test_progress_is_drawn_by_chapter(book, dlbook):
    exercises = 'from dlbook.kit.exercises import check', 'def f(): return ...\n\ncheck("01.1", f)', 'check("01.2", 3)\nhint("01.2")', 'check("01.3", 4)'
    write_chapter(book, '01_one', *exercises, title='First')
    write_chapter(book, '02_two', 'x = 1', title='Second')
    result = dlbook('progress')
    assert result.returncode == 0 and '○ ○ ○' in result.stdout and '0 of 3' in result.stdout and 'dlbook lab' in result.stdout
    mine = book.parent / 'desk' / 'dlbook-chapters'
    mine.mkdir()
    note = {'right': False, 'tries': 0, 'hints': 0, 'solved': None}
    answered = {'01.1': note | {'right': True, 'tries': 4}, '01.3': note | {'hints': 2}, '77.1': note | {'right': True}}
    (mine / 'dlbook-progress.json').write_text(json.dumps({'version': 1, 'exercises': answered}))
    for arguments in ((), ('dlbook-chapters',)):
        first, second = [line for line in dlbook('progress', *arguments).stdout.splitlines() if 'First' in line or 'Second' in line]
        assert re.findall(r'[●◐○]|\d of \d|(?<= )\d+(?= )', first) == ['01', '●', '○', '◐', '1 of 3', '4', '2'] and '0 of 0' in second
    assert '1 of 3 solved' in dlbook('progress').stdout
    write_chapter(book, '01_one', *exercises, title='A title that is longer than a narrow window')
    for columns in (64, 50, 42):
        lines = dlbook('progress', env={'COLUMNS': str(columns)}).stdout.splitlines()
        assert max(map(len, lines[:-1])) <= columns and any('● ○ ◐' in line and '1 of 3' in line for line in lines), lines
    assert '# . +' in dlbook('progress', env={'PYTHONIOENCODING': 'ascii'}).stdout
    assert 'no such folder: nowhere' in one_line(dlbook('progress', 'nowhere'), 2)


def test_progress_that_was_damaged_or_is_newer(book, dlbook):
    write_chapter(book, '01_one', 'check("01.1", 1)')
    path = book.parent / 'desk' / 'dlbook-progress.json'
    path.write_text('{"half')
    result = dlbook('progress')
    assert result.returncode == 0 and 'was damaged' in result.stdout and '0 of 1' in result.stdout
    assert [p.read_text() for p in path.parent.glob('*damaged*')] == ['{"half']
    path.write_text('{"version": 99, "exercises": {}}')
    assert 'newer' in one_line(dlbook('progress'), 1)


# --- doctor

def test_doctor_finds_this_machine_in_order(dlbook, book):
    write_chapter(book, '01_one', 'x = 1')
    data = book.parent / 'data'
    data.mkdir()
    (data / 'tinyshakespeare.txt').write_text('To be')
    result = dlbook('doctor', env={'DLBOOK_DATA': str(data)})
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ('torch', 'fastai', 'device', 'memory', 'digits', 'starts and finds dlbook', 'tinyshakespeare.txt'):
        assert word in result.stdout


def test_doctor_fails_if_something_needed_is_missing(dlbook, book, tmp_path):
    write_chapter(book, '01_one', 'x = 1')
    env = without(tmp_path / 'site', 'ipykernel', 'ipykernel_launcher', 'sklearn')
    result = dlbook('doctor', env={**env, 'DLBOOK_DATA': str(tmp_path / 'nowhere')})
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert re.search(r'kernel, .*data at hand, DLBOOK_DATA', result.stderr)


def test_the_copy_in_a_checkout_is_found_from_any_folder(tmp_path):
    if not shutil.which('dlbook'):
        pytest.skip('the command is not on the PATH')
    from dlbook.kit.runner import chapters_dir, in_checkout
    if not in_checkout():
        pytest.skip('dlbook is not imported from a checkout')
    assert chapters_dir() == ROOT / 'nbs'
